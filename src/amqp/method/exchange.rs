//! Class exchange, 40: declaring and deleting exchanges, and binding them to each other.

use super::definition::method;
use crate::amqp::field::{FieldTable, ShortString};

method! {
    /// Creates an exchange, or checks that it is there as described.
    Declare = 40, 10, "exchange.declare" {
        _: u16,
        /// Name of the exchange.
        exchange: ShortString,
        /// `direct`, `fanout`, `topic` or `headers`.
        kind: ShortString,
        [
            /// Only checks that the exchange is there.
            passive,
            /// Survives a restart.
            durable,
            /// Goes with the last binding from it; RabbitMQ's extension.
            auto_delete,
            /// Clients may not publish to it; RabbitMQ's extension.
            internal,
            /// Whether no answer is wanted.
            no_wait,
        ]
        /// Optional settings, such as `alternate-exchange`.
        arguments: FieldTable,
    }
}

method! {
    /// Answers [`Declare`].
    DeclareOk = 40, 11, "exchange.declare-ok" {}
}

method! {
    /// Deletes an exchange and all bindings from and to it.
    Delete = 40, 20, "exchange.delete" {
        _: u16,
        /// Name of the exchange.
        exchange: ShortString,
        [
            /// Only if nothing is bound to it.
            if_unused,
            /// Whether no answer is wanted.
            no_wait,
        ]
    }
}

method! {
    /// Answers [`Delete`].
    DeleteOk = 40, 21, "exchange.delete-ok" {}
}

method! {
    /// Routes from one exchange to another; RabbitMQ's extension.
    Bind = 40, 30, "exchange.bind" {
        _: u16,
        /// The exchange that receives.
        destination: ShortString,
        /// The exchange that gives.
        source: ShortString,
        /// What the source compares with a message's routing key.
        routing_key: ShortString,
        [
            /// Whether no answer is wanted.
            no_wait,
        ]
        /// What a headers exchange compares with a message's headers.
        arguments: FieldTable,
    }
}

method! {
    /// Answers [`Bind`].
    BindOk = 40, 31, "exchange.bind-ok" {}
}

method! {
    /// Takes back a [`Bind`] with the same names, key and arguments; RabbitMQ's extension.
    Unbind = 40, 40, "exchange.unbind" {
        _: u16,
        /// The exchange that receives.
        destination: ShortString,
        /// The exchange that gives.
        source: ShortString,
        /// The binding's key.
        routing_key: ShortString,
        [
            /// Whether no answer is wanted.
            no_wait,
        ]
        /// The binding's arguments.
        arguments: FieldTable,
    }
}

method! {
    /// Answers [`Unbind`]. Its id is 51 although its request's is 40.
    UnbindOk = 40, 51, "exchange.unbind-ok" {}
}
