//! A disk for whole processes that fails on demand, or forgets what was not synced when it is killed.
//!
//! Owns: which faults are planted under which data folder, and the writes that a killed process loses.
//! The second makes `kill -9` as hard as a loss of power: a write stays in this process's memory until the
//! file is synced, so that whoever confirms too early is caught by the ordinary kill loop.
//! Only in builds with the feature `sabotage`. Spec: RELIABILITY T3, T5, 7.1.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode, OsDisk};

/// How long a sync of a volatile disk takes: a slow disk's.
pub const SLOW_SYNC: Duration = Duration::from_millis(10);

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskFault {
    /// The sync of this number (the first is 1) fails; later ones report success, as Linux does.
    FailSync(u64),
    /// The write of this number (the first is 1) and all later ones fail.
    FailWrites(u64),
    /// No file gets more room while [`set_disk_full`] says so.
    Fillable,
    /// Nothing is wrong, but syncs are counted: see [`sync_count`].
    Counted,
    /// A write is lost if the process is killed before the file is synced, and a sync takes
    /// [`SLOW_SYNC`], so that there is a time before it to be killed in.
    Volatile,
}

impl DiskFault {
    /// Reads `fail-sync=N`, `fail-writes=N` or `volatile`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('=') {
            Some(("fail-sync", number)) => Some(Self::FailSync(number.parse().ok()?)),
            Some(("fail-writes", number)) => Some(Self::FailWrites(number.parse().ok()?)),
            None if text == "volatile" => Some(Self::Volatile),
            Some(_) | None => None,
        }
    }
}

/// A fault under one data folder of this process.
#[derive(Debug)]
struct Planted {
    dir: PathBuf,
    fault: DiskFault,
    sync_count: Arc<AtomicU64>,
    is_full: Arc<AtomicBool>,
}

static PLANTED: Mutex<Vec<Planted>> = Mutex::new(Vec::new());

/// Plants a fault under the data folder `dir`, for a server that is started there in this process.
pub fn plant_disk_fault(dir: &Path, fault: DiskFault) {
    PLANTED.lock().push(Planted {
        dir: dir.to_owned(),
        fault,
        sync_count: Arc::default(),
        is_full: Arc::default(),
    });
}

/// Fills the disk under `dir`, where [`DiskFault::Fillable`] was planted, or makes room on it.
pub fn set_disk_full(dir: &Path, is_full: bool) {
    let planted = PLANTED.lock();
    for here in planted.iter().filter(|planted| planted.dir == dir) {
        here.is_full.store(is_full, Ordering::Relaxed);
    }
}

/// How many syncs of files there were under `dir`, where a fault was planted.
pub fn sync_count(dir: &Path) -> u64 {
    let planted = PLANTED.lock();
    let here = planted.iter().find(|planted| planted.dir == dir);
    here.map_or(0, |planted| planted.sync_count.load(Ordering::Relaxed))
}

/// The disk for the data folder `dir`: with the fault that was planted there or that `WARREN_DISK_FAULT`
/// names, or the system's own.
///
/// # Panics
/// If `WARREN_DISK_FAULT` names nothing known: a test that plants nothing proves nothing.
#[allow(clippy::disallowed_methods)]
pub fn disk_for(dir: &Path) -> Arc<dyn Disk> {
    let planted = PLANTED.lock();
    let here = planted.iter().find(|planted| planted.dir == dir);
    let sync_count = here.map_or_else(Arc::default, |planted| Arc::clone(&planted.sync_count));
    let is_full = here.map_or_else(Arc::default, |planted| Arc::clone(&planted.is_full));
    let fault = match here {
        Some(planted) => Some(planted.fault),
        None => std::env::var("WARREN_DISK_FAULT")
            .ok()
            .map(|text| DiskFault::parse(&text).unwrap_or_else(|| panic!("no such fault: {text}"))),
    };
    match fault {
        Some(fault) => {
            tracing::error!(?fault, "a disk fault is planted");
            Arc::new(FaultyDisk {
                shared: Arc::new(Shared {
                    fault,
                    sync_count,
                    is_full,
                    write_count: AtomicU64::new(0),
                    unsynced: Mutex::default(),
                }),
            })
        }
        None => Arc::new(OsDisk),
    }
}

/// The writes of one file that no sync has covered.
type Unsynced = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

#[derive(Debug)]
struct Shared {
    fault: DiskFault,
    sync_count: Arc<AtomicU64>,
    is_full: Arc<AtomicBool>,
    write_count: AtomicU64,
    /// By the file's present name, so that whoever opens it sees the same.
    unsynced: Mutex<HashMap<PathBuf, Unsynced>>,
}

#[derive(Debug)]
struct FaultyDisk {
    shared: Arc<Shared>,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = OsDisk.open(path, mode)?;
        let mut unsynced = self.shared.unsynced.lock();
        if mode == OpenMode::CreateNew {
            unsynced.remove(path);
        }
        let unsynced = Arc::clone(unsynced.entry(path.to_owned()).or_default());
        Ok(Box::new(FaultyFile {
            shared: Arc::clone(&self.shared),
            file,
            unsynced,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut unsynced = self.shared.unsynced.lock();
        OsDisk.rename(from, to)?;
        let moved = unsynced.remove(from).unwrap_or_default();
        unsynced.insert(to.to_owned(), moved);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut unsynced = self.shared.unsynced.lock();
        OsDisk.remove(path)?;
        unsynced.remove(path);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsDisk.list(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    shared: Arc<Shared>,
    file: Box<dyn DiskFile>,
    unsynced: Unsynced,
}

fn injected() -> io::Error {
    io::Error::other("a fault that was planted")
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let unsynced = self.unsynced.lock();
        let count = self.file.read_at(buffer, offset_bytes)?;
        // A file is made as long as it gets before it is written, so that only bytes differ, or its end is.
        let end = offset_bytes + buffer.len() as u64;
        let mut reached = offset_bytes + count as u64;
        for (at, bytes) in unsynced.iter() {
            let until = at + bytes.len() as u64;
            let (from, to) = ((*at).max(offset_bytes), until.min(end));
            if from < to {
                let target = to_usize(from - offset_bytes)..to_usize(to - offset_bytes);
                let source = to_usize(from - at)..to_usize(to - at);
                buffer[target].copy_from_slice(&bytes[source]);
                reached = reached.max(to);
            }
        }
        Ok(to_usize(reached - offset_bytes))
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let number = self.shared.write_count.fetch_add(1, Ordering::Relaxed) + 1;
        match self.shared.fault {
            DiskFault::FailWrites(from) if number >= from => Err(injected()),
            DiskFault::Volatile => {
                self.unsynced.lock().push((offset_bytes, bytes.to_vec()));
                Ok(())
            }
            DiskFault::Counted
            | DiskFault::FailSync(_)
            | DiskFault::FailWrites(_)
            | DiskFault::Fillable => self.file.write_at(bytes, offset_bytes),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let number = self.shared.sync_count.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shared.fault == DiskFault::FailSync(number) {
            return Err(injected());
        }
        if self.shared.fault == DiskFault::Volatile {
            std::thread::sleep(SLOW_SYNC);
        }
        let mut unsynced = self.unsynced.lock();
        for (offset_bytes, bytes) in unsynced.drain(..) {
            self.file.write_at(&bytes, offset_bytes)?;
        }
        drop(unsynced);
        self.file.sync_data()
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        if self.shared.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(len_bytes)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        unsynced.retain_mut(|(at, bytes)| {
            bytes.truncate(to_usize(len_bytes.saturating_sub(*at)));
            !bytes.is_empty()
        });
        self.file.truncate(len_bytes)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let unsynced = self.unsynced.lock();
        let ends = unsynced.iter().map(|(at, bytes)| at + bytes.len() as u64);
        Ok(ends.max().unwrap_or(0).max(self.file.len_bytes()?))
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was not synced is seen by everybody in the process and is not on the disk below.
    #[test]
    fn volatile_writes_reach_the_disk_with_a_sync() {
        let dir = tempfile::tempdir().unwrap();
        plant_disk_fault(dir.path(), DiskFault::Volatile);
        let disk = disk_for(dir.path());
        let (path, renamed) = (dir.path().join("a"), dir.path().join("b"));
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        file.allocate(10).unwrap();
        file.write_at(b"abcd", 2).unwrap();
        file.write_at(b"XY", 4).unwrap();
        file.write_at(b"end", 9).unwrap();
        disk.rename(&path, &renamed).unwrap();
        let seen = |disk: &dyn Disk| {
            let file = disk.open(&renamed, OpenMode::Read).unwrap();
            let mut bytes = vec![0; to_usize(file.len_bytes().unwrap())];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let written = b"\0\0abXY\0\0\0end".to_vec();
        assert_eq!(seen(&*disk), written);
        assert_eq!(seen(&OsDisk), [0; 10]);
        file.sync_data().unwrap();
        assert_eq!(seen(&OsDisk), written);
        assert_eq!(seen(&*disk), written);
    }

    /// Syncs are counted for whoever planted the count.
    #[test]
    fn syncs_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        plant_disk_fault(dir.path(), DiskFault::Counted);
        let file = disk_for(dir.path())
            .open(&dir.path().join("a"), OpenMode::CreateNew)
            .unwrap();
        file.write_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        file.sync_data().unwrap();
        assert_eq!(sync_count(dir.path()), 2);
    }

    /// A failing sync fails once, failing writes go on failing.
    #[test]
    fn faults_come_at_their_number() {
        let dir = tempfile::tempdir().unwrap();
        plant_disk_fault(dir.path(), DiskFault::FailSync(2));
        let file = disk_for(dir.path())
            .open(&dir.path().join("a"), OpenMode::CreateNew)
            .unwrap();
        assert!(file.sync_data().is_ok());
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok());
        let other = tempfile::tempdir().unwrap();
        plant_disk_fault(other.path(), DiskFault::FailWrites(2));
        let file = disk_for(other.path())
            .open(&other.path().join("a"), OpenMode::CreateNew)
            .unwrap();
        assert!(file.write_at(b"x", 0).is_ok());
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.sync_data().is_ok());
        assert_eq!(DiskFault::parse("fail-sync=x"), None);
        assert_eq!(DiskFault::parse("volatile"), Some(DiskFault::Volatile));
    }
}
