//! The journal as its users see it, driven by hand on a simulated disk and once on a thread.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::testing::disk::{CrashVariant, SimDisk};

use super::*;

mod model;

const DIR: &str = "/journal";

fn settings(start: u8) -> JournalSettings {
    JournalSettings {
        segment_bytes: SEGMENT_BYTES_MIN,
        free_bytes_min: 0,
        seed: [start; 32],
        ..JournalSettings::default()
    }
}

fn open(disk: &SimDisk, start: u8) -> (Journal, Driver, Recovered) {
    Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings(start)).unwrap()
}

fn message<'a>(body: &'a [u8], queues: &'a [QueueId]) -> NewMessage<'a> {
    NewMessage {
        exchange: b"x",
        routing_key: b"k",
        header: b"header",
        body: BodyRecord::Inline(body),
        queues,
        flags: 0,
        time_unix_ms: 0,
    }
}

fn settle(driver: &mut Driver) {
    while driver.turn().unwrap() {}
}

/// All messages of a queue, read page by page.
fn backlog(journal: &Journal, queue: QueueId) -> Vec<BacklogMessage> {
    let mut all: Vec<BacklogMessage> = Vec::new();
    loop {
        let after = all.last().map_or(Lsn::ZERO, |last| last.lsn);
        let read = journal.read_backlog(queue, after, 5, 2_000).unwrap();
        if read.is_empty() {
            return all;
        }
        all.extend(read);
    }
}

fn lsns(journal: &Journal, queue: u64) -> Vec<Lsn> {
    let messages = backlog(journal, QueueId(queue));
    messages.into_iter().map(|message| message.lsn).collect()
}

fn inline(stored: &StoredMessage) -> &[u8] {
    match &stored.body {
        StoredBody::Inline(bytes) => bytes,
        StoredBody::Payload(_) => panic!("an inline body was written"),
    }
}

fn segment_count(disk: &SimDisk) -> usize {
    disk.files()
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"))
        .count()
}

/// Messages, acks and definitions are there after a restart, in order, and can be read.
#[test]
fn what_was_durable_is_recovered() {
    let disk = SimDisk::new();
    let (journal, mut driver, recovered) = open(&disk, 1);
    assert!(recovered.queues.is_empty() && recovered.definitions.is_empty() && !recovered.clean);
    journal
        .put_definition(b"queue/a", Some(b"durable"))
        .unwrap();
    journal.put_definition(b"queue/b", Some(b"gone")).unwrap();
    journal.put_definition(b"queue/b", None).unwrap();
    let both = [QueueId(1), QueueId(2)];
    let first = journal.append_message(&message(b"first", &both)).unwrap();
    let second = journal
        .append_message(&message(b"second", &both[..1]))
        .unwrap();
    let third = journal.append_message(&message(b"third", &both)).unwrap();
    let last = journal.append_acks(QueueId(1), &[first.lsn]).unwrap();
    assert!(!journal.durable_lsn().covers(last));
    settle(&mut driver);
    assert!(journal.durable_lsn().covers(last));
    assert_eq!(
        inline(&journal.read_message(second.lsn, second.location).unwrap()),
        b"second"
    );

    let (journal, driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert_eq!(
        recovered.definitions,
        [(b"queue/a".to_vec(), b"durable".to_vec())]
    );
    assert_eq!(lsns(&journal, 1), [second.lsn, third.lsn]);
    assert_eq!(lsns(&journal, 2), [first.lsn, third.lsn]);
    assert!(!recovered.clean);
    assert_eq!(recovered.queue_id_max, QueueId(2));
    for (found, body) in backlog(&journal, QueueId(2))
        .iter()
        .zip([b"first", b"third"])
    {
        assert_eq!(inline(&found.message), body);
        let stored = journal.read_message(found.lsn, found.location).unwrap();
        assert_eq!(stored, found.message);
    }
    let expected = RecoveredQueue {
        count: 2,
        body_bytes: 10,
        first: first.lsn,
        last: third.lsn,
        payloads: Vec::new(),
    };
    assert_eq!(recovered.queues[&QueueId(2)], expected);
    drop(driver);
}

/// A clean stop is told from a crash, and from a stop after which the store was opened again.
// req: JOURNAL-15
#[test]
fn clean_stop_is_known() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let queues = [QueueId(1)];
    let kept = journal.append_message(&message(b"kept", &queues)).unwrap();
    let seen = journal.append_message(&message(b"seen", &queues)).unwrap();
    settle(&mut driver);
    journal.append_delivered(QueueId(1), &[seen.lsn]).unwrap();
    driver.close(&journal).unwrap();
    assert!(matches!(
        journal.append_message(&message(b"x", &queues)),
        Err(JournalError::Closed)
    ));

    let disk = disk.crash(CrashVariant::LoseAll, 0);
    let (journal, driver, recovered) = open(&disk, 2);
    assert!(recovered.clean);
    let found = backlog(&journal, QueueId(1));
    assert_eq!(
        found
            .iter()
            .map(|m| (m.lsn, m.was_delivered))
            .collect::<Vec<_>>(),
        [(kept.lsn, false), (seen.lsn, true)]
    );
    drop(driver);
    let (_journal, _driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), 3);
    assert!(!recovered.clean);
}

/// What is appended and not synced is not durable, and a crash may lose it but not what came before.
// req: JOURNAL-1 JOURNAL-2 JOURNAL-10
#[test]
fn torn_tail_is_dropped() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let queues = [QueueId(1)];
    let safe = journal
        .append_message(&message(&[1; 300], &queues))
        .unwrap();
    settle(&mut driver);
    journal
        .append_message(&message(&[2; 700], &queues))
        .unwrap();
    assert_eq!(journal.durable_lsn().lsn(), safe.lsn);
    disk.fail_op(disk.op_count() + 1, io::ErrorKind::Other);
    assert!(driver.turn().is_err(), "the sync fails");
    for (seed, variant) in CrashVariant::ALL.into_iter().enumerate() {
        let (again, _driver, _) = open(&disk.crash(variant, seed as u64), 2);
        assert_eq!(lsns(&again, 1)[0], safe.lsn, "{variant:?}");
    }
}

/// After a failed sync nothing is confirmed, and every call gives the failure.
// req: JOURNAL-22
#[test]
fn failed_sync_stops_everything() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    settle(&mut driver);
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    journal.set_failure_listener(Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let queues = [QueueId(1)];
    let lost = journal.append_message(&message(b"x", &queues)).unwrap();
    disk.fail_op(disk.op_count() + 1, io::ErrorKind::Other);
    let failure = driver.turn().unwrap_err();
    assert_eq!(failure.doing, "sync");
    assert!(!journal.durable_lsn().covers(lost.lsn));
    assert_eq!(journal.failed(), Some(failure));
    assert!(matches!(
        journal.append_message(&message(b"y", &queues)),
        Err(JournalError::Failed(_))
    ));
    assert!(matches!(
        journal.wait_durable(lost.lsn),
        Err(JournalError::Failed(_))
    ));
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}

/// A flipped bit in what a later mark covers refuses the start, and says where.
// req: JOURNAL-9 JOURNAL-4
#[test]
fn damage_is_not_taken_for_a_torn_tail() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let queues = [QueueId(1)];
    let at = journal
        .append_message(&message(b"important", &queues))
        .unwrap();
    settle(&mut driver);
    let damaged = disk.crash(CrashVariant::KeepAll, 0);
    let path = Path::new(DIR).join("0000000001.seg");
    damaged.flip_bit(&path, (at.location.offset as usize + 60) * 8);
    let open_damaged = |disk: &SimDisk| {
        Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings(2)).map(|_| ())
    };
    // Not covered yet: no mark was written after it.
    assert!(open_damaged(&damaged).is_ok());
    while driver.quiet_turn().unwrap() {}
    let damaged = disk.crash(CrashVariant::KeepAll, 0);
    damaged.flip_bit(&path, (at.location.offset as usize + 60) * 8);
    let files = damaged.files();
    match open_damaged(&damaged) {
        Err(JournalError::Damaged {
            path: found,
            offset,
            ..
        }) => {
            assert_eq!((found, offset), (path, u64::from(at.location.offset)));
        }
        other => panic!("damage was not seen: {other:?}"),
    }
    assert_eq!(damaged.files(), files, "nothing was changed");
}

/// A verification says what a start would find, and changes nothing; a listing shows each record.
// req: JOURNAL-25
#[test]
fn store_can_be_looked_into() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    journal.put_definition(b"queue/a", Some(b"secret")).unwrap();
    for _ in 0..20 {
        let both = [QueueId(1), QueueId(2)];
        let at = journal.append_message(&message(&[1; 400], &both)).unwrap();
        journal.append_acks(QueueId(1), &[at.lsn]).unwrap();
        settle(&mut driver);
    }
    let disk = disk.crash(CrashVariant::KeepAll, 0);
    let files = disk.files();
    let dir = Path::new(DIR);
    let verified = verify(Arc::new(disk.clone()), dir).unwrap();
    assert_eq!((verified.queue_count, verified.message_count), (1, 20));
    assert_eq!((verified.definition_count, verified.clean), (1, false));
    assert_eq!(verified.last, journal.durable_lsn().lsn());

    let mut lines = Vec::new();
    list(Arc::new(disk.clone()), dir, |record| lines.push(record)).unwrap();
    let of_kind = |kind| lines.iter().filter(|line| line.kind == kind).count();
    assert_eq!(
        (of_kind("message"), of_kind("acks"), of_kind("started")),
        (20, 20, 1)
    );
    assert!(lines.iter().any(|line| line.content == "queue/a (6 bytes)"));
    assert_eq!(disk.files(), files);

    disk.flip_bit(&dir.join("0000000001.seg"), 8 * 300);
    assert!(matches!(
        verify(Arc::new(disk), dir),
        Err(JournalError::Damaged { .. })
    ));
}

/// A segment whose file is gone refuses the start.
// req: JOURNAL-13
#[test]
fn missing_segment_is_refused() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    for _ in 0..20 {
        journal
            .append_message(&message(&[1; 500], &[QueueId(1)]))
            .unwrap();
        settle(&mut driver);
    }
    let after = disk.crash(CrashVariant::KeepAll, 0);
    let path = Path::new(DIR).join("0000000002.seg");
    after.remove(&path).unwrap();
    match Journal::open_by_hand(Arc::new(after), Path::new(DIR), settings(2)) {
        Err(JournalError::SegmentMissing { path: missing }) => assert_eq!(missing, path),
        other => panic!("the gap was not seen: {:?}", other.map(|_| ())),
    }
}

/// Consumed messages give their disk space back.
// req: JOURNAL-14 JOURNAL-16 JOURNAL-20
#[test]
fn consumed_segments_are_released() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    for _ in 0..500 {
        let at = journal
            .append_message(&message(&[1; 300], &[QueueId(1)]))
            .unwrap();
        settle(&mut driver);
        journal.append_acks(QueueId(1), &[at.lsn]).unwrap();
        settle(&mut driver);
    }
    assert!(segment_count(&disk) <= 3, "{:?}", disk.files());
    let (_journal, _driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert!(recovered.queues.is_empty());
}

/// A segment whose release was noted just before the log went on in a new segment is not missed.
// req: JOURNAL-13
#[test]
fn release_noted_in_an_older_segment_is_known() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let mut all = Vec::new();
    while segment_count(&disk) < 3 {
        all.push(
            journal
                .append_message(&message(&[1; 100], &[QueueId(1)]))
                .unwrap()
                .lsn,
        );
        settle(&mut driver);
    }
    journal.append_acks(QueueId(1), &all).unwrap();
    // The first segment's release is appended, and in the same batch the log goes on in the next one.
    while !matches!(
        driver.committer.cleaning,
        compact::Cleaning::Releasing { .. }
    ) {
        assert!(driver.turn().unwrap(), "something is released");
    }
    for _ in 0..10 {
        journal
            .append_message(&message(&[1; 500], &[QueueId(1)]))
            .unwrap();
    }
    settle(&mut driver);
    let (again, _driver, _) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert_eq!(lsns(&again, 1).len(), 10);
}

/// One old message in a queue that nobody reads does not hold the disk; it can still be read by the
/// place that it had at first, survives restarts, and its late ack is not forgotten.
// req: JOURNAL-17 JOURNAL-18 JOURNAL-19
#[test]
fn old_message_does_not_pin_the_disk() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let old = journal
        .append_message(&message(b"old", &[QueueId(7), QueueId(8)]))
        .unwrap();
    journal.append_acks(QueueId(8), &[old.lsn]).unwrap();
    let flow = |journal: &Journal, driver: &mut Driver| {
        for _ in 0..300 {
            let at = journal
                .append_message(&message(&[1; 300], &[QueueId(1)]))
                .unwrap();
            journal.append_acks(QueueId(1), &[at.lsn]).unwrap();
            settle(driver);
        }
    };
    flow(&journal, &mut driver);
    assert!(segment_count(&disk) <= 4, "{:?}", disk.files());
    assert_eq!(
        inline(&journal.read_message(old.lsn, old.location).unwrap()),
        b"old"
    );

    let disk = disk.crash(CrashVariant::LoseAll, 0);
    let (journal, mut driver, _) = open(&disk, 2);
    assert_eq!(lsns(&journal, 7), [old.lsn]);
    assert_eq!(lsns(&journal, 8), []);
    flow(&journal, &mut driver);
    journal.append_acks(QueueId(7), &[old.lsn]).unwrap();
    flow(&journal, &mut driver);
    assert!(matches!(
        journal.read_message(old.lsn, old.location),
        Err(JournalError::NotFound { .. })
    ));
    let (_journal, _driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), 3);
    assert!(recovered.queues.is_empty(), "{:?}", recovered.queues);
}

/// Definitions that change all the time do not grow the disk, and survive the release of segments.
// req: JOURNAL-21
#[test]
fn definitions_are_kept_by_checkpoints() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    journal.put_definition(b"fixed", Some(b"value")).unwrap();
    for round in 0..400u32 {
        journal
            .put_definition(b"changing", Some(&round.to_le_bytes()))
            .unwrap();
        journal
            .put_definition(format!("q{round}").as_bytes(), Some(&[1; 50]))
            .unwrap();
        journal
            .put_definition(format!("q{round}").as_bytes(), None)
            .unwrap();
        settle(&mut driver);
    }
    assert!(segment_count(&disk) <= 3, "{:?}", disk.files());
    let (_journal, _driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert_eq!(
        recovered.definitions,
        [
            (b"changing".to_vec(), 399u32.to_le_bytes().to_vec()),
            (b"fixed".to_vec(), b"value".to_vec())
        ]
    );
}

/// A full disk stops nothing for good: what is pending waits, and goes on when there is space.
// req: JOURNAL-23 JOURNAL-24 JOURNAL-45
#[test]
fn full_disk_waits_for_space() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let mut appended = Vec::new();
    for _ in 0..15 {
        appended.push(
            journal
                .append_message(&message(&[1; 300], &[QueueId(1)]))
                .unwrap()
                .lsn,
        );
        settle(&mut driver);
    }
    let alarm = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&alarm);
    journal.set_space_listener(Box::new(move |is_low| heard.lock().push(is_low)));
    disk.set_capacity(Some(disk.used_bytes()));
    for _ in 0..60 {
        appended.push(
            journal
                .append_message(&message(&[1; 300], &[QueueId(1)]))
                .unwrap()
                .lsn,
        );
        settle(&mut driver);
    }
    let durable = journal.durable_lsn();
    let last = *appended.last().unwrap();
    assert!(!durable.covers(last), "the disk was full");
    assert!(durable.covers(appended[35]), "the spares were used first");
    // Who reads is not held: it may be who makes room.
    let nowhere = Location {
        segment: 1,
        offset: 0,
    };
    let waits = journal.read_message(last, nowhere);
    assert!(matches!(waits, Err(JournalError::WaitsForSpace { lsn }) if lsn == last));
    let both = [appended[0], last].map(|lsn| (lsn, nowhere));
    let waits = journal.read_messages(&both, ReadFrom::Disk, |_, _| {
        panic!("one of them cannot be read")
    });
    assert!(matches!(waits, Err(JournalError::WaitsForSpace { lsn }) if lsn == last));
    assert_eq!(*alarm.lock(), [true]);
    let (again, _, _) = open(&disk.crash(CrashVariant::KeepAll, 0), 2);
    assert!(lsns(&again, 1).len() >= 35);

    disk.set_capacity(None);
    settle(&mut driver);
    assert!(journal.durable_lsn().covers(last));
    settle(&mut driver);
    assert_eq!(*alarm.lock(), [true, false]);
    let (again, _, _) = open(&disk.crash(CrashVariant::LoseAll, 0), 3);
    assert_eq!(lsns(&again, 1), appended);
}

/// Where nothing could be reserved, a write that finds no space, in the middle of a segment or at its beginning, is
/// made again: whatever it left is as a torn tail. A sync that finds none ends the journal.
// req: JOURNAL-44
#[test]
fn a_write_without_space_is_made_again() {
    let (mut held, mut ended) = (0, 0);
    for op in 0.. {
        let disk = SimDisk::new();
        let (journal, mut driver, _) = open(&disk, 1);
        let first = disk.op_count();
        disk.fail_op(first + op, io::ErrorKind::StorageFull);
        let alarm = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&alarm);
        journal.set_space_listener(Box::new(move |is_low| heard.lock().push(is_low)));
        let (mut appended, mut failure) = (Vec::new(), None);
        for number in 0..2 * SEGMENT_BYTES_MIN / 400 {
            let body = [number as u8; 300];
            let Ok(at) = journal.append_message(&message(&body, &[QueueId(1)])) else {
                break;
            };
            appended.push(at.lsn);
            match driver.turn() {
                Ok(_) if !journal.durable_lsn().covers(at.lsn) => {
                    assert_eq!(*alarm.lock(), [true], "op {op}: publishers are held");
                    for variant in CrashVariant::ALL {
                        let crashed = disk.crash(variant, op);
                        let (again, _, _) = open(&crashed, 2);
                        let kept = lsns(&again, 1);
                        let least = appended.len() - 1;
                        assert!(
                            kept.len() >= least && appended.starts_with(&kept),
                            "op {op}"
                        );
                    }
                    settle(&mut driver);
                    held += 1;
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        if let Some(failure) = failure {
            assert!(matches!(failure.doing, "sync" | "rename"), "{failure:?}");
            ended += 1;
        } else {
            settle(&mut driver);
            assert!(journal.durable_lsn().covers(*appended.last().unwrap()));
            assert_ne!(alarm.lock().last(), Some(&true), "and let go on");
            let (again, _, _) = open(&disk.crash(CrashVariant::LoseAll, 0), 3);
            assert_eq!(lsns(&again, 1), appended, "op {op}");
        }
        if disk.op_count() <= first + op {
            break;
        }
    }
    assert!(held > 20 && ended > 20, "{held} held, {ended} ended");
}

/// Segments that crashes cut off are no hollow ballast: they get their room back before they are kept for a
/// full disk, or another one is made.
// req: JOURNAL-36
#[test]
fn segments_that_were_cut_off_are_whole_spares() {
    let mut disk = SimDisk::new();
    for start in 1..8 {
        let (journal, mut driver, _) = open(&disk, start);
        let body = message(&[1; 300], &[QueueId(1)]);
        let at = journal.append_message(&body).unwrap();
        settle(&mut driver);
        if start == 7 {
            let all = lsns(&journal, 1);
            journal.append_acks(QueueId(1), &all).unwrap();
            settle(&mut driver);
            disk.set_capacity(Some(disk.used_bytes()));
            let two_segments = 2 * SEGMENT_BYTES_MIN / 400;
            let mut last = at.lsn;
            for _ in 0..two_segments {
                last = journal.append_message(&body).unwrap().lsn;
                settle(&mut driver);
            }
            assert!(journal.durable_lsn().covers(last), "the spares have room");
        }
        let spares = disk.files().into_iter().filter(|(path, _)| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("spare-")
        });
        for (path, len) in spares {
            assert!(
                len >= SEGMENT_BYTES_MIN as usize,
                "{}: {len} bytes",
                path.display()
            );
        }
        drop((journal, driver));
        disk = disk.crash(CrashVariant::KeepAll, 0);
    }
}

/// A damaged segment that cannot be copied stays, and does not keep the disk from being cleaned.
// req: JOURNAL-25
#[test]
fn damaged_segment_does_not_stop_the_cleaning() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let old = journal
        .append_message(&message(&[9; 100], &[QueueId(7)]))
        .unwrap();
    settle(&mut driver);
    let path = Path::new(DIR).join("0000000001.seg");
    let bit = (old.location.offset as usize + 60) * 8;
    disk.flip_bit(&path, bit);
    for _ in 0..600 {
        let body = message(&[1; 300], &[QueueId(1)]);
        let at = journal.append_message(&body).unwrap();
        journal.append_acks(QueueId(1), &[at.lsn]).unwrap();
        settle(&mut driver);
    }
    assert!(segment_count(&disk) <= 6, "{:?}", disk.files());
    let read = journal.read_message(old.lsn, old.location);
    assert!(
        matches!(read, Err(JournalError::Damaged { .. })),
        "{read:?}"
    );
    disk.flip_bit(&path, bit);
    let read = journal.read_message(old.lsn, old.location).unwrap();
    assert_eq!(inline(&read), [9; 100], "it was left as it was");
}

/// A deleted queue's messages are gone, also after a restart and with others holding the same messages.
#[test]
fn deleted_queue_is_forgotten() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1);
    let both = [QueueId(1), QueueId(2)];
    let at = journal.append_message(&message(b"both", &both)).unwrap();
    journal
        .append_message(&message(b"one", &both[..1]))
        .unwrap();
    journal.append_queue_delete(QueueId(1)).unwrap();
    settle(&mut driver);
    let (again, _driver, _) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert_eq!(lsns(&again, 1), []);
    assert_eq!(lsns(&again, 2), [at.lsn]);
}

/// With `sync = os` a record counts before it is synced, and a power loss leaves a store that opens.
// req: JOURNAL-7
#[test]
fn os_mode_does_not_wait_for_the_disk() {
    let disk = SimDisk::new();
    let settings = JournalSettings {
        sync: SyncMode::Os,
        ..settings(1)
    };
    let (journal, mut driver, _) =
        Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings).unwrap();
    let queues = [QueueId(1)];
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(
            journal
                .append_message(&message(&[3; 200], &queues))
                .unwrap()
                .lsn,
        );
        settle(&mut driver);
    }
    assert!(journal.durable_lsn().covers(*all.last().unwrap()));
    let (again, _, _) = open(&disk.crash(CrashVariant::KeepAll, 0), 2);
    assert_eq!(lsns(&again, 1), all);
    for seed in 0..20 {
        for variant in CrashVariant::ALL {
            let (again, _, _) = open(&disk.crash(variant, seed), 2);
            let found = lsns(&again, 1);
            assert_eq!(found, all[..found.len()], "a prefix is there");
        }
    }
    while driver.quiet_turn().unwrap() {}
    let (again, _, _) = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    assert_eq!(lsns(&again, 1), all, "the closing mark's sync covers it");
}

/// A record that could not fit is refused, and nothing else happens.
#[test]
fn too_large_record_is_refused() {
    let (journal, _driver, _) = open(&SimDisk::new(), 1);
    let body = vec![0; SEGMENT_BYTES_MIN as usize];
    assert!(matches!(
        journal.append_message(&message(&body, &[QueueId(1)])),
        Err(JournalError::RecordTooLarge { .. })
    ));
    assert!(matches!(
        journal.append_message(&message(b"", &[])),
        Err(JournalError::RecordTooLarge { .. })
    ));
    assert_eq!(journal.pending_bytes(), 0);
}

/// With its own thread and many appenders: the listener hears of every message, and close is clean.
// req: JOURNAL-3
#[test]
fn thread_commits_for_many_appenders() {
    let disk = SimDisk::new();
    let open = |start| {
        Journal::open(
            Arc::new(disk.clone()),
            Path::new(DIR),
            JournalSettings {
                pending_bytes_max: 2_000,
                ..settings(start)
            },
        )
        .unwrap()
    };
    let (journal, _) = open(1);
    let heard = Arc::new(AtomicU64::new(0));
    let latest = Arc::clone(&heard);
    journal.set_commit_listener(Box::new(move |durable| {
        let before = latest.swap(durable.lsn().0, Ordering::AcqRel);
        assert!(before < durable.lsn().0, "positions only grow");
    }));
    let threads: Vec<_> = (1..=4)
        .map(|queue| {
            let journal = journal.clone();
            thread::spawn(move || {
                let queues = [QueueId(queue)];
                let append = |_| {
                    journal
                        .append_message(&message(&[9; 100], &queues))
                        .unwrap()
                        .lsn
                };
                (0..200).map(append).collect::<Vec<_>>()
            })
        })
        .collect();
    let appended: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let last = appended.iter().flatten().copied().max().unwrap();
    journal.wait_durable(last).unwrap();
    journal.close().unwrap();
    assert!(heard.load(Ordering::Acquire) >= last.0);
    drop(journal);
    let (journal, recovered) = open(2);
    assert!(recovered.clean);
    for (queue, expected) in (1..=4).zip(&appended) {
        assert_eq!(&lsns(&journal, queue), expected);
    }
}

/// A panic on the sync thread is a failure like any other: nobody waits for ever.
// req: JOURNAL-22
#[test]
fn panic_of_the_thread_is_a_failure() {
    let disk = Arc::new(SimDisk::new());
    let (journal, _) = Journal::open(disk, Path::new(DIR), settings(1)).unwrap();
    let queues = [QueueId(1)];
    let first = journal.append_message(&message(b"x", &queues)).unwrap();
    journal.wait_durable(first.lsn).unwrap();
    // It may still be told of the first message.
    journal.set_commit_listener(Box::new(move |durable| {
        assert!(
            durable.lsn() <= first.lsn,
            "a listener's fault, made by a test"
        );
    }));
    let second = journal.append_message(&message(b"y", &queues)).unwrap();
    // The listener hears of it when it is durable already.
    journal.wait_durable(second.lsn).unwrap();
    let refused = loop {
        match journal.append_message(&message(b"z", &queues)) {
            Ok(at) => match journal.wait_durable(at.lsn) {
                Ok(_) => {}
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Failed(_)), "{refused}");
    assert!(matches!(journal.close(), Err(JournalError::Failed(_))));
}
