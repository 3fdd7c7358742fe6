//! What a node remembers of its files: an embedded store that survives kill -9.
//!
//! Owns: one record for each piece of work (`work_key`), the manifest of work that is not done, and
//! the groups that the node's queue is bound to. Every change is on disk when its call returns.
//! Bound: [`RECORDS_MAX`] records; beyond it the oldest that are done go.

use std::path::Path;

use bytes::Bytes;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::{Deserialize, Serialize};

use super::message::{FileState, NodeName, Receipt};
use crate::amqp::header::{ContentHeader, Properties};

/// Most records; beyond it a tenth of them goes, oldest first, of those that are done.
pub const RECORDS_MAX: u64 = 10_000;
/// Most messages of failed files that are kept, to try them again; the oldest goes.
const FAILED_MESSAGES_MAX: usize = 64;
/// Latest files that an answer to a presence request tells.
pub const LATEST_MAX: usize = 256;

const RECORDS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("records");
/// Property octets' length as u32, property octets, body.
const MANIFESTS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("manifests");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
const FACT_GROUPS: &str = "groups";

/// The store cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the node's state cannot be used: {0}; free some space, or remove the file to begin anew")]
pub struct StateError(Box<dyn std::error::Error + Send + Sync>);

impl StateError {
    pub(super) fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// Work for a file that failed.
#[derive(Debug)]
pub struct FailedWork {
    /// What it is filed under.
    pub key: [u8; 32],
    /// The file.
    pub record: Record,
    /// The message that brought it, if it is kept still.
    pub message: Option<JournaledMessage>,
}

/// One file as this node knows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The sender's name for the file.
    pub name: String,
    /// BLAKE3 of the file, 64 hexadecimal digits.
    pub payload_id: String,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// What became of it.
    pub state: FileState,
    /// Pieces of the payload; 0 for a small file.
    pub piece_count: u32,
    /// Why it failed.
    pub reason: Option<String>,
    /// Where it was placed.
    pub path: Option<String>,
    /// Where receipts go.
    pub reply_to: Option<String>,
    /// The message's id, the correlation id of its receipts.
    pub message_id: Option<String>,
    /// How often it was tried again when somebody asked for that.
    #[serde(default)]
    pub attempt: u32,
    /// When this was written, in milliseconds since 1970.
    pub updated_unix_ms: u64,
    /// Whether the final receipt is still to be confirmed by the broker.
    pub is_receipt_due: bool,
}

impl Record {
    /// The record as a receipt of `node`.
    #[must_use]
    pub fn receipt(&self, node: &NodeName) -> Receipt {
        let is_complete = self.state == FileState::Complete;
        Receipt {
            node: node.clone(),
            payload_id: self.payload_id.clone(),
            name: self.name.clone(),
            state: self.state,
            pieces_done: if is_complete { self.piece_count } else { 0 },
            piece_count: self.piece_count,
            reason: self.reason.clone(),
            attempt: self.attempt,
            size_bytes: self.size_bytes,
            at_unix_ms: Some(self.updated_unix_ms),
            message_id: self.message_id.clone(),
        }
    }
}

/// A manifest message as it was journaled.
#[derive(Clone, Debug)]
pub struct JournaledMessage {
    /// The message's properties.
    pub properties: Properties,
    /// The message's body.
    pub body: Bytes,
}

/// The node's store. All calls block on the disk.
pub struct NodeState {
    database: Database,
}

impl NodeState {
    /// Opens the store in `folder`, creating it if missing.
    ///
    /// # Errors
    /// If another process has it open, or the disk fails.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(folder).map_err(StateError::new)?;
        let database = Database::create(folder.join("node.redb")).map_err(StateError::new)?;
        let write = database.begin_write().map_err(StateError::new)?;
        write.open_table(RECORDS).map_err(StateError::new)?;
        write.open_table(MANIFESTS).map_err(StateError::new)?;
        write.open_table(FACTS).map_err(StateError::new)?;
        write.commit().map_err(StateError::new)?;
        Ok(Self { database })
    }

    /// Writes a record; with a manifest's message it is work to be done, also after a restart.
    ///
    /// # Errors
    /// If the disk fails; then nothing has changed.
    // req: CONTROL-7
    pub fn put(
        &self,
        key: [u8; 32],
        record: &Record,
        manifest: Option<&JournaledMessage>,
    ) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(record).map_err(StateError::new)?;
        let write = self.database.begin_write().map_err(StateError::new)?;
        {
            let mut records = write.open_table(RECORDS).map_err(StateError::new)?;
            records
                .insert(key, bytes.as_slice())
                .map_err(StateError::new)?;
            if records.len().map_err(StateError::new)? > RECORDS_MAX {
                forget_oldest(&mut records)?;
            }
            let mut manifests = write.open_table(MANIFESTS).map_err(StateError::new)?;
            if let Some(message) = manifest {
                let bytes = encode_message(message);
                manifests
                    .insert(key, bytes.as_slice())
                    .map_err(StateError::new)?;
            }
            match record.state {
                FileState::Complete => drop(manifests.remove(key).map_err(StateError::new)?),
                FileState::Failed => forget_failed(&records, &mut manifests)?,
                FileState::Announced | FileState::Accepted | FileState::Fetching => {}
            }
        }
        write.commit().map_err(StateError::new)
    }

    /// The record of a piece of work.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn record(&self, key: [u8; 32]) -> Result<Option<Record>, StateError> {
        let read = self.database.begin_read().map_err(StateError::new)?;
        let records = read.open_table(RECORDS).map_err(StateError::new)?;
        let found = records.get(key).map_err(StateError::new)?;
        Ok(found.and_then(|bytes| serde_json::from_slice(bytes.value()).ok()))
    }

    /// Work that is journaled and not done, with its manifest.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn unfinished(&self) -> Result<Vec<([u8; 32], Record, JournaledMessage)>, StateError> {
        let read = self.database.begin_read().map_err(StateError::new)?;
        let records = read.open_table(RECORDS).map_err(StateError::new)?;
        let manifests = read.open_table(MANIFESTS).map_err(StateError::new)?;
        let mut found = Vec::new();
        for entry in manifests.iter().map_err(StateError::new)? {
            let (key, message) = entry.map_err(StateError::new)?;
            let key = key.value();
            let record = records.get(key).map_err(StateError::new)?;
            let record = record.and_then(|bytes| read_record(bytes.value()));
            let record = record.filter(|record| !record.state.is_final());
            if let (Some(record), Some(message)) = (record, decode_message(message.value())) {
                found.push((key, record, message));
            }
        }
        found.sort_by_key(|(_, record, _)| record.updated_unix_ms);
        Ok(found)
    }

    /// The latest failed work for a file, and its message if it is kept still.
    ///
    /// # Errors
    /// If the disk fails.
    // req: CONTROL-26
    pub fn failed(
        &self,
        is_meant: impl Fn(&Record) -> bool,
    ) -> Result<Option<FailedWork>, StateError> {
        let failed = self
            .all()?
            .into_iter()
            .filter(|(_, record)| record.state == FileState::Failed && is_meant(record));
        let Some((key, record)) = failed.max_by_key(|(_, record)| record.updated_unix_ms) else {
            return Ok(None);
        };
        let read = self.database.begin_read().map_err(StateError::new)?;
        let manifests = read.open_table(MANIFESTS).map_err(StateError::new)?;
        let message = manifests.get(key).map_err(StateError::new)?;
        let message = message.and_then(|message| decode_message(message.value()));
        Ok(Some(FailedWork {
            key,
            record,
            message,
        }))
    }

    /// Work whose final receipt the broker has not confirmed yet.
    ///
    /// # Errors
    /// If the disk fails.
    // req: CONTROL-12
    pub fn receipts_due(&self) -> Result<Vec<([u8; 32], Record)>, StateError> {
        Ok(self
            .all()?
            .into_iter()
            .filter(|(_, record)| record.is_receipt_due)
            .collect())
    }

    /// The files that changed last, the latest first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn latest(&self) -> Result<Vec<Record>, StateError> {
        let mut records: Vec<_> = self.all()?.into_iter().map(|(_, record)| record).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.updated_unix_ms));
        records.truncate(LATEST_MAX);
        Ok(records)
    }

    fn all(&self) -> Result<Vec<([u8; 32], Record)>, StateError> {
        let read = self.database.begin_read().map_err(StateError::new)?;
        let records = read.open_table(RECORDS).map_err(StateError::new)?;
        let mut found = Vec::new();
        for entry in records.iter().map_err(StateError::new)? {
            let (key, bytes) = entry.map_err(StateError::new)?;
            if let Ok(record) = serde_json::from_slice(bytes.value()) {
                found.push((key.value(), record));
            }
        }
        Ok(found)
    }

    /// Remembers that the broker has confirmed the final receipt.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn receipt_sent(&self, key: [u8; 32]) -> Result<(), StateError> {
        let Some(mut record) = self.record(key)? else {
            return Ok(());
        };
        record.is_receipt_due = false;
        self.put(key, &record, None)
    }

    /// The groups that the node's queue was bound to at the last start.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn bound_groups(&self) -> Result<Vec<String>, StateError> {
        let read = self.database.begin_read().map_err(StateError::new)?;
        let facts = read.open_table(FACTS).map_err(StateError::new)?;
        let found = facts.get(FACT_GROUPS).map_err(StateError::new)?;
        Ok(found
            .and_then(|bytes| serde_json::from_slice(bytes.value()).ok())
            .unwrap_or_default())
    }

    /// Remembers the groups that the node's queue is bound to.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn set_bound_groups(&self, groups: &[String]) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(groups).map_err(StateError::new)?;
        let write = self.database.begin_write().map_err(StateError::new)?;
        {
            let mut facts = write.open_table(FACTS).map_err(StateError::new)?;
            facts
                .insert(FACT_GROUPS, bytes.as_slice())
                .map_err(StateError::new)?;
        }
        write.commit().map_err(StateError::new)
    }
}

/// Removes the oldest tenth of the records that are done and answered.
fn forget_oldest(records: &mut redb::Table<'_, [u8; 32], &[u8]>) -> Result<(), StateError> {
    let mut done = Vec::new();
    for entry in records.iter().map_err(StateError::new)? {
        let (key, bytes) = entry.map_err(StateError::new)?;
        match serde_json::from_slice::<Record>(bytes.value()) {
            Ok(record) if record.state.is_final() && !record.is_receipt_due => {
                done.push((record.updated_unix_ms, key.value()));
            }
            Ok(_) => {}
            Err(_) => done.push((0, key.value())),
        }
    }
    done.sort_unstable();
    for (_, key) in done
        .into_iter()
        .take(usize::try_from(RECORDS_MAX / 10).unwrap_or(1))
    {
        records.remove(key).map_err(StateError::new)?;
    }
    Ok(())
}

fn read_record(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes).ok()
}

/// Lets go of the messages of failed work beyond [`FAILED_MESSAGES_MAX`], oldest first.
fn forget_failed(
    records: &redb::Table<'_, [u8; 32], &[u8]>,
    messages: &mut redb::Table<'_, [u8; 32], &[u8]>,
) -> Result<(), StateError> {
    if messages.len().map_err(StateError::new)? <= FAILED_MESSAGES_MAX as u64 {
        return Ok(());
    }
    let mut failed = Vec::new();
    for entry in messages.iter().map_err(StateError::new)? {
        let (key, _) = entry.map_err(StateError::new)?;
        let record = records.get(key.value()).map_err(StateError::new)?;
        match record.and_then(|bytes| read_record(bytes.value())) {
            Some(record) if record.state.is_final() => {
                failed.push((record.updated_unix_ms, key.value()));
            }
            Some(_) => {}
            // Its record was among the oldest that went.
            None => failed.push((0, key.value())),
        }
    }
    failed.sort_unstable();
    let spare_count = failed.len().saturating_sub(FAILED_MESSAGES_MAX);
    for (_, key) in failed.into_iter().take(spare_count) {
        messages.remove(key).map_err(StateError::new)?;
    }
    Ok(())
}

fn encode_message(message: &JournaledMessage) -> Vec<u8> {
    let raw = message.properties.encode();
    let mut bytes = Vec::with_capacity(4 + raw.len() + message.body.len());
    bytes.extend_from_slice(&u32::try_from(raw.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&raw);
    bytes.extend_from_slice(&message.body);
    bytes
}

fn decode_message(bytes: &[u8]) -> Option<JournaledMessage> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (raw, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let header = ContentHeader {
        class_id: crate::amqp::header::CLASS_ID_BASIC,
        body_bytes: body.len() as u64,
        raw: Bytes::copy_from_slice(raw),
    };
    Some(JournaledMessage {
        properties: header.properties().ok()?,
        body: Bytes::copy_from_slice(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::field::ShortString;

    fn record(state: FileState, updated_unix_ms: u64) -> Record {
        Record {
            name: "a".to_owned(),
            payload_id: "00".to_owned(),
            size_bytes: 1,
            state,
            piece_count: 2,
            reason: None,
            path: None,
            reply_to: None,
            message_id: None,
            attempt: 0,
            updated_unix_ms,
            is_receipt_due: state.is_final(),
        }
    }

    fn message() -> JournaledMessage {
        let properties = Properties {
            message_id: Some(ShortString::from_static("m")),
            ..Properties::default()
        };
        JournaledMessage {
            properties,
            body: Bytes::from_static(b"hashes"),
        }
    }

    /// Journaled work is there after a restart, with its message; finished work is not work any more.
    // req: CONTROL-7
    #[test]
    fn unfinished_work_survives() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = NodeState::open(folder.path()).expect("opens");
        state
            .put([1; 32], &record(FileState::Accepted, 1), Some(&message()))
            .expect("put");
        state
            .put([2; 32], &record(FileState::Accepted, 2), Some(&message()))
            .expect("put");
        state
            .put([2; 32], &record(FileState::Complete, 3), None)
            .expect("put");
        drop(state);
        let state = NodeState::open(folder.path()).expect("opens again");
        let unfinished = state.unfinished().expect("reads");
        assert_eq!(unfinished.len(), 1);
        let (key, _, found) = &unfinished[0];
        assert_eq!(*key, [1; 32]);
        assert_eq!(found.body, "hashes");
        assert_eq!(found.properties, message().properties);
    }

    /// A final receipt is due until the broker's confirm was noted.
    // req: CONTROL-12
    #[test]
    fn receipt_is_due_until_confirmed() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = NodeState::open(folder.path()).expect("opens");
        state
            .put([1; 32], &record(FileState::Complete, 1), None)
            .expect("put");
        state
            .put([2; 32], &record(FileState::Fetching, 1), Some(&message()))
            .expect("put");
        assert_eq!(state.receipts_due().expect("reads").len(), 1);
        state.receipt_sent([1; 32]).expect("noted");
        assert!(state.receipts_due().expect("reads").is_empty());
        assert_eq!(state.latest().expect("reads").len(), 2);
    }

    /// The groups of the last start are known at the next.
    #[test]
    fn bound_groups_are_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = NodeState::open(folder.path()).expect("opens");
        assert!(state.bound_groups().expect("reads").is_empty());
        state
            .set_bound_groups(&["a".to_owned(), "b".to_owned()])
            .expect("writes");
        assert_eq!(state.bound_groups().expect("reads"), ["a", "b"]);
    }
}
