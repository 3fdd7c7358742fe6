//! The payload store: payloads as files named by content, and who still needs them.
//!
//! Owns: a folder, the files in it, and the counts of references to them. Thread-safe; calls that
//! touch files block, so a server makes them on its own pool. The one lock here covers memory alone:
//! a payload whose files are being changed is marked *busy* for that time, and whoever wants to
//! change it too waits for the mark to go.
//! Bound: 200 bytes of memory for each payload; an upload needs one buffer (`writer`).
//! Spec: `spec/payload-store.md` STORE-1 to STORE-18, MEMBODY-5, MEMBODY-6.

mod adopted;
mod body_file;
mod checked;
mod early;
mod error;
mod meta;
mod open;
mod partial;
mod paths;
mod reader;
mod reserve;
mod sweep;
mod upload;

use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::config::PayloadSettings;
use crate::disk::Disk;
use crate::payload::geometry::Geometry;
use crate::payload::id::{AccessKey, PayloadId, ScopeId};
use crate::payload::manifest::Manifest;
use crate::sabotage::{self, Sabotage};

pub use adopted::{AdoptedFile, FileStamp, Origin};
pub use body_file::{BODY_FILE_COUNT_MAX, BodyFile, NewBodyFile};
pub use early::EarlyPayload;
pub use error::StoreError;
pub use partial::{BegunPartial, PartialPayload, PieceOutcome};
pub use reader::PayloadReader;
pub use sweep::SweepReport;
pub use upload::{Upload, UploadReader};

use checked::CheckedFile;
use partial::PartialShared;
use paths::{Key, META_ENDING, Paths, beside};

/// Space on the store's disk that payloads leave free by default, in bytes (RELIABILITY section 3).
pub const FREE_BYTES_MIN_DEFAULT: u64 = 512 * 1024 * 1024;

/// How much the store may keep, and how long.
#[derive(Clone, Copy, Debug)]
pub struct StoreSettings {
    /// How long a payload that nothing needs is kept.
    pub retention: Duration,
    /// Most bytes of payloads, complete, partial and being uploaded; `None` leaves it to the disk.
    pub quota_bytes: Option<u64>,
    /// Bytes of the disk that payloads leave free.
    pub free_bytes_min: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self::from(&PayloadSettings::default())
    }
}

impl From<&PayloadSettings> for StoreSettings {
    fn from(settings: &PayloadSettings) -> Self {
        Self {
            retention: settings.retention,
            quota_bytes: settings.quota_bytes,
            free_bytes_min: FREE_BYTES_MIN_DEFAULT,
        }
    }
}

/// A content-addressed store in one folder. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// One reference to a payload: while it lives, the payload is not removed. Spec: STORE-14.
pub struct PayloadReference {
    inner: Arc<Inner>,
    key: Key,
}

/// A payload that is whole and on disk, with a reference that keeps it there.
#[derive(Clone, Debug)]
pub struct StoredPayload {
    /// Its name.
    pub id: PayloadId,
    /// Its size and the size of its pieces.
    pub geometry: Geometry,
    /// Keeps it in the store until dropped.
    pub reference: PayloadReference,
}

/// One line of [`Store::list`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PayloadInfo {
    /// Where it belongs.
    pub scope: ScopeId,
    /// Its name.
    pub id: PayloadId,
    /// Its size and the size of its pieces.
    pub geometry: Geometry,
    /// How much of it is there.
    pub presence: Presence,
    /// How many messages, transfers and readers need it.
    pub reference_count: u32,
    /// Whether it is kept without being needed.
    pub is_pinned: bool,
    /// When a sweep first found that nothing needs it; it goes when the retention time is over.
    pub idle_since: Option<Instant>,
}

/// How much of a payload is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// Served in place from a file of somebody else.
    Adopted,
    /// All of it, in a file of the store.
    Complete,
    /// Some pieces of it.
    Partial,
}

/// What the store holds, in numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Payloads, complete and partial.
    pub payload_count: u64,
    /// Their bytes; partial ones count in full.
    pub stored_bytes: u64,
    /// Bytes promised to running uploads, and those of bodies in files that are no payloads.
    pub reserved_bytes: u64,
    /// Bytes of payloads that nothing needs and that the quota may take.
    pub idle_bytes: u64,
}

pub(super) struct Inner {
    disk: Arc<dyn Disk>,
    paths: Paths,
    settings: StoreSettings,
    state: Mutex<State>,
    /// Told when a payload is not busy any more.
    settled: Condvar,
    removal_gate: OnceLock<RemovalGate>,
}

/// Says whether the releases of references made so far are durable; may wait for it, not for long.
pub type RemovalGate = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Counts for payloads that are there or not; never 0.
    reference_counts: HashMap<Key, u32>,
    /// Payloads whose files are being changed.
    busy: HashSet<Key>,
    /// Payload files that were found without metadata: what a removal or a creation left when it was
    /// cut off, unless something still refers to them.
    strays: HashSet<Key>,
    /// Folders that exist durably.
    folders: HashSet<std::path::PathBuf>,
    /// How often a file of a partial payload was removed, by this process.
    partial_removal_count: u64,
    /// That count when the scope's folder of partial payloads was last synced.
    partials_synced_at: HashMap<ScopeId, u64>,
    /// Bytes of all entries but the adopted.
    stored_bytes: u64,
    /// Bytes promised to running uploads and bodies in files, and not given back.
    reserved_bytes: u64,
    /// Part of `reserved_bytes` that the disk does not hold yet.
    unwritten_bytes: u64,
    /// Bodies in files that are no payloads.
    body_file_count: usize,
    upload_count: u64,
}

struct Entry {
    geometry: Geometry,
    key: AccessKey,
    is_pinned: bool,
    /// When a sweep first found that nothing needs it.
    idle_since: Option<Instant>,
    content: Content,
}

enum Content {
    Adopted(Arc<AdoptedFile>),
    /// With the file while a reader has it open, so that all share it.
    Complete {
        open: Option<Weak<CheckedFile>>,
        /// The file's modification time when this process had written or hashed all of its bytes.
        checked_at: Option<Duration>,
    },
    /// With its state while somebody fetches it.
    Partial {
        open: Option<Weak<PartialShared>>,
    },
}

/// Marks a payload as busy until dropped.
struct Busy<'a> {
    inner: &'a Inner,
    key: Key,
}

impl Store {
    /// Opens the store in `dir`, creating it if missing; removes what uploads left behind.
    ///
    /// Reads the head of each payload's metadata, so it takes a while with many payloads. Nothing has
    /// a reference at first; take them anew before the first [`Store::sweep`]. Spec: STORE-3, STORE-4.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: StoreSettings,
    ) -> Result<Self, StoreError> {
        let paths = Paths::new(dir);
        let state = open::load(&*disk, &paths)?;
        let state = Mutex::new(state);
        let settled = Condvar::new();
        Ok(Self {
            inner: Arc::new(Inner {
                disk,
                paths,
                settings,
                state,
                settled,
                removal_gate: OnceLock::new(),
            }),
        })
    }

    /// Sets who is asked before files of a complete payload are removed; a second call changes nothing.
    ///
    /// References are counted in memory; what they stood for (a message that was acknowledged) may come
    /// back after a crash if its end is not durable yet, and then needs the payload. Spec: STORE-19.
    pub fn set_removal_gate(&self, gate: RemovalGate) {
        let _ = self.inner.removal_gate.set(gate);
    }

    /// Begins to store a payload of `size_bytes`, whose id is known when all bytes came.
    ///
    /// `key` must come from a secure random source; it is kept with the payload unless that is stored
    /// already. Fails if there is no room. Spec: STORE-6.
    pub fn begin_upload(
        &self,
        scope: ScopeId,
        size_bytes: u64,
        key: AccessKey,
    ) -> Result<Upload, StoreError> {
        Upload::begin(&self.inner, scope, size_bytes, key)
    }

    /// Begins to write a body that need not be a payload; none if there are as many of them as there may be.
    ///
    /// # Errors
    /// As of an upload: if there is no room, or no file. Spec: MEMBODY-5.
    pub fn begin_body_file(
        &self,
        scope: ScopeId,
        size_bytes: u64,
    ) -> Result<Option<NewBodyFile>, StoreError> {
        NewBodyFile::begin(&self.inner, scope, size_bytes)
    }

    /// Begins or goes on to collect the pieces of the manifest's payload.
    ///
    /// Pieces that were verified before a crash are held again. Spec: STORE-9, STORE-11.
    pub fn begin_partial(
        &self,
        scope: ScopeId,
        manifest: &Manifest,
    ) -> Result<BegunPartial, StoreError> {
        partial::begin(&self.inner, scope, manifest)
    }

    /// Serves a file where it lies; see [`AdoptedFile::hash`]. Forgotten by [`Store::forget_adopted`].
    pub fn adopt(&self, scope: ScopeId, file: Arc<AdoptedFile>) {
        let key = Key {
            scope,
            id: file.manifest().id(),
        };
        let entry = Entry {
            geometry: *file.manifest().geometry(),
            key: file.manifest().key().clone(),
            is_pinned: false,
            idle_since: None,
            content: Content::Adopted(file),
        };
        let _busy = self.inner.busy(key);
        // A copy of our own is better than somebody's file, which may change.
        self.inner.state.lock().entries.entry(key).or_insert(entry);
    }

    /// Stops serving an adopted file; answers whether it was served.
    pub fn forget_adopted(&self, scope: ScopeId, id: PayloadId) -> bool {
        let mut state = self.inner.state.lock();
        match state.entries.entry(Key { scope, id }) {
            hash_map::Entry::Occupied(entry) => {
                let is_adopted = matches!(entry.get().content, Content::Adopted(_));
                if is_adopted {
                    entry.remove();
                }
                is_adopted
            }
            hash_map::Entry::Vacant(_) => false,
        }
    }

    /// A payload that is whole, with a reference to it.
    pub fn find(&self, scope: ScopeId, id: PayloadId) -> Result<StoredPayload, StoreError> {
        self.inner.find(Key { scope, id })
    }

    /// A reader of a payload that is complete, adopted, or being fetched. Spec: STORE-12.
    pub fn open_reader(&self, scope: ScopeId, id: PayloadId) -> Result<PayloadReader, StoreError> {
        PayloadReader::open(&self.inner, Key { scope, id })
    }

    /// Fills `buffer` from `offset_bytes` of a payload. For more than one read, open a reader.
    pub fn read_at(
        &self,
        scope: ScopeId,
        id: PayloadId,
        buffer: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(), StoreError> {
        self.open_reader(scope, id)?.read_at(buffer, offset_bytes)
    }

    /// The manifest of a payload, without peers; reads its metadata. Spec: STORE-5.
    pub fn manifest(&self, scope: ScopeId, id: PayloadId) -> Result<Manifest, StoreError> {
        let key = Key { scope, id };
        let _reference = PayloadReference::take(&self.inner, key);
        let path = match self
            .inner
            .state
            .lock()
            .entries
            .get(&key)
            .map(|entry| &entry.content)
        {
            None => return Err(StoreError::NotFound { scope, id }),
            Some(Content::Adopted(file)) => return Ok(file.manifest().clone()),
            Some(Content::Complete { .. }) => self.inner.paths.complete(key),
            Some(Content::Partial { .. }) => self.inner.paths.partial(key),
        };
        meta::read_manifest(&*self.inner.disk, &beside(&path, META_ENDING), id)
    }

    /// What a peer must prove to know before it is served this payload; in memory.
    pub fn access_key(&self, scope: ScopeId, id: PayloadId) -> Option<AccessKey> {
        let state = self.inner.state.lock();
        state
            .entries
            .get(&Key { scope, id })
            .map(|entry| entry.key.clone())
    }

    /// The scopes in which a payload of this id is there, whole or in part; in memory.
    pub fn scopes_of(&self, id: PayloadId) -> Vec<ScopeId> {
        let state = self.inner.state.lock();
        let mut scopes: Vec<ScopeId> = state
            .entries
            .keys()
            .filter(|key| key.id == id)
            .map(|key| key.scope)
            .collect();
        scopes.sort_unstable();
        scopes
    }

    /// Counts one more reference, whether or not the payload is there yet. In memory, never blocks.
    ///
    /// For owners that cannot hold a [`PayloadReference`]; each call needs one [`Store::release`].
    pub fn acquire(&self, scope: ScopeId, id: PayloadId) {
        self.inner.acquire(Key { scope, id });
    }

    /// Counts one reference fewer. In memory, never blocks.
    pub fn release(&self, scope: ScopeId, id: PayloadId) {
        self.inner.release(Key { scope, id });
    }

    /// Lets the system's cache forget a complete payload: nobody is known to read it soon. Blocks.
    ///
    /// # Errors
    /// If the file cannot be opened, or its file system cannot forget.
    pub fn forget_cached(&self, scope: ScopeId, id: PayloadId) -> Result<(), StoreError> {
        let key = Key { scope, id };
        let _reference = PayloadReference::take(&self.inner, key);
        let path = self.inner.paths.complete(key);
        let file = (self.inner.disk)
            .open(&path, crate::disk::OpenMode::Read)
            .map_err(|source| StoreError::io("open", &path, source))?;
        file.os_file().map_or(Ok(()), |file| {
            crate::disk::forget_cached(file)
                .map_err(|source| StoreError::io("uncache", &path, source))
        })
    }

    /// Removes a complete payload that was found damaged, whoever refers to it; answers whether it was
    /// there. Who needs it fetches it again. Spec: STORE-22.
    pub fn discard(&self, scope: ScopeId, id: PayloadId) -> Result<bool, StoreError> {
        self.inner.discard(Key { scope, id })
    }

    /// Keeps a complete payload until [`Store::unpin`], over restarts too. Spec: STORE-15.
    pub fn pin(&self, scope: ScopeId, id: PayloadId) -> Result<(), StoreError> {
        self.inner.pin(Key { scope, id })
    }

    /// Takes the pin away, if there is one.
    pub fn unpin(&self, scope: ScopeId, id: PayloadId) -> Result<(), StoreError> {
        self.inner.unpin(Key { scope, id })
    }

    /// How long a payload that nothing needs is kept.
    pub fn retention(&self) -> Duration {
        self.inner.settings.retention
    }

    /// Removes what nothing has needed for the retention time. Call it now and then. Spec: STORE-14.
    pub fn sweep(&self, now: Instant) -> SweepReport {
        self.inner.sweep(now)
    }

    /// What the store holds, in numbers.
    pub fn usage(&self) -> Usage {
        let state = self.inner.state.lock();
        let mut usage = Usage {
            stored_bytes: state.stored_bytes,
            reserved_bytes: state.reserved_bytes,
            ..Usage::default()
        };
        for (key, entry) in &state.entries {
            if matches!(entry.content, Content::Adopted(_)) {
                continue;
            }
            usage.payload_count += 1;
            if state.is_idle(*key, entry) {
                usage.idle_bytes += entry.geometry.size_bytes();
            }
        }
        usage
    }

    /// Every payload, by scope and id.
    pub fn list(&self) -> Vec<PayloadInfo> {
        let state = self.inner.state.lock();
        let mut list: Vec<PayloadInfo> = state
            .entries
            .iter()
            .map(|(key, entry)| info(&state, *key, entry))
            .collect();
        drop(state);
        list.sort_unstable_by_key(|info| (info.scope, info.id));
        list
    }

    /// One payload's line of [`Store::list`], if it is there.
    pub fn info(&self, scope: ScopeId, id: PayloadId) -> Option<PayloadInfo> {
        let state = self.inner.state.lock();
        let key = Key { scope, id };
        state
            .entries
            .get(&key)
            .map(|entry| info(&state, key, entry))
    }
}

fn info(state: &State, key: Key, entry: &Entry) -> PayloadInfo {
    let presence = match entry.content {
        Content::Adopted(_) => Presence::Adopted,
        Content::Complete { .. } => Presence::Complete,
        Content::Partial { .. } => Presence::Partial,
    };
    PayloadInfo {
        scope: key.scope,
        id: key.id,
        geometry: entry.geometry,
        presence,
        reference_count: state.reference_counts.get(&key).copied().unwrap_or(0),
        is_pinned: entry.is_pinned,
        idle_since: entry.idle_since,
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("dir", &self.inner.paths.root())
            .finish()
    }
}

impl Inner {
    fn acquire(&self, key: Key) {
        // req: STORE-15
        let mut state = self.state.lock();
        *state.reference_counts.entry(key).or_insert(0) += 1;
        // req: STORE-14
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.idle_since = None;
        }
    }

    fn release(&self, key: Key) {
        let mut state = self.state.lock();
        if let hash_map::Entry::Occupied(mut count) = state.reference_counts.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        } else {
            debug_assert!(false, "a reference is released once");
        }
    }

    /// The payload if it is whole, with a reference.
    fn find(self: &Arc<Self>, key: Key) -> Result<StoredPayload, StoreError> {
        // Taken first: what has a reference is not removed between the two locks.
        let reference = PayloadReference::take(self, key);
        match self.state.lock().entries.get(&key) {
            Some(Entry {
                content: Content::Adopted(_) | Content::Complete { .. },
                geometry,
                ..
            }) => Ok(StoredPayload {
                id: key.id,
                geometry: *geometry,
                reference,
            }),
            Some(Entry {
                content: Content::Partial { .. },
                ..
            })
            | None => Err(StoreError::NotFound {
                scope: key.scope,
                id: key.id,
            }),
        }
    }

    /// Waits until nobody changes the payload's files, then marks them as being changed.
    fn busy(&self, key: Key) -> Busy<'_> {
        let mut state = self.state.lock();
        while !state.busy.insert(key) {
            self.settled.wait(&mut state);
        }
        Busy { inner: self, key }
    }

    /// Makes sure that a folder below the store's exists and will exist after a crash.
    fn ensure_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if self.state.lock().folders.contains(folder) {
            return Ok(());
        }
        let root = self.paths.root();
        self.disk
            .create_dir_all(folder)
            .map_err(|source| StoreError::io("create", folder, source))?;
        let above = folder
            .ancestors()
            .skip(1)
            .take_while(|above| above.starts_with(root));
        for above in above {
            self.disk
                .sync_dir(above)
                .map_err(|source| StoreError::io("sync", above, source))?;
        }
        self.state.lock().folders.insert(folder.to_owned());
        Ok(())
    }

    /// A number that no other upload has.
    fn next_upload(&self) -> u64 {
        let mut state = self.state.lock();
        state.upload_count += 1;
        state.upload_count
    }

    /// Moves a synced file to its final place, metadata first. The payload is busy.
    fn commit(&self, key: Key, manifest: &Manifest, from: &Path) -> Result<(), StoreError> {
        // req: STORE-1
        let folder = self.paths.complete_folder(key);
        let upload_folder = self.paths.upload_folder(key.scope);
        self.ensure_folder(&folder)?;
        self.ensure_folder(&upload_folder)?;
        let upload = self.paths.upload(key.scope, self.next_upload());
        let new_meta = beside(&upload, META_ENDING);
        let (to, to_meta) = (
            self.paths.complete(key),
            beside(&self.paths.complete(key), META_ENDING),
        );
        let outcome = write_new(&*self.disk, &new_meta, &meta::encode(manifest))
            .and_then(|()| self.rename(&new_meta, &to_meta))
            .and_then(|()| self.rename(from, &to))
            .and_then(|()| {
                if sabotage::is(Sabotage::PayloadSkipDirSync) {
                    return Ok(());
                }
                self.disk
                    .sync_dir(&folder)
                    .map_err(|source| StoreError::io("sync", &folder, source))
            });
        if outcome.is_err() {
            // Best effort: what stays is removed or reported at the next start.
            let _ = self.disk.remove(&to);
            let _ = self.disk.remove(&to_meta);
            let _ = self.disk.remove(&new_meta);
        }
        outcome
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.disk
            .rename(from, to)
            .map_err(|source| StoreError::io("rename", from, source))
    }
}

impl State {
    /// Whether nothing needs the payload, so that it may be removed for its age or for room.
    fn is_idle(&self, key: Key, entry: &Entry) -> bool {
        let is_ours = !matches!(entry.content, Content::Adopted(_));
        is_ours
            && !entry.is_pinned
            && !self.reference_counts.contains_key(&key)
            && !self.busy.contains(&key)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.inner.state.lock().busy.remove(&self.key);
        self.inner.settled.notify_all();
    }
}

impl PayloadReference {
    fn take(inner: &Arc<Inner>, key: Key) -> Self {
        inner.acquire(key);
        Self {
            inner: Arc::clone(inner),
            key,
        }
    }

    /// Which payload it keeps.
    pub fn id(&self) -> PayloadId {
        self.key.id
    }

    /// In which scope.
    pub fn scope(&self) -> ScopeId {
        self.key.scope
    }
}

impl Clone for PayloadReference {
    fn clone(&self) -> Self {
        Self::take(&self.inner, self.key)
    }
}

impl Drop for PayloadReference {
    fn drop(&mut self) {
        self.inner.release(self.key);
    }
}

impl fmt::Debug for PayloadReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "PayloadReference({} {:.10})",
            self.key.scope, self.key.id
        )
    }
}

/// Creates a file with these bytes and syncs it.
fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file = disk
        .open(path, crate::disk::OpenMode::CreateNew)
        .map_err(|source| StoreError::io("create", path, source))?;
    file.write_at(bytes, 0)
        .map_err(|source| StoreError::io("write", path, source))?;
    file.sync_data()
        .map_err(|source| StoreError::io("sync", path, source))
}

#[cfg(test)]
mod tests;
