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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode};

/// What a disk writes as one, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// What a crash keeps of the changes that were not synced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashVariant {
    /// Nothing: only what was synced is left.
    LoseAll,
    /// Everything, as when only the process is killed.
    KeepAll,
    /// Each write and each change of a directory with a chance of one half.
    RandomSubset,
    /// All directory changes, and each sector of each write with a chance of one half.
    Torn,
    /// The last changes but not the first ones.
    Reordered,
    /// The first changes; the last of them is a torn write.
    TornPrefix,
    /// All writes, and no change of a directory.
    LostDirEntries,
    /// All changes of directories, and no write.
    LostWrites,
}

impl CrashVariant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LoseAll,
        Self::KeepAll,
        Self::RandomSubset,
        Self::Torn,
        Self::Reordered,
        Self::TornPrefix,
        Self::LostDirEntries,
        Self::LostWrites,
    ];
}

/// A small generator of numbers (SplitMix64), so that a seed repeats a run.
#[derive(Clone, Debug)]
pub struct SeededNumbers(u64);

impl SeededNumbers {
    /// Numbers from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True with a chance of one in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Inode(u64);

/// A change that a crash may lose as long as it is not synced, or the sync of such changes.
#[derive(Clone, Debug)]
enum Change {
    Write {
        inode: Inode,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    SetLen {
        inode: Inode,
        len: usize,
    },
    Link {
        path: PathBuf,
        inode: Inode,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: Inode,
    },
    Unlink {
        path: PathBuf,
        inode: Inode,
    },
    Sync {
        inode: Inode,
        is_ok: bool,
    },
    SyncDir {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
}

impl Change {
    fn is_data(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::SetLen { .. })
    }

    fn inode(&self) -> Option<Inode> {
        match self {
            Self::Write { inode, .. }
            | Self::SetLen { inode, .. }
            | Self::Link { inode, .. }
            | Self::Rename { inode, .. }
            | Self::Unlink { inode, .. }
            | Self::Sync { inode, .. } => Some(*inode),
            Self::SyncDir { .. } | Self::MakeDir { .. } => None,
        }
    }
}

/// Files and their names.
#[derive(Clone, Debug, Default)]
struct Image {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Inode>,
    contents: BTreeMap<Inode, Arc<Vec<u8>>>,
}

impl Image {
    fn content_mut(&mut self, inode: Inode) -> &mut Vec<u8> {
        Arc::make_mut(self.contents.entry(inode).or_default())
    }

    fn write(&mut self, inode: Inode, offset: usize, bytes: &[u8]) {
        let content = self.content_mut(inode);
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write {
                inode,
                offset,
                bytes,
            } => self.write(*inode, *offset, bytes),
            Change::SetLen { inode, len } => self.content_mut(*inode).resize(*len, 0),
            Change::Link { path, inode } => {
                self.names.insert(path.clone(), *inode);
                self.contents.entry(*inode).or_default();
            }
            Change::Rename { from, to, inode } => {
                if self.names.get(from) == Some(inode) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *inode);
                self.contents.entry(*inode).or_default();
            }
            Change::Unlink { path, inode } => {
                if self.names.get(path) == Some(inode) {
                    self.names.remove(path);
                }
            }
            Change::MakeDir { path } => {
                self.dirs.insert(path.clone());
            }
            Change::Sync { .. } | Change::SyncDir { .. } => {}
        }
    }

    /// Forgets files without a name, and what lies in directories that are not there.
    fn sweep(&mut self) {
        let dirs = &self.dirs;
        let has_parents = |path: &Path| path.ancestors().skip(1).all(|dir| dirs.contains(dir));
        let kept = dirs
            .iter()
            .filter(|dir| has_parents(dir))
            .cloned()
            .collect();
        self.dirs = kept;
        let dirs = &self.dirs;
        self.names
            .retain(|path, _| path.ancestors().skip(1).all(|dir| dirs.contains(dir)));
        let named: BTreeSet<Inode> = self.names.values().copied().collect();
        self.contents.retain(|inode, _| named.contains(inode));
    }

    fn used_bytes(&self) -> u64 {
        let sizes = self
            .names
            .values()
            .filter_map(|inode| self.contents.get(inode));
        sizes.map(|content| content.len() as u64).sum()
    }
}

/// What is sure to survive, and what may.
#[derive(Clone, Debug, Default)]
struct Durable {
    image: Image,
    unsynced: Vec<Change>,
}

impl Durable {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Sync { inode, is_ok } => {
                let image = &mut self.image;
                self.unsynced.retain(|change| match change {
                    Change::Write { inode: of, .. } | Change::SetLen { inode: of, .. }
                        if of == inode =>
                    {
                        // After a failed sync the system takes the pages for clean: they are never
                        // written, and the next sync reports success.
                        if *is_ok {
                            image.apply(change);
                        }
                        false
                    }
                    _ => true,
                });
            }
            Change::SyncDir { path } => {
                let image = &mut self.image;
                self.unsynced.retain(|change| match change {
                    Change::Link { path: name, .. }
                    | Change::Rename { to: name, .. }
                    | Change::Unlink { path: name, .. }
                    | Change::MakeDir { path: name }
                        if name.parent() == Some(path) =>
                    {
                        image.apply(change);
                        false
                    }
                    _ => true,
                });
            }
            Change::MakeDir { path } if path.components().count() <= 2 => self.image.apply(change),
            other => self.unsynced.push(other.clone()),
        }
    }

    /// All changes, synced or not: what a process sees.
    fn live(&self) -> Image {
        let mut image = self.image.clone();
        for change in &self.unsynced {
            image.apply(change);
        }
        image.sweep();
        image
    }

    fn crash(&self, variant: CrashVariant, seed: u64) -> Image {
        let mut image = self.image.clone();
        let mut random = SeededNumbers::new(seed);
        let count = self.unsynced.len() as u64;
        let split = random.below(count + 1);
        for (index, change) in self.unsynced.iter().enumerate() {
            let index = index as u64;
            match variant {
                CrashVariant::LoseAll => {}
                CrashVariant::KeepAll => image.apply(change),
                CrashVariant::RandomSubset if random.one_in(2) => image.apply(change),
                CrashVariant::RandomSubset => {}
                CrashVariant::Torn => apply_torn(&mut image, change, &mut random),
                CrashVariant::Reordered if index >= split => image.apply(change),
                CrashVariant::Reordered => {}
                CrashVariant::TornPrefix if index + 1 < split => image.apply(change),
                CrashVariant::TornPrefix if index + 1 == split => {
                    apply_torn(&mut image, change, &mut random);
                }
                CrashVariant::TornPrefix => {}
                CrashVariant::LostDirEntries if change.is_data() => image.apply(change),
                CrashVariant::LostDirEntries => {}
                CrashVariant::LostWrites if !change.is_data() => image.apply(change),
                CrashVariant::LostWrites => {}
            }
        }
        image.sweep();
        image
    }
}

fn apply_torn(image: &mut Image, change: &Change, random: &mut SeededNumbers) {
    let Change::Write {
        inode,
        offset,
        bytes,
    } = change
    else {
        image.apply(change);
        return;
    };
    let mut at = 0;
    while at < bytes.len() {
        let sector_end = (offset + at + 1).next_multiple_of(SECTOR_BYTES);
        let end = (sector_end - offset).min(bytes.len());
        if random.one_in(2) {
            image.write(*inode, offset + at, &bytes[at..end]);
        }
        at = end;
    }
}

#[derive(Debug, Default)]
struct State {
    live: Image,
    durable: Durable,
    inode_next: u64,
    /// Changing operations so far.
    op_count: u64,
    failures: BTreeMap<u64, io::ErrorKind>,
    power_off_at: Option<u64>,
    reads_fail: bool,
    capacity_bytes: Option<u64>,
    file_bytes_max: Option<usize>,
    history: Option<History>,
}

/// A recorded run: the disk as it began, and each change; each gives one crash point.
#[derive(Clone, Debug, Default)]
pub struct History {
    start: Durable,
    changes: Vec<Change>,
}

impl History {
    /// How many changes were recorded; there is one crash point more than that.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Walks through all crash points in order.
    pub fn crash_points(&self) -> CrashPoints<'_> {
        CrashPoints {
            durable: self.start.clone(),
            changes: &self.changes,
            index: 0,
        }
    }
}

/// The crash points of a recorded run: after 0, 1, 2, ... changes.
#[derive(Clone, Debug)]
pub struct CrashPoints<'a> {
    durable: Durable,
    changes: &'a [Change],
    index: usize,
}

impl CrashPoints<'_> {
    /// How many changes have been made at this point.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The disk that a crash at this point leaves.
    pub fn crash(&self, variant: CrashVariant, seed: u64) -> SimDisk {
        SimDisk::from_image(self.durable.crash(variant, seed))
    }

    /// The disk that a killed process leaves at this point: all of its changes are seen by the next one,
    /// and those that were not synced may yet be lost when the power fails.
    pub fn kill(&self) -> SimDisk {
        SimDisk::from_parts(self.durable.live(), self.durable.clone())
    }

    /// Goes one change further; `false` at the end.
    pub fn advance(&mut self) -> bool {
        let Some(change) = self.changes.get(self.index) else {
            return false;
        };
        self.durable.apply(change);
        self.index += 1;
        true
    }
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

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
    is_writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    fn set_len(&self, len: usize) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        state.begin_op()?;
        state.check_space(self.inode, len)?;
        state.change(Change::SetLen {
            inode: self.inode,
            len,
        });
        Ok(())
    }
}

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        if state.reads_fail {
            return Err(io::Error::other("the simulated disk reads nothing"));
        }
        let Some(content) = state.live.contents.get(&self.inode) else {
            return Ok(0);
        };
        let rest = content.get(to_usize(offset_bytes)?..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let offset = to_usize(offset_bytes)?;
        let inode = self.inode;
        let mut state = self.disk.state.lock();
        if let Err(error) = state.begin_op() {
            if !state.is_off() {
                let half = bytes[..bytes.len() / 2].into();
                state.change(Change::Write {
                    inode,
                    offset,
                    bytes: half,
                });
            }
            return Err(error);
        }
        state.check_space(inode, offset + bytes.len())?;
        state.change(Change::Write {
            inode,
            offset,
            bytes: bytes.into(),
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if let Err(error) = state.begin_op() {
            if !state.is_off() {
                state.change(Change::Sync {
                    inode: self.inode,
                    is_ok: false,
                });
            }
            return Err(error);
        }
        state.change(Change::Sync {
            inode: self.inode,
            is_ok: true,
        });
        Ok(())
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        let len = to_usize(len_bytes)?;
        if self.len_bytes()? >= len_bytes {
            return Ok(());
        }
        self.set_len(len)
    }

    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.set_len(to_usize(len_bytes)?)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        Ok(state
            .live
            .contents
            .get(&self.inode)
            .map_or(0, |content| content.len() as u64))
    }
}

#[cfg(test)]
mod tests;
