//! The file of a complete payload, of which a piece is given out only while it is known to be right.
//!
//! Owns: the open file, and which pieces this process knows to be right: those that it wrote itself, and
//! those that it has read. Bits may rot while a payload lies on a disk between two runs; and the file may
//! have another name, in an inbox, under which its owner writes to it. So each read looks whether the
//! file was modified since, and if it was, its pieces are hashed again.
//! Bound: 32 bytes and a bit for each piece, while a reader is open.
//! Spec: `spec/payload-store.md` STORE-21, STORE-22.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::DiskFile;
use crate::payload::PayloadId;
use crate::payload::bitfield::Bitfield;
use crate::payload::geometry::Geometry;
use crate::payload::id::PieceHash;
use crate::payload::manifest::Manifest;
use crate::payload::store::error::StoreError;
use crate::payload::store::reader::{hash_piece_of, pieces_of_range};

/// A file open for reading.
#[derive(Debug)]
pub(super) struct CheckedFile {
    file: Arc<dyn DiskFile>,
    id: PayloadId,
    geometry: Geometry,
    piece_hashes: Vec<PieceHash>,
    trust: Mutex<Trust>,
}

#[derive(Debug)]
struct Trust {
    /// The file's modification time, as last seen.
    modified: Duration,
    /// Pieces that are known to be right as of then.
    checked: Bitfield,
}

/// What a read came to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Checked {
    /// It was the last piece that was in doubt, in a file modified last at this time.
    All(Duration),
    /// Nothing new, or not all yet.
    Some,
}

impl CheckedFile {
    /// A file whose bytes were all known to be right when its modification time was `checked_at`.
    pub(super) fn new(
        file: Arc<dyn DiskFile>,
        manifest: &Manifest,
        checked_at: Option<Duration>,
    ) -> std::io::Result<Self> {
        let geometry = *manifest.geometry();
        let modified = file.modified()?;
        let checked = if checked_at == Some(modified) {
            Bitfield::full(&geometry)
        } else {
            Bitfield::empty(&geometry)
        };
        Ok(Self {
            file,
            id: manifest.id(),
            geometry,
            piece_hashes: manifest.piece_hashes().to_vec(),
            trust: Mutex::new(Trust { modified, checked }),
        })
    }

    /// Whether every byte is known to be right as of now.
    pub(super) fn is_right(&self) -> std::io::Result<bool> {
        let modified = self.file.modified()?;
        let trust = self.trust.lock();
        Ok(trust.modified == modified && trust.checked.is_full())
    }

    /// The file itself, if what the range touches is known to be right as of now.
    // req: STORE-25
    pub(super) fn right_file(
        &self,
        offset_bytes: u64,
        length_bytes: usize,
    ) -> Option<Arc<dyn DiskFile>> {
        let modified = self.file.modified().ok()?;
        let trust = self.trust.lock();
        let mut pieces = pieces_of_range(&self.geometry, offset_bytes, length_bytes);
        let is_right = trust.modified == modified && pieces.all(|piece| trust.checked.has(piece));
        is_right.then(|| Arc::clone(&self.file))
    }

    /// Nothing of it is known to be right any more.
    pub(super) fn doubt(&self) {
        self.trust.lock().checked = Bitfield::empty(&self.geometry);
    }

    /// Fills `buffer`; hashes pieces of the range that are in doubt, and refuses a wrong one.
    pub(super) fn read_at(
        &self,
        buffer: &mut [u8],
        offset_bytes: u64,
    ) -> Result<Checked, StoreError> {
        let id = self.id;
        let read_error = |source| StoreError::Read { id, source };
        // req: STORE-22
        let modified = self.file.modified().map_err(read_error)?;
        let in_doubt: Vec<_> = {
            let mut trust = self.trust.lock();
            if trust.modified != modified {
                trust.modified = modified;
                trust.checked = Bitfield::empty(&self.geometry);
            }
            pieces_of_range(&self.geometry, offset_bytes, buffer.len())
                .filter(|piece| !trust.checked.has(*piece))
                .collect()
        };
        let mut outcome = Checked::Some;
        for piece in in_doubt {
            // req: STORE-21
            let hash = hash_piece_of(&*self.file, &self.geometry, piece).map_err(read_error)?;
            if hash.is_none() || hash.as_ref() != self.piece_hashes.get(piece.as_usize()) {
                tracing::error!(
                    payload = %format_args!("{id:.10}"), piece = piece.get(),
                    "a piece of a stored payload is damaged on disk"
                );
                return Err(StoreError::Damaged {
                    id,
                    reason: "a piece is not what its hash says",
                });
            }
            let mut trust = self.trust.lock();
            let is_last =
                trust.modified == modified && trust.checked.set(piece) && trust.checked.is_full();
            if is_last {
                outcome = Checked::All(modified);
            }
        }
        self.file
            .read_exact_at(buffer, offset_bytes)
            .map_err(read_error)?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    // The other name of a file is made and written to past the store.
    #![allow(clippy::disallowed_methods)]

    use std::fs;
    use std::time::SystemTime;

    use super::*;
    use crate::disk::OsDisk;
    use crate::payload::id::{AccessKey, ScopeId};
    use crate::payload::store::{Store, StoreSettings};

    /// What is written under another name of the file is not given out; a change of its time alone
    /// harms nothing; and a damaged payload can be discarded and stored anew.
    // req: STORE-22
    // req: STORE-25
    #[test]
    fn what_another_name_was_used_to_change_is_not_given_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = StoreSettings {
            free_bytes_min: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(Arc::new(OsDisk), &folder.path().join("store"), settings);
        let store = store.expect("a store");
        let content: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let put = || {
            let size = content.len() as u64;
            let key = AccessKey::from_bytes([1; 32]);
            let mut upload = store
                .begin_upload(ScopeId::NODE, size, key)
                .expect("an upload");
            upload.write(&content).expect("written");
            upload.finish().expect("stored").id
        };
        let id = put();
        let reader = store.open_reader(ScopeId::NODE, id).expect("a reader");
        let file = reader.whole_file().expect("written by this process");
        let link = folder.path().join("link");
        fs::hard_link(&file, &link).expect("a link");
        let open = || fs::OpenOptions::new().write(true).open(&link);
        let mut buffer = vec![0; content.len()];
        reader.read_at(&mut buffer, 0).expect("as it was");

        let later = |seconds| SystemTime::now() + Duration::from_secs(seconds);
        open()
            .and_then(|file| file.set_modified(later(1)))
            .expect("touched");
        assert_eq!(reader.whole_file(), None, "in doubt");
        assert!(reader.right_file(0, 10).is_none(), "in doubt");
        reader.read_at(&mut buffer, 0).expect("hashed again");
        assert_eq!(buffer, content);
        assert_eq!(reader.whole_file(), Some(file), "in doubt no more");
        assert!(reader.right_file(0, 100_000).is_some());
        assert!(reader.right_file(1, 100_000).is_none(), "ends after it");
        reader.doubt();
        assert!(reader.right_file(0, 10).is_none(), "in doubt");
        reader.read_at(&mut buffer, 0).expect("hashed again");

        std::os::unix::fs::FileExt::write_all_at(&open().expect("open"), b"x", 70_000)
            .expect("written");
        open()
            .and_then(|file| file.set_modified(later(2)))
            .expect("touched");
        let mut first = vec![0; 1_000];
        reader.read_at(&mut first, 0).expect("another piece");
        let outcome = reader.read_at(&mut first, 70_000);
        assert!(
            matches!(outcome, Err(StoreError::Damaged { .. })),
            "{outcome:?}"
        );

        assert!(store.discard(ScopeId::NODE, id).expect("removed"));
        assert!(!store.discard(ScopeId::NODE, id).expect("looked"), "gone");
        assert!(store.open_reader(ScopeId::NODE, id).is_err());
        assert_eq!(put(), id);
        let reader = store.open_reader(ScopeId::NODE, id).expect("a reader");
        reader.read_at(&mut buffer, 0).expect("right again");
        assert_eq!(buffer, content);
    }
}
