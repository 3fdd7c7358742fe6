//! What the simulated disk keeps, loses, tears and refuses.

use std::collections::BTreeSet;

use super::*;

fn disk_with_dir() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len_bytes().ok()?).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// Only a synced file in a synced directory is sure to be there after a crash.
#[test]
fn unsynced_file_may_be_lost_with_its_name() {
    let disk = disk_with_dir();
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    file.write_at(b"hello", 0).unwrap();
    assert_eq!(content(&disk.crash(CrashVariant::LoseAll, 0), "/d/a"), None);
    assert_eq!(
        content(&disk.crash(CrashVariant::KeepAll, 0), "/d/a").unwrap(),
        b"hello"
    );
    assert_eq!(
        content(&disk.crash(CrashVariant::LostDirEntries, 0), "/d/a"),
        None
    );
    assert_eq!(
        content(&disk.crash(CrashVariant::LostWrites, 0), "/d/a").unwrap(),
        b""
    );
    file.sync_data().unwrap();
    assert_eq!(content(&disk.crash(CrashVariant::LoseAll, 0), "/d/a"), None);
    disk.sync_dir(Path::new("/d")).unwrap();
    for variant in CrashVariant::ALL {
        assert_eq!(content(&disk.crash(variant, 1), "/d/a").unwrap(), b"hello");
    }
}

/// A torn write has whole sectors of old and of new.
#[test]
fn write_is_torn_between_sectors() {
    let disk = disk_with_dir();
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    file.write_at(&[1; 4 * SECTOR_BYTES], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[2; 4 * SECTOR_BYTES], 0).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let bytes = content(&disk.crash(CrashVariant::Torn, seed), "/d/a").unwrap();
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
        }
        seen.insert(
            bytes
                .iter()
                .step_by(SECTOR_BYTES)
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    assert!(seen.len() > 10, "many mixtures were seen");
}

/// A failed sync loses what it should have synced, though the next one reports success.
#[test]
fn failed_sync_drops_pages() {
    let disk = disk_with_dir();
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(b"hello", 0).unwrap();
    disk.fail_op(disk.op_count(), io::ErrorKind::Other);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(content(&disk, "/d/a").unwrap(), b"hello");
    assert_eq!(
        content(&disk.crash(CrashVariant::KeepAll, 0), "/d/a").unwrap(),
        b""
    );
}

/// A directory whose entry was never synced is lost with all that was synced in it.
#[test]
fn unsynced_directory_is_lost_with_its_files() {
    let disk = disk_with_dir();
    disk.create_dir_all(Path::new("/d/e/f")).unwrap();
    let file = disk.open(Path::new("/d/e/f/a"), OpenMode::CreateNew);
    let file = file.unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d/e/f")).unwrap();
    disk.sync_dir(Path::new("/d/e")).unwrap();
    let lost = disk.crash(CrashVariant::LoseAll, 0);
    assert_eq!(content(&lost, "/d/e/f/a"), None);
    assert!(lost.list(Path::new("/d/e")).is_err());
    assert!(lost.list(Path::new("/d")).is_ok());
    disk.sync_dir(Path::new("/d")).unwrap();
    let kept = disk.crash(CrashVariant::LoseAll, 0);
    assert_eq!(content(&kept, "/d/e/f/a").unwrap(), b"x");
}

/// What a killed process had not synced is there for the next, and still not safe.
#[test]
fn killed_process_leaves_what_it_did_not_sync() {
    let disk = disk_with_dir();
    disk.record();
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    file.write_at(b"x", 0).unwrap();
    let history = disk.history();
    let mut points = history.crash_points();
    while points.advance() {}
    let next = points.kill();
    assert_eq!(content(&next, "/d/a").unwrap(), b"x");
    let other = next.open(Path::new("/d/b"), OpenMode::CreateNew).unwrap();
    other.sync_data().unwrap();
    assert_eq!(content(&next.crash(CrashVariant::LoseAll, 0), "/d/a"), None);
    let again = next.open(Path::new("/d/a"), OpenMode::ReadWrite).unwrap();
    again.sync_data().unwrap();
    next.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(
        content(&next.crash(CrashVariant::LoseAll, 0), "/d/a").unwrap(),
        b"x"
    );
}

/// A rename is there whole or not at all.
#[test]
fn rename_is_atomic() {
    let disk = disk_with_dir();
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
    for seed in 0..20 {
        let after = disk.crash(CrashVariant::RandomSubset, seed);
        let names: Vec<_> = after.files().into_iter().map(|(path, _)| path).collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}

/// A full disk refuses to grow a file and leaves it as it was.
#[test]
fn full_disk_refuses_to_grow() {
    let disk = disk_with_dir();
    disk.set_capacity(Some(1_000));
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    file.allocate(900).unwrap();
    assert_eq!(
        file.allocate(1_100).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(file.len_bytes().unwrap(), 900);
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 100);
    file.write_at(&[1; 900], 0).unwrap();
    disk.remove(Path::new("/d/a")).unwrap();
    assert_eq!(disk.used_bytes(), 0);
}

/// The crash points of a recorded run are those that crashing at each moment would have given.
#[test]
fn history_repeats_every_moment() {
    let disk = disk_with_dir();
    disk.record();
    let mut moments = Vec::new();
    let mut moment = |disk: &SimDisk| {
        moments.push((
            disk.recorded_len(),
            content(&disk.crash(CrashVariant::LoseAll, 0), "/d/a"),
        ));
    };
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    moment(&disk);
    disk.sync_dir(Path::new("/d")).unwrap();
    moment(&disk);
    file.write_at(b"one", 0).unwrap();
    moment(&disk);
    file.sync_data().unwrap();
    moment(&disk);
    let history = disk.history();
    let mut points = history.crash_points();
    loop {
        let crashed = content(&points.crash(CrashVariant::LoseAll, 0), "/d/a");
        if let Some((_, expected)) = moments.iter().find(|(len, _)| *len == points.index()) {
            assert_eq!(&crashed, expected, "after {} changes", points.index());
        }
        if !points.advance() {
            break;
        }
    }
    assert_eq!(points.index(), history.len());
}
