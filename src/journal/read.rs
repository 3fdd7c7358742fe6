//! Reading messages back by number and place.
//!
//! Owns: the open files of readers. A place may be stale: then the message is found by its number.
//! Bound: [`OPEN_FILES_MAX`] open files, and one window of who reads many messages at once.
//! Spec: `spec/journal.md`, JOURNAL-19, JOURNAL-25.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::ReadFrom;

use super::error::JournalError;
use super::record::{HEAD_BYTES, Head, MessageView, decode};
use super::segment::{OpenSegment, SegmentDir, io_error};
use super::shared::Shared;
use super::types::{Location, Lsn, StoredMessage};

/// Segments kept open for reading.
const OPEN_FILES_MAX: usize = 64;
/// Read at first, in the hope that the whole record is in it, in bytes.
pub(crate) const FIRST_READ_BYTES: usize = 4 << 10;
/// How often a message may move between a look and a read before that counts as damage.
const MOVES_MAX: usize = 16;

/// Segments open for reading, by number.
#[derive(Debug)]
pub(crate) struct ReadFiles {
    pub(crate) dir: SegmentDir,
    open: Mutex<BTreeMap<u32, Arc<OpenSegment>>>,
    /// Of who reads many at once, for the next one: its memory has been touched already.
    spare_window: Mutex<Vec<u8>>,
}

impl ReadFiles {
    pub(crate) fn new(dir: SegmentDir) -> Self {
        Self {
            dir,
            open: Mutex::new(BTreeMap::new()),
            spare_window: Mutex::default(),
        }
    }

    /// Memory to read into, with anything in it.
    pub(crate) fn take_window(&self) -> Vec<u8> {
        std::mem::take(&mut *self.spare_window.lock())
    }

    /// Keeps it for who reads next, unless it is longer than `bytes_max`.
    pub(crate) fn return_window(&self, window: Vec<u8>, bytes_max: usize) {
        if window.capacity() <= bytes_max {
            *self.spare_window.lock() = window;
        }
    }

    /// The segment `number`, opened if it is not; blocks on the disk.
    pub(crate) fn open(&self, number: u32) -> Result<Arc<OpenSegment>, JournalError> {
        if let Some(segment) = self.opened(number) {
            return Ok(segment);
        }
        let segment = Arc::new(OpenSegment::open(&self.dir, number)?);
        let mut open = self.open.lock();
        while open.len() >= OPEN_FILES_MAX {
            open.pop_first();
        }
        open.insert(number, Arc::clone(&segment));
        Ok(segment)
    }

    /// The segment `number`; if it is not open, `from` says whether the disk may be waited for.
    pub(crate) fn open_from(
        &self,
        from: ReadFrom,
        number: u32,
    ) -> Result<Arc<OpenSegment>, JournalError> {
        match from {
            ReadFrom::Disk => self.open(number),
            ReadFrom::Cache => self.opened(number).ok_or(JournalError::WouldWait),
        }
    }

    fn opened(&self, number: u32) -> Option<Arc<OpenSegment>> {
        self.open.lock().get(&number).map(Arc::clone)
    }

    /// Lets go of a segment that is about to be released.
    pub(crate) fn forget(&self, number: u32) {
        self.open.lock().remove(&number);
    }
}

/// What lies at a place.
enum Found {
    Message(StoredMessage),
    /// Another record, or bytes that are none.
    Other,
    /// The segment is gone.
    Gone,
}

/// Reads the message `lsn`; blocks until it is durable and on the disk, but not for space there.
// req: JOURNAL-19
pub(crate) fn read_message(
    shared: &Shared,
    lsn: Lsn,
    location: Location,
) -> Result<StoredMessage, JournalError> {
    shared.wait_readable(lsn)?;
    let mut location = location;
    for _ in 0..MOVES_MAX {
        let found = look(shared, lsn, location)?;
        if let Found::Message(message) = found {
            return Ok(message);
        }
        let moved = shared.books.find_copy(lsn, shared.durable_lsn())?;
        match moved {
            Some(moved) if moved != location => location = moved,
            // The file may have been recycled while it was read: a fresh look decides.
            _ => {
                shared.books.files.forget(location.segment);
                return match look(shared, lsn, location)? {
                    Found::Message(message) => Ok(message),
                    Found::Gone => Err(JournalError::NotFound { lsn }),
                    Found::Other => Err(damaged(shared, location)),
                };
            }
        }
    }
    Err(damaged(shared, location))
}

// req: JOURNAL-25
fn damaged(shared: &Shared, location: Location) -> JournalError {
    JournalError::Damaged {
        path: shared.books.files.dir.segment_path(location.segment),
        offset: u64::from(location.offset),
        what: "the message's record is not whole".to_owned(),
    }
}

fn look(shared: &Shared, lsn: Lsn, location: Location) -> Result<Found, JournalError> {
    let segment = match shared.books.files.open(location.segment) {
        Ok(segment) => segment,
        Err(error) if error.is_not_found() => return Ok(Found::Gone),
        Err(error) => return Err(error),
    };
    let offset = u64::from(location.offset);
    let left = usize::try_from(segment.file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(FIRST_READ_BYTES)];
    segment
        .file
        .read_exact_at(&mut bytes, offset)
        .map_err(io_error("read", &segment.path))?;
    let Some(head) = Head::decode(&bytes) else {
        return Ok(Found::Other);
    };
    let len = HEAD_BYTES.saturating_add(head.body_bytes as usize);
    if len > left {
        return Ok(Found::Other);
    }
    let had = bytes.len();
    if len > had {
        bytes.resize(len, 0);
        let rest = bytes.get_mut(had..).unwrap_or_default();
        segment
            .file
            .read_exact_at(rest, offset + had as u64)
            .map_err(io_error("read", &segment.path))?;
    }
    let message = decode(&bytes, segment.header.salt)
        .and_then(|record| MessageView::decode(&record))
        .filter(|view| view.lsn == lsn)
        .map(|view| view.to_stored());
    Ok(message.map_or(Found::Other, Found::Message))
}
