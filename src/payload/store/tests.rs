//! The store on real files, and on a disk that fails at a chosen step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::disk::{DirEntry, DiskFile, OpenMode, OsDisk};
use crate::payload::geometry::PieceIndex;
use crate::payload::hash::PayloadHasher;
use crate::payload::manifest::ManifestParts;
use crate::testing::manifest::manifest_parts;

mod body_file;
mod failing;
mod faulty_disk;
mod partial;

use faulty_disk::FaultyDisk;

const SCOPE: ScopeId = ScopeId::new(3);
const OTHER_SCOPE: ScopeId = ScopeId::new(4);
const PIECE: usize = 16 * 1024;

/// Any time will do.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// A store in a folder that goes away with the test.
struct Bench {
    dir: tempfile::TempDir,
    disk: Arc<FaultyDisk>,
    settings: StoreSettings,
    store: Store,
}

impl Bench {
    fn new(settings: StoreSettings) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let disk = Arc::new(FaultyDisk::default());
        let store = Store::open(disk.clone(), &dir.path().join("store"), settings).expect("opens");
        Self {
            dir,
            disk,
            settings,
            store,
        }
    }

    /// What a new process finds.
    fn reopen(&mut self) {
        self.store = Store::open(
            self.disk.clone(),
            &self.dir.path().join("store"),
            self.settings,
        )
        .expect("opens again");
    }

    fn upload(&self, scope: ScopeId, bytes: &[u8]) -> Result<StoredPayload, StoreError> {
        let mut upload = self.store.begin_upload(scope, bytes.len() as u64, key(1))?;
        for portion in bytes.chunks(100_000) {
            upload.write(portion)?;
        }
        upload.finish()
    }

    fn read_all(&self, scope: ScopeId, id: PayloadId) -> Result<Vec<u8>, StoreError> {
        let reader = self.store.open_reader(scope, id)?;
        let mut bytes = vec![0; reader.geometry().size_bytes() as usize];
        reader.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Every file below the store's folder, with its length.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let root = self.dir.path().join("store");
        let mut folders = vec![root.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in OsDisk.list(&folder).expect("a folder") {
                let path = folder.join(&entry.name);
                if entry.is_dir {
                    folders.push(path);
                } else {
                    let short = path.strip_prefix(&root).expect("below the root").to_owned();
                    files.push((short, entry.len_bytes));
                }
            }
        }
        files.sort();
        files
    }
}

fn settings() -> StoreSettings {
    StoreSettings {
        retention: Duration::ZERO,
        quota_bytes: None,
        free_bytes_min: 0,
    }
}

fn key(seed: u8) -> AccessKey {
    AccessKey::from_bytes([seed; 32])
}

fn bytes_of(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|index| (index % 251) as u8 ^ (index >> 13) as u8 ^ seed)
        .collect()
}

fn id_of(bytes: &[u8]) -> PayloadId {
    PayloadId::from_bytes(*blake3::hash(bytes).as_bytes())
}

fn manifest_of(bytes: &[u8]) -> Manifest {
    Manifest::new(ManifestParts {
        name: Some("film".to_owned()),
        ..manifest_parts(bytes)
    })
    .expect("valid")
}

fn partial(store: &Store, manifest: &Manifest) -> PartialPayload {
    match store.begin_partial(SCOPE, manifest).expect("begins") {
        BegunPartial::Partial(partial) => partial,
        BegunPartial::Complete(stored) => panic!("{} is complete", stored.id),
    }
}

fn piece_of<'a>(manifest: &Manifest, bytes: &'a [u8], index: u32) -> (PieceIndex, &'a [u8]) {
    let piece = manifest.piece_index(index).expect("inside");
    let range = manifest.geometry().piece_range(piece);
    (piece, &bytes[range.start as usize..range.end as usize])
}

/// What is stored is read again by this process and the next, with its manifest and key.
// req: STORE-1, STORE-5
#[test]
fn stored_payload_is_read_again_after_a_restart() {
    let mut bench = Bench::new(settings());
    for len in [0, 1, PIECE, PIECE + 1, 3 * 1024 * 1024 + 5] {
        let bytes = bytes_of(len, 0);
        let id = bench.upload(SCOPE, &bytes).expect("stored").id;
        assert_eq!(id, id_of(&bytes));
        for _ in 0..2 {
            assert_eq!(bench.read_all(SCOPE, id).expect("readable"), bytes);
            let manifest = bench.store.manifest(SCOPE, id).expect("has a manifest");
            assert_eq!(manifest.geometry().size_bytes(), len as u64);
            assert_eq!(*manifest.key(), key(1));
            assert_eq!(bench.store.access_key(SCOPE, id), Some(key(1)));
            bench.reopen();
        }
    }
    let mut buffer = [0; 10];
    let id = id_of(&bytes_of(PIECE, 0));
    bench
        .store
        .read_at(SCOPE, id, &mut buffer, 100)
        .expect("readable");
    assert_eq!(buffer, bytes_of(PIECE, 0)[100..110]);
    let error = bench
        .store
        .read_at(SCOPE, id, &mut buffer, PIECE as u64 - 9);
    assert!(matches!(error, Err(StoreError::OutOfRange { .. })));
    let error = bench.store.read_at(OTHER_SCOPE, id, &mut buffer, 0);
    assert!(
        matches!(error, Err(StoreError::NotFound { .. })),
        "scopes share nothing"
    );
}

/// Equal payloads of a scope are one file with the first key; another scope has its own.
// req: STORE-2
#[test]
fn equal_payloads_are_stored_once_in_a_scope() {
    let bench = Bench::new(settings());
    let bytes = bytes_of(200_000, 0);
    let first = bench.upload(SCOPE, &bytes).expect("stored");
    let files = bench.files();
    let mut upload = bench
        .store
        .begin_upload(SCOPE, 200_000, key(2))
        .expect("begins");
    upload.write(&bytes).expect("written");
    assert_eq!(upload.finish().expect("stored").id, first.id);
    assert_eq!(bench.files(), files);
    assert_eq!(bench.store.usage().stored_bytes, 200_000);
    assert_eq!(bench.store.usage().reserved_bytes, 0);
    assert_eq!(bench.store.access_key(SCOPE, first.id), Some(key(1)));
    bench.upload(OTHER_SCOPE, &bytes).expect("stored");
    assert_eq!(bench.store.usage().payload_count, 2);
    assert_eq!(bench.store.scopes_of(first.id), [SCOPE, OTHER_SCOPE]);
}

/// Many threads that store the same bytes at once leave one file.
// req: STORE-2
#[test]
fn equal_payloads_stored_at_once_are_one_file() {
    let bench = Bench::new(settings());
    let bytes = bytes_of(300_000, 0);
    std::thread::scope(|threads| {
        let stored: Vec<_> = (0..8)
            .map(|_| threads.spawn(|| bench.upload(SCOPE, &bytes).expect("stored")))
            .collect();
        for stored in stored {
            assert_eq!(stored.join().expect("no panic").id, id_of(&bytes));
        }
    });
    assert_eq!(
        bench.files().len(),
        2,
        "a payload and its metadata: {:?}",
        bench.files()
    );
    assert_eq!(bench.store.usage().stored_bytes, 300_000);
    assert_eq!(bench.store.usage().reserved_bytes, 0);
    assert_eq!(
        bench
            .store
            .info(SCOPE, id_of(&bytes))
            .expect("there")
            .reference_count,
        0
    );
}

/// Too many, too few and no bytes leave nothing, at once and at the next start.
// req: STORE-4, STORE-6, STORE-7
#[test]
fn upload_that_is_not_finished_leaves_nothing() {
    let mut bench = Bench::new(settings());
    let mut upload = bench
        .store
        .begin_upload(SCOPE, 1_000, key(1))
        .expect("begins");
    upload.write(&[0; 900]).expect("written");
    assert_eq!(bench.store.usage().reserved_bytes, 1_000);
    let error = upload.write(&[0; 101]);
    assert!(matches!(
        error,
        Err(StoreError::UploadTooLong {
            declared_bytes: 1_000
        })
    ));
    drop(upload);
    let mut upload = bench
        .store
        .begin_upload(SCOPE, 1_000, key(1))
        .expect("begins");
    upload.write(&[0; 999]).expect("written");
    let error = upload.finish();
    let short = matches!(
        error,
        Err(StoreError::UploadTooShort { got_bytes: 999, .. })
    );
    assert!(short, "{error:?}");
    assert_eq!(bench.files(), []);
    assert_eq!(bench.store.usage(), Usage::default());
    // As kill -9 leaves it: nothing is dropped.
    let mut upload = bench
        .store
        .begin_upload(SCOPE, 2_000_000, key(1))
        .expect("begins");
    upload.write(&[0; 1_500_000]).expect("written");
    assert_eq!(bench.files().len(), 1);
    std::mem::forget(upload);
    bench.reopen();
    assert_eq!(bench.files(), []);
}

/// A payload with damaged metadata or of the wrong length is not served; storing it again mends it.
// req: STORE-3
#[test]
fn damaged_payload_is_not_served_until_it_is_stored_again() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(100_000, 0);
    let id = bench.upload(SCOPE, &bytes).expect("stored").id;
    let path = bench.store.inner.paths.complete(Key { scope: SCOPE, id });
    let meta_path = beside(&path, META_ENDING);
    let open = |path| OsDisk.open(path, OpenMode::ReadWrite).expect("there");
    let damage: [&dyn Fn(); 4] = [
        &|| open(&meta_path).write_at(&[0xff], 30).expect("written"),
        &|| open(&meta_path).truncate(20).expect("cut"),
        &|| open(&path).truncate(99_999).expect("cut"),
        &|| OsDisk.remove(&meta_path).expect("removed"),
    ];
    for damage in damage {
        damage();
        bench.reopen();
        assert!(matches!(
            bench.read_all(SCOPE, id),
            Err(StoreError::NotFound { .. })
        ));
        assert!(
            bench.files().iter().any(|(file, _)| path.ends_with(file)),
            "not deleted"
        );
        bench.upload(SCOPE, &bytes).expect("stored again");
        bench.reopen();
        assert_eq!(bench.read_all(SCOPE, id).expect("readable"), bytes);
    }
    OsDisk.remove(&path).expect("removed");
    bench.reopen();
    assert_eq!(bench.files(), [], "metadata without a payload is removed");
}

/// Damaged piece hashes are noticed when the manifest is read.
// req: STORE-5
#[test]
fn damaged_piece_hashes_make_no_manifest() {
    let bench = Bench::new(settings());
    let id = bench
        .upload(SCOPE, &bytes_of(100_000, 0))
        .expect("stored")
        .id;
    let path = bench.store.inner.paths.complete(Key { scope: SCOPE, id });
    let meta = OsDisk
        .open(&beside(&path, META_ENDING), OpenMode::ReadWrite)
        .expect("there");
    meta.write_at(&[0; 4], 130).expect("written");
    let error = bench.store.manifest(SCOPE, id);
    assert!(
        matches!(error, Err(StoreError::Damaged { .. })),
        "{error:?}"
    );
}

/// A payload stays while it is referred to, then for the retention time.
// req: STORE-14
#[test]
fn payload_lives_for_the_retention_time_after_its_last_reference() {
    let retention = Duration::from_secs(60);
    let bench = Bench::new(StoreSettings {
        retention,
        ..settings()
    });
    let start = now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let stored = bench.upload(SCOPE, &bytes_of(1_000, 0)).expect("stored");
    let id = stored.id;
    bench.store.acquire(SCOPE, id);
    drop(stored);
    let reader = bench.store.open_reader(SCOPE, id).expect("opens");
    assert_eq!(bench.store.sweep(at(100)).removed_count, 0);
    bench.store.release(SCOPE, id);
    assert_eq!(
        bench.store.sweep(at(200)).removed_count,
        0,
        "a reader is open"
    );
    drop(reader);
    assert_eq!(
        bench.store.sweep(at(300)).removed_count,
        0,
        "idle from now on"
    );
    assert_eq!(bench.store.sweep(at(359)).removed_count, 0);
    drop(bench.store.find(SCOPE, id).expect("there"));
    assert_eq!(
        bench.store.sweep(at(361)).removed_count,
        0,
        "it was needed in between"
    );
    assert_eq!(bench.store.sweep(at(420)).removed_count, 0);
    let report = bench.store.sweep(at(421));
    assert_eq!(
        report,
        SweepReport {
            removed_count: 1,
            removed_bytes: 1_000,
            failed_count: 0,
            stray_count: 0,
        }
    );
    assert_eq!(bench.files(), []);
    assert_eq!(bench.store.usage(), Usage::default());
    assert!(matches!(
        bench.store.find(SCOPE, id),
        Err(StoreError::NotFound { .. })
    ));
}

/// A reference may come before its payload, and holds it from the start.
// req: STORE-15
#[test]
fn reference_may_be_taken_before_the_payload_is_there() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(1_000, 0);
    bench.store.acquire(SCOPE, id_of(&bytes));
    bench.upload(SCOPE, &bytes).expect("stored");
    assert_eq!(bench.store.sweep(now()).removed_count, 0);
    bench.reopen();
    bench.store.acquire(SCOPE, id_of(&bytes));
    assert_eq!(bench.store.sweep(now()).removed_count, 0);
    bench.store.release(SCOPE, id_of(&bytes));
    assert_eq!(bench.store.sweep(now()).removed_count, 1);
}

/// A pin keeps a payload over restarts until it is taken away.
// req: STORE-15
#[test]
fn pin_survives_a_restart() {
    let mut bench = Bench::new(settings());
    let id = bench.upload(SCOPE, &bytes_of(1_000, 0)).expect("stored").id;
    bench.store.pin(SCOPE, id).expect("pinned");
    bench.store.pin(SCOPE, id).expect("pinned still");
    bench.reopen();
    assert!(bench.store.info(SCOPE, id).expect("there").is_pinned);
    assert_eq!(bench.store.sweep(now()).removed_count, 0);
    bench.store.unpin(SCOPE, id).expect("unpinned");
    assert_eq!(bench.store.sweep(now()).removed_count, 1);
    assert_eq!(bench.files(), []);
    assert!(matches!(
        bench.store.pin(SCOPE, id),
        Err(StoreError::NotFound { .. })
    ));
}

/// Idle payloads make room, longest idle first; what is needed does not.
// req: STORE-16
#[test]
fn quota_takes_idle_payloads_and_then_refuses() {
    let settings = StoreSettings {
        quota_bytes: Some(3_000),
        retention: Duration::from_secs(1_000),
        ..settings()
    };
    let bench = Bench::new(settings);
    let old = bench.upload(SCOPE, &bytes_of(1_000, 1)).expect("stored").id;
    bench.store.sweep(now());
    let young = bench.upload(SCOPE, &bytes_of(1_000, 2)).expect("stored").id;
    let needed = bench.upload(SCOPE, &bytes_of(1_000, 3)).expect("stored");
    assert_eq!(bench.store.usage().idle_bytes, 2_000);
    let next = bench.upload(SCOPE, &bytes_of(900, 4)).expect("stored");
    assert!(bench.store.info(SCOPE, old).is_none(), "longest idle");
    assert!(bench.store.info(SCOPE, young).is_some());
    let error = bench
        .store
        .begin_upload(SCOPE, 1_101, key(1))
        .expect_err("no room");
    let expected =
        "no room for 1101 bytes in the payload store: 1900 of its quota of 3000 are in use";
    assert_eq!(error.to_string(), expected);
    assert!(error.is_for_space());
    assert!(bench.store.info(SCOPE, needed.id).is_some());
    let running = bench
        .store
        .begin_upload(SCOPE, 1_100, key(1))
        .expect("just fits");
    assert!(
        bench.store.begin_upload(SCOPE, 1, key(1)).is_err(),
        "a running upload counts"
    );
    drop((running, next));
    assert!(bench.store.begin_upload(SCOPE, 1, key(1)).is_ok());
}

/// The space to keep free is kept, and what running uploads were promised counts.
// req: STORE-17
#[test]
fn disk_that_would_be_too_full_refuses() {
    let bench = Bench::new(StoreSettings {
        free_bytes_min: 1_000,
        ..settings()
    });
    bench.disk.free_bytes.store(3_000, Ordering::SeqCst);
    let error = bench
        .store
        .begin_upload(SCOPE, 2_001, key(1))
        .expect_err("no room");
    let is_full = matches!(
        error,
        StoreError::DiskFull {
            needed_bytes: 2_001,
            free_bytes: 2_000
        }
    );
    assert!(is_full && error.is_for_space(), "{error}");
    let running = bench
        .store
        .begin_upload(SCOPE, 1_500, key(1))
        .expect("fits");
    assert!(bench.store.begin_upload(SCOPE, 501, key(1)).is_err());
    drop(running);
    assert!(bench.store.begin_upload(SCOPE, 2_000, key(1)).is_ok());
}

/// An adopted file is served where it lies until it is not what it was.
// req: STORE-13
#[test]
fn adopted_file_is_served_until_it_changes() {
    let bench = Bench::new(settings());
    let bytes = bytes_of(3 * PIECE + 5, 0);
    let path = bench.dir.path().join("film");
    let file = OsDisk.open(&path, OpenMode::CreateNew).expect("new");
    file.write_at(&bytes, 0).expect("written");
    let stamp = |seconds| FileStamp {
        len_bytes: bytes.len() as u64,
        modified: Duration::from_secs(seconds),
    };
    let origin = Origin {
        key: key(5),
        peers: vec!["10.0.0.1:5690".to_owned()],
        name: Some("film".to_owned()),
        content_type: None,
    };
    let mut seen_bytes = 0;
    let progress = |bytes| seen_bytes = bytes;
    let adopted = AdoptedFile::hash(&OsDisk, &path, stamp(1), origin, progress).expect("hashed");
    assert_eq!(seen_bytes, bytes.len() as u64);
    let id = adopted.manifest().id();
    assert_eq!(id, id_of(&bytes));
    let adopted = Arc::new(adopted);
    bench.store.adopt(SCOPE, Arc::clone(&adopted));
    assert_eq!(bench.read_all(SCOPE, id).expect("readable"), bytes);
    assert_eq!(bench.store.sweep(now()), SweepReport::default());
    assert_eq!(bench.store.usage(), Usage::default(), "not ours");
    let reader = bench.store.open_reader(SCOPE, id).expect("opens");
    let mut buffer = [0; 100];
    file.write_at(&[1, 2, 3], 10).expect("written");
    adopted.observe(stamp(2));
    let error = reader.read_at(&mut buffer, 0);
    assert!(
        matches!(error, Err(StoreError::Changed { .. })),
        "{error:?}"
    );
    reader
        .read_at(&mut buffer, PIECE as u64)
        .expect("another piece is the same");
    file.write_at(&bytes[..20], 0).expect("written back");
    reader.read_at(&mut buffer, 0).expect("it is what it was");
    file.truncate(bytes.len() as u64 - 1).expect("cut");
    assert!(matches!(
        reader.read_at(&mut buffer, 0),
        Err(StoreError::Changed { .. })
    ));
    assert!(bench.store.forget_adopted(SCOPE, id));
    assert!(bench.store.open_reader(SCOPE, id).is_err());
}

/// Readers of one payload share the open file, and it stays until the last is gone.
// req: STORE-12
#[test]
fn readers_keep_the_payload_and_share_its_file() {
    let mut bench = Bench::new(settings());
    let bytes = bytes_of(100_000, 0);
    let id = bench.upload(SCOPE, &bytes).expect("stored").id;
    bench.reopen();
    let opened = bench.disk.open_count.load(Ordering::SeqCst);
    let first = bench.store.open_reader(SCOPE, id).expect("opens");
    let second = bench.store.open_reader(SCOPE, id).expect("opens");
    // The first also read the metadata (head and hashes), since another process wrote the payload.
    assert_eq!(bench.disk.open_count.load(Ordering::SeqCst), opened + 3);
    drop(first);
    assert_eq!(bench.store.sweep(now()).removed_count, 0);
    let mut buffer = vec![0; 100_000];
    second.read_at(&mut buffer, 0).expect("readable");
    assert_eq!(buffer, bytes);
    assert!(second.held().is_full());
    drop(second);
    assert_eq!(bench.store.sweep(now()).removed_count, 1);
}
