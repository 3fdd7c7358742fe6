//! A transaction of one channel: what was published and settled since the last commit.
//!
//! Owns: messages and settlements until commit or rollback. What can be refused is refused when it
//! comes: an unknown exchange, an unknown tag. Whether a commit survives a crash as a whole is the
//! journal's batch, which is not used yet: a crash between its records can leave a part.
//! Bounds: [`TX_BYTES_MAX`] of bodies, [`TX_STEP_COUNT_MAX`] steps.
//! Spec: AMQP 0-9-1 class tx; RabbitMQ's reading: acknowledgements are part of it, deliveries not.

use crate::amqp::header::ContentHeader;
use crate::amqp::method::basic;
use crate::broker::{Body, Settle};

use super::unsettled::Owed;

/// Most bytes of bodies and headers that one transaction may hold. Beyond it: 506.
pub(super) const TX_BYTES_MAX: usize = 256 << 20;
/// Most messages and settlements of one transaction. Beyond it: 506.
pub(super) const TX_STEP_COUNT_MAX: usize = 1_000_000;

/// What a transaction holds.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    messages: Vec<Held>,
    settlements: Vec<Settlement>,
    bytes: usize,
}

/// A message to be published at the commit.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) method: basic::Publish,
    pub(super) header: ContentHeader,
    pub(super) body: Body,
}

/// A delivery to be settled at the commit.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) tag: u64,
    pub(super) owed: Owed,
    pub(super) how: Settle,
}

/// The transaction is over its bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a transaction may hold {TX_BYTES_MAX} bytes in {TX_STEP_COUNT_MAX} steps; commit more often"
)]
pub(super) struct TooLarge;

impl Transaction {
    /// Adds a message.
    pub(super) fn publish(&mut self, message: Held) -> Result<(), TooLarge> {
        let body_bytes = match &message.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Payload(_) => 0,
        };
        let bytes = self.bytes + body_bytes + message.header.raw.len();
        if bytes > TX_BYTES_MAX || self.messages.len() >= TX_STEP_COUNT_MAX {
            return Err(TooLarge);
        }
        self.bytes = bytes;
        self.messages.push(message);
        Ok(())
    }

    /// Adds a settlement.
    pub(super) fn settle(&mut self, settlement: Settlement) -> Result<(), TooLarge> {
        if self.settlements.len() >= TX_STEP_COUNT_MAX {
            return Err(TooLarge);
        }
        self.settlements.push(settlement);
        Ok(())
    }

    /// Takes everything, for a commit or to undo it; a new transaction begins.
    pub(super) fn take(&mut self) -> (Vec<Held>, Vec<Settlement>) {
        self.bytes = 0;
        (
            std::mem::take(&mut self.messages),
            std::mem::take(&mut self.settlements),
        )
    }
}
