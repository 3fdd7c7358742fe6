//! How queues, exchanges and consumers are to be.

use crate::amqp::field::{FieldTable, FieldValue, ShortString};

/// How a queue is declared.
#[derive(Clone, Debug, Default)]
pub struct QueueOptions {
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: FieldTable,
}

impl QueueOptions {
    /// Outlives a restart of the broker, with its persistent messages.
    #[must_use]
    pub fn durable() -> Self {
        Self {
            durable: true,
            ..Self::default()
        }
    }

    /// For this channel alone, and gone with it.
    #[must_use]
    pub fn exclusive() -> Self {
        Self {
            exclusive: true,
            ..Self::default()
        }
    }

    /// Goes with its last consumer.
    #[must_use]
    pub fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// With one of RabbitMQ's `x-` arguments, as in `argument("x-message-ttl", 60_000)`.
    #[must_use]
    pub fn argument(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(ShortString::from_static(name), value);
        self
    }
}

/// What a declared queue is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeclaredQueue {
    /// Its name, also if the broker made it.
    pub name: String,
    /// Messages that wait.
    pub message_count: u32,
    /// Consumers.
    pub consumer_count: u32,
}

/// How an exchange is declared.
#[derive(Clone, Debug)]
pub struct ExchangeOptions {
    pub(super) kind: String,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: FieldTable,
}

impl ExchangeOptions {
    /// Of this type: `direct`, `fanout`, `topic`, `headers`, or one of the broker's others. Outlives a restart.
    #[must_use]
    pub fn durable(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            durable: true,
            auto_delete: false,
            arguments: FieldTable::EMPTY,
        }
    }

    /// Of this type; gone with the broker.
    #[must_use]
    pub fn transient(kind: &str) -> Self {
        Self {
            durable: false,
            ..Self::durable(kind)
        }
    }

    /// Goes with the last binding from it.
    #[must_use]
    pub fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// With an argument, as in `argument("x-delayed-type", "direct")`.
    #[must_use]
    pub fn argument(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(ShortString::from_static(name), value);
        self
    }
}

/// How a queue is consumed.
#[derive(Clone, Debug, Default)]
pub struct ConsumeOptions {
    pub(super) prefetch_count_max: u16,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) arguments: FieldTable,
}

impl ConsumeOptions {
    /// With so many deliveries unsettled at most; 0 for as many as the channel's memory takes.
    #[must_use]
    pub fn prefetch(count_max: u16) -> Self {
        Self {
            prefetch_count_max: count_max,
            ..Self::default()
        }
    }

    /// A delivery is settled when it is handed over: one that is dropped is gone.
    #[must_use]
    pub fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }

    /// Nobody else may consume.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// With an argument, as in `argument("x-priority", 5)`.
    #[must_use]
    pub fn argument(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(ShortString::from_static(name), value);
        self
    }
}
