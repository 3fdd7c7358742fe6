//! Rights that somebody else decides: a hook at the one place where rights are asked for.
//!
//! Owns: what is asked and what may be answered. Where nobody is hooked in, or it has no opinion, permissions
//! decide as ever.

use std::fmt;

use super::super::name::Name;
use super::Access;

/// Decides rights beside, or instead of, the permissions that the broker keeps. Called from many threads and while a
/// client waits: it must answer from memory. It may not call the broker.
///
/// A right to publish is remembered for an exchange and routing key; call
/// [`Users::rights_changed`](super::Users::rights_changed) when the answer to a question that was asked before may
/// have changed.
pub trait Authorizer: Send + Sync {
    /// Whether this is allowed.
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict;
}

/// A user wants to do something.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// Who.
    pub user: &'a Name,
    /// In which vhost.
    pub vhost: &'a Name,
    /// With what.
    pub object: AccessObject<'a>,
}

/// What a right is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccessObject<'a> {
    /// An exchange; the default one is called `amq.default`.
    Exchange {
        /// Its name.
        name: &'a [u8],
        /// What is to be done with it.
        access: Access,
    },
    /// A queue.
    Queue {
        /// Its name.
        name: &'a [u8],
        /// What is to be done with it.
        access: Access,
    },
    /// A routing key at a topic exchange, after the exchange itself was allowed.
    Topic {
        /// The exchange.
        exchange: &'a [u8],
        /// The key to publish with ([`Access::Write`]) or to bind with ([`Access::Read`]).
        routing_key: &'a [u8],
        /// Which of the two.
        access: Access,
    },
    /// The vhost itself: a connection opens it.
    Vhost,
}

/// What an [`Authorizer`] answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is allowed, whatever the permissions say.
    Allow,
    /// It is refused, whatever the permissions say.
    Deny,
    /// The permissions decide.
    NoOpinion,
}

impl Verdict {
    /// The answer, with what the permissions say where it leaves it to them.
    pub(super) fn or_else(self, configured: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Allow => true,
            Self::Deny => false,
            Self::NoOpinion => configured(),
        }
    }
}

impl fmt::Debug for dyn Authorizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("dyn Authorizer")
    }
}
