//! Swarms on bad disks: what fails is one payload, never its neighbours; and a store that tidies up while it
//! serves.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use warren::disk::{DirEntry, Disk, DiskFile, OpenMode, OsDisk};
use warren::payload::store::{Store, StoreSettings};
use warren::payload::{AccessKey, Manifest, PayloadId, ScopeId};
use warren::server::peer::{FetchError, Swarm, SwarmHandle, SwarmSettings, SwarmTransfer};
use warren::swarm::TransferState;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a disk refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refuses {
    Reads,
    Writes,
    /// Reads give other bytes than were written, without a word.
    Truth,
}

/// The system's disk, but for the files of one payload.
#[derive(Clone, Debug, Default)]
struct BadDisk {
    fault: Arc<Mutex<Option<(String, Refuses)>>>,
}

impl BadDisk {
    fn refuse(&self, id: PayloadId, what: Refuses) {
        *self.fault.lock().expect("no panic") = Some((id.to_string(), what));
    }

    fn check(&self, path: &Path, what: Refuses) -> io::Result<()> {
        // What a fetch begins with has room; its pieces have not.
        let is_begin = path
            .extension()
            .is_some_and(|it| it == "meta" || it == "have");
        if is_begin && what == Refuses::Writes {
            return Ok(());
        }
        match &*self.fault.lock().expect("no panic") {
            Some((id, refused)) if *refused == what && path.to_string_lossy().contains(id) => {
                Err(match what {
                    Refuses::Reads => io::Error::other("a bad sector"),
                    Refuses::Writes => io::ErrorKind::StorageFull.into(),
                    Refuses::Truth => io::Error::other("it lies"),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Disk for BadDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(BadFile {
            disk: self.clone(),
            path: path.to_owned(),
            file: OsDisk.open(path, mode)?,
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
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
struct BadFile {
    disk: BadDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl DiskFile for BadFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.disk.check(&self.path, Refuses::Reads)?;
        let count = self.file.read_at(buffer, offset_bytes)?;
        if self.disk.check(&self.path, Refuses::Truth).is_err()
            && let Some(first) = buffer.first_mut()
        {
            *first ^= 1;
        }
        Ok(count)
    }
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.disk.check(&self.path, Refuses::Writes)?;
        self.file.write_at(bytes, offset_bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.file.allocate(len_bytes)
    }
    fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.file.truncate(len_bytes)
    }
    fn len_bytes(&self) -> io::Result<u64> {
        self.file.len_bytes()
    }
    fn modified(&self) -> io::Result<Duration> {
        self.file.modified()
    }
}

struct Node {
    store: Store,
    swarm: SwarmHandle,
}

async fn node(folder: &Path, disk: impl Disk, retention: Duration) -> Node {
    let settings = StoreSettings {
        free_bytes_min: 0,
        retention,
        ..StoreSettings::default()
    };
    let store = Store::open(Arc::new(disk), folder, settings).expect("a store");
    let settings = SwarmSettings {
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        ..SwarmSettings::default()
    };
    let swarm = Swarm::start(settings, store.clone()).await;
    let swarm = swarm.expect("a swarm");
    Node { store, swarm }
}

fn content(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size_bytes).map(|_| next()).collect()
}

/// Stores and serves `bytes`; the manifest names the node.
async fn serve(node: &Node, scope: ScopeId, key: u8, bytes: &[u8]) -> (Manifest, SwarmTransfer) {
    let key = AccessKey::from_bytes([key; 32]);
    let upload = node.store.begin_upload(scope, bytes.len() as u64, key);
    let mut upload = upload.expect("room");
    upload.write(bytes).expect("written");
    let stored = upload.finish().expect("stored");
    let transfer = node.swarm.seed(scope, stored.id).await.expect("served");
    let manifest = node.store.manifest(scope, stored.id).expect("a manifest");
    let address = node.swarm.local_addr().expect("listening").to_string();
    (manifest.with_peers(vec![address]).expect("valid"), transfer)
}

async fn fetch(node: &Node, manifest: &Manifest) -> SwarmTransfer {
    let begun = node.swarm.fetch(ScopeId::NODE, manifest).await;
    begun.expect("begun")
}

async fn completes(node: &Node, transfer: &SwarmTransfer, id: PayloadId, bytes: &[u8]) {
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    let finished = finished.unwrap_or_else(|_| panic!("not complete: {:?}", transfer.stats()));
    finished.expect("fetched");
    let mut read = vec![0; bytes.len()];
    let whole = node.store.read_at(ScopeId::NODE, id, &mut read, 0);
    whole.expect("readable");
    assert!(read == bytes, "the copy differs");
}

/// A full disk ends the payload that it is full for, and says so; the other one is fetched and served.
// req: SWARM-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_fails_one_payload() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = Duration::from_secs(600);
    let source = node(&folder.path().join("source"), OsDisk, long).await;
    let (one, two) = (content(1, 3_000_000), content(2, 3_000_000));
    let (first, _served) = serve(&source, ScopeId::NODE, 1, &one).await;
    let (second, _also) = serve(&source, ScopeId::NODE, 2, &two).await;
    let disk = BadDisk::default();
    let node = node(&folder.path().join("node"), disk.clone(), long).await;
    disk.refuse(first.id(), Refuses::Writes);
    let failing = fetch(&node, &first).await;
    let working = fetch(&node, &second).await;
    let failed = tokio::time::timeout(PATIENCE, failing.finished()).await;
    let failed = failed.expect("it is told");
    assert!(matches!(failed, Err(FetchError::Storage(_))), "{failed:?}");
    completes(&node, &working, second.id(), &two).await;
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A seed that cannot read one payload serves the other, and nothing of the first arrives wrong.
// req: SWARM-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_payload_is_given_up_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = Duration::from_secs(600);
    let disk = BadDisk::default();
    let source = node(&folder.path().join("source"), disk.clone(), long).await;
    let (one, two) = (content(1, 3_000_000), content(2, 3_000_000));
    let (first, served) = serve(&source, ScopeId::NODE, 1, &one).await;
    let (second, _also) = serve(&source, ScopeId::NODE, 2, &two).await;
    disk.refuse(first.id(), Refuses::Reads);
    let node = node(&folder.path().join("node"), OsDisk, long).await;
    let hopeless = fetch(&node, &first).await;
    let working = fetch(&node, &second).await;
    completes(&node, &working, second.id(), &two).await;
    let began = Instant::now();
    loop {
        let state = served.stats().expect("known").state;
        if state == TransferState::Failed {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(hopeless.progress().borrow().pieces_held, 0);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A seed whose disk begins to lie serves a bad piece once: the peer that got it says so, the seed hashes what it
/// serves again, finds it wrong and gives that payload up, and the next peer is sent nothing bad; the other payload
/// goes on.
// req: SWARM-38
// req: STORE-24
// req: SWARM-15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accused_seed_looks_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = Duration::from_secs(600);
    let disk = BadDisk::default();
    let source = node(&folder.path().join("source"), disk.clone(), long).await;
    let (one, two) = (content(1, 3_000_000), content(2, 3_000_000));
    let (first, served) = serve(&source, ScopeId::NODE, 1, &one).await;
    let (second, _also) = serve(&source, ScopeId::NODE, 2, &two).await;
    // The seed's own memory of what is right ends a moment after it began.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    disk.refuse(first.id(), Refuses::Truth);
    let victim = node(&folder.path().join("victim"), OsDisk, long).await;
    let fetching = fetch(&victim, &first).await;
    let began = Instant::now();
    while fetching.stats().expect("known").counts.bad_pieces == 0 {
        assert!(began.elapsed() < PATIENCE, "no bad piece came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let next = node(&folder.path().join("next"), OsDisk, long).await;
    let hopeless = fetch(&next, &first).await;
    let working = fetch(&next, &second).await;
    completes(&next, &working, second.id(), &two).await;
    while served.stats().expect("known").state != TransferState::Failed {
        assert!(began.elapsed() < PATIENCE, "the seed does not look again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let counts = hopeless.stats().expect("known").counts;
    assert_eq!((counts.bad_pieces, counts.pieces_fetched), (0, 0));
    for node in [source, victim, next] {
        node.swarm.shutdown().await;
    }
}

/// Stores sweep all the time, with nothing to keep but what is being served and fetched; it is kept.
// req: STORE-12
// req: STORE-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweep_is_safe_while_serving() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = node(&folder.path().join("source"), OsDisk, Duration::ZERO).await;
    let bytes = content(3, 20_000_000);
    let (manifest, _served) = serve(&source, ScopeId::NODE, 1, &bytes).await;
    let mut others = Vec::new();
    for number in 0..2 {
        let node = node(
            &folder.path().join(number.to_string()),
            OsDisk,
            Duration::ZERO,
        )
        .await;
        let transfer = fetch(&node, &manifest).await;
        others.push((node, transfer));
    }
    let stores: Vec<Store> = [&source]
        .into_iter()
        .chain(others.iter().map(|(node, _)| node))
        .map(|node| node.store.clone())
        .collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let sweeper = std::thread::spawn(move || {
        let mut rounds = 0;
        while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
            for store in &stores {
                store.sweep(Instant::now() + Duration::from_secs(3600));
            }
            rounds += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        rounds
    });
    for (node, transfer) in &others {
        let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
        let finished = finished.unwrap_or_else(|_| panic!("{:?}", transfer.stats()));
        // It carries the reference that keeps the payload.
        let stored = finished.expect("fetched");
        assert!(stored.is_some());
        completes(node, transfer, manifest.id(), &bytes).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(sweeper.join().expect("no panic") > 0);
}

/// The same content under two keys, as from two vhosts: each key opens its own swarm and not the other's, over
/// one connection or several.
// req: PEER-6
// req: PEER-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_content_under_two_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = Duration::from_secs(600);
    let source = node(&folder.path().join("source"), OsDisk, long).await;
    let bytes = content(4, 2_000_000);
    let (one, first_served) = serve(&source, ScopeId::new(1), 1, &bytes).await;
    let (two, second_served) = serve(&source, ScopeId::new(2), 2, &bytes).await;
    assert_eq!(one.id(), two.id());
    assert!(one.key() != two.key());
    let first = node(&folder.path().join("first"), OsDisk, long).await;
    let second = node(&folder.path().join("second"), OsDisk, long).await;
    let from_first = fetch(&first, &one).await;
    let from_second = fetch(&second, &two).await;
    completes(&first, &from_first, one.id(), &bytes).await;
    completes(&second, &from_second, two.id(), &bytes).await;
    for served in [&first_served, &second_served] {
        let sent = served.stats().expect("served").counts.up_bytes;
        let size = bytes.len() as u64;
        assert!(
            (size..size * 11 / 10).contains(&sent),
            "each sent its own copy: {sent}"
        );
    }
    // Who has neither key gets nothing of either.
    let stranger = node(&folder.path().join("stranger"), OsDisk, long).await;
    let mut parts = one.parts().clone();
    parts.key = AccessKey::from_bytes([9; 32]);
    let wrong = Manifest::new(parts).expect("valid");
    let nothing = fetch(&stranger, &wrong).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(nothing.progress().borrow().pieces_held, 0);
    for node in [source, first, second, stranger] {
        node.swarm.shutdown().await;
    }
}
