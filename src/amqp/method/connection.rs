//! Class connection, 10: from the server's greeting to the end of the connection.

use bytes::Bytes;

use super::definition::method;
use crate::amqp::field::{FieldTable, Secret, ShortString};

method! {
    /// The server's greeting: what it is and how one may log in.
    Start = 10, 10, "connection.start" {
        /// Protocol version: 0, or 8 to a client of 0-8.
        version_major: u8,
        /// Protocol version: 9, or 0 to a client of 0-8.
        version_minor: u8,
        /// Product, version, capabilities.
        server_properties: FieldTable,
        /// Names of SASL mechanisms with spaces between.
        mechanisms: Bytes,
        /// Names of locales with spaces between.
        locales: Bytes,
    }
}

method! {
    /// The client's answer to [`Start`]: what it is and who it is.
    StartOk = 10, 11, "connection.start-ok" {
        /// Product, version, capabilities.
        client_properties: FieldTable,
        /// The chosen SASL mechanism.
        mechanism: ShortString,
        /// The mechanism's first response: user and password.
        response: Secret,
        /// The chosen locale.
        locale: ShortString,
    }
}

method! {
    /// A further SASL challenge.
    Secure = 10, 20, "connection.secure" {
        /// The mechanism's challenge.
        challenge: Secret,
    }
}

method! {
    /// Answers [`Secure`].
    SecureOk = 10, 21, "connection.secure-ok" {
        /// The mechanism's response.
        response: Secret,
    }
}

method! {
    /// The limits that the server proposes.
    Tune = 10, 30, "connection.tune" {
        /// Highest channel number; 0 is no limit.
        channel_max: u16,
        /// Largest frame, in bytes; 0 is no limit.
        frame_max: u32,
        /// Heartbeat interval, in seconds; 0 is none.
        heartbeat: u16,
    }
}

method! {
    /// The limits that the client chooses.
    TuneOk = 10, 31, "connection.tune-ok" {
        /// Highest channel number.
        channel_max: u16,
        /// Largest frame, in bytes.
        frame_max: u32,
        /// Heartbeat interval, in seconds; 0 is none.
        heartbeat: u16,
    }
}

method! {
    /// Enters a virtual host.
    Open = 10, 40, "connection.open" {
        /// Name of the virtual host.
        virtual_host: ShortString,
        ; ShortString, u8
    }
}

method! {
    /// Answers [`Open`].
    OpenOk = 10, 41, "connection.open-ok" {
        ; ShortString
    }
}

method! {
    /// Closes the connection, with the reason; nothing but [`CloseOk`] may follow.
    Close = 10, 50, "connection.close" {
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
    CloseOk = 10, 51, "connection.close-ok" {}
}

method! {
    /// Tells a client that what it publishes is not read for now; RabbitMQ's extension.
    Blocked = 10, 60, "connection.blocked" {
        /// Why, in words.
        reason: ShortString,
    }
}

method! {
    /// Ends [`Blocked`].
    Unblocked = 10, 61, "connection.unblocked" {}
}

method! {
    /// Replaces the client's credentials before they expire; RabbitMQ's extension.
    UpdateSecret = 10, 70, "connection.update-secret" {
        /// The new secret.
        new_secret: Secret,
        /// Why, in words.
        reason: ShortString,
    }
}

method! {
    /// Answers [`UpdateSecret`].
    UpdateSecretOk = 10, 71, "connection.update-secret-ok" {}
}
