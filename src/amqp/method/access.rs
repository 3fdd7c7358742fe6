//! Class access, 30: a relic of 0-8 that old clients still send, as RabbitMQ accepts.

use super::definition::method;
use crate::amqp::field::ShortString;

method! {
    /// Asks for a ticket; the answer is always ticket 1, which grants nothing and is never checked.
    Request = 30, 10, "access.request" {
        /// Name of the realm.
        realm: ShortString,
        [
            /// Asks for exclusive access.
            exclusive,
            /// Asks for passive access.
            passive,
            /// Asks for active access.
            active,
            /// Asks for write access.
            write,
            /// Asks for read access.
            read,
        ]
    }
}

method! {
    /// Answers [`Request`].
    RequestOk = 30, 11, "access.request-ok" {
        /// The ticket: 1.
        ticket: u16,
    }
}
