//! A disk that lies as real ones do, from a seed.
//!
//! Owns: a *live* image, which the program under test sees, and a *durable* one, which is what a power
//! loss is sure to leave. Between the two lie the changes that were not synced yet; a crash keeps any
//! part of them, torn at [`SECTOR_BYTES`] and in any order, as a [`CrashVariant`] and a seed say.
//! Also fails chosen operations, and fills up.
//! A process may also be killed with the machine going on ([`CrashPoints::kill`]): it leaves the live
//! image, of which a later power loss still takes what was never synced.
//! Not modelled: a sector is old or new, never garbage; a directory right below the root is there for
//! ever, as a mount point is.
//! Bound: holds everything in memory; files are shared until written, so that images are cheap.

mod durable;
mod file;
mod history;
mod image;
mod numbers;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode};

pub use durable::{CrashVariant, SECTOR_BYTES};
pub use history::{CrashPoints, History};
pub use numbers::SeededNumbers;

use durable::Durable;
use file::SimFile;
use image::{Change, Image, Inode};

#[derive(Debug, Default)]
struct State {
    live: Image,
    durable: Durable,
    inode_next: u64,
    /// Changing operations so far.
    op_count: u64,
    /// Syncs of files that succeeded so far.
    sync_count: u64,
    failures: BTreeMap<u64, io::ErrorKind>,
    power_off_at: Option<u64>,
    reads_fail: bool,
    reads_wait: bool,
    capacity_bytes: Option<u64>,
    file_bytes_max: Option<usize>,
    history: Option<History>,
}

/// The simulated disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk with a root directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn from_image(image: Image) -> Self {
        let durable = Durable {
            image: image.clone(),
            unsynced: Vec::new(),
        };
        Self::from_parts(image, durable)
    }

    fn from_parts(live: Image, durable: Durable) -> Self {
        let inodes = live.contents.keys().chain(durable.image.contents.keys());
        let inode_next = inodes.map(|inode| inode.0 + 1).max().unwrap_or(0);
        let inode_next = durable.unsynced.iter().fold(inode_next, |next, change| {
            change.inode().map_or(next, |inode| next.max(inode.0 + 1))
        });
        let state = State {
            live,
            durable,
            inode_next,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Begins to record each change, for [`SimDisk::history`].
    pub fn record(&self) {
        let mut state = self.state.lock();
        let start = state.durable.clone();
        state.history = Some(History {
            start,
            changes: Vec::new(),
        });
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        self.state.lock().history.clone().unwrap_or_default()
    }

    /// How many changes were recorded so far: names the crash point that lies here.
    pub fn recorded_len(&self) -> usize {
        self.state.lock().history.as_ref().map_or(0, History::len)
    }

    /// The disk that a crash at this moment leaves.
    pub fn crash(&self, variant: CrashVariant, seed: u64) -> Self {
        Self::from_image(self.state.lock().durable.crash(variant, seed))
    }

    /// How many changing operations (write, sync, create, rename, ...) were asked for so far.
    pub fn op_count(&self) -> u64 {
        self.state.lock().op_count
    }

    /// How often a file was synced so far.
    pub fn sync_count(&self) -> u64 {
        self.state.lock().sync_count
    }

    /// Makes the changing operation number `op` (the first is 0) fail. A failed write may have written
    /// half; a failed sync drops what it should have synced, and the next one reports success.
    pub fn fail_op(&self, op: u64, kind: io::ErrorKind) {
        self.state.lock().failures.insert(op, kind);
    }

    /// Makes every changing operation from number `op` on fail without effect: the machine is off.
    pub fn power_off_at(&self, op: u64) {
        self.state.lock().power_off_at = Some(op);
    }

    /// Makes every read of a file's bytes fail, or no longer.
    pub fn set_reads_fail(&self, reads_fail: bool) {
        self.state.lock().reads_fail = reads_fail;
    }

    /// Makes every read of a file's bytes wait for the disk, or no longer: nothing is in a cache.
    pub fn set_reads_wait(&self, reads_wait: bool) {
        self.state.lock().reads_wait = reads_wait;
    }

    /// Bounds the sum of file lengths, in bytes; `None` for no bound.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.state.lock().capacity_bytes = capacity_bytes;
    }

    /// Bounds the length of each file, in bytes, as a file system or a limit of the process may; `None` for no
    /// bound.
    pub fn set_file_bytes_max(&self, file_bytes_max: Option<usize>) {
        self.state.lock().file_bytes_max = file_bytes_max;
    }

    /// Sum of the lengths of all files, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().live.used_bytes()
    }

    /// All files with their lengths in bytes, by path.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let state = self.state.lock();
        let len = |inode| {
            state
                .live
                .contents
                .get(inode)
                .map_or(0, |content| content.len())
        };
        state
            .live
            .names
            .iter()
            .map(|(path, inode)| (path.clone(), len(inode)))
            .collect()
    }

    /// Flips one bit of a file, behind everybody's back.
    ///
    /// # Panics
    /// If there is no such file or bit.
    pub fn flip_bit(&self, path: &Path, bit: usize) {
        self.damage(path, |content| content[bit / 8] ^= 1 << (bit % 8));
    }

    /// Changes a file's content, durably and behind everybody's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state.lock();
        let inode = *state
            .live
            .names
            .get(path)
            .expect("the file to damage exists");
        change(state.live.content_mut(inode));
        let content = Arc::clone(&state.live.contents[&inode]);
        state.durable.image.contents.insert(inode, content);
    }
}

impl State {
    /// Counts a changing operation; `Err` if it is to fail.
    fn begin_op(&mut self) -> io::Result<()> {
        let op = self.op_count;
        self.op_count += 1;
        if self.power_off_at.is_some_and(|off| op >= off) {
            return Err(io::Error::other("the simulated machine is off"));
        }
        match self.failures.get(&op) {
            Some(kind) => Err((*kind).into()),
            None => Ok(()),
        }
    }

    fn is_off(&self) -> bool {
        self.power_off_at.is_some_and(|off| self.op_count > off)
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.durable.apply(&change);
        if let Some(history) = &mut self.history {
            history.changes.push(change);
        }
    }

    fn check_space(&self, inode: Inode, len: usize) -> io::Result<()> {
        if self.file_bytes_max.is_some_and(|max| len > max) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let Some(capacity) = self.capacity_bytes else {
            return Ok(());
        };
        let had = self
            .live
            .contents
            .get(&inode)
            .map_or(0, |content| content.len());
        let grows = len.saturating_sub(had) as u64;
        if self.live.used_bytes() + grows > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        self.live
            .names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => state.inode(path)?,
            OpenMode::CreateNew => {
                if state.live.names.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                state.begin_op()?;
                let inode = Inode(state.inode_next);
                state.inode_next += 1;
                state.change(Change::Link {
                    path: path.to_path_buf(),
                    inode,
                });
                inode
            }
        };
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode,
            is_writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.inode(from)?;
        state.begin_op()?;
        state.change(Change::Rename {
            from: from.to_path_buf(),
            to: to.to_path_buf(),
            inode,
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.inode(path)?;
        state.begin_op()?;
        state.change(Change::Unlink {
            path: path.to_path_buf(),
            inode,
        });
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_off() {
            return Err(io::Error::other("the simulated machine is off"));
        }
        for ancestor in path.ancestors() {
            if !state.live.dirs.contains(ancestor) {
                state.change(Change::MakeDir {
                    path: ancestor.to_path_buf(),
                });
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin_op()?;
        state.change(Change::SyncDir {
            path: path.to_path_buf(),
        });
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        if !state.live.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name_of = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let mut entries = Vec::new();
        for (file, inode) in &state.live.names {
            if file.parent() == Some(path)
                && let Some(name) = name_of(file)
            {
                let len_bytes = state
                    .live
                    .contents
                    .get(inode)
                    .map_or(0, |content| content.len());
                entries.push(DirEntry {
                    name,
                    is_dir: false,
                    len_bytes: len_bytes as u64,
                });
            }
        }
        for dir in &state.live.dirs {
            if dir.parent() == Some(path)
                && let Some(name) = name_of(dir)
            {
                entries.push(DirEntry {
                    name,
                    is_dir: true,
                    len_bytes: 0,
                });
            }
        }
        Ok(entries)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        let capacity = state.capacity_bytes.unwrap_or(u64::MAX / 4);
        Ok(capacity.saturating_sub(state.live.used_bytes()))
    }
}

#[cfg(test)]
mod tests;
