//! The exchange types by name: the standard's four, and those that RabbitMQ has as plugins.

use std::fmt;

use super::super::error::Error;
use super::super::name::Name;

/// How an exchange chooses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ExchangeKind {
    /// By equality of the routing key.
    Direct,
    /// Everything that is bound.
    Fanout,
    /// By the message's headers.
    Headers,
    /// By the words of the routing key, with wildcards.
    Topic,
    /// One destination by a hash of the key, by weight, with few changes when destinations come and go.
    ConsistentHash,
    /// Everything that is bound, but each message once.
    Deduplication,
    /// As the type in `x-delayed-type`, once the message's `x-delay` has passed.
    Delayed,
    /// One bound queue of this node, at random.
    LocalRandom,
    /// One destination by a hash of the key, modulo the number of bindings.
    ModulusHash,
    /// One destination at random.
    Random,
    /// Everything that is bound; who binds later gets the last messages at once.
    RecentHistory,
}

const KINDS: [ExchangeKind; 11] = [
    ExchangeKind::Direct,
    ExchangeKind::Fanout,
    ExchangeKind::Headers,
    ExchangeKind::Topic,
    ExchangeKind::ConsistentHash,
    ExchangeKind::Deduplication,
    ExchangeKind::Delayed,
    ExchangeKind::LocalRandom,
    ExchangeKind::ModulusHash,
    ExchangeKind::Random,
    ExchangeKind::RecentHistory,
];

impl ExchangeKind {
    /// The type that `exchange.declare` names.
    pub fn from_name(name: &[u8]) -> Result<Self, Error> {
        if name.is_empty() {
            return Err(Error::InvalidExchangeType);
        }
        let found = KINDS.iter().find(|kind| kind.name().as_bytes() == name);
        found.copied().ok_or_else(|| Error::UnknownExchangeType {
            kind: Name::new(name),
        })
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
            Self::Topic => "topic",
            Self::ConsistentHash => "x-consistent-hash",
            Self::Deduplication => "x-message-deduplication",
            Self::Delayed => "x-delayed-message",
            Self::LocalRandom => "x-local-random",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::RecentHistory => "x-recent-history",
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_found_by_its_name() {
        for kind in KINDS {
            let found = ExchangeKind::from_name(kind.name().as_bytes());
            assert_eq!(found.ok(), Some(kind));
        }
        assert!(ExchangeKind::from_name(b"x-nothing").is_err());
    }
}
