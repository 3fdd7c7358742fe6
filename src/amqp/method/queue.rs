//! Class queue, 50: declaring, binding, emptying and deleting queues.

use super::definition::method;
use crate::amqp::field::{FieldTable, ShortString};

method! {
    /// Creates a queue, or checks that it is there as described.
    Declare = 50, 10, "queue.declare" {
        _: u16,
        /// Name of the queue; empty lets the server choose one.
        queue: ShortString,
        [
            /// Only checks that the queue is there.
            passive,
            /// Survives a restart.
            durable,
            /// Only for this connection, and goes with it.
            exclusive,
            /// Goes with its last consumer.
            auto_delete,
            /// Whether no answer is wanted.
            no_wait,
        ]
        /// Optional settings, such as `x-message-ttl`.
        arguments: FieldTable,
    }
}

method! {
    /// Answers [`Declare`].
    DeclareOk = 50, 11, "queue.declare-ok" {
        /// Name of the queue.
        queue: ShortString,
        /// Messages ready for delivery.
        message_count: u32,
        /// Consumers.
        consumer_count: u32,
    }
}

method! {
    /// Routes from an exchange to a queue.
    Bind = 50, 20, "queue.bind" {
        _: u16,
        /// Name of the queue; empty is the one last declared on this channel.
        queue: ShortString,
        /// Name of the exchange.
        exchange: ShortString,
        /// What the exchange compares with a message's routing key.
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
    BindOk = 50, 21, "queue.bind-ok" {}
}

method! {
    /// Drops all messages that are ready.
    Purge = 50, 30, "queue.purge" {
        _: u16,
        /// Name of the queue; empty is the one last declared on this channel.
        queue: ShortString,
        [
            /// Whether no answer is wanted.
            no_wait,
        ]
    }
}

method! {
    /// Answers [`Purge`].
    PurgeOk = 50, 31, "queue.purge-ok" {
        /// Messages dropped.
        message_count: u32,
    }
}

method! {
    /// Deletes a queue with its messages, and cancels its consumers.
    Delete = 50, 40, "queue.delete" {
        _: u16,
        /// Name of the queue; empty is the one last declared on this channel.
        queue: ShortString,
        [
            /// Only if it has no consumers.
            if_unused,
            /// Only if it has no messages that are ready.
            if_empty,
            /// Whether no answer is wanted.
            no_wait,
        ]
    }
}

method! {
    /// Answers [`Delete`].
    DeleteOk = 50, 41, "queue.delete-ok" {
        /// Messages dropped.
        message_count: u32,
    }
}

method! {
    /// Takes back a [`Bind`] with the same names, key and arguments.
    Unbind = 50, 50, "queue.unbind" {
        _: u16,
        /// Name of the queue; empty is the one last declared on this channel.
        queue: ShortString,
        /// Name of the exchange.
        exchange: ShortString,
        /// The binding's key.
        routing_key: ShortString,
        /// The binding's arguments.
        arguments: FieldTable,
    }
}

method! {
    /// Answers [`Unbind`].
    UnbindOk = 50, 51, "queue.unbind-ok" {}
}
