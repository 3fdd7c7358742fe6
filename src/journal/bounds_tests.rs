//! What the journal holds in memory does not grow with what it holds on the disk.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::testing::disk::{CrashVariant, SimDisk};

use super::*;

const KEPT: QueueId = QueueId(1);
const GONE: QueueId = QueueId(2);
/// Of a disk so large the journal wants all to be free, so that it is always short of space.
const DISK_BYTES: u64 = 10 << 20;

fn open(disk: &SimDisk, segment_bytes: u32, start: u8) -> (Journal, Driver) {
    let settings = JournalSettings {
        segment_bytes,
        free_bytes_min: DISK_BYTES,
        seed: [start; 32],
        ..JournalSettings::default()
    };
    let opened = Journal::open_by_hand(Arc::new(disk.clone()), Path::new("/journal"), settings);
    let (journal, driver, _) = opened.unwrap();
    (journal, driver)
}

fn append(journal: &Journal, queue: QueueId) -> Lsn {
    let message = NewMessage {
        exchange: b"",
        routing_key: b"k",
        header: b"header",
        body: BodyRecord::Inline(&[1; 60]),
        queues: &[queue],
        flags: 0,
        time_unix_ms: 0,
    };
    journal.append_message(&message).unwrap().lsn
}

/// Turns until nothing is left to do; gives the most that was in memory meanwhile, in bytes.
fn settle(journal: &Journal, driver: &mut Driver) -> u64 {
    let mut peak = journal.usage().memory_bytes;
    while driver.turn().unwrap() {
        peak = peak.max(journal.usage().memory_bytes);
    }
    peak
}

fn lsns(journal: &Journal) -> Vec<Lsn> {
    let mut all = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or(Lsn::ZERO);
        let page = journal.read_backlog(KEPT, after, 1_000, 1 << 20).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page.iter().map(|message| message.lsn));
    }
}

/// Moves `count` messages, of which every segment holds less than half; gives the most that was in memory
/// for it, in bytes.
fn peak_of_moving(count: usize) -> u64 {
    let disk = SimDisk::new();
    let (journal, mut driver) = open(&disk, 64 << 10, 1);
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for number in 0..count {
        kept.push(append(&journal, KEPT));
        gone.extend((0..4).map(|_| append(&journal, GONE)));
        if number % 64 == 0 {
            driver.turn().unwrap();
        }
    }
    settle(&journal, &mut driver);
    let before = journal.shared().books.ledger().moves;
    let mut peak = 0;
    // In two ways: what goes in runs, and what goes one by one in an order of its own.
    let (runs, singles) = gone.split_at(gone.len() / 2);
    for lsns in runs.chunks(500) {
        journal.append_acks(GONE, lsns).unwrap();
        peak = peak.max(settle(&journal, &mut driver));
    }
    for lsn in singles
        .iter()
        .step_by(2)
        .chain(singles.iter().skip(1).step_by(2))
    {
        journal.append_acks(GONE, &[*lsn]).unwrap();
        if lsn.0 % 64 < 2 {
            peak = peak.max(settle(&journal, &mut driver));
        }
    }
    peak = peak.max(settle(&journal, &mut driver));
    let moves = journal.shared().books.ledger().moves - before;
    assert!(moves as usize > count / 4, "{moves} of {count} were moved");
    assert_eq!(lsns(&journal), kept);
    peak
}

/// Compaction holds the lists of the segment that it writes and one step's copies, however many messages it moves.
// req: JOURNAL-17
#[test]
fn moving_many_messages_takes_no_memory_for_each() {
    let peak = peak_of_moving(12_000);
    // A segment of 64 KiB has room for some 500 copies: two lists of 12 bytes each, and 24 for their origins.
    assert!(peak < 16_000, "{peak} bytes; 12 for each were 144,000");
}

/// Keeps 500 messages in the queue on a disk on which no footer has room, replacing each several times, so that
/// every segment is written again; gives the most that was in memory, and the store.
fn churn(footer_bytes_max: usize) -> (u64, SimDisk, Journal, Driver, Vec<Lsn>) {
    let disk = SimDisk::new();
    disk.set_capacity(Some(DISK_BYTES));
    disk.set_file_bytes_max(Some(SEGMENT_BYTES_MIN as usize));
    let (journal, mut driver) = open(&disk, SEGMENT_BYTES_MIN, 1);
    journal.shared().books.ledger().footer_bytes_max = footer_bytes_max;
    let mut live: VecDeque<Lsn> = (0..500).map(|_| append(&journal, KEPT)).collect();
    let mut peak = settle(&journal, &mut driver);
    for round in 0..1_500 {
        let gone = live.pop_front().unwrap();
        journal.append_acks(KEPT, &[gone]).unwrap();
        live.push_back(append(&journal, KEPT));
        if round % 10 == 0 {
            peak = peak.max(settle(&journal, &mut driver));
        }
    }
    peak = peak.max(settle(&journal, &mut driver));
    (peak, disk, journal, driver, live.into())
}

/// On a disk that stays full, footers that have no room wait in memory only up to a bound; what is read of the
/// others is made again from the records; and once there is room, what waits is written.
// req: JOURNAL-38
#[test]
fn full_disk_does_not_fill_the_memory_with_footers() {
    let (unbounded, ..) = churn(usize::MAX);
    let (peak, disk, journal, mut driver, live) = churn(1_000);
    assert!(unbounded > 3_500, "{unbounded} bytes: footers had no room");
    // What may wait, one footer more, and the lists of the segment that is written.
    assert!(peak < 2_300, "{peak} bytes of {unbounded}");
    assert_eq!(lsns(&journal), live);
    assert!(journal.usage().memory_bytes < 2_300, "also after reading");
    let crashed = disk.crash(CrashVariant::LoseAll, 0);
    let (again, _driver) = open(&crashed, SEGMENT_BYTES_MIN, 2);
    assert_eq!(lsns(&again), live);

    disk.set_file_bytes_max(None);
    disk.set_capacity(None);
    settle(&journal, &mut driver);
    let left = journal.usage().memory_bytes;
    assert!(
        left < 700,
        "{left} bytes: only the lists of the segment that is written"
    );
    assert_eq!(lsns(&journal), live);
    driver.close(&journal).unwrap();
    let (again, _driver) = open(&disk.crash(CrashVariant::LoseAll, 0), SEGMENT_BYTES_MIN, 2);
    assert_eq!(lsns(&again), live);
}

/// While what is pending waits for space, compaction appends nothing behind it, however long that lasts.
// req: JOURNAL-39
#[test]
fn compaction_does_not_pile_up_behind_a_full_disk() {
    let disk = SimDisk::new();
    let (journal, mut driver) = open(&disk, SEGMENT_BYTES_MIN, 1);
    let all: Vec<Lsn> = (0..400).map(|_| append(&journal, KEPT)).collect();
    settle(&journal, &mut driver);
    disk.set_capacity(Some(disk.used_bytes()));
    // More than the spares have room for, at once: then there is something to clean, and no room.
    let mut live = all.clone();
    for lsn in all.iter().copied().filter(|lsn| lsn.0 % 4 != 0) {
        journal.append_acks(KEPT, &[lsn]).unwrap();
    }
    live.retain(|lsn| lsn.0 % 4 == 0);
    live.extend((0..200).map(|_| append(&journal, KEPT)));
    while driver.turn().unwrap() {}
    let pending = journal.pending_bytes();
    assert!(pending > 8_000, "{pending} bytes wait");
    for _ in 0..100 {
        driver.turn().unwrap();
    }
    assert_eq!(journal.pending_bytes(), pending);
    disk.set_capacity(None);
    settle(&journal, &mut driver);
    assert_eq!(journal.pending_bytes(), 0);
    assert_eq!(lsns(&journal), live);
}
