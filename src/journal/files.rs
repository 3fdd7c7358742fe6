//! The files of the journal's directory: making segments, keeping spares, removing what is released.
//!
//! Owns: the order of write, sync, rename and directory sync that makes a name mean something.
//! Bound: `spare_segments` spare files.
//! Spec: `spec/journal.md`, "Commit", JOURNAL-5, JOURNAL-20, JOURNAL-23.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{DiskFile, OpenMode};

use super::error::StorageFailure;
use super::footer::{Frozen, TRAILER_BYTES};
use super::record::CatalogEntry;
use super::sabotage::{self, Sabotage};
use super::segment::{Header, SegmentDir};
use super::types::Lsn;

/// The segment that is written now.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) number: u32,
    pub(crate) salt: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn DiskFile>,
    /// Where what is written ends, in bytes.
    pub(crate) end: u32,
    /// Of what is written.
    pub(crate) hasher: Box<blake3::Hasher>,
}

/// What making a segment came to.
#[derive(Debug)]
pub(crate) enum Made {
    Segment(Current),
    /// There is no space; nothing has changed, and it may be tried again.
    NoSpace,
}

/// A segment to make.
pub(crate) struct Plan<'a> {
    pub(crate) number: u32,
    pub(crate) first: Lsn,
    pub(crate) records_at: u32,
    /// Length to allocate, in bytes.
    pub(crate) file_bytes: u64,
    pub(crate) catalog: &'a [CatalogEntry],
    /// What to write behind the catalog before the segment gets its name.
    pub(crate) tail: Tail<'a>,
}

/// Which segment's footer is to be written, and what it says beside what is frozen.
#[derive(Debug)]
pub(crate) struct FooterPlan {
    pub(crate) segment: u32,
    pub(crate) salt: u64,
    /// Where the records end, in bytes.
    pub(crate) records_end: u32,
    /// Of the bytes up to there.
    pub(crate) hash: [u8; 32],
    /// Whether the log ends here with a clean stop: the footer follows the records, and the file ends.
    pub(crate) is_closed: bool,
}

/// Makes the first records of a segment once its salt is known.
pub(crate) type Tail<'a> = &'a dyn Fn(u64) -> Vec<u8>;

/// The directory, its spares, and where salts come from.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) dir: SegmentDir,
    pub(crate) store_id: [u8; 16],
    seed: [u8; 32],
    segment_bytes: u64,
    spares: Vec<u64>,
    spares_wanted: usize,
    spare_next: u64,
}

/// Turns an error of the commit path into the failure that ends it.
pub(crate) fn failure<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StorageFailure + 'a {
    move |error| StorageFailure {
        doing,
        path: path.to_path_buf(),
        message: error.to_string(),
    }
}

/// Whether the error means that the disk is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl Files {
    /// `spares` are the spare files found in the directory.
    pub(crate) fn new(
        dir: SegmentDir,
        store_id: [u8; 16],
        seed: [u8; 32],
        segment_bytes: u32,
        spares: Vec<u64>,
        spares_wanted: u32,
    ) -> Self {
        let spare_next = spares.iter().max().map_or(0, |last| last.saturating_add(1));
        let spares_wanted = spares_wanted as usize;
        let segment_bytes = u64::from(segment_bytes);
        Self {
            dir,
            store_id,
            seed,
            segment_bytes,
            spares,
            spares_wanted,
            spare_next,
        }
    }

    /// A salt for the segment; different for each number and each start, so that old bytes of a
    /// recycled file never count.
    fn salt(&self, number: u32) -> u64 {
        if sabotage::is(Sabotage::IgnoreSalt) {
            return 0;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&self.store_id);
        hasher.update(&number.to_le_bytes());
        let mut salt = [0; 8];
        hasher.finalize_xof().fill(&mut salt);
        u64::from_le_bytes(salt)
    }

    /// Makes a segment and gives it its name, durably.
    // req: JOURNAL-5 JOURNAL-23
    pub(crate) fn make(&mut self, plan: &Plan<'_>) -> Result<Made, StorageFailure> {
        let (made_at, file, is_spare) = match self.spares.last() {
            Some(spare) => {
                let path = self.dir.spare_path(*spare);
                let file = self
                    .dir
                    .disk
                    .open(&path, OpenMode::ReadWrite)
                    .map_err(failure("open", &path))?;
                (path, file, true)
            }
            None => {
                let path = self.dir.new_path(plan.number);
                match self.dir.disk.open(&path, OpenMode::CreateNew) {
                    Ok(file) => (path, file, false),
                    Err(error) if is_no_space(&error) => return Ok(Made::NoSpace),
                    Err(error) => return Err(failure("create", &path)(error)),
                }
            }
        };
        let give_up = |file: Box<dyn DiskFile>| {
            drop(file);
            if !is_spare {
                let removed = self.dir.disk.remove(&made_at);
                removed.map_err(failure("remove", &made_at))?;
            }
            Ok(Made::NoSpace)
        };
        match file.allocate(plan.file_bytes) {
            Ok(()) => {}
            Err(error) if is_no_space(&error) => return give_up(file),
            Err(error) => return Err(failure("allocate", &made_at)(error)),
        }
        let salt = self.salt(plan.number);
        let header = Header {
            number: plan.number,
            store_id: self.store_id,
            first: plan.first,
            salt,
            records_at: plan.records_at,
        };
        let mut bytes = header.encode_with_catalog(plan.catalog);
        bytes.extend_from_slice(&(plan.tail)(salt));
        // Where nothing could be reserved the room may be missing only now.
        // req: JOURNAL-44
        match file.write_at(&bytes, 0) {
            Ok(()) => {}
            Err(error) if is_no_space(&error) => return give_up(file),
            Err(error) => return Err(failure("write", &made_at)(error)),
        }
        if !sabotage::is(Sabotage::SkipSync) {
            file.sync_data().map_err(failure("sync", &made_at))?;
        }
        let path = self.dir.segment_path(plan.number);
        self.dir
            .disk
            .rename(&made_at, &path)
            .map_err(failure("rename", &made_at))?;
        if !sabotage::is(Sabotage::SkipDirSync) {
            self.sync_dir()?;
        }
        if is_spare {
            self.spares.pop();
        }
        let mut hasher = Box::new(blake3::Hasher::new());
        hasher.update(&bytes);
        Ok(Made::Segment(Current {
            number: plan.number,
            salt,
            path,
            file,
            end: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            hasher,
        }))
    }

    /// Writes a footer so that it ends the file; the caller syncs. Gives where it begins and how long the
    /// file is then, or `None` if there is no room for it.
    // req: JOURNAL-26
    pub(crate) fn write_footer(
        file: &dyn DiskFile,
        path: &Path,
        frozen: &Frozen,
        plan: &FooterPlan,
    ) -> Result<Option<(u32, u64)>, StorageFailure> {
        let len = file.len_bytes().map_err(failure("read", path))?;
        let footer_bytes = frozen.footer_bytes();
        let records_end = u64::from(plan.records_end);
        let base = if plan.is_closed {
            records_end
        } else {
            records_end.max(len.saturating_sub(footer_bytes))
        };
        let end = base + footer_bytes;
        let Some(mut trailer) = frozen.trailer(plan.segment, base, plan.records_end, plan.hash)
        else {
            return Ok(None);
        };
        trailer.is_closed = plan.is_closed;
        if end > len {
            match file.allocate(end) {
                Ok(()) => {}
                Err(error) if is_no_space(&error) => return Ok(None),
                Err(error) => return Err(failure("allocate", path)(error)),
            }
        }
        let mut bytes = Vec::with_capacity(frozen.body.len() + TRAILER_BYTES);
        bytes.extend_from_slice(&frozen.body);
        bytes.extend_from_slice(&trailer.encode(plan.salt));
        match file.write_at(&bytes, base) {
            Ok(()) => {}
            Err(error) if is_no_space(&error) => return Ok(None),
            Err(error) => return Err(failure("write", path)(error)),
        }
        if plan.is_closed && end < len {
            file.truncate(end).map_err(failure("write", path))?;
        }
        let end = if plan.is_closed { end } else { end.max(len) };
        Ok(Some((trailer.base, end)))
    }

    pub(crate) fn sync_dir(&self) -> Result<(), StorageFailure> {
        self.dir
            .disk
            .sync_dir(&self.dir.path)
            .map_err(failure("sync", &self.dir.path))
    }

    /// Removes a segment's file, or keeps it as a spare, durably.
    // req: JOURNAL-20
    pub(crate) fn release(&mut self, number: u32) -> Result<(), StorageFailure> {
        self.discard(&self.dir.segment_path(number))?;
        self.sync_dir()
    }

    /// As [`Files::release`] without the directory sync.
    ///
    /// A segment that was cut off at its end, by a stop or a crash, becomes a spare only if it can be given a
    /// whole segment's room: else it would be none when the disk is full.
    // req: JOURNAL-36
    pub(crate) fn discard(&mut self, path: &Path) -> Result<(), StorageFailure> {
        if self.spares.len() < self.spares_wanted && self.fill_up(path)? {
            let spare = self.spare_path_next();
            self.dir
                .disk
                .rename(path, &spare.1)
                .map_err(failure("rename", path))?;
            self.spares.push(spare.0);
        } else {
            self.dir
                .disk
                .remove(path)
                .map_err(failure("remove", path))?;
        }
        Ok(())
    }

    /// Gives a file the room of a whole segment; `false` if there is no space for it.
    fn fill_up(&self, path: &Path) -> Result<bool, StorageFailure> {
        let open = self.dir.disk.open(path, OpenMode::ReadWrite);
        let file = open.map_err(failure("open", path))?;
        match file.allocate(self.segment_bytes) {
            Ok(()) => Ok(true),
            Err(error) if is_no_space(&error) => Ok(false),
            Err(error) => Err(failure("allocate", path)(error)),
        }
    }

    /// Removes the spares of an earlier run that cannot be given a whole segment's room; gives whether there
    /// was one. Called once, after a start.
    // req: JOURNAL-36
    pub(crate) fn drop_hollow_spares(&mut self) -> Result<bool, StorageFailure> {
        let spares = std::mem::take(&mut self.spares);
        let count = spares.len();
        for spare in spares {
            let path = self.dir.spare_path(spare);
            if self.fill_up(&path)? {
                self.spares.push(spare);
            } else {
                self.dir
                    .disk
                    .remove(&path)
                    .map_err(failure("remove", &path))?;
            }
        }
        Ok(self.spares.len() < count)
    }

    fn spare_path_next(&mut self) -> (u64, PathBuf) {
        let number = self.spare_next;
        self.spare_next += 1;
        (number, self.dir.spare_path(number))
    }

    /// Spares that are there.
    pub(crate) fn spare_count(&self) -> usize {
        self.spares.len()
    }

    /// Allocates one spare; `false` if there is no space for it.
    pub(crate) fn add_spare(&mut self) -> Result<bool, StorageFailure> {
        let (number, path) = self.spare_path_next();
        let file = match self.dir.disk.open(&path, OpenMode::CreateNew) {
            Ok(file) => file,
            Err(error) if is_no_space(&error) => return Ok(false),
            Err(error) => return Err(failure("create", &path)(error)),
        };
        match file.allocate(self.segment_bytes) {
            Ok(()) => {
                self.spares.push(number);
                Ok(true)
            }
            Err(error) if is_no_space(&error) => {
                drop(file);
                self.dir
                    .disk
                    .remove(&path)
                    .map_err(failure("remove", &path))?;
                Ok(false)
            }
            Err(error) => Err(failure("allocate", &path)(error)),
        }
    }
}
