//! What it costs to move a long queue's messages about: time, and memory beyond what the journal holds anyway.
//!
//! A million messages of one queue (`WARREN_BENCH_COUNT`) lie between two million of another, which are
//! acknowledged: every segment is less than half alive, so that the million is copied forward. Then every
//! second one of the million is acknowledged, in hundreds, and at last the rest in one call; each time the
//! journal is turned until it has nothing left to clean. Read against: nothing may be kept for each message,
//! so the peak stays below [`PEAK_BYTES_MAX`] whatever the count, and the bench fails if it does not; a copy
//! costs about what an append costs (`benches/journal.rs`). `WARREN_BENCH_DIR` names a folder on the disk to use.
#![allow(missing_docs, clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use warren::disk::OsDisk;
use warren::journal::{BodyRecord, Driver, Journal, JournalSettings, Lsn, NewMessage, QueueId};

const KEPT: QueueId = QueueId(1);
const GONE: QueueId = QueueId(2);
/// Appended between two commits.
const BATCH_COUNT: usize = 1_000;
/// Most that the journal may say it holds for single messages, in bytes: two lists of 12 bytes for each message of
/// a segment of 64 MiB.
const MEMORY_BYTES_MAX: u64 = 16 << 20;
/// Most that a phase may take beyond what was resident when it began: the lists of the segment that is
/// written, 32 MiB that may be pending, a step's copies, and what the allocator keeps.
const PEAK_BYTES_MAX: u64 = 96 << 20;

/// The most that the journal held for single messages, in bytes.
static MEMORY_BYTES: AtomicU64 = AtomicU64::new(0);

fn main() {
    // `cargo test` runs benches once to see that they work.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let count = std::env::var("WARREN_BENCH_COUNT")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(if is_test { 10_000 } else { 1_000_000 });
    let folder = match std::env::var_os("WARREN_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir_in("."),
    };
    let folder = folder.expect("a folder to write in");
    let settings = JournalSettings {
        // Smaller ones for a small run, so that there is something to clean.
        segment_bytes: if is_test { 64 << 10 } else { 64 << 20 },
        ..JournalSettings::default()
    };
    let (journal, mut driver, _) =
        Journal::open_by_hand(Arc::new(OsDisk), folder.path(), settings).expect("a journal");

    let (mut kept, mut gone) = (Vec::with_capacity(count), Vec::with_capacity(2 * count));
    phase("append 3", count, || {
        for number in 0..count {
            kept.push(append(&journal, KEPT));
            gone.push(append(&journal, GONE));
            gone.push(append(&journal, GONE));
            if number % BATCH_COUNT == 0 {
                turn(&journal, &mut driver);
            }
        }
        settle(&journal, &mut driver);
    });
    phase("ack 2, move 1", count, || {
        for lsns in gone.chunks(BATCH_COUNT) {
            journal.append_acks(GONE, lsns).expect("it is open");
            turn(&journal, &mut driver);
        }
        settle(&journal, &mut driver);
    });
    let moved: usize = backlog_count(&journal);
    assert_eq!(moved, count, "all of them are still there");
    phase("ack every second", count / 2, || {
        let every_second: Vec<Lsn> = kept.iter().copied().step_by(2).collect();
        for lsns in every_second.chunks(100) {
            journal.append_acks(KEPT, lsns).expect("it is open");
            turn(&journal, &mut driver);
        }
        settle(&journal, &mut driver);
    });
    phase("ack the rest at once", count / 2, || {
        let rest: Vec<Lsn> = kept.iter().copied().skip(1).step_by(2).collect();
        journal.append_acks(KEPT, &rest).expect("it is open");
        settle(&journal, &mut driver);
    });
    assert_eq!(backlog_count(&journal), 0, "all of them were acknowledged");
    let segments = std::fs::read_dir(folder.path()).expect("the journal's folder");
    let segments = segments.filter(|entry| {
        let name = entry.as_ref().map(std::fs::DirEntry::file_name);
        name.is_ok_and(|name| name.to_string_lossy().ends_with(".seg"))
    });
    let held = MEMORY_BYTES.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
    println!("held for single messages: {held:.1} MiB at most");
    println!("segments left: {}", segments.count());
}

/// Runs one phase and prints what it took for each of `count` messages.
fn phase(name: &str, count: usize, run: impl FnOnce()) {
    // Best effort: without it the peak is that of the process so far.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
    let (before, begin) = (status_bytes("VmRSS:"), Instant::now());
    run();
    let elapsed: Duration = begin.elapsed();
    let peak = status_bytes("VmHWM:").saturating_sub(before);
    println!(
        "{name:>22}: {:>8.2} us/message, {:>6.1} MiB more at the peak",
        elapsed.as_secs_f64() * 1e6 / count.max(1) as f64,
        peak as f64 / f64::from(1 << 20),
    );
    // The first phase also fills the lists of this bench: 24 bytes for each message.
    let own = count as u64 * 24;
    assert!(peak <= PEAK_BYTES_MAX + own, "{name}: {peak} bytes more");
}

/// A figure of `/proc/self/status`, in bytes; 0 where there is none.
fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

fn append(journal: &Journal, queue: QueueId) -> Lsn {
    let message = NewMessage {
        exchange: b"exchange",
        routing_key: b"route-12",
        header: &[0; 20],
        body: BodyRecord::Inline(&[b'x'; 100]),
        queues: &[queue],
        flags: 0,
        time_unix_ms: 0,
    };
    journal.append_message(&message).expect("it is open").lsn
}

/// One turn; what the journal holds then stays below its bound.
fn turn(journal: &Journal, driver: &mut Driver) -> bool {
    let has_worked = driver.turn().expect("the disk works");
    let held = journal.usage().memory_bytes;
    MEMORY_BYTES.fetch_max(held, Ordering::Relaxed);
    assert!(held <= MEMORY_BYTES_MAX, "{held} bytes for single messages");
    has_worked
}

/// Turns until there is nothing left to write or to clean.
fn settle(journal: &Journal, driver: &mut Driver) {
    while turn(journal, driver) {}
}

fn backlog_count(journal: &Journal) -> usize {
    let (mut count, mut after) = (0, Lsn::ZERO);
    loop {
        let page = journal.read_backlog(KEPT, after, 1_000, 1 << 20);
        let page = page.expect("readable");
        let Some(last) = page.last() else {
            return count;
        };
        after = last.lsn;
        count += page.len();
    }
}
