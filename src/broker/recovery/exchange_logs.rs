//! What durable exchanges have in the journal under ids of their own: messages that wait for their time,
//! and keys by which duplicates are told.
//!
//! Owns: putting both back. The messages are read once, page by page, for their due times; memory keeps
//! 24 bytes of each, and the reference to each payload.
//! Spec: `spec/amqp.md`, "Delayed messages", "Duplicates".

use std::collections::HashMap;
use std::sync::Arc;

use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::journal::{Appended, BacklogMessage, Journal, JournalError, Lsn, QueueId};

use super::super::dedup::DedupCache;
use super::super::delayed::{Delays, delay_ms};
use super::super::exchange::Exchange;
use super::super::vhost::Vhost;

/// Messages read in one go, and the bytes of their bodies.
const READ_COUNT_MAX: usize = 4_096;
const READ_BYTES_MAX: usize = 1 << 20;

/// The exchanges that have something in the journal, by the ids under which they do.
#[derive(Default)]
pub(super) struct ExchangeLogs(HashMap<QueueId, (Arc<Vhost>, Arc<Exchange>)>);

impl ExchangeLogs {
    /// Notes an exchange that was put back.
    pub(super) fn add(&mut self, vhost: &Arc<Vhost>, exchange: &Arc<Exchange>) {
        let delays = exchange.delays().and_then(Delays::journal_queue);
        let keys = exchange.dedup().and_then(DedupCache::journal_queue);
        for queue in delays.into_iter().chain(keys) {
            let owner = (Arc::clone(vhost), Arc::clone(exchange));
            self.0.insert(queue, owner);
        }
    }

    /// Whether an exchange has this id.
    pub(super) fn contains(&self, queue: QueueId) -> bool {
        self.0.contains_key(&queue)
    }

    /// Puts back what the journal has under an exchange's id. Blocks on the disk.
    // req: DELAY-5 req: DEDUP-4
    pub(super) fn restore(
        &self,
        journal: &Journal,
        queue: QueueId,
        unix_ms: u64,
    ) -> Result<(), JournalError> {
        let Some((vhost, exchange)) = self.0.get(&queue) else {
            return Ok(());
        };
        let delays = exchange
            .delays()
            .filter(|delays| delays.journal_queue() == Some(queue));
        let keys = exchange
            .dedup()
            .filter(|keys| keys.journal_queue() == Some(queue));
        let mut after = Lsn::ZERO;
        loop {
            let found = journal.read_backlog(queue, after, READ_COUNT_MAX, READ_BYTES_MAX)?;
            let Some(last) = found.last() else { break };
            after = last.lsn;
            for found in found {
                if let Some(keys) = keys {
                    keys.restore(&found, unix_ms);
                }
                if let Some(delays) = delays {
                    restore_waiting(vhost, delays, found);
                }
            }
        }
        if let Some(delays) = delays {
            vhost.arm_delays(exchange, delays);
        }
        Ok(())
    }
}

fn restore_waiting(vhost: &Vhost, delays: &Delays, found: BacklogMessage) {
    let record = Appended {
        lsn: found.lsn,
        location: found.location,
    };
    let header = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: found.message.header.clone(),
    };
    let delay_ms = delay_ms(header.headers().as_ref()).unwrap_or(0);
    let due_unix_ms = found.message.time_unix_ms.saturating_add(delay_ms);
    delays.restore(due_unix_ms, record, &vhost.stored_message(found.message));
}
