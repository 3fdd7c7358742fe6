//! A queue that drops duplicates: the keys of the messages that are in it, waiting or out.
//!
//! Owns: when a key goes. It comes with the message, before that is in the journal, while the queue's
//! order is held (`vhost/duplicates.rs`), and goes when the message leaves in whatever way: acknowledged,
//! rejected for good, expired, dropped, purged, handed to who does not acknowledge.
//! No record is kept of a key: what is in the queue says which there are, so a restart reads the queue
//! once, page by page, and finds exactly these.
//! Bound: `x-cache-size` keys.
//! Spec: `spec/amqp.md`, "Duplicates"; the `rabbitmq-message-deduplication` plugin.

use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::journal::{JournalError, Lsn};

use super::super::dedup::{DedupCache, DedupKey};
use super::super::message::Message;
use super::{Queue, State};

/// Messages read in one go at a start, and the bytes of their bodies.
const READ_COUNT_MAX: usize = 4_096;
const READ_BYTES_MAX: usize = 1 << 20;

impl Queue {
    /// The keys of its messages, if it drops duplicates.
    pub(crate) fn keys(&self) -> Option<&DedupCache> {
        self.keys.as_deref()
    }

    /// Whether a message is not taken while its like is there (`x-message-deduplication`).
    #[must_use]
    pub fn drops_duplicates(&self) -> bool {
        self.keys.is_some()
    }

    /// What a message is known by, if the queue drops duplicates and the message has a key.
    #[inline]
    pub(super) fn key_of(&self, message: &Message) -> Option<DedupKey> {
        let keys = self.keys.as_ref()?;
        DedupKey::of(keys.by(), message, message.headers().as_ref())
    }

    /// A message left the queue: the next like it is new.
    // req: DEDUP-6
    #[inline]
    pub(super) fn forget_key(&self, message: &Message) {
        if let Some(keys) = &self.keys
            && let Some(key) = self.key_of(message)
        {
            keys.forget(key);
        }
    }

    /// As [`Self::forget_key`], of the key itself.
    #[inline]
    pub(super) fn forget(&self, key: Option<DedupKey>) {
        if let (Some(keys), Some(key)) = (&self.keys, key) {
            keys.forget(key);
        }
    }

    /// What waited is gone or cannot be told any more: only what is out has keys.
    pub(super) fn forget_waiting(&self, state: &State) {
        let Some(keys) = &self.keys else { return };
        let out = state.unacked.iter();
        let out = out.filter_map(|(_, out)| self.key_of(&out.entry.message));
        keys.retain(&out.collect());
    }

    /// The broker starts: finds the keys of what the journal has of the queue. Blocks on the disk.
    // req: DEDUP-7
    pub(crate) fn restore_keys(&self) -> Result<(), JournalError> {
        let (Some(keys), Some(journal)) = (&self.keys, &self.spec.journal) else {
            return Ok(());
        };
        let mut after = Lsn::ZERO;
        loop {
            let id = self.spec.id;
            let found = journal.read_backlog(id, after, READ_COUNT_MAX, READ_BYTES_MAX)?;
            let Some(last) = found.last() else {
                return Ok(());
            };
            after = last.lsn;
            for found in found {
                let header = ContentHeader {
                    class_id: CLASS_ID_BASIC,
                    body_bytes: 0,
                    raw: found.message.header.clone(),
                };
                let headers = header.headers();
                let message = self.message_of(&found.message.as_ref());
                if let Some(key) = DedupKey::of(keys.by(), &message, headers.as_ref()) {
                    keys.see(key, headers.as_ref(), found.message.time_unix_ms);
                    keys.recorded(key, Lsn::ZERO, found.lsn);
                }
            }
        }
    }
}
