//! A random life of a payload store on a simulated disk, and what must be found after it ends.
//!
//! Owns: the plain model: from which change of the disk on a payload must be there, until when, and what
//! may be there besides. The bytes of everything that was ever offered are known, so that whatever a
//! store gives back can be compared, confirmed or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use warren::disk::{Disk as _, OpenMode};
use warren::payload::store::{
    AdoptedFile, BegunPartial, FileStamp, Origin, PartialPayload, PieceOutcome, Presence, Upload,
};
use warren::payload::{
    AccessKey, Manifest, ManifestParts, PayloadId, PieceIndex, ScopeId, Store, StoreError,
    StoreSettings, StoredPayload,
};
use warren::testing::disk::{SeededNumbers, SimDisk};
use warren::testing::manifest::manifest_parts;

/// The store's folder on the simulated disk.
pub(crate) const STORE_DIR: &str = "/data/payloads";
/// Files of somebody else, served in place.
const OUTSIDE_DIR: &str = "/outside";
const SCOPES: [ScopeId; 2] = [ScopeId::new(0), ScopeId::new(7)];
/// Lengths of the payloads that are offered, in bytes; a piece has 16 KiB.
const SIZES: [usize; 8] = [0, 1, 700, 16_384, 16_385, 40_000, 5_000, 33_000];
/// Most bytes that the store may keep: less than all of them together.
const QUOTA_BYTES: u64 = 120_000;

/// A payload that may be offered.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
}

/// What every life knows: the payloads, by id.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) all: Vec<Known>,
}

impl Library {
    pub(crate) fn new() -> Arc<Self> {
        let known = |(index, len): (usize, &usize)| {
            let fill = |at: usize| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ index as u8;
            let bytes: Vec<u8> = (0..*len).map(fill).collect();
            let parts = ManifestParts {
                key: AccessKey::from_bytes([index as u8; 32]),
                ..manifest_parts(&bytes)
            };
            let manifest = Manifest::new(parts).expect("hashes that merge");
            Known { bytes, manifest }
        };
        Arc::new(Self {
            all: SIZES.iter().enumerate().map(known).collect(),
        })
    }

    /// Reads everything that a store holds: `false` if it says that some of it is damaged, an error if
    /// it gives wrong bytes.
    pub(crate) fn read_all_checked(&self, store: &Store, expected: usize) -> Result<bool, String> {
        let list = store.list();
        let mut is_whole = list.len() == expected;
        for info in list {
            let known = &self.all[index_of(self, info.id)?];
            match info.presence {
                Presence::Adopted => {}
                Presence::Complete => {
                    let mut bytes = vec![0; known.bytes.len()];
                    is_whole &= store.manifest(info.scope, info.id).is_ok();
                    match store.read_at(info.scope, info.id, &mut bytes, 0) {
                        Ok(()) if bytes != known.bytes => {
                            return Err(format!("payload {:.10} is given out changed", info.id));
                        }
                        Ok(()) => {}
                        Err(_) => is_whole = false,
                    }
                }
                Presence::Partial => is_whole &= check_partial(store, info.scope, known)?,
            }
        }
        Ok(is_whole)
    }
}

/// The disk that a life begins on: the outside files are there and safe.
pub(crate) fn new_disk(library: &Library) -> SimDisk {
    let disk = SimDisk::new();
    let dir = Path::new(OUTSIDE_DIR);
    disk.create_dir_all(dir).expect("an empty disk");
    disk.create_dir_all(Path::new("/data")).expect("empty");
    for (index, known) in library.all.iter().enumerate() {
        let path = dir.join(index.to_string());
        let file = disk.open(&path, OpenMode::CreateNew).expect("new");
        file.write_at(&known.bytes, 0).expect("room");
        file.sync_data().expect("no failure yet");
    }
    disk.sync_dir(dir).expect("no failure yet");
    disk
}

/// Opens the store; nothing is kept that nothing needs. With a quota, new payloads displace idle ones.
pub(crate) fn open_store(disk: &SimDisk, quota_bytes: Option<u64>) -> Result<Store, StoreError> {
    let settings = StoreSettings {
        retention: Duration::ZERO,
        quota_bytes,
        free_bytes_min: 0,
    };
    Store::open(Arc::new(disk.clone()), Path::new(STORE_DIR), settings)
}

/// A payload in a scope; `which` counts in the library.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Held {
    scope: ScopeId,
    which: usize,
}

/// What must be true of crashes after change `from`, and before change `until` began.
#[derive(Clone, Copy, Debug)]
struct Span<T> {
    what: T,
    from: usize,
    until: Option<usize>,
}

impl<T> Span<T> {
    fn holds_at(&self, at: usize) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// A stretch of a store's life, from an open to a crash.
pub(crate) struct StoreLife {
    library: Arc<Library>,
    disk: SimDisk,
    pub(crate) store: Store,
    stored: Vec<Span<Held>>,
    pinned: Vec<Span<Held>>,
    /// Pieces that must be held after the process was killed.
    pieces: Vec<Span<(Held, PieceIndex)>>,
    uploads: Vec<(Held, usize, Upload)>,
    partials: Vec<(Held, PartialPayload)>,
    references: Vec<StoredPayload>,
    now: Instant,
}

impl StoreLife {
    /// The scope of payloads that messages name.
    pub(crate) const MESSAGE_SCOPE: ScopeId = SCOPES[1];

    /// A life that goes on from what is found on `disk`, which records from now on.
    pub(crate) fn open(library: &Arc<Library>, disk: &SimDisk) -> Result<Self, String> {
        let store = open_store(disk, Some(QUOTA_BYTES))
            .map_err(|error| format!("the store is refused: {error}"))?;
        let from = disk.recorded_len();
        let (mut stored, mut pinned) = (Vec::new(), Vec::new());
        for info in store.list() {
            let which = index_of(library, info.id)?;
            let what = Held {
                scope: info.scope,
                which,
            };
            let span = Span {
                what,
                from,
                until: None,
            };
            if info.presence == Presence::Complete {
                stored.push(span);
            }
            if info.is_pinned {
                pinned.push(span);
            }
        }
        Ok(Self {
            library: Arc::clone(library),
            disk: disk.clone(),
            store,
            stored,
            pinned,
            pieces: Vec::new(),
            uploads: Vec::new(),
            partials: Vec::new(),
            references: Vec::new(),
            now: now(),
        })
    }

    fn here(&self) -> usize {
        self.disk.recorded_len()
    }

    fn known(&self, held: Held) -> &Known {
        &self.library.all[held.which]
    }

    fn id(&self, held: Held) -> PayloadId {
        self.known(held).manifest.id()
    }

    fn any(&self, random: &mut SeededNumbers) -> Held {
        Held {
            scope: SCOPES[pick(random, SCOPES.len())],
            which: pick(random, self.library.all.len()),
        }
    }

    /// Does one random thing. Refusals of a full or failing disk are answers like others; an error is a
    /// broken promise.
    pub(crate) fn step(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        let before = self.here();
        match random.below(24) {
            0..=4 => {
                let held = self.any(random);
                drop(self.upload(held)?);
            }
            5 | 6 => self.begin_upload(random),
            7..=9 => self.go_on_uploading(random)?,
            10 => {
                if !self.uploads.is_empty() {
                    let at = pick(random, self.uploads.len());
                    drop(self.uploads.swap_remove(at));
                }
            }
            11 | 12 => {
                if !self.references.is_empty() {
                    let at = pick(random, self.references.len());
                    drop(self.references.swap_remove(at));
                }
            }
            13 => self.begin_partial(random),
            14..=18 => self.write_piece(random)?,
            19 => self.end_partial(random)?,
            20 => self.pin(random),
            21 => self.adopt(random)?,
            _ => self.sweep(),
        }
        self.reconcile(before)
    }

    fn is_stored(&self, held: Held) -> bool {
        self.stored
            .iter()
            .any(|span| span.what == held && span.until.is_none())
    }

    fn stored_now(&mut self, held: Held) {
        let from = self.here();
        if !self.is_stored(held) {
            self.stored.push(Span {
                what: held,
                from,
                until: None,
            });
        }
        for span in &mut self.pieces {
            if span.what.0 == held && span.until.is_none() {
                // Held by the complete payload from now on.
                span.until = Some(from);
            }
        }
    }

    /// Stores a payload in one go, as a broker does with a large body, and gives the reference.
    pub(crate) fn upload_any(
        &mut self,
        random: &mut SeededNumbers,
    ) -> Result<Option<StoredPayload>, String> {
        let before = self.here();
        let held = Held {
            scope: Self::MESSAGE_SCOPE,
            which: pick(random, self.library.all.len()),
        };
        let stored = self.upload(held)?;
        if stored.is_some() {
            self.references.pop();
        }
        self.reconcile(before)?;
        Ok(stored)
    }

    /// None if the store refuses it.
    fn upload(&mut self, held: Held) -> Result<Option<StoredPayload>, String> {
        let known = self.known(held);
        let key = known.manifest.key().clone();
        let size_bytes = known.bytes.len() as u64;
        let before = self.here();
        let begun = self.store.begin_upload(held.scope, size_bytes, key);
        // Room may have been made at the cost of the very payload that is stored again.
        self.reconcile(before)?;
        let store = || -> Result<StoredPayload, StoreError> {
            let mut upload = begun?;
            upload.write(&self.known(held).bytes)?;
            upload.finish()
        };
        let Ok(stored) = store() else {
            return Ok(None);
        };
        self.references.push(stored.clone());
        self.stored_now(held);
        Ok(Some(stored))
    }

    /// Gives up everything that is held or under way.
    pub(crate) fn drop_references(&mut self) {
        self.references.clear();
        self.uploads.clear();
        self.partials.clear();
    }

    fn begin_upload(&mut self, random: &mut SeededNumbers) {
        let held = self.any(random);
        let size_bytes = self.known(held).bytes.len() as u64;
        let key = AccessKey::from_bytes([9; 32]);
        if self.uploads.len() < 3
            && let Ok(upload) = self.store.begin_upload(held.scope, size_bytes, key)
        {
            self.uploads.push((held, 0, upload));
        }
    }

    fn go_on_uploading(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let at = pick(random, self.uploads.len());
        let (held, done, mut upload) = self.uploads.swap_remove(at);
        let bytes = &self.library.all[held.which].bytes;
        if done < bytes.len() {
            let end = (done + 9_000).min(bytes.len());
            if upload.write(&bytes[done..end]).is_ok() {
                self.uploads.push((held, end, upload));
            }
            return Ok(());
        }
        if let Ok(stored) = upload.finish() {
            if stored.id != self.id(held) {
                return Err(format!("an upload got another id: {}", stored.id));
            }
            self.references.push(stored);
            self.stored_now(held);
        }
        Ok(())
    }

    fn begin_partial(&mut self, random: &mut SeededNumbers) {
        let held = self.any(random);
        if self.partials.len() < 4 {
            let manifest = &self.library.all[held.which].manifest;
            match self.store.begin_partial(held.scope, manifest) {
                Ok(BegunPartial::Partial(partial)) => self.partials.push((held, partial)),
                Ok(BegunPartial::Complete(stored)) => self.references.push(stored),
                Err(_) => {}
            }
        }
    }

    fn write_piece(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        if self.partials.is_empty() {
            return Ok(());
        }
        let (held, partial) = &self.partials[pick(random, self.partials.len())];
        let held = *held;
        let known = &self.library.all[held.which];
        let geometry = known.manifest.geometry();
        if geometry.piece_count() == 0 {
            return Ok(());
        }
        let index = random.below(u64::from(geometry.piece_count()));
        let piece = u32::try_from(index)
            .ok()
            .and_then(|index| geometry.piece_index(index))
            .ok_or("a piece number below the count")?;
        let range = geometry.piece_range(piece);
        let range =
            usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
        let mut bytes = known.bytes[range].to_vec();
        let is_wrong = random.one_in(5);
        if is_wrong {
            let at = pick(random, bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        match partial.write_piece(piece, &bytes) {
            Ok(PieceOutcome::Stored) if is_wrong => {
                return Err(format!("a wrong piece {} was taken", piece.get()));
            }
            Ok(PieceOutcome::Stored) => {
                let from = self.here();
                self.pieces.push(Span {
                    what: (held, piece),
                    from,
                    until: None,
                });
            }
            Ok(PieceOutcome::Mismatch) if !is_wrong => {
                return Err(format!("a right piece {} was refused", piece.get()));
            }
            Ok(PieceOutcome::Mismatch | PieceOutcome::AlreadyHeld | PieceOutcome::NotKept)
            | Err(_) => {}
        }
        Ok(())
    }

    fn end_partial(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        if self.partials.is_empty() {
            return Ok(());
        }
        let at = pick(random, self.partials.len());
        let (held, partial) = self.partials[at].clone();
        match random.below(4) {
            0 => drop(self.partials.swap_remove(at)),
            1 => {
                if partial.sync().is_err() {
                    // What a failed sync may have dropped is not held any more.
                    self.end_pieces(held, self.here());
                }
            }
            _ => {
                let was_whole = partial.is_complete();
                match partial.complete() {
                    Ok(_) if !was_whole && !self.is_stored(held) => {
                        return Err("a payload with a missing piece became complete".to_owned());
                    }
                    Ok(stored) => {
                        self.references.push(stored);
                        self.stored_now(held);
                        self.partials.swap_remove(at);
                    }
                    Err(_) if was_whole => self.end_pieces(held, self.here()),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn end_pieces(&mut self, held: Held, at: usize) {
        for span in &mut self.pieces {
            if span.what.0 == held && span.until.is_none() {
                span.until = Some(at.max(1) - 1);
            }
        }
    }

    fn pin(&mut self, random: &mut SeededNumbers) {
        let held = self.any(random);
        let id = self.id(held);
        let before = self.here();
        if random.one_in(2) {
            if self.store.pin(held.scope, id).is_ok() {
                let from = self.here();
                self.pinned.push(Span {
                    what: held,
                    from,
                    until: None,
                });
            }
        } else if self.store.unpin(held.scope, id).is_ok() || self.here() > before {
            for span in &mut self.pinned {
                if span.what == held && span.until.is_none() {
                    span.until = Some(before);
                }
            }
        }
    }

    fn adopt(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        let held = self.any(random);
        if random.one_in(2) {
            self.store.forget_adopted(held.scope, self.id(held));
            return Ok(());
        }
        let path = PathBuf::from(OUTSIDE_DIR).join(held.which.to_string());
        let stamp = FileStamp {
            len_bytes: self.known(held).bytes.len() as u64,
            modified: Duration::ZERO,
        };
        let origin = Origin {
            key: AccessKey::from_bytes([3; 32]),
            peers: Vec::new(),
            name: None,
            content_type: None,
        };
        let adopted = AdoptedFile::hash(&self.disk, &path, stamp, origin, |_| ())
            .map_err(|error| format!("a file of somebody else is gone: {error}"))?;
        self.store.adopt(held.scope, Arc::new(adopted));
        Ok(())
    }

    /// Removes what nothing needs.
    pub(crate) fn sweep(&mut self) {
        self.now += Duration::from_secs(1);
        self.store.sweep(self.now);
    }

    /// As a step of its own.
    pub(crate) fn sweep_and_reconcile(&mut self) -> Result<(), String> {
        let before = self.here();
        self.sweep();
        self.reconcile(before)
    }

    /// What went away since change `before` had to be free to go.
    pub(crate) fn reconcile(&mut self, before: usize) -> Result<(), String> {
        let list: BTreeMap<_, _> = self
            .store
            .list()
            .into_iter()
            .map(|info| ((info.scope, info.id), info))
            .collect();
        let library = Arc::clone(&self.library);
        let info = |held: Held| list.get(&(held.scope, library.all[held.which].manifest.id()));
        for span in &mut self.stored {
            let is_there = info(span.what).is_some_and(|info| info.presence == Presence::Complete);
            if span.until.is_none() && !is_there {
                span.until = Some(before);
                let id = library.all[span.what.which].manifest.id();
                let mut references = self.references.iter();
                if references
                    .any(|stored| stored.id == id && stored.reference.scope() == span.what.scope)
                {
                    return Err(format!("payload {id:.10} went away with a reference to it"));
                }
            }
        }
        let stored = &self.stored;
        for span in &mut self.pinned {
            let is_there = stored
                .iter()
                .any(|other| other.what == span.what && other.until.is_none());
            if span.until.is_none() && !is_there {
                return Err("a pinned payload went away".to_owned());
            }
        }
        for span in &mut self.pieces {
            let is_there = info(span.what.0).is_some_and(|info| info.presence == Presence::Partial);
            if span.until.is_none() && !is_there {
                span.until = Some(before);
            }
        }
        Ok(())
    }

    /// Opens what a crash after `at` changes left, and compares it with what must and may be there.
    pub(crate) fn check(&self, disk: &SimDisk, at: usize, crash: Crash) -> Result<Store, String> {
        let store =
            open_store(disk, None).map_err(|error| format!("the store is refused: {error}"))?;
        self.check_open(&store, at, crash)?;
        Ok(store)
    }

    fn check_open(&self, store: &Store, at: usize, crash: Crash) -> Result<(), String> {
        check_contents(&self.library, store)?;
        for span in self.stored.iter().filter(|span| span.holds_at(at)) {
            let (scope, id) = (span.what.scope, self.id(span.what));
            store
                .find(scope, id)
                .map_err(|error| format!("it was told to be stored: {error}"))?;
        }
        for span in self.pinned.iter().filter(|span| span.holds_at(at)) {
            let id = self.id(span.what);
            if !store
                .info(span.what.scope, id)
                .is_some_and(|info| info.is_pinned)
            {
                return Err(format!("payload {id:.10} lost its pin"));
            }
        }
        if crash == Crash::Kill {
            for span in self.pieces.iter().filter(|span| span.holds_at(at)) {
                let (held, piece) = span.what;
                let id = self.id(held);
                if !is_piece_held(store, held.scope, self.known(held), piece)? {
                    return Err(format!(
                        "piece {} of {id:.10} was lost by a kill",
                        piece.get()
                    ));
                }
            }
        }
        Ok(())
    }
}

/// How a life ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crash {
    /// The process was killed; the machine went on.
    Kill,
    /// The power failed.
    Power,
}

fn index_of(library: &Library, id: PayloadId) -> Result<usize, String> {
    let same = |known: &Known| known.manifest.id() == id;
    let at = library.all.iter().position(same);
    at.ok_or_else(|| format!("payload {id} was never offered"))
}

fn is_piece_held(
    store: &Store,
    scope: ScopeId,
    known: &Known,
    piece: PieceIndex,
) -> Result<bool, String> {
    match store.begin_partial(scope, &known.manifest) {
        Ok(BegunPartial::Complete(_)) => Ok(true),
        Ok(BegunPartial::Partial(partial)) => Ok(partial.held().has(piece)),
        Err(error) => Err(format!("a partial payload cannot be opened: {error}")),
    }
}

/// Everything that the store says it holds is what was offered, to the last byte.
pub(crate) fn check_contents(library: &Library, store: &Store) -> Result<(), String> {
    for info in store.list() {
        let known = &library.all[index_of(library, info.id)?];
        match info.presence {
            Presence::Adopted => return Err("an adopted file survived its process".to_owned()),
            Presence::Complete => {
                let whole = || -> Result<Vec<u8>, StoreError> {
                    let mut bytes = vec![0; known.bytes.len()];
                    store.read_at(info.scope, info.id, &mut bytes, 0)?;
                    store.manifest(info.scope, info.id)?;
                    Ok(bytes)
                };
                let bytes = whole().map_err(|error| format!("listed, but: {error}"))?;
                if bytes != known.bytes {
                    return Err(format!("payload {:.10} has other bytes", info.id));
                }
            }
            Presence::Partial if !check_partial(store, info.scope, known)? => {
                return Err("a held piece is damaged by nothing but a crash".to_owned());
            }
            Presence::Partial => {}
        }
    }
    Ok(())
}

/// Held pieces are right; `false` if the store finds some of them damaged.
fn check_partial(store: &Store, scope: ScopeId, known: &Known) -> Result<bool, String> {
    let mut is_whole = true;
    let begun = store
        .begin_partial(scope, &known.manifest)
        .map_err(|error| format!("a partial payload cannot be opened: {error}"))?;
    let BegunPartial::Partial(partial) = begun else {
        return Err("a payload is partial and complete".to_owned());
    };
    let geometry = known.manifest.geometry();
    for piece in partial.held().held(geometry) {
        let range = geometry.piece_range(piece);
        let mut bytes = vec![0; geometry.piece_len_bytes(piece) as usize];
        match partial.read_at(&mut bytes, range.start) {
            Ok(()) => {}
            // It was damaged on the disk, which the store has noticed.
            Err(StoreError::MissingPiece { .. }) if !partial.held().has(piece) => {
                is_whole = false;
                continue;
            }
            Err(error) => return Err(format!("a held piece cannot be read: {error}")),
        }
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        if known.bytes.get(start..start + bytes.len()) != Some(&bytes) {
            return Err(format!("piece {} is held and wrong", piece.get()));
        }
    }
    Ok(is_whole)
}

/// After a sweep the folder holds the files of what `store` lists, and nothing else.
pub(crate) fn check_no_litter(disk: &SimDisk, store: &Store) -> Result<(), String> {
    store.sweep(now());
    let expected: usize = store
        .list()
        .iter()
        .map(|info| match info.presence {
            Presence::Adopted => 0,
            Presence::Complete => 2 + usize::from(info.is_pinned),
            Presence::Partial => 3,
        })
        .sum();
    let files = disk.files();
    let files = files.iter().filter(|(path, _)| path.starts_with(STORE_DIR));
    let files: Vec<_> = files.map(|(path, _)| path.display().to_string()).collect();
    if files.len() != expected {
        return Err(format!("{expected} files are needed, there are {files:?}"));
    }
    Ok(())
}

pub(crate) fn pick(random: &mut SeededNumbers, len: usize) -> usize {
    usize::try_from(random.below(len.max(1) as u64)).unwrap_or(0)
}

fn now() -> Instant {
    Instant::now()
}
