//! Payloads collected before their manifests, on a real disk and on one that fails.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::disk::OsDisk;
use crate::payload::AccessKey;
use crate::payload::store::{BegunPartial, StoreSettings};
use crate::testing::disk::SimDisk;
use crate::testing::manifest::manifest_of;

const PIECE: usize = 16 * 1024;

fn store(folder: &Path) -> Store {
    let settings = StoreSettings {
        free_bytes_min: 0,
        quota_bytes: Some(10 << 20),
        ..StoreSettings::default()
    };
    Store::open(Arc::new(OsDisk), folder, settings).expect("opens")
}

fn bytes(seed: u8) -> Vec<u8> {
    let bytes = (0..5 * PIECE + 100).map(|at| (at / 7) as u8 ^ seed);
    bytes.collect()
}

/// Begins it, makes the first `known` hashes known, and writes the pieces of these numbers.
fn collect(store: &Store, bytes: &[u8], known: usize, written: &[u32]) -> EarlyPayload {
    let manifest = manifest_of(bytes);
    let early = store.begin_early(ScopeId::NODE, *manifest.geometry());
    let early = early.expect("room");
    early.announce(0, &manifest.piece_hashes()[..known]);
    for number in written {
        let piece = manifest.piece_index(*number).expect("inside");
        let range = manifest.geometry().piece_range(piece);
        let part = &bytes[range.start as usize..range.end as usize];
        let outcome = early.write_blocks(piece, &[part]).expect("written");
        assert_eq!(outcome, PieceOutcome::Stored);
    }
    early
}

/// A store on a made-up disk.
fn simulated(disk: &SimDisk) -> Store {
    let settings = StoreSettings {
        free_bytes_min: 0,
        ..StoreSettings::default()
    };
    Store::open(Arc::new(disk.clone()), Path::new("/store"), settings).expect("opens")
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let count = entries.map(|entry| {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => files(&entry.path()),
            false => 1,
        }
    });
    count.sum()
}

/// Hashes come in order, each once; a piece without its hash, or with another, is not written.
// req: EARLY-5
#[test]
fn only_announced_pieces_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    let bytes = bytes(0);
    let manifest = manifest_of(&bytes);
    let hashes = manifest.piece_hashes();
    let early = collect(&store, &bytes, 0, &[]);
    assert!(early.announce(1, &hashes[1..2]).is_empty(), "a gap");
    assert_eq!(early.announce(0, &hashes[..2]).len(), 2);
    assert!(early.announce(0, &hashes[..2]).is_empty(), "again");
    assert!(early.announce(2, &[hashes[2]; 5]).is_empty(), "too many");
    let piece = |number| manifest.piece_index(number).expect("inside");
    let write = |number, part: &[u8]| early.write_blocks(piece(number), &[part]);
    assert_eq!(
        write(2, &bytes[2 * PIECE..3 * PIECE]).expect("no error"),
        PieceOutcome::Mismatch
    );
    assert_eq!(
        write(1, &bytes[..PIECE]).expect("no error"),
        PieceOutcome::Mismatch
    );
    assert_eq!(
        write(1, &bytes[PIECE..2 * PIECE]).expect("no error"),
        PieceOutcome::Stored
    );
    assert_eq!(early.held().held_count(), 1);
}

/// A manifest that agrees takes the pieces over, and they are verified pieces of its payload, also for the next
/// process; the file goes on being readable.
// req: EARLY-6
// req: STORE-23
#[test]
fn manifest_takes_pieces_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = bytes(0);
    let wanted = manifest_of(&bytes);
    let held = {
        let store = store(folder.path());
        let early = collect(&store, &bytes, 4, &[0, 2, 3]);
        let partial = early.take_over(&wanted).expect("no error");
        let partial = partial.expect("it agrees");
        assert!(
            early.take_over(&wanted).expect("no error").is_none(),
            "once"
        );
        let mut read = vec![0; PIECE];
        early.read_at(&mut read, 0).expect("readable");
        assert!(read == bytes[..PIECE]);
        drop(early);
        assert_eq!(store.usage().reserved_bytes, 0);
        assert_eq!(store.usage().stored_bytes, bytes.len() as u64);
        partial.held()
    };
    assert_eq!(held.held_count(), 3);
    let store = store(folder.path());
    let begun = store.begin_partial(ScopeId::NODE, &wanted).expect("begins");
    let BegunPartial::Partial(partial) = begun else {
        panic!("it is not complete");
    };
    assert_eq!(partial.held(), held);
    for number in [1, 4, 5] {
        let piece = wanted.piece_index(number).expect("inside");
        let range = wanted.geometry().piece_range(piece);
        let part = &bytes[range.start as usize..range.end as usize];
        partial.write_piece(piece, part).expect("written");
    }
    let stored = partial.complete().expect("complete");
    let mut read = vec![0; bytes.len()];
    store
        .read_at(ScopeId::NODE, stored.id, &mut read, 0)
        .expect("readable");
    assert!(read == bytes);
}

/// What no manifest takes over leaves no file and no reservation: not if it is dropped, differs in one hash, or the
/// payload is there already.
// req: EARLY-7
// req: STORE-23
#[test]
fn what_is_not_taken_over_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    let bytes = bytes(0);
    let early = collect(&store, &bytes, 6, &[0, 5]);
    assert_eq!(store.usage().reserved_bytes, bytes.len() as u64);
    let mut other = bytes.clone();
    other[3 * PIECE] ^= 1;
    assert!(!early.agrees(&manifest_of(&other)));
    assert!(
        early
            .take_over(&manifest_of(&other))
            .expect("no error")
            .is_none()
    );
    drop(early);
    assert_eq!((files(folder.path()), store.usage().reserved_bytes), (0, 0));
    let unknown = collect(&store, &bytes, 0, &[]);
    assert!(
        !unknown.agrees(&manifest_of(&bytes)),
        "nothing was announced"
    );
    drop(unknown);
    let early = collect(&store, &bytes, 6, &[0]);
    let there = store.begin_partial(ScopeId::NODE, &manifest_of(&bytes));
    let there = there.expect("begins");
    let before = files(folder.path());
    assert!(
        early
            .take_over(&manifest_of(&bytes))
            .expect("no error")
            .is_none()
    );
    drop(early);
    assert_eq!(files(folder.path()), before - 1);
    drop(there);
    let cut_off = collect(&store, &bytes, 6, &[0]);
    std::mem::forget(cut_off);
    let again = self::store(folder.path());
    assert_eq!(again.usage().reserved_bytes, 0);
    assert_eq!(
        files(folder.path()),
        before - 1,
        "a start removes what was cut off"
    );
}

/// The system tells of a failed sync once: what was written before it is never taken over, though the next sync of the
/// same file would succeed.
// req: STORE-18
// req: EARLY-6
#[test]
fn nothing_is_taken_over_after_a_failed_sync() {
    let disk = SimDisk::new();
    let store = simulated(&disk);
    let bytes = bytes(0);
    let early = collect(&store, &bytes, 6, &[0, 1, 2]);
    disk.fail_op(disk.op_count(), io::ErrorKind::Other);
    early.sync().expect_err("the disk says so");
    early.sync().expect("the disk says so once");
    let taken = early.take_over(&manifest_of(&bytes)).expect("no error");
    assert!(taken.is_none(), "its pieces may be gone");
    drop(early);
    assert_eq!((disk.files().len(), store.usage().reserved_bytes), (0, 0));
}

/// A manifest waits for the sync that runs: if that fails, nothing is taken over.
// req: STORE-18
#[test]
fn manifest_waits_for_the_sync_that_runs() {
    let disk = SimDisk::new();
    let store = simulated(&disk);
    let bytes = bytes(0);
    let early = collect(&store, &bytes, 6, &[0, 1, 2]);
    let mut running = early.shared.syncing.lock();
    let (sender, taken) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(early.take_over(&manifest_of(&bytes))));
        let before = taken.recv_timeout(Duration::from_millis(100));
        assert!(before.is_err(), "the sync has not ended");
        *running = Synced::Failed;
        drop(running);
        let taken = taken.recv().expect("an answer").expect("no error");
        assert!(taken.is_none());
    });
}

/// Once the file is the payload's, a failure of its sync is for the payload to hear of: the early part does not sync.
// req: STORE-18
#[test]
fn sync_after_the_take_over_is_the_payloads() {
    let disk = SimDisk::new();
    let store = simulated(&disk);
    let bytes = bytes(0);
    let early = collect(&store, &bytes, 6, &[0, 1, 2]);
    let partial = early.take_over(&manifest_of(&bytes)).expect("no error");
    let partial = partial.expect("it agrees");
    disk.fail_op(disk.op_count(), io::ErrorKind::Other);
    early.sync().expect("nothing to do");
    partial.sync().expect_err("the failure is the payload's");
}

/// What comes after the take-over is not written, and what is served on is what the store gives out: not what an
/// application writes into the file where it was placed.
// req: EARLY-6
// req: EARLY-8
// req: STORE-22
#[test]
#[allow(clippy::disallowed_methods)]
fn taken_over_file_is_the_payloads_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder.path().join("store"));
    let bytes = bytes(0);
    let wanted = manifest_of(&bytes);
    let early = collect(&store, &bytes, 6, &[0, 1, 2, 3, 4]);
    let partial = early.take_over(&wanted).expect("no error");
    let partial = partial.expect("it agrees");
    let last = wanted.piece_index(5).expect("inside");
    let part = &bytes[5 * PIECE..];
    let late = early.write_blocks(last, &[part]).expect("no error");
    assert_eq!(late, PieceOutcome::NotKept);
    partial.write_piece(last, part).expect("written");
    let stored = partial.complete().expect("complete");
    let mut read = vec![0; PIECE];
    early.read_at(&mut read, 0).expect("as it was");
    assert!(read == bytes[..PIECE]);
    let reader = store.open_reader(ScopeId::NODE, stored.id).expect("there");
    let placed = folder.path().join("placed");
    let whole = reader.whole_file().expect("written by this process");
    std::fs::hard_link(whole, &placed).expect("a link");
    let placed = std::fs::OpenOptions::new().write(true).open(&placed);
    let placed = placed.expect("open");
    std::os::unix::fs::FileExt::write_all_at(&placed, b"edited", 100).expect("written");
    let later = std::time::SystemTime::now() + Duration::from_secs(1);
    placed.set_modified(later).expect("touched");
    early
        .read_at(&mut read, 0)
        .expect_err("it is not that payload any more");
    let late = early.write_blocks(wanted.piece_index(0).expect("inside"), &[&bytes[..PIECE]]);
    assert_eq!(late.expect("no error"), PieceOutcome::AlreadyHeld);
    let mut edited = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(
        &std::fs::File::open(folder.path().join("placed")).expect("open"),
        &mut edited,
        100,
    )
    .expect("readable");
    assert_eq!(&edited, b"edited");
}

/// What is only announced takes no room from what is kept: where it does not fit, it is not fetched early.
// req: EARLY-4
// req: STORE-16
#[test]
fn announcement_removes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    let bytes = bytes(0);
    let size = bytes.len() as u64;
    let mut upload = store
        .begin_upload(ScopeId::NODE, size, AccessKey::from_bytes([1; 32]))
        .expect("room");
    upload.write(&bytes).expect("written");
    let id = upload.finish().expect("stored").id;
    let whole = Geometry::for_payload(10 << 20).expect("valid");
    let early = store.begin_early(ScopeId::NODE, whole);
    assert!(matches!(early, Err(StoreError::QuotaExceeded { .. })));
    assert!(store.info(ScopeId::NODE, id).is_some(), "it is kept");
    assert_eq!(store.usage().reserved_bytes, 0);
}
