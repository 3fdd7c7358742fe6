//! Repairs of segments whose header or catalog is damaged, the last one above all, on a simulated disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::testing::disk::{CrashVariant, SimDisk};

use super::segment::HEADER_BYTES;
use super::*;

const DIR: &str = "/journal";
const QUEUE: QueueId = QueueId(1);

fn open(disk: &SimDisk, start: u8) -> Result<(Journal, Driver, Recovered), JournalError> {
    let settings = JournalSettings {
        segment_bytes: SEGMENT_BYTES_MIN,
        free_bytes_min: 0,
        seed: [start; 32],
        ..JournalSettings::default()
    };
    Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings)
}

fn append(journal: &Journal, driver: &mut Driver) -> (Lsn, Location) {
    let message = NewMessage {
        exchange: b"x",
        routing_key: b"k",
        header: b"header",
        body: BodyRecord::Inline(&[5; 200]),
        queues: &[QUEUE],
        flags: 0,
        time_unix_ms: 0,
    };
    let at = journal.append_message(&message).unwrap();
    while driver.turn().unwrap() {}
    (at.lsn, at.location)
}

/// A store of several segments, crashed, with `count` messages: what was written and where. With `acked`, the
/// first segments were released and their files used again.
fn store(count: usize, acked: usize) -> (SimDisk, Vec<(Lsn, Location)>) {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1).unwrap();
    journal
        .put_definition(b"queue/a", Some(b"durable"))
        .unwrap();
    let mut all = Vec::new();
    for number in 0..count {
        all.push(append(&journal, &mut driver));
        if number == acked {
            let gone: Vec<Lsn> = all.drain(..acked).map(|(lsn, _)| lsn).collect();
            journal.append_acks(QUEUE, &gone).unwrap();
        }
    }
    // A mark covers the last one.
    while driver.quiet_turn().unwrap() {}
    (disk.crash(CrashVariant::LoseAll, 0), all)
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    files.sort();
    files
}

fn run(disk: &SimDisk) -> Repair {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let told = repair(Arc::clone(&disk), Path::new(DIR), false).unwrap();
    let done = repair(disk, Path::new(DIR), true).unwrap();
    assert_eq!(told.losses, done.losses, "it was said before what is lost");
    assert_eq!(told.rebuilt, done.rebuilt);
    assert!(told.kept.is_empty() && !done.kept.is_empty());
    done
}

/// The store opens, and has exactly these messages, now and after a crash and a clean stop.
fn check(disk: &SimDisk, expected: &[Lsn]) {
    let mut disk = disk.clone();
    for start in 10..13 {
        let (journal, mut driver, recovered) = open(&disk, start).unwrap();
        assert_eq!(recovered.definitions.len(), 1);
        let read = journal
            .read_backlog(QUEUE, Lsn::ZERO, 10_000, 1 << 20)
            .unwrap();
        let lsns: Vec<Lsn> = read.iter().map(|message| message.lsn).collect();
        assert_eq!(lsns, expected, "start {start}");
        while driver.turn().unwrap() {}
        if start == 10 {
            driver.close(&journal).unwrap();
        }
        disk = disk.crash(CrashVariant::LoseAll, 0);
    }
}

fn lsns(all: &[(Lsn, Location)]) -> Vec<Lsn> {
    all.iter().map(|(lsn, _)| *lsn).collect()
}

/// Any damage to the 64 octets of a last segment's header costs nothing: its records tell what it said, also when
/// they lie in a file that held others before.
// req: JOURNAL-40 JOURNAL-41
#[test]
fn header_of_the_last_segment_is_made_again() {
    for (count, acked) in [(1, 0), (60, 0), (70, 40), (75, 40), (80, 40)] {
        let (whole, all) = store(count, acked);
        let last = segments(&whole).pop().unwrap();
        for damage in 0..HEADER_BYTES + 1 {
            let disk = whole.crash(CrashVariant::KeepAll, 0);
            disk.damage(&last, |bytes| match bytes.get_mut(damage) {
                Some(byte) if damage < HEADER_BYTES => *byte ^= 0x40,
                _ => bytes[..HEADER_BYTES].fill(0xee),
            });
            assert!(open(&disk, 2).is_err(), "octet {damage}");
            let done = run(&disk);
            let path = last.clone();
            let source = RebuiltFrom::Records;
            assert_eq!(done.rebuilt, [Rebuilt { path, source }], "octet {damage}");
            assert_eq!(done.losses, []);
            check(&disk, &lsns(&all));
        }
    }
}

/// Without header and catalog the segment before tells which others there are; what is lost with them is said.
// req: JOURNAL-41 JOURNAL-35
#[test]
fn catalog_of_the_last_segment_is_made_again() {
    for (count, acked) in [(60, 0), (70, 40), (75, 40), (80, 40)] {
        let (disk, all) = store(count, acked);
        let last = segments(&disk).pop().unwrap();
        let number: u32 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut in_last = all.iter().filter(|(_, at)| at.segment == number);
        let first_at = in_last.next().unwrap().1.offset as usize;
        let second = in_last.next().unwrap().1.offset as usize;
        let cases = [
            // The catalog alone, with its header and the first mark, and with the first record.
            (HEADER_BYTES, HEADER_BYTES + 40, 0),
            (0, first_at - record::MARK_BYTES, 0),
            (0, first_at + 8, 1),
            (8, second - 8, 1),
        ];
        for (from, to, lost) in cases {
            let disk = disk.crash(CrashVariant::KeepAll, 0);
            disk.damage(&last, |bytes| bytes[from..to].fill(0xee));
            assert!(open(&disk, 2).is_err());
            let done = run(&disk);
            assert_eq!(done.rebuilt.len(), 1);
            assert_eq!(
                done.rebuilt[0].source,
                RebuiltFrom::Previous,
                "{from}..{to}"
            );
            let gone: Vec<Lsn> = done
                .losses
                .iter()
                .flat_map(|loss| loss.first.0..loss.end.0)
                .map(Lsn)
                .collect();
            let left = lsns(&all).into_iter().filter(|lsn| !gone.contains(lsn));
            let left: Vec<Lsn> = left.collect();
            assert!(
                all.len() - left.len() >= lost && gone.len() <= lost + 1,
                "{gone:?}"
            );
            check(&disk, &left);
        }
    }
}

/// A last segment of which nothing can be read is lost, and that is said; all before it is kept.
// req: JOURNAL-35
#[test]
fn unreadable_last_segment_is_given_up_aloud() {
    let (disk, all) = store(60, 0);
    let last = segments(&disk).pop().unwrap();
    let number: u32 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    disk.damage(&last, |bytes| bytes.fill(0xee));
    let done = run(&disk);
    let kept: Vec<_> = all
        .into_iter()
        .filter(|(_, at)| at.segment < number)
        .collect();
    let source = RebuiltFrom::Nothing {
        last: kept.last().unwrap().0,
    };
    assert_eq!(done.rebuilt, [Rebuilt { path: last, source }]);
    check(&disk, &lsns(&kept));
    // Alone, it is nothing that could be mended.
    let (disk, _) = store(1, 0);
    let only = segments(&disk).pop().unwrap();
    disk.damage(&only, |bytes| bytes.fill(0xee));
    assert!(repair(Arc::new(disk), Path::new(DIR), true).is_err());
}

/// The header of an older segment is made again from its records too.
// req: JOURNAL-40
#[test]
fn header_of_an_older_segment_is_made_again() {
    let (disk, all) = store(80, 40);
    let files = segments(&disk);
    for file in &files[..files.len() - 1] {
        let disk = disk.crash(CrashVariant::KeepAll, 0);
        disk.damage(file, |bytes| bytes[..HEADER_BYTES].fill(0));
        assert!(open(&disk, 2).is_err());
        let done = run(&disk);
        assert_eq!(done.rebuilt.len(), 1);
        assert_eq!(done.losses, []);
        check(&disk, &lsns(&all));
    }
}
