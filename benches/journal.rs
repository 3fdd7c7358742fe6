//! What the journal costs beside the disk, and how many confirms one disk gives.
//!
//! `cpu`: nanoseconds per 1 KiB message for append, group commit and ack, on a disk that forgets at
//! once. Read against: the whole broker may take 1.4 to 1.6 times an append with fsync per message
//! (about 2 µs at a window of 1,000), so the journal should stay well below 1 µs.
//! `confirms`: messages per second on the real disk at windows of 1, 100 and 1,000. Read against
//! `fdatasync`, the disk's own rate for a write of the same bytes.
#![allow(missing_docs, clippy::disallowed_methods)]

use std::io;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren::disk::{DirEntry, Disk, DiskFile, OpenMode, OsDisk};
use warren::journal::{BodyRecord, Journal, JournalSettings, Lsn, NewMessage, QueueId};

/// Messages per group commit in the `cpu` group.
const BATCH_COUNT: u64 = 100;
const BODY_BYTES: usize = 1_024;
const WINDOWS: [u64; 3] = [1, 100, 1_000];

/// Keeps the first bytes of each file, so that headers can be read again, and nothing else.
#[derive(Debug)]
struct ForgetfulDisk(OsDisk);

#[derive(Debug)]
struct ForgetfulFile {
    file: Box<dyn DiskFile>,
    is_written: std::sync::atomic::AtomicBool,
}

impl Disk for ForgetfulDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        Ok(Box::new(ForgetfulFile {
            file,
            is_written: false.into(),
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset_bytes)
    }
    fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        if self
            .is_written
            .swap(true, std::sync::atomic::Ordering::Relaxed)
        {
            return Ok(());
        }
        self.file.write_at(bytes, offset_bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
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
}

fn message<'a>(body: &'a [u8], queues: &'a [QueueId]) -> NewMessage<'a> {
    NewMessage {
        exchange: b"exchange",
        routing_key: b"route-12",
        header: &[0; 20],
        body: BodyRecord::Inline(body),
        queues,
        flags: 0,
        time_unix_ms: 0,
    }
}

fn cpu(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(ForgetfulDisk(OsDisk));
    let (journal, mut driver, _) =
        Journal::open_by_hand(disk, folder.path(), JournalSettings::default()).expect("a journal");
    let body = vec![b'x'; BODY_BYTES];
    let queues = [QueueId(1)];
    let mut group = c.benchmark_group("cpu");
    group.throughput(Throughput::Elements(BATCH_COUNT));
    group.bench_function("append_commit_ack", |b| {
        let mut lsns = Vec::new();
        b.iter(|| {
            lsns.clear();
            for _ in 0..BATCH_COUNT {
                let at = journal
                    .append_message(&message(&body, &queues))
                    .expect("it is open");
                lsns.push(at.lsn);
            }
            driver.turn().expect("the disk works");
            for lsn in &lsns {
                journal
                    .append_acks(queues[0], std::slice::from_ref(lsn))
                    .expect("it is open");
            }
            driver.turn().expect("the disk works");
        });
    });
    group.finish();
}

fn confirms(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk of the sources");
    let body = vec![b'x'; BODY_BYTES];
    let queues = [QueueId(1)];
    let mut group = c.benchmark_group("confirms");
    group.sample_size(20);
    for window in WINDOWS {
        group.throughput(Throughput::Elements(window));
        let (journal, _) = Journal::open(
            Arc::new(OsDisk),
            &folder.path().join("journal"),
            JournalSettings::default(),
        )
        .expect("a journal");
        group.bench_function(BenchmarkId::new("journal", window), |b| {
            b.iter(|| {
                let mut last = Lsn::ZERO;
                for _ in 0..window {
                    last = journal
                        .append_message(&message(&body, &queues))
                        .expect("open")
                        .lsn;
                }
                journal.wait_durable(last).expect("the disk works");
                journal.append_queue_delete(queues[0]).expect("it is open");
            });
        });
        journal.close().expect("the disk works");
        let path = folder.path().join("plain");
        let file = OsDisk.open(&path, OpenMode::CreateNew).expect("a file");
        file.allocate(64 << 20).expect("space");
        let bytes = vec![b'x'; usize::try_from(window).expect("small") * (BODY_BYTES + 100)];
        let mut offset = 0;
        group.bench_function(BenchmarkId::new("fdatasync", window), |b| {
            b.iter(|| {
                file.write_at(&bytes, offset).expect("space");
                offset = (offset + bytes.len() as u64) % (60 << 20);
                file.sync_data().expect("the disk works");
            });
        });
        OsDisk.remove(&path).expect("the file");
    }
    group.finish();
}

criterion_group!(benches, cpu, confirms);
criterion_main!(benches);
