//! Footers, and what is read by them: starts, backlogs, notes, ranges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::testing::disk::{CrashVariant, SimDisk};

use super::*;

const DIR: &str = "/journal";

fn settings(start: u8) -> JournalSettings {
    JournalSettings {
        segment_bytes: SEGMENT_BYTES_MIN,
        free_bytes_min: 0,
        seed: [start; 32],
        ..JournalSettings::default()
    }
}

fn try_open(disk: &SimDisk, start: u8) -> Result<(Journal, Driver, Recovered), JournalError> {
    Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings(start))
}

fn open(disk: &SimDisk, start: u8) -> (Journal, Driver, Recovered) {
    try_open(disk, start).unwrap()
}

fn settle(driver: &mut Driver) {
    while driver.turn().unwrap() {}
}

fn publish(journal: &Journal, body: &[u8], queues: &[u64]) -> Appended {
    let queues: Vec<QueueId> = queues.iter().copied().map(QueueId).collect();
    let message = NewMessage {
        exchange: b"x",
        routing_key: b"k",
        header: b"header",
        body: BodyRecord::Inline(body),
        queues: &queues,
        flags: 0,
        time_unix_ms: 0,
    };
    journal.append_message(&message).unwrap()
}

/// Publishes `count` messages, with a commit for each.
fn publish_many(journal: &Journal, driver: &mut Driver, count: usize, queues: &[u64]) -> Vec<Lsn> {
    let publish = |_| {
        let at = publish(journal, &[7; 100], queues);
        settle(driver);
        at.lsn
    };
    (0..count).map(publish).collect()
}

fn backlog(journal: &Journal, queue: u64) -> Vec<BacklogMessage> {
    let mut all: Vec<BacklogMessage> = Vec::new();
    loop {
        let after = all.last().map_or(Lsn::ZERO, |last| last.lsn);
        let read = journal.read_backlog(QueueId(queue), after, 9, 100_000);
        let read = read.unwrap();
        if read.is_empty() {
            return all;
        }
        all.extend(read);
    }
}

fn lsns(journal: &Journal, queue: u64) -> Vec<Lsn> {
    let messages = backlog(journal, queue);
    messages.into_iter().map(|message| message.lsn).collect()
}

fn segment_path(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("{number:010}.seg"))
}

/// A start after a clean stop reads no message's record: damage in one is found by who reads it, and the
/// others are there. After a crash only the last segment is read.
// req: JOURNAL-26 JOURNAL-29
#[test]
fn start_reads_footers_and_not_records() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let first = publish(&journal, &[1; 100], &[1]);
    let mut all = vec![first.lsn];
    all.extend(publish_many(&journal, &mut driver, 60, &[1]));
    let last = publish(&journal, &[1; 100], &[1]);
    all.push(last.lsn);
    settle(&mut driver);
    assert!(last.location.segment > first.location.segment + 1);
    while driver.quiet_turn().unwrap() {}
    let crashed = disk.crash(CrashVariant::LoseAll, 0);
    driver.close(&journal).unwrap();
    let closed = disk.crash(CrashVariant::LoseAll, 0);

    let damage = |disk: &SimDisk, at: Location| {
        let bit = (at.offset as usize + 40) * 8;
        disk.flip_bit(&segment_path(at.segment), bit);
    };
    for location in [first.location, last.location] {
        let damaged = closed.crash(CrashVariant::KeepAll, 0);
        damage(&damaged, location);
        let (journal, _driver, recovered) = open(&damaged, 2);
        assert!(recovered.clean);
        assert_eq!(recovered.queues[&QueueId(1)].count, all.len() as u64);
        let read = journal.read_backlog(QueueId(1), Lsn(first.lsn.0), 10, 100_000);
        assert_eq!(read.unwrap().len(), 10, "those behind the first are there");
        let whole = journal.read_backlog(QueueId(1), Lsn::ZERO, 1_000, 1 << 20);
        match whole {
            Err(JournalError::Damaged { path, offset, .. }) => {
                assert_eq!(path, segment_path(location.segment));
                assert_eq!(offset, u64::from(location.offset));
            }
            other => panic!("{other:?}"),
        }
    }
    damage(&crashed, first.location);
    assert_eq!(
        open(&crashed, 2).2.queues[&QueueId(1)].count,
        all.len() as u64
    );
    let crashed = disk.crash(CrashVariant::LoseAll, 0);
    assert_eq!(lsns(&open(&crashed, 2).0, 1), all);
}

/// A damaged bit anywhere in a footer costs time and nothing else.
// req: JOURNAL-27 JOURNAL-28
#[test]
fn damaged_footer_is_made_again_from_the_records() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let all = publish_many(&journal, &mut driver, 60, &[1, 2]);
    let acked: Vec<Lsn> = all.iter().copied().step_by(3).collect();
    journal.append_acks(QueueId(2), &acked).unwrap();
    settle(&mut driver);
    driver.close(&journal).unwrap();
    let left: Vec<Lsn> = all
        .iter()
        .copied()
        .filter(|lsn| !acked.contains(lsn))
        .collect();
    let (mut base, mut end) = (0, 0);
    disk.damage(&segment_path(2), |content| {
        end = content.len();
        let at = end - footer::TRAILER_BYTES + 16;
        base = u32::from_le_bytes(content[at..at + 4].try_into().unwrap()) as usize;
    });
    assert!(end - base > 200, "there is a footer of some length");
    for byte in (base..end).step_by(7) {
        let damaged = disk.crash(CrashVariant::KeepAll, 0);
        damaged.flip_bit(&segment_path(2), byte * 8 + 3);
        let (journal, mut driver, recovered) = open(&damaged, 2);
        assert_eq!(recovered.queues[&QueueId(2)].count, left.len() as u64);
        assert_eq!(lsns(&journal, 1), all, "byte {byte}");
        assert_eq!(lsns(&journal, 2), left);
        journal.append_acks(QueueId(1), &all).unwrap();
        settle(&mut driver);
        assert_eq!(lsns(&journal, 1), []);
    }
}

/// A store of format 1 opens, and its segments get footers then.
// req: JOURNAL-26
#[test]
fn version_1_is_read() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let all = publish_many(&journal, &mut driver, 60, &[1]);
    journal.append_acks(QueueId(1), &all[..5]).unwrap();
    settle(&mut driver);
    let disk = disk.crash(CrashVariant::LoseAll, 0);
    for (path, _) in disk.files() {
        if path.extension().is_some_and(|extension| extension == "seg") {
            disk.damage(&path, |content| {
                content[8] = 1;
                let checksum = crc32c::crc32c(&content[..60]);
                content[60..64].copy_from_slice(&checksum.to_le_bytes());
                // There were no footers: none of them may be needed.
                let end = content.len();
                content[end - footer::TRAILER_BYTES..].fill(0);
            });
        }
    }
    let (journal, driver, recovered) = open(&disk, 2);
    assert_eq!(recovered.queues[&QueueId(1)].count, 55);
    assert_eq!(lsns(&journal, 1), all[5..]);
    drop(driver);
    let damaged = disk.crash(CrashVariant::LoseAll, 0);
    damaged.flip_bit(&segment_path(2), 8 * 300);
    assert_eq!(open(&damaged, 3).2.queues[&QueueId(1)].count, 55);
}

/// What is noted of a message stays with it when its segment and the note's are released, the greatest
/// counts, and the ack ends it.
// req: JOURNAL-31
#[test]
fn notes_stay_with_their_messages() {
    let disk = SimDisk::new();
    let (mut journal, mut driver, _) = open(&disk, 1);
    let old = publish(&journal, b"old", &[5]).lsn;
    let gone = publish(&journal, b"gone", &[5]).lsn;
    for note in [3, 2] {
        journal
            .append_noted(QueueId(5), &[old, gone], note)
            .unwrap();
    }
    journal.append_acks(QueueId(5), &[gone]).unwrap();
    for start in 2..6 {
        for lsn in publish_many(&journal, &mut driver, 100, &[1]) {
            journal.append_acks(QueueId(1), &[lsn]).unwrap();
            settle(&mut driver);
        }
        let kept = backlog(&journal, 5);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].lsn, kept[0].note), (old, 3));
        if start % 2 == 0 {
            driver.close(&journal).unwrap();
        }
        let opened = open(&disk.crash(CrashVariant::LoseAll, 0), start);
        // The next round goes on with what a crash would leave.
        (journal, driver) = (opened.0, opened.1);
        assert_eq!(opened.2.queues[&QueueId(5)].count, 1);
        let kept = backlog(&journal, 5);
        assert_eq!((kept[0].lsn, kept[0].note), (old, 3));
    }
}

/// Ranges take a queue's messages and no other's, not those that are appended later, and whole segments
/// as well as parts of them; also after a restart.
// req: JOURNAL-32
#[test]
fn ranges_are_cleared() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let both = publish_many(&journal, &mut driver, 80, &[1, 2]);
    let ranges = [(both[3], both[50]), (both[60], Lsn(u64::MAX - 1))];
    journal.append_cleared(QueueId(1), &ranges).unwrap();
    let later = publish(&journal, b"later", &[1]).lsn;
    settle(&mut driver);
    let mut left = both[..3].to_vec();
    left.extend(&both[51..60]);
    left.push(later);
    assert_eq!(lsns(&journal, 1), left);
    assert_eq!(lsns(&journal, 2), both);
    let crashed = disk.crash(CrashVariant::LoseAll, 0);
    let (journal, _driver, recovered) = open(&crashed, 2);
    assert_eq!(recovered.queues[&QueueId(1)].count, left.len() as u64);
    assert_eq!(lsns(&journal, 1), left);
    assert_eq!(lsns(&journal, 2), both);
}

/// A queue is read from its n-th message on, in this run and after a start, moved messages among them.
// req: JOURNAL-30
#[test]
fn nth_message_is_found() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let stream = publish_many(&journal, &mut driver, 5, &[9]);
    for lsn in publish_many(&journal, &mut driver, 300, &[1]) {
        journal.append_acks(QueueId(1), &[lsn]).unwrap();
    }
    settle(&mut driver);
    let mut stream = stream;
    stream.extend(publish_many(&journal, &mut driver, 100, &[9]));
    let check = |journal: &Journal| {
        for (n, lsn) in stream.iter().enumerate() {
            let found = journal.nth_message(QueueId(9), n as u64).unwrap();
            assert_eq!(found, Some(*lsn), "message {n}");
        }
        let behind = journal.nth_message(QueueId(9), stream.len() as u64);
        assert_eq!(behind.unwrap(), None);
        let behind = journal.nth_message_behind(QueueId(9), stream[10], 20);
        assert_eq!(behind.unwrap(), Some(stream[31]));
        // req: JOURNAL-37
        for bytes_max in [1, 2_000, u64::MAX] {
            let spans = journal.spans(QueueId(9), stream[2], bytes_max).unwrap();
            let mut at = 3;
            for span in spans {
                at += usize::try_from(span.count).unwrap();
                assert_eq!(span.last, stream[at - 1]);
            }
            assert_eq!(at, stream.len());
        }
        let read = journal.read_backlog(QueueId(9), stream[49], 10, 1 << 20);
        let read: Vec<Lsn> = read
            .unwrap()
            .into_iter()
            .map(|message| message.lsn)
            .collect();
        assert_eq!(read, stream[50..60]);
    };
    check(&journal);
    driver.close(&journal).unwrap();
    let (journal, _driver, _) = open(&disk, 2);
    check(&journal);
}

/// Of two queues whose messages alternate one is emptied: compaction moves the other's, and neither the
/// disk nor the accounts grow with what is gone.
// req: JOURNAL-17 JOURNAL-19
#[test]
fn alternating_queues_stay_bounded() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let mut kept = Vec::new();
    for _ in 0..300 {
        let gone = publish(&journal, &[1; 300], &[1]).lsn;
        kept.push(publish(&journal, &[2; 60], &[2]).lsn);
        journal.append_acks(QueueId(1), &[gone]).unwrap();
        settle(&mut driver);
    }
    let used: usize = disk.files().iter().map(|(_, len)| len).sum();
    assert!(used < 4 * 300 * 130 + 8 * 4_096, "{used} bytes");
    assert_eq!(lsns(&journal, 2), kept);
    {
        let ledger = journal.shared().books.ledger();
        for (number, account) in ledger.segments().filter(|(_, a)| a.contents.is_none()) {
            assert!(account.shares.len() <= 1, "segment {number}");
        }
    }
    let half: Vec<Lsn> = kept.iter().copied().step_by(2).collect();
    journal.append_acks(QueueId(2), &half).unwrap();
    settle(&mut driver);
    let left: Vec<Lsn> = kept.iter().copied().skip(1).step_by(2).collect();
    assert_eq!(lsns(&journal, 2), left);
    let (journal, _driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert_eq!(recovered.queues[&QueueId(2)].count, left.len() as u64);
    assert_eq!(lsns(&journal, 2), left);
}

/// A batch that goes over several segments is there whole or not at all, whichever segments are read.
// req: JOURNAL-11
#[test]
fn batch_over_segments_is_atomic() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let old = publish(&journal, b"old", &[3]).lsn;
    settle(&mut driver);
    let queues: Vec<[QueueId; 1]> = (10..30).map(|queue| [QueueId(queue)]).collect();
    let mut entries: Vec<Entry<'_>> = queues
        .iter()
        .map(|queues| {
            Entry::Message(NewMessage {
                exchange: b"x",
                routing_key: b"k",
                header: b"header",
                body: BodyRecord::Inline(&[4; 500]),
                queues,
                flags: 0,
                time_unix_ms: 0,
            })
        })
        .collect();
    let lsns_acked = [old];
    entries.push(Entry::Acks {
        queue: QueueId(3),
        lsns: &lsns_acked,
    });
    let appended = journal.append_batch(&entries).unwrap();
    assert!(appended[19].location.segment > appended[0].location.segment + 1);
    disk.record();
    settle(&mut driver);
    let history = disk.history();
    let mut points = history.crash_points();
    let (mut whole, mut none) = (0, 0);
    loop {
        for variant in CrashVariant::ALL {
            let crashed = points.crash(variant, 5);
            for again in 0..2 {
                let (journal, driver, recovered) = open(&crashed, 2 + again);
                let found = recovered.queues.len();
                let expected = if lsns(&journal, 3) == [old] { 1 } else { 20 };
                assert_eq!(found, expected, "{variant:?}");
                whole += u32::from(found == 20);
                none += u32::from(found == 1);
                drop((journal, driver));
            }
        }
        if !points.advance() {
            break;
        }
    }
    assert!(whole > 0 && none > 0, "{whole} whole, {none} none");
}

/// The scrubber reads every full segment, and tells of a damaged one with the record's place, each round.
// req: JOURNAL-33 JOURNAL-25
#[test]
fn scrubber_finds_damage() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let first = publish(&journal, &[1; 100], &[1]);
    publish_many(&journal, &mut driver, 60, &[1]);
    while driver.scrub_step() {}
    let scrubbed = journal.scrubbed();
    assert_eq!((scrubbed.round_count, scrubbed.damage_count), (1, 0));
    assert!(scrubbed.bytes > 2 * 4_000, "{scrubbed:?}");
    let bit = (first.location.offset as usize + 40) * 8;
    disk.flip_bit(&segment_path(first.location.segment), bit);
    for round in 1..3 {
        while driver.scrub_step() {}
        let scrubbed = journal.scrubbed();
        assert_eq!(scrubbed.damage_count, round);
        let place = format!("damaged at byte {}", first.location.offset);
        assert!(scrubbed.damage[0].contains(&place), "{scrubbed:?}");
    }
    assert_eq!(journal.failed(), None);
}

/// A new store takes one segment; more are kept ready as it is used.
// req: JOURNAL-34
#[test]
fn spares_come_with_use() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    settle(&mut driver);
    let spares = || {
        let files = disk.files();
        let spares = files
            .iter()
            .filter(|(path, _)| path.to_string_lossy().contains("spare-"));
        spares.count()
    };
    assert_eq!((spares(), disk.files().len()), (0, 1));
    publish_many(&journal, &mut driver, 14, &[1]);
    assert_eq!(spares(), 1);
    publish_many(&journal, &mut driver, 30, &[1]);
    assert_eq!(spares(), 2);
}
