//! Class channel, 20: opening, closing and pausing a channel.

use bytes::Bytes;

use super::definition::method;
use crate::amqp::field::ShortString;

method! {
    /// Opens the channel whose number the frame bears.
    Open = 20, 10, "channel.open" {
        ; ShortString
    }
}

method! {
    /// Answers [`Open`].
    OpenOk = 20, 11, "channel.open-ok" {
        ; Bytes
    }
}

method! {
    /// Asks the peer to stop or to go on sending content.
    Flow = 20, 20, "channel.flow" {
        [
            /// Whether content may be sent.
            active,
        ]
    }
}

method! {
    /// Answers [`Flow`].
    FlowOk = 20, 21, "channel.flow-ok" {
        [
            /// Whether content is going to be sent.
            active,
        ]
    }
}

method! {
    /// Closes the channel, with the reason; nothing but [`CloseOk`] may follow.
    Close = 20, 40, "channel.close" {
        /// Number of a [`ReplyCode`](crate::amqp::reply::ReplyCode), or whatever a client sends.
        reply_code: u16,
        /// The reason in words.
        reply_text: ShortString,
        /// Class of the method at fault, or 0.
        class_id: u16,
        /// The method at fault, or 0.
        method_id: u16,
    }
}

method! {
    /// Answers [`Close`].
    CloseOk = 20, 41, "channel.close-ok" {}
}
