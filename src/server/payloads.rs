//! Large bodies between connections, the payload store and the swarm.
//!
//! Owns: the broker's store, its part in the swarm, and the tasks that write uploads. Files are
//! touched on the blocking pool only.
//! Bounds: [`UPLOAD_PARTS_MAX`] frames and [`WRITE_BYTES`] wait for the disk per upload, so that a slow
//! disk stops the reading of its socket and memory stays flat whatever the size of a body.
//! Spec: DESIGN "Large payloads"; `spec/payload-store.md`.

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::broker::{BodyOctets, Broker, PayloadBody, PayloadReferences};
use crate::config::{PayloadSettings, ServerSettings};
use crate::disk::{Disk, DiskFile};
use crate::payload::store::{BodyFile, PayloadReader, PayloadReference, Presence, Upload};
use crate::payload::{AccessKey, Manifest, PayloadId, ScopeId, Store, StoreError, StoreSettings};
use crate::session::{ManifestPart, PayloadPart, UploadId, UploadKind, UploadResult};

use super::early::{Announcement, Audience};
use super::peer::{SwarmHandle, SwarmTransfer};
use super::space::Space;

/// Parts of one upload that may wait for its task.
pub(super) const UPLOAD_PARTS_MAX: usize = 8;
/// Bytes of an upload that are gathered for one visit to the disk.
const WRITE_BYTES: usize = 1024 * 1024;
/// Payloads that wait to be forgotten by the system's cache.
const QUIET_COUNT_MAX: usize = 1_024;
/// How often payloads that nothing needs are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How long a payload that was given out before its manifest is served in that swarm at least.
const EARLY_SERVE_TIME: Duration = Duration::from_secs(20);
/// And at most: a peer that stays keeps neither an open file nor the space of a payload that is gone.
const EARLY_SERVE_TIME_MAX: Duration = Duration::from_secs(120);

/// The store counts the broker's references.
#[derive(Debug)]
pub(super) struct StoreReferences {
    pub(super) store: Store,
    pub(super) quiet: Arc<Quiet>,
}

impl PayloadReferences for StoreReferences {
    fn acquire(&self, scope: ScopeId, id: &PayloadId) {
        self.store.acquire(scope, *id);
    }

    fn acquire_known(&self, scope: ScopeId, id: &PayloadId) -> Option<u64> {
        // Referred to first, so that no sweep comes in between.
        self.store.acquire(scope, *id);
        let known = self
            .store
            .info(scope, *id)
            .filter(|info| match info.presence {
                Presence::Complete | Presence::Adopted => true,
                Presence::Partial => false,
            });
        if known.is_none() {
            self.store.release(scope, *id);
        }
        known.map(|info| info.geometry.size_bytes())
    }

    fn release(&self, scope: ScopeId, id: &PayloadId) {
        self.store.release(scope, *id);
        self.quiet.add(scope, *id);
    }

    // req: MEMBODY-3
    fn store(
        &self,
        scope: ScopeId,
        size_bytes: u64,
        octets: &BodyOctets,
    ) -> Result<PayloadId, String> {
        let key = access_key()?;
        let stored = || -> Result<PayloadId, StoreError> {
            let stored = match octets {
                BodyOctets::File(file) => file.store(key)?,
                BodyOctets::Memory(pieces) => {
                    let begin = || self.store.begin_upload(scope, size_bytes, key.clone());
                    let mut upload = self.quiet.with_room(begin)?;
                    for piece in pieces.iter() {
                        upload.write(piece)?;
                    }
                    upload.finish()?
                }
            };
            self.store.acquire(scope, stored.id);
            Ok(stored.id)
        };
        stored().map_err(|error| error.to_string())
    }

    // req: MEMBODY-5
    fn discard(&self, file: Arc<BodyFile>) {
        self.quiet.discard(file);
    }
}

/// What peers must prove to know of a new payload.
fn access_key() -> Result<AccessKey, String> {
    let mut key = [0; 32];
    match getrandom::fill(&mut key) {
        Ok(()) => Ok(AccessKey::from_bytes(key)),
        Err(error) => Err(format!("the system gives no random bytes: {error}")),
    }
}

/// What all connections share for large bodies.
#[derive(Debug)]
pub(super) struct Payloads {
    store: Store,
    swarm: SwarmHandle,
    retention: Duration,
    seeds: Mutex<HashMap<(ScopeId, PayloadId), Seed>>,
    broker: Arc<Broker>,
    /// Whether nodes are told of bodies that are being published.
    is_early: bool,
    /// What was given out before there was a manifest, and when the last byte of it had come.
    early: Mutex<Vec<(SwarmTransfer, Instant)>>,
    quiet: Arc<Quiet>,
}

/// A payload that this broker serves to peers.
#[derive(Debug)]
struct Seed {
    _transfer: SwarmTransfer,
    /// Whether somebody got the manifest, and so may fetch it.
    is_announced: bool,
    /// Since when nobody but the seed itself needs the payload.
    idle_since: Option<Instant>,
}

/// References that a seed holds to its own payload.
const SEED_REFERENCE_COUNT: u32 = 1;

/// A part of an upload, on its way to its task.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes of the body.
    Bytes(Bytes),
    /// The body is whole.
    End,
}

/// What became of a body that is whole, and the reference as of [`Uploaded`].
type Taken = (UploadResult, Option<PayloadReference>);

/// What became of an upload. The reference keeps the payload until the broker has taken its own.
#[derive(Debug)]
pub(super) struct Uploaded {
    pub(super) upload: UploadId,
    pub(super) result: UploadResult,
    pub(super) reference: Option<PayloadReference>,
}

/// A part of a body on its way out.
#[derive(Debug)]
pub(super) struct Streamed {
    /// For the parts behind it; none of a body that is no payload.
    pub(super) reader: Option<PayloadReader>,
    pub(super) octets: Octets,
}

/// Where the octets of a part are.
#[derive(Debug)]
pub(super) enum Octets {
    /// Read, as frames.
    Frames(BytesMut),
    /// In the system's cache, from where a socket takes them.
    File(Arc<dyn DiskFile>),
}

/// Large bodies that no message needs any more and that only messages could: it is for the system's cache to forget them, so
/// that a stream of large messages does not push out what is read again.
///
/// Bound: [`QUIET_COUNT_MAX`] payloads; what is beyond it leaves the cache when the system needs room. As many files as
/// there may be of bodies that are no payloads.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    payloads: Mutex<Vec<(ScopeId, PayloadId)>>,
    /// Bodies that are no payloads: with their files goes all of their cache, which takes its time.
    files: Mutex<Vec<Arc<BodyFile>>>,
    /// Held while such files are closed.
    closing: Mutex<()>,
    added: Notify,
}

impl Quiet {
    fn add(&self, scope: ScopeId, id: PayloadId) {
        let mut payloads = self.payloads.lock();
        if payloads.len() < QUIET_COUNT_MAX {
            payloads.push((scope, id));
            self.added.notify_one();
        }
    }

    fn discard(&self, file: Arc<BodyFile>) {
        self.files.lock().push(file);
        self.added.notify_one();
    }

    /// Removes the files of bodies that nobody needs; those that others are about to remove are gone then, too. Blocks.
    fn close_files(&self) {
        let _closing = self.closing.lock();
        let files = std::mem::take(&mut *self.files.lock());
        drop(files);
    }

    /// Takes room in the store, where bodies that nobody needs any more must not be in the way. Blocks.
    fn with_room<T>(&self, take: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match take() {
            Err(error) if error.is_for_space() => {
                self.close_files();
                take()
            }
            taken => taken,
        }
    }
}

/// Whether what was given out before its manifest is given out for longer, so long after its last byte came.
fn serves_on(whole_since: Duration, has_peers: impl FnOnce() -> bool) -> bool {
    whole_since < EARLY_SERVE_TIME || (whole_since < EARLY_SERVE_TIME_MAX && has_peers())
}

/// Opens the broker's payload store; reads the disk.
pub(super) fn open_store(
    disk: Arc<dyn Disk>,
    data_dir: &Path,
    settings: &ServerSettings,
) -> Result<Store, StoreError> {
    let settings = StoreSettings {
        free_bytes_min: Space::of(settings).free_bytes_min,
        ..StoreSettings::from(&settings.payload)
    };
    Store::open(disk, &data_dir.join("payloads"), settings)
}

impl Payloads {
    pub(super) fn new(
        store: Store,
        quiet: Arc<Quiet>,
        swarm: SwarmHandle,
        broker: Arc<Broker>,
        settings: &PayloadSettings,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            quiet,
            swarm,
            retention: settings.retention,
            seeds: Mutex::default(),
            broker,
            is_early: settings.is_early,
            early: Mutex::default(),
        })
    }

    /// The payload store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The part in swarms.
    pub(super) fn swarm(&self) -> &SwarmHandle {
        &self.swarm
    }

    /// Where peers connect.
    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        self.swarm.local_addr()
    }

    /// Serves again what was there at the start, and looks after idle payloads until the server stops.
    pub(super) async fn look_after(self: Arc<Self>, stopping: tokio_util::sync::CancellationToken) {
        for info in self.store.list() {
            if info.presence == Presence::Complete {
                self.seed(info.scope, info.id).await;
            }
        }
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.quiet.added.notified() => {
                    self.forget_quiet().await;
                    continue;
                }
                () = stopping.cancelled() => return,
            }
            self.end_idle_seeds(Instant::now());
            self.end_early(Instant::now());
            self.broker.trim_body_memory();
            let store = self.store.clone();
            let swept = tokio::task::spawn_blocking(move || store.sweep(Instant::now())).await;
            if let Ok(report) = swept {
                tracing::trace!(?report, "payloads swept");
            }
        }
    }

    /// Lets the system's cache forget what no message needs any more and nobody was told of.
    async fn forget_quiet(&self) {
        if !self.quiet.files.lock().is_empty() {
            let quiet = Arc::clone(&self.quiet);
            // A panic was told of where it happened.
            let _ = tokio::task::spawn_blocking(move || quiet.close_files()).await;
        }
        let released = std::mem::take(&mut *self.quiet.payloads.lock());
        let quiet: Vec<_> = {
            let seeds = self.seeds.lock();
            let is_quiet = |key: &(ScopeId, PayloadId)| {
                let seed = seeds.get(key);
                let own_count = seed.map_or(0, |_| SEED_REFERENCE_COUNT);
                let info = self.store.info(key.0, key.1);
                seed.is_none_or(|seed| !seed.is_announced)
                    && info.is_some_and(|info| {
                        info.presence == Presence::Complete
                            && !info.is_pinned
                            && info.reference_count <= own_count
                    })
            };
            released.into_iter().filter(is_quiet).collect()
        };
        if quiet.is_empty() {
            return;
        }
        let store = self.store.clone();
        let forget = move || {
            for (scope, id) in quiet {
                if let Err(error) = store.forget_cached(scope, id) {
                    tracing::debug!(payload = %id, %error, "a payload stays in the system's cache");
                }
            }
        };
        // A panic was told of where it happened.
        let _ = tokio::task::spawn_blocking(forget).await;
    }

    /// Ends the serving of payloads that no message needed for the retention time and no peer fetches.
    fn end_idle_seeds(&self, now: Instant) {
        let served: Vec<PayloadId> = self
            .swarm
            .stats()
            .into_iter()
            .filter(|transfer| !transfer.peers.is_empty())
            .map(|transfer| transfer.payload)
            .collect();
        self.seeds.lock().retain(|(scope, id), seed| {
            let count = self
                .store
                .info(*scope, *id)
                .map_or(0, |info| info.reference_count);
            if count > SEED_REFERENCE_COUNT || served.contains(id) {
                seed.idle_since = None;
                return true;
            }
            let since = *seed.idle_since.get_or_insert(now);
            now.saturating_duration_since(since) < self.retention
        });
    }

    /// Ends the serving of what has a manifest by now, where nobody fetches it any more or has had the time to.
    fn end_early(&self, now: Instant) {
        // req: EARLY-8
        self.early.lock().retain(|(transfer, whole)| {
            let has_peers = || {
                let stats = transfer.stats();
                stats.is_some_and(|stats| !stats.peers.is_empty())
            };
            serves_on(now.saturating_duration_since(*whole), has_peers)
        });
    }

    /// Serves a stored payload to peers, if it is not served yet.
    pub(super) async fn seed(&self, scope: ScopeId, id: PayloadId) {
        if self.seeds.lock().contains_key(&(scope, id)) {
            return;
        }
        match self.swarm.seed(scope, id).await {
            Ok(transfer) => {
                let seed = Seed {
                    _transfer: transfer,
                    is_announced: false,
                    idle_since: None,
                };
                self.seeds.lock().insert((scope, id), seed);
            }
            // Another connection was faster, or another vhost has the same content.
            Err(error) => tracing::debug!(payload = %id, %error, "the payload is not served"),
        }
    }

    /// Begins to take in a body, for a scope and of a size: its parts go into what is given back, its result comes through
    /// `results`. If it becomes a payload and takes long, `audience` is told of it meanwhile.
    pub(super) fn begin_upload(
        self: &Arc<Self>,
        upload: UploadId,
        (scope, size_bytes): (ScopeId, u64),
        kind: UploadKind,
        audience: Audience,
        results: mpsc::Sender<Uploaded>,
    ) -> mpsc::Sender<Part> {
        let (sender, parts) = mpsc::channel(UPLOAD_PARTS_MAX);
        let payloads = Arc::clone(self);
        tokio::spawn(async move {
            let taken = match kind {
                UploadKind::BodyFile => payloads.write_file(scope, size_bytes, parts).await,
                UploadKind::Payload => payloads.upload(scope, size_bytes, parts, audience).await,
            };
            let Some(taken) = taken else {
                return;
            };
            let (result, reference) = taken.unwrap_or_else(|reason| {
                tracing::warn!(%reason, "a large body cannot be stored");
                (UploadResult::Refused { reason }, None)
            });
            // A connection that is gone wants no answer.
            let _ = results
                .send(Uploaded {
                    upload,
                    result,
                    reference,
                })
                .await;
        });
        sender
    }

    /// Writes a body that need not be a payload into a file of its own, if there is one to be had; otherwise, and in what
    /// it gives, as [`Self::upload`].
    // req: MEMBODY-5
    async fn write_file(
        &self,
        scope: ScopeId,
        size_bytes: u64,
        mut parts: mpsc::Receiver<Part>,
    ) -> Option<Result<Taken, String>> {
        let (store, quiet) = (self.store.clone(), Arc::clone(&self.quiet));
        let begin = move || quiet.with_room(|| store.begin_body_file(scope, size_bytes));
        let mut file = match blocking(begin).await? {
            Ok(Some(file)) => file,
            Ok(None) => {
                return self
                    .upload(scope, size_bytes, parts, Audience::default())
                    .await;
            }
            Err(reason) => return Some(Err(reason)),
        };
        loop {
            let (gathered, whole) = gather(&mut parts).await?;
            let write = move || {
                let slices: Vec<_> = gathered.iter().map(|part| IoSlice::new(part)).collect();
                file.write(&slices)?;
                Ok(file)
            };
            file = match blocking(write).await? {
                Ok(file) => file,
                Err(reason) => return Some(Err(reason)),
            };
            if whole {
                let file = file.finish().map_err(|error| error.to_string());
                return Some(file.map(|file| (UploadResult::InFile(Arc::new(file)), None)));
            }
        }
    }

    /// Stores a body part by part; none if it ended before it was whole. An error is the reason to tell
    /// the publisher, whose publish waits for it.
    async fn upload(
        &self,
        scope: ScopeId,
        size_bytes: u64,
        mut parts: mpsc::Receiver<Part>,
        audience: Audience,
    ) -> Option<Result<Taken, String>> {
        let mut announcement = match self.is_early {
            true => Announcement::new(&self.broker, scope, audience, size_bytes, Instant::now()),
            false => None,
        };
        let key = match access_key() {
            Ok(key) => key,
            Err(reason) => return Some(Err(reason)),
        };
        let store = self.store.clone();
        let quiet = Arc::clone(&self.quiet);
        let begin = move || quiet.with_room(|| store.begin_upload(scope, size_bytes, key.clone()));
        let mut upload = match blocking(begin).await? {
            Ok(upload) => upload,
            Err(reason) => return Some(Err(reason)),
        };
        loop {
            let due = announcement.as_ref().and_then(|it| it.due(&upload));
            let told = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let (gathered, whole) = tokio::select! {
                gathered = gather(&mut parts) => gathered?,
                () = told => (Vec::new(), false),
            };
            upload = match blocking(move || write_all(upload, &gathered, whole)).await? {
                Ok(upload) => upload,
                Err(reason) => return Some(Err(reason)),
            };
            if let Some(announcement) = &mut announcement {
                announcement.advance(&self.swarm, &upload, Instant::now());
            }
            if whole {
                let stored = blocking(move || upload.finish()).await?;
                let is_stored = stored.is_ok();
                let now = Instant::now();
                let early = announcement.and_then(|announcement| announcement.end(is_stored, now));
                let early = early.map(|transfer| (transfer, now));
                self.early.lock().extend(early);
                let stored = match stored {
                    Ok(stored) => stored,
                    Err(reason) => return Some(Err(reason)),
                };
                let id = stored.id;
                self.seed(scope, id).await;
                let result = UploadResult::Stored { id, size_bytes };
                return Some(Ok((result, Some(stored.reference))));
            }
        }
    }

    /// Reads a part of a body as frames, or finds out that it need not be read, if `may_be_file`.
    pub(super) async fn read(
        &self,
        part: PayloadPart,
        may_be_file: bool,
    ) -> Result<Streamed, String> {
        let store = self.store.clone();
        let read = move || {
            let error_text = |error: StoreError| error.to_string();
            if let Some(BodyOctets::File(file)) = part.body.octets() {
                let read = |place: &mut [u8], offset_bytes| file.read_at(place, offset_bytes);
                let frames = part.read_frames(read).map_err(error_text)?;
                return Ok(Streamed {
                    reader: None,
                    octets: Octets::Frames(frames),
                });
            }
            // What is in memory is not read here.
            let id = part.body.store()?;
            let reader = store.open_reader(part.body.scope(), id);
            let reader = reader.map_err(error_text)?;
            let file = may_be_file
                .then(|| reader.cached_file(part.offset_bytes, part.length_bytes))
                .flatten();
            let octets = match file {
                Some(file) => Octets::File(file),
                None => {
                    let read = |place: &mut [u8], offset_bytes| reader.read_at(place, offset_bytes);
                    Octets::Frames(part.read_frames(read).map_err(error_text)?)
                }
            };
            Ok(Streamed {
                reader: Some(reader),
                octets,
            })
        };
        flatten(tokio::task::spawn_blocking(read).await)
    }

    /// Reads a payload's manifest, with this broker as first peer, as frames.
    pub(super) async fn read_manifest(&self, part: ManifestPart) -> Result<BytesMut, String> {
        let manifest = self.manifest(&part.payload).await?;
        let mut output = BytesMut::new();
        part.put_frames(&manifest, &mut output)
            .map_err(|error| error.to_string())?;
        Ok(output)
    }

    /// A payload's manifest with this broker as first peer, which serves it from now on. What is in memory alone is
    /// stored for it.
    ///
    /// A broker that listens on all addresses gives the unspecified one: whoever reads the manifest takes
    /// the host that it came from.
    pub(super) async fn manifest(&self, payload: &PayloadBody) -> Result<Manifest, String> {
        let scope = payload.scope();
        // Most are stored, which costs no thread's time.
        let id = match payload.id() {
            Some(id) => *id,
            None => {
                let payload = payload.clone();
                flatten(tokio::task::spawn_blocking(move || payload.store()).await)?
            }
        };
        self.seed(scope, id).await;
        if let Some(seed) = self.seeds.lock().get_mut(&(scope, id)) {
            seed.is_announced = true;
        }
        let store = self.store.clone();
        let manifest =
            flatten(tokio::task::spawn_blocking(move || store.manifest(scope, id)).await)
                .map_err(|error: StoreError| error.to_string())?;
        let peers = self.peer_addr().map(|address| address.to_string());
        manifest
            .with_peers(peers.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    /// Ends the part in the swarm.
    pub(super) async fn shutdown(&self) {
        self.seeds.lock().clear();
        self.early.lock().clear();
        self.swarm.shutdown().await;
    }
}

/// Waits for a part and takes what else is there, up to one visit's worth; none if the upload was given
/// up. True with the last one.
async fn gather(parts: &mut mpsc::Receiver<Part>) -> Option<(Vec<Bytes>, bool)> {
    let mut gathered = Vec::new();
    let mut bytes = 0;
    let mut next = Some(parts.recv().await?);
    while let Some(part) = next.take() {
        match part {
            Part::Bytes(part) => {
                bytes += part.len();
                gathered.push(part);
            }
            Part::End => return Some((gathered, true)),
        }
        if bytes < WRITE_BYTES {
            next = parts.try_recv().ok();
        }
    }
    Some((gathered, false))
}

fn write_all(mut upload: Upload, parts: &[Bytes], is_all: bool) -> Result<Upload, StoreError> {
    for part in parts {
        upload.write(part)?;
    }
    if is_all {
        upload.flush()?;
    }
    Ok(upload)
}

/// Runs what touches files; none if the runtime is shutting down. An error is the reason to tell the
/// publisher, who waits: also of a panic, which must not leave it waiting for ever.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Option<Result<T, String>> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done.map_err(|error| error.to_string())),
        Err(error) if error.is_panic() => {
            tracing::error!(%error, "the payload store failed");
            Some(Err("the payload store failed".to_owned()))
        }
        Err(_) => None,
    }
}

/// The result of work on the blocking pool, which is waited for and so never cancelled.
fn flatten<T, E>(joined: Result<Result<T, E>, tokio::task::JoinError>) -> Result<T, E> {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic below is an answer like any other error: whoever waits for it hears.
    #[tokio::test]
    async fn a_panic_in_the_store_is_answered() {
        let failed = blocking::<()>(|| panic!("on purpose")).await;
        assert_eq!(failed, Some(Err("the payload store failed".to_owned())));
        assert_eq!(blocking(|| Ok(7)).await, Some(Ok(7)));
    }

    /// Who goes on fetching has two minutes, and nobody more.
    // req: EARLY-8
    #[test]
    fn early_swarms_end_whoever_stays() {
        let serves = |seconds, has_peers| serves_on(Duration::from_secs(seconds), || has_peers);
        assert!(serves(0, false) && serves(19, false) && !serves(20, false));
        assert!(serves(20, true) && serves(119, true) && !serves(120, true));
    }
}
