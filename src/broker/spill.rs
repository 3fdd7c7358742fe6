//! Files for the middle of long queues: what neither end of a queue needs in memory.
//!
//! Owns: the directory, the files of each list of messages and their room, and the memory that all
//! lists together hold. Knows nothing of queues; `spill/page.rs` is what a page holds.
//! Nothing here is durable: the directory is emptied at the start and nothing is synced. What is
//! confirmed lies in the journal.
//! Bounds: [`OPEN_FILES_MAX`] open files; a file is [`FILE_BYTES_MAX`] long, or one page.
//! Spec: `spec/spill.md`.

pub(crate) mod page;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode, ReadFrom};
use crate::journal::QueueId;

/// Spill files kept open, all queues together.
const OPEN_FILES_MAX: usize = 64;
/// A file that has grown to this length gets no further page, in bytes.
const FILE_BYTES_MAX: u32 = 16 << 20;
/// While writing fails, one in so many tries is made.
const RETRY_EVERY: u32 = 256;

/// How long queues are kept out of memory.
#[derive(Clone, Debug)]
pub struct SpillSettings {
    /// The disk to write to.
    pub disk: Arc<dyn Disk>,
    /// Where the files go; nothing else may lie there.
    pub dir: PathBuf,
    /// Waiting messages of one queue that stay in memory, in bytes with what holding them costs.
    pub queue_bytes_max: usize,
    /// The same for all queues together; beyond it each keeps 32 KiB.
    pub total_bytes_max: usize,
}

/// What a long queue keeps in memory when all queues together hold too much, in bytes.
pub(crate) const QUEUE_BYTES_LEAST: usize = 32 << 10;

/// The spill directory of a broker.
pub(crate) struct Spill {
    settings: SpillSettings,
    /// What all lists have reported to hold in memory.
    held_bytes: AtomicUsize,
    area_next: AtomicU64,
    open: Mutex<BTreeMap<FileName, Arc<dyn DiskFile>>>,
    /// Files of no use any more, and not yet removed.
    dead: Mutex<Vec<FileName>>,
    /// Whether the last write failed; said once.
    is_failing: AtomicBool,
    tries_skipped: AtomicU32,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct FileName {
    queue: QueueId,
    /// Tells one list of a queue from another, and from those that were before.
    area: u64,
    file: u32,
}

impl Spill {
    /// Makes the directory, or empties it.
    // req: SPILL-1
    pub(crate) fn open(settings: SpillSettings) -> io::Result<Arc<Self>> {
        let disk = &settings.disk;
        disk.create_dir_all(&settings.dir)?;
        for entry in disk.list(&settings.dir)? {
            if !entry.is_dir {
                disk.remove(&settings.dir.join(entry.name))?;
            }
        }
        Ok(Arc::new(Self {
            settings,
            held_bytes: AtomicUsize::new(0),
            area_next: AtomicU64::new(0),
            open: Mutex::default(),
            dead: Mutex::default(),
            is_failing: AtomicBool::new(false),
            tries_skipped: AtomicU32::new(0),
        }))
    }

    /// What one list may hold in memory now, in bytes.
    // req: SPILL-8
    pub(crate) fn list_bytes_max(&self) -> usize {
        let held = self.held_bytes.load(Ordering::Relaxed);
        if held > self.settings.total_bytes_max {
            self.settings.queue_bytes_max.min(QUEUE_BYTES_LEAST)
        } else {
            self.settings.queue_bytes_max
        }
    }

    /// What one queue may hold in memory, in bytes, however much all of them hold.
    pub(crate) fn queue_bytes_max(&self) -> usize {
        self.settings.queue_bytes_max
    }

    /// Notes that a list holds `now` bytes after it had reported `before`.
    pub(crate) fn report(&self, before: usize, now: usize) {
        if now >= before {
            self.held_bytes.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.held_bytes.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Whether a page should be written now; while writing fails, only now and then.
    // req: SPILL-6
    pub(crate) fn may_write(&self) -> bool {
        !self.is_failing.load(Ordering::Relaxed)
            || self.tries_skipped.fetch_add(1, Ordering::Relaxed) % RETRY_EVERY == RETRY_EVERY - 1
    }

    /// A place for the pages of one list of messages; makes no file yet.
    pub(crate) fn area(self: &Arc<Self>, queue: QueueId) -> Arc<Area> {
        Arc::new(Area {
            spill: Arc::clone(self),
            queue,
            number: self.area_next.fetch_add(1, Ordering::Relaxed),
            files: Mutex::default(),
        })
    }

    fn path(&self, name: FileName) -> PathBuf {
        let FileName { queue, area, file } = name;
        self.settings.dir.join(format!("{queue}-{area}-{file}"))
    }

    /// The file of this name, opened if it is not; made if it may be and is not there.
    fn file(&self, name: FileName, missing: Missing) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.opened(name) {
            return Ok(file);
        }
        let path = self.path(name);
        let opened = match self.settings.disk.open(&path, OpenMode::ReadWrite) {
            Err(error) if missing == Missing::Make && error.kind() == io::ErrorKind::NotFound => {
                match self.settings.disk.open(&path, OpenMode::CreateNew) {
                    // Another page of the same file was faster.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        self.settings.disk.open(&path, OpenMode::ReadWrite)
                    }
                    made => made,
                }
            }
            opened => opened,
        };
        let file: Arc<dyn DiskFile> = Arc::from(opened?);
        let mut open = self.open.lock();
        while open.len() >= OPEN_FILES_MAX {
            open.pop_first();
        }
        open.insert(name, Arc::clone(&file));
        Ok(file)
    }

    fn opened(&self, name: FileName) -> Option<Arc<dyn DiskFile>> {
        self.open.lock().get(&name).map(Arc::clone)
    }

    /// Removes the files that are of no use any more; no lock may be held.
    pub(crate) fn sweep(&self) {
        let dead = std::mem::take(&mut *self.dead.lock());
        for name in dead {
            self.open.lock().remove(&name);
            match self.settings.disk.remove(&self.path(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(queue = %name.queue, %error, "a spill file was not removed");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Closes all files, as if others had been read since.
    #[cfg(test)]
    pub(crate) fn close_all(&self) {
        self.open.lock().clear();
    }

    fn wrote(&self, result: &io::Result<()>) {
        match result {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("long queues can be written to the spill directory again");
                }
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let dir = self.settings.dir.display();
                    tracing::error!(
                        %dir, %error,
                        "long queues stay in memory: the spill directory cannot be written"
                    );
                }
            }
        }
    }
}

impl fmt::Debug for Spill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Spill")
            .field("dir", &self.settings.dir)
            .field("held_bytes", &self.held_bytes)
            .finish_non_exhaustive()
    }
}

/// What to do about a file that is not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Missing {
    Make,
    Refuse,
}

/// Where a page lies: 12 bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Extent {
    file: u32,
    /// In bytes from the start of the file.
    offset: u32,
    /// In bytes.
    len: u32,
}

/// The spill files of one list of messages; of no use after its end.
pub(crate) struct Area {
    spill: Arc<Spill>,
    queue: QueueId,
    number: u64,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// In order of their numbers; the last one is written to.
    list: VecDeque<FileUse>,
    next: u32,
}

#[derive(Debug)]
struct FileUse {
    number: u32,
    page_count: u32,
    end: u32,
}

impl Area {
    /// Writes a page to a place of its own; blocks as the disk does.
    pub(crate) fn write(&self, page: &[u8]) -> io::Result<Extent> {
        let len = u32::try_from(page.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let extent = self.reserve(len)?;
        let written = self
            .spill
            .file(self.name(extent.file), Missing::Make)
            .and_then(|file| file.write_at(page, extent.offset.into()));
        self.spill.wrote(&written);
        match written {
            Ok(()) => Ok(extent),
            Err(error) => {
                self.release(extent);
                Err(error)
            }
        }
    }

    /// Reads a page back; `WouldBlock` if `from` does not allow to wait for it.
    pub(crate) fn read(&self, from: ReadFrom, extent: Extent) -> io::Result<Vec<u8>> {
        let name = self.name(extent.file);
        let file = match from {
            ReadFrom::Disk => self.spill.file(name, Missing::Refuse)?,
            // Opening it may wait for the disk.
            ReadFrom::Cache => self.spill.opened(name).ok_or(io::ErrorKind::WouldBlock)?,
        };
        let mut page = vec![0; extent.len as usize];
        match file.fill_at(from, &mut page, extent.offset.into())? {
            true => Ok(page),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Gives up a page. Its file goes with its last one, at the next [`Spill::sweep`]: a queue's lock may
    /// be held here, so no file is touched.
    // req: SPILL-3
    pub(crate) fn release(&self, extent: Extent) {
        let list = &mut self.files.lock().list;
        if let Ok(at) = list.binary_search_by_key(&extent.file, |file| file.number)
            && let Some(file) = list.get_mut(at)
        {
            file.page_count = file.page_count.saturating_sub(1);
            if file.page_count == 0 {
                list.remove(at);
                self.spill.dead.lock().push(self.name(extent.file));
            }
        }
    }

    fn name(&self, file: u32) -> FileName {
        FileName {
            queue: self.queue,
            area: self.number,
            file,
        }
    }

    fn reserve(&self, len: u32) -> io::Result<Extent> {
        let mut files = self.files.lock();
        let has_room = |file: &FileUse| file.end.saturating_add(len) <= FILE_BYTES_MAX;
        if !files.list.back().is_some_and(has_room) {
            let number = files.next;
            files.next = number.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
            files.list.push_back(FileUse {
                number,
                page_count: 0,
                end: 0,
            });
        }
        let file = files.list.back_mut().ok_or(io::ErrorKind::Other)?;
        let extent = Extent {
            file: file.number,
            offset: file.end,
            len,
        };
        file.page_count += 1;
        file.end += len;
        Ok(extent)
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Area")
            .field("queue", &self.queue)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let files = std::mem::take(self.files.get_mut());
        let names = files.list.iter().map(|file| self.name(file.number));
        self.spill.dead.lock().extend(names);
    }
}

#[cfg(test)]
mod tests;
