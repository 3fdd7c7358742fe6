//! What a watch has sent, and what became of each file on each node: an embedded store.
//!
//! Owns: one record for each file sent, one for each file and node. On disk when a call returns.

use std::path::Path;
use std::time::Duration;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::message::Receipt;
use super::state::StateError;
use crate::payload::store::FileStamp;

const SENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sent");
/// Message id and node name.
const ON_NODES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("on_nodes");

/// One file that was sent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SentFile {
    /// The id of its message.
    pub message_id: String,
    /// Its name in the folder.
    pub name: String,
    /// BLAKE3 of its bytes, 64 hexadecimal digits.
    pub payload_id: String,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// When it was changed last, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Whether it went as a manifest.
    pub is_payload: bool,
    /// When it was sent, in milliseconds since 1970.
    pub sent_unix_ms: u64,
}

impl SentFile {
    /// What the file looked like when it was sent.
    #[must_use]
    pub fn stamp(&self) -> FileStamp {
        FileStamp {
            len_bytes: self.size_bytes,
            modified: Duration::from_millis(self.modified_ms),
        }
    }
}

/// A watch's store. All calls block on the disk.
pub struct Ledger {
    database: Database,
}

impl Ledger {
    /// Opens the store in `folder`, creating it if missing.
    ///
    /// # Errors
    /// If another watch has it open, or the disk fails.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(folder).map_err(StateError::new)?;
        let database = Database::create(folder.join("watch.redb")).map_err(StateError::new)?;
        let write = database.begin_write().map_err(StateError::new)?;
        write.open_table(SENT).map_err(StateError::new)?;
        write.open_table(ON_NODES).map_err(StateError::new)?;
        write.commit().map_err(StateError::new)?;
        Ok(Self { database })
    }

    /// Records that a file was sent.
    ///
    /// # Errors
    /// If the disk fails.
    // req: CONTROL-20
    pub fn put_sent(&self, file: &SentFile) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(file).map_err(StateError::new)?;
        let write = self.database.begin_write().map_err(StateError::new)?;
        {
            let mut sent = write.open_table(SENT).map_err(StateError::new)?;
            sent.insert(file.message_id.as_str(), bytes.as_slice())
                .map_err(StateError::new)?;
        }
        write.commit().map_err(StateError::new)
    }

    /// All files that were sent.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn sent(&self) -> Result<Vec<SentFile>, StateError> {
        let read = self.database.begin_read().map_err(StateError::new)?;
        let sent = read.open_table(SENT).map_err(StateError::new)?;
        let mut files = Vec::new();
        for entry in sent.iter().map_err(StateError::new)? {
            let (_, bytes) = entry.map_err(StateError::new)?;
            files.extend(serde_json::from_slice::<SentFile>(bytes.value()));
        }
        Ok(files)
    }

    /// Records what a node said of a file; answers whether that is news.
    ///
    /// # Errors
    /// If the disk fails.
    // req: CONTROL-13
    pub fn put_receipt(&self, message_id: &str, receipt: &Receipt) -> Result<bool, StateError> {
        let key = (message_id, receipt.node.as_str());
        let write = self.database.begin_write().map_err(StateError::new)?;
        {
            let sent = write.open_table(SENT).map_err(StateError::new)?;
            if sent.get(message_id).map_err(StateError::new)?.is_none() {
                return Ok(false);
            }
            let mut on_nodes = write.open_table(ON_NODES).map_err(StateError::new)?;
            let earlier = on_nodes.get(key).map_err(StateError::new)?;
            let earlier =
                earlier.and_then(|bytes| serde_json::from_slice::<Receipt>(bytes.value()).ok());
            let is_news = match &earlier {
                None => true,
                Some(earlier) => {
                    earlier != receipt && (receipt.state.is_final() || !earlier.state.is_final())
                }
            };
            if !is_news {
                return Ok(false);
            }
            let bytes = serde_json::to_vec(receipt).map_err(StateError::new)?;
            on_nodes
                .insert(key, bytes.as_slice())
                .map_err(StateError::new)?;
        }
        write.commit().map_err(StateError::new)?;
        Ok(true)
    }

    /// What each node said of a file.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn receipts(&self, message_id: &str) -> Result<Vec<Receipt>, StateError> {
        let read = self.database.begin_read().map_err(StateError::new)?;
        let on_nodes = read.open_table(ON_NODES).map_err(StateError::new)?;
        let mut receipts = Vec::new();
        for entry in on_nodes
            .range((message_id, "")..)
            .map_err(StateError::new)?
        {
            let (key, bytes) = entry.map_err(StateError::new)?;
            if key.value().0 != message_id {
                break;
            }
            receipts.extend(serde_json::from_slice::<Receipt>(bytes.value()));
        }
        Ok(receipts)
    }

    /// Whether some node has not ended with the file, or none has answered at all.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn is_open(&self, message_id: &str) -> Result<bool, StateError> {
        let receipts = self.receipts(message_id)?;
        Ok(receipts.is_empty() || receipts.iter().any(|receipt| !receipt.state.is_final()))
    }

    /// Forgets a file that is sent anew under another message id.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn forget(&self, message_id: &str) -> Result<(), StateError> {
        let write = self.database.begin_write().map_err(StateError::new)?;
        {
            let mut sent = write.open_table(SENT).map_err(StateError::new)?;
            sent.remove(message_id).map_err(StateError::new)?;
        }
        write.commit().map_err(StateError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::message::FileState;

    fn file(message_id: &str) -> SentFile {
        SentFile {
            message_id: message_id.to_owned(),
            name: "a".to_owned(),
            payload_id: "id".to_owned(),
            size_bytes: 3,
            modified_ms: 4,
            is_payload: true,
            sent_unix_ms: 5,
        }
    }

    fn receipt(node: &str, state: FileState) -> Receipt {
        Receipt {
            node: node.parse().expect("a name"),
            payload_id: "id".to_owned(),
            name: "a".to_owned(),
            state,
            pieces_done: 0,
            piece_count: 0,
            reason: None,
            attempt: 0,
            size_bytes: 0,
            at_unix_ms: None,
            message_id: None,
        }
    }

    /// What was sent and what became of it is there after a restart; a hint undoes nothing.
    // req: CONTROL-20
    // req: CONTROL-13
    #[test]
    fn account_survives_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(folder.path()).expect("opens");
        ledger.put_sent(&file("m1")).expect("written");
        assert!(ledger.is_open("m1").expect("read"));
        assert!(
            ledger
                .put_receipt("m1", &receipt("n1", FileState::Complete))
                .expect("written")
        );
        assert!(
            !ledger
                .put_receipt("m1", &receipt("n1", FileState::Fetching))
                .expect("written")
        );
        assert!(
            !ledger
                .put_receipt("m9", &receipt("n1", FileState::Complete))
                .expect("written")
        );
        assert!(
            ledger
                .put_receipt("m1", &receipt("n2", FileState::Accepted))
                .expect("written")
        );
        drop(ledger);
        let ledger = Ledger::open(folder.path()).expect("opens again");
        assert_eq!(ledger.sent().expect("read"), [file("m1")]);
        let states: Vec<_> = ledger
            .receipts("m1")
            .expect("read")
            .iter()
            .map(|receipt| receipt.state)
            .collect();
        assert_eq!(states, [FileState::Complete, FileState::Accepted]);
        assert!(ledger.is_open("m1").expect("read"));
        ledger.forget("m1").expect("written");
        assert!(ledger.sent().expect("read").is_empty());
    }
}
