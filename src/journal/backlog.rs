//! Reading a queue's messages in the order of their numbers.
//!
//! Spec: `spec/journal.md`, "Recovery".

use std::collections::HashMap;

use super::error::JournalError;
use super::read::read_message;
use super::shared::Shared;
use super::types::{BacklogMessage, Found, Lsn, QueueId, StoredBody};

/// The messages that were found at the open.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) queues: HashMap<QueueId, Vec<Found>>,
    pub(crate) notes: HashMap<(QueueId, Lsn), u32>,
    pub(crate) clean: bool,
}

pub(crate) fn read(
    shared: &Shared,
    queue: QueueId,
    after: Lsn,
    max_count: usize,
    max_bytes: usize,
) -> Result<Vec<BacklogMessage>, JournalError> {
    let mut messages = Vec::new();
    let mut bytes = 0usize;
    let Some(found) = shared.backlog.queues.get(&queue) else {
        return Ok(messages);
    };
    let start = found.partition_point(|found| found.lsn <= after);
    for found in found.get(start..).unwrap_or_default() {
        if messages.len() >= max_count || (bytes >= max_bytes && !messages.is_empty()) {
            break;
        }
        let message = match read_message(shared, found.lsn, found.location) {
            Ok(message) => message,
            Err(JournalError::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        if let StoredBody::Inline(body) = &message.body {
            bytes = bytes.saturating_add(body.len());
        }
        let note = shared.backlog.notes.get(&(queue, found.lsn));
        messages.push(BacklogMessage {
            lsn: found.lsn,
            location: found.location,
            was_delivered: found.was_delivered || !shared.backlog.clean,
            note: note.copied().unwrap_or(0),
            message,
        });
    }
    Ok(messages)
}
