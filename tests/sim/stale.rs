//! Old bytes in a recycled segment never count, even if they are whole records with the right numbers.
//!
//! Numbers are used again only for records that were lost, so that a stale record can follow a torn one
//! exactly where the next record belongs. That needs a coincidence, which this file arranges: the places
//! of lost records are known, and the new records are cut to end where one of them begins.
//! Spec: `spec/journal.md`, JOURNAL-8; RELIABILITY 7.1, "ignore salt".

use std::collections::BTreeSet;

use warren::disk::{Disk as _, OpenMode};
use warren::journal::{BodyRecord, Driver, Journal, Location, Lsn, NewMessage, QueueId, SyncMode};
use warren::testing::disk::{CrashVariant, SeededNumbers, SimDisk};

use crate::journal_model::{Held, found, open};

const QUEUE: QueueId = QueueId(1);
/// Least length of a record's body that is tried, in bytes; all lengths are multiples of 8.
const BODY_BYTES_MIN: usize = 8;
/// A body of which three fill a segment, in bytes.
const LARGE_BODY_BYTES: usize = 1_200;
/// Length of a segment in these tests, in bytes.
const SEGMENT_BYTES: usize = 4 << 10;
/// Body of the messages that are lost.
const LOST: [u8; BODY_BYTES_MIN] = *b"not kept";
/// Messages that are published behind a lost batch.
const MESSAGES_MAX: usize = 60;

fn publish(journal: &Journal, body: &[u8]) -> Result<(Lsn, Location), String> {
    let message = NewMessage {
        exchange: b"",
        routing_key: b"",
        header: b"",
        body: BodyRecord::Inline(body),
        queues: &[QUEUE],
        flags: 0,
        time_unix_ms: 0,
    };
    let appended = journal.append_message(&message);
    appended
        .map(|appended| (appended.lsn, appended.location))
        .map_err(|error| error.to_string())
}

fn settle(driver: &mut Driver) -> Result<(), String> {
    while driver.turn().map_err(|failure| failure.to_string())? {}
    Ok(())
}

/// Bytes that a message's record takes beside its body, and between two batches.
fn overheads(seed: u64) -> Result<(usize, usize), String> {
    let (journal, mut driver, _) =
        open(&SimDisk::new(), seed, SyncMode::Disk).map_err(|error| error.to_string())?;
    let (_, first) = publish(&journal, &[0; BODY_BYTES_MIN])?;
    let (_, second) = publish(&journal, &[0; BODY_BYTES_MIN])?;
    settle(&mut driver)?;
    let (_, third) = publish(&journal, &[0; BODY_BYTES_MIN])?;
    let record = (second.offset - first.offset) as usize;
    let mark = (third.offset - second.offset) as usize - record;
    Ok((record - BODY_BYTES_MIN, mark))
}

/// A store whose next segment lies in a file that still has a lost batch in it. Gives where the records of
/// that batch lie.
fn with_lost_batch(disk: &SimDisk, seed: u64) -> Result<(SimDisk, Vec<(Lsn, u32)>), String> {
    let mut random = SeededNumbers::new(seed);
    let (journal, mut driver, _) = open(disk, 1, SyncMode::Disk).map_err(|e| e.to_string())?;
    settle(&mut driver)?;
    // Fill the segment, then write a batch that begins the next one and is never synced.
    let (_, first) = publish(&journal, b"first")?;
    settle(&mut driver)?;
    let mut lost = Vec::new();
    loop {
        let (lsn, at) = publish(&journal, &LOST)?;
        if at.segment != first.segment {
            lost.push((lsn, at.offset));
        } else if lost.is_empty() {
            // One turn for all: the batch is one write.
            continue;
        }
        if lost.len() >= 25 {
            break;
        }
    }
    disk.record();
    settle(&mut driver)?;
    let history = disk.history();
    let mut points = history.crash_points();
    loop {
        let left = points.crash(CrashVariant::Torn, random.next_u64());
        let copy = left.crash(CrashVariant::KeepAll, 0);
        if open(&copy, 2, SyncMode::Disk).is_ok() && has_stale_spare(&copy) {
            return Ok((left, lost));
        }
        if !points.advance() {
            points = history.crash_points();
        }
    }
}

/// Whether a file that waits to become a segment has records of the lost batch in it.
fn has_stale_spare(disk: &SimDisk) -> bool {
    let files = disk.files();
    let spares = files
        .iter()
        .filter(|(path, _)| path.to_string_lossy().contains("spare-"));
    spares.into_iter().any(|(path, len)| {
        let mut bytes = vec![0; *len];
        let file = disk.open(path, OpenMode::Read);
        file.and_then(|file| file.read_exact_at(&mut bytes, 0))
            .is_ok()
            && bytes.windows(LOST.len()).filter(|at| *at == LOST).count() >= 10
    })
}

/// Lives on after a lost batch and crashes where its records would follow the new ones.
pub(crate) fn live_on_stale_bytes(seed: u64) -> Result<u64, String> {
    let (overhead, mark) = overheads(seed + 1_000)?;
    let (disk, lost) = with_lost_batch(&SimDisk::new(), seed)?;
    let (journal, mut driver, recovered) =
        open(&disk, 2, SyncMode::Disk).map_err(|error| format!("seed {seed}: {error}"))?;
    let mut expected = found(&journal, &recovered)?
        .queues
        .remove(&QUEUE)
        .unwrap_or_default();
    settle(&mut driver)?;
    // No new files: the old one is used next but one.
    disk.set_capacity(Some(disk.used_bytes()));
    let mut tried = 0;
    let mut segments = BTreeSet::new();
    let mut body = vec![2; LARGE_BODY_BYTES];
    for _ in 0..MESSAGES_MAX {
        let (lsn, at) = publish(&journal, &body)?;
        settle(&mut driver)?;
        if !journal.durable_lsn().covers(lsn) {
            break;
        }
        let held = Held {
            body: body.clone(),
            note: 0,
        };
        expected.insert(lsn, held);
        // What a crash leaves now ends here; behind it may be old bytes.
        let crashed = disk.crash(CrashVariant::LoseAll, 0);
        let (after, _driver, recovered) = open(&crashed, 3 + tried, SyncMode::Disk)
            .map_err(|error| format!("seed {seed}, after {lsn}: {error}"))?;
        let state = found(&after, &recovered)?;
        tried += 1;
        if state.queues.get(&QUEUE) != Some(&expected) {
            return Err(format!(
                "seed {seed}: after {lsn} there is what was never published"
            ));
        }
        // The next record has the number before a lost one: let it end where that one begins.
        let end = at.offset as usize + overhead + body.len();
        let fits = lost.iter().find_map(|(stale, offset)| {
            let len = (*offset as usize).checked_sub(end + mark + overhead)?;
            (*stale == lsn.next().next() && (BODY_BYTES_MIN..1_900).contains(&len)).then_some(len)
        });
        // Large bodies on the way to the old file, small ones in it, so that numbers meet.
        segments.insert(at.segment);
        let is_full = end + mark + overhead + BODY_BYTES_MIN > SEGMENT_BYTES;
        let len = match (fits, segments.len()) {
            (Some(len), _) => len,
            (None, 1) => LARGE_BODY_BYTES,
            (None, 2) if !is_full => LARGE_BODY_BYTES,
            (None, _) => BODY_BYTES_MIN,
        };
        body = vec![2; len];
    }
    Ok(tried)
}

/// Whatever an old life left in a file, only what this one wrote is found.
// req: JOURNAL-8
#[test]
fn stale_records_do_not_count() {
    let mut tried = 0;
    for seed in 0..40 {
        tried += live_on_stale_bytes(seed).unwrap_or_else(|error| panic!("{error}"));
    }
    println!("{tried} crashes before old bytes");
}
