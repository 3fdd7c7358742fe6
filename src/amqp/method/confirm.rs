//! Class confirm, 85: RabbitMQ's publisher confirms.

use super::definition::method;

method! {
    /// Asks for a `basic.ack` or `basic.nack` to each message published from now on.
    Select = 85, 10, "confirm.select" {
        [
            /// Whether no answer is wanted.
            no_wait,
        ]
    }
}

method! {
    /// Answers [`Select`].
    SelectOk = 85, 11, "confirm.select-ok" {}
}
