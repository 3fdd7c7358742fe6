//! A transaction of one channel: what was published and settled since the last commit.
//!
//! Owns: messages and settlements until commit or rollback. What can be refused is refused when it
//! comes: an unknown exchange, an unknown tag.
//! Bound: [`TX_BYTES_MAX`], everything counted: of an open transaction nothing is on disk but bodies in the
//! payload store. A client that needs more commits more often.
//! Spec: AMQP 0-9-1 class tx; RabbitMQ's reading: acknowledgements are part of it, deliveries not;
//! `spec/amqp.md` TX-1 to TX-4.

use crate::broker::{Prepared, Settle, Settlements};

use super::unsettled::Owed;

/// Most memory that one open transaction may hold, in bytes. Beyond it: 506.
pub(super) const TX_BYTES_MAX: usize = 128 << 20;

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
    pub(super) prepared: Prepared,
    /// Returned at the commit if no queue takes it.
    pub(super) mandatory: bool,
}

/// A delivery to be settled at the commit.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) tag: u64,
    pub(super) owed: Owed,
    pub(super) how: Settle,
}

/// The transaction is over its bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an open transaction may hold {TX_BYTES_MAX} bytes; commit more often")]
pub(super) struct TooLarge;

impl Transaction {
    /// Adds a message.
    pub(super) fn publish(&mut self, message: Held) -> Result<(), TooLarge> {
        self.count(message.prepared.memory_bytes())?;
        self.messages.push(message);
        Ok(())
    }

    /// Adds a settlement.
    pub(super) fn settle(&mut self, settlement: Settlement) -> Result<(), TooLarge> {
        self.count(size_of::<Settlement>())?;
        self.settlements.push(settlement);
        Ok(())
    }

    // req: TX-4
    fn count(&mut self, bytes: usize) -> Result<(), TooLarge> {
        let bytes = self.bytes.saturating_add(bytes);
        if bytes > TX_BYTES_MAX {
            return Err(TooLarge);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// How many messages it holds, and how many settlements.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.messages.len(), self.settlements.len())
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

/// Settlements in their order, those of one queue in one way that follow each other together.
pub(super) fn grouped(settlements: Vec<Settlement>) -> Vec<Settlements> {
    let mut groups: Vec<Settlements> = Vec::new();
    for Settlement { owed, how, .. } in settlements {
        let (queue, seq) = owed;
        match groups.last_mut() {
            Some(last) if last.how == how && std::sync::Arc::ptr_eq(&last.queue, &queue) => {
                last.seqs.push(seq);
            }
            Some(_) | None => groups.push(Settlements {
                queue,
                seqs: vec![seq],
                how,
            }),
        }
    }
    groups
}
