//! What is confirmed survives: crash points (T2), failing operations (T3), bit rot (T4), a full disk (T6).
//!
//! Spec: RELIABILITY, "Test plan"; `spec/journal.md`, JOURNAL-1 to JOURNAL-25.
//! `WARREN_CRASH_POINTS` (20,000), `WARREN_BIT_FLIPS` (1,000), `WARREN_FAULT_RUNS` (3),
//! `WARREN_FULL_CYCLES` (2) and `WARREN_SEED` set how long and what is tried.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use warren::journal::{Journal, Lsn, StorageFailure, SyncMode};
use warren::testing::disk::{CrashVariant, SeededNumbers, SimDisk};

use crate::journal_model::{Life, State, found, open};

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Lives through random steps, crashes after every change of the disk in every way, and goes on from
/// one of the crashes; the crash points include those of the recoveries. Gives how many were tried.
pub(crate) fn crash_everywhere(seed: u64, points: u64, sync: SyncMode) -> Result<u64, String> {
    let mut random = SeededNumbers::new(seed);
    let mut tried = 0;
    let mut disk = SimDisk::new();
    let mut life = Life::default();
    let mut start = 0;
    while tried < points {
        start += 1;
        disk.record();
        let (journal, mut driver, _) =
            open(&disk, start, sync).map_err(|error| format!("seed {seed}: refused: {error}"))?;
        life.listen(&journal, &disk);
        for _ in 0..20 + random.below(150) {
            life.step(&journal, &mut driver, &mut random)
                .map_err(|error| format!("seed {seed}: {}", error.0))?;
        }
        if random.one_in(3) {
            driver
                .close(&journal)
                .map_err(|failure| format!("seed {seed}: {failure}"))?;
        }

        let history = disk.history();
        let next_at = usize::try_from(random.below(history.len() as u64 + 1)).unwrap_or(0);
        let mut next = None;
        let mut killed = 0;
        let mut crash_points = history.crash_points();
        loop {
            let at = crash_points.index();
            let confirmed = match sync {
                SyncMode::Disk => life.confirmed_at(at),
                SyncMode::Os => life.base_lsn,
            };
            for variant in CrashVariant::ALL {
                let crashed = crash_points.crash(variant, random.next_u64());
                let again = crashed.crash(CrashVariant::KeepAll, 0);
                let outcome =
                    life.check(&crashed, 1_000_000 + tried, confirmed)
                        .map_err(|error| {
                            format!("seed {seed}, start {start}, change {at}, {variant:?}: {error}")
                        })?;
                tried += 1;
                if at == next_at && next.is_none() && random.one_in(3) {
                    next = Some((again, outcome));
                }
            }
            // A killed process leaves more than a power loss may; what the next one says that it found
            // must outlive a power loss then. One in four such points is tried: they come in pairs.
            if random.one_in(4) {
                let left = crash_points.kill();
                let start = 2_000_000 + 2 * tried;
                let (state, end) = life
                    .check(&left, start, confirmed)
                    .map_err(|error| format!("seed {seed}, kill at change {at}: {error}"))?;
                let variant = CrashVariant::ALL[usize::try_from(random.below(8)).unwrap_or(0)];
                let crashed = left.crash(variant, random.next_u64());
                Life::new(state, end, life.queue_next())
                    .check(&crashed, start + 1, end)
                    .map_err(|error| {
                        format!("seed {seed}, kill at change {at}, then {variant:?}: {error}")
                    })?;
                tried += 2;
                killed += 1;
            }
            if !crash_points.advance() {
                break;
            }
        }
        assert!(killed > 0 || history.len() < 40, "some kills were tried");
        let queue_next = life.queue_next();
        match next {
            Some((crashed, (state, end))) => {
                disk = crashed;
                life = Life::new(state, end, queue_next);
            }
            None => {
                disk = SimDisk::new();
                life = Life::new(State::default(), Lsn::ZERO, queue_next);
            }
        }
    }
    Ok(tried)
}

/// Fails one operation after the other, with what a real disk answers; gives how many were tried.
pub(crate) fn fail_everywhere(seed: u64, kind: io::ErrorKind) -> Result<u64, String> {
    let mut tried = 0;
    for op in 0.. {
        let mut random = SeededNumbers::new(seed);
        let disk = SimDisk::new();
        disk.record();
        let mut life = Life::default();
        disk.fail_op(op, kind);
        if let Ok((journal, mut driver, _)) = open(&disk, 1, SyncMode::Disk) {
            life.listen(&journal, &disk);
            let mut has_failed = false;
            for _ in 0..120 {
                let is_ok = life.step(&journal, &mut driver, &mut random).is_ok();
                has_failed |= journal.failed().is_some();
                if has_failed && is_ok && driver.turn().is_ok() {
                    return Err(format!(
                        "seed {seed}, op {op}: it went on after its failure"
                    ));
                }
            }
            let confirmed_at_failure = journal.durable_lsn().lsn();
            if has_failed && driver.turn().is_ok() {
                return Err(format!("seed {seed}, op {op}: it wrote after its failure"));
            }
            if journal.durable_lsn().lsn() != confirmed_at_failure {
                return Err(format!("seed {seed}, op {op}: confirmed after the failure"));
            }
        }
        let confirmed = life.confirmed_at(usize::MAX);
        for variant in CrashVariant::ALL {
            let crashed = disk.crash(variant, random.next_u64());
            life.check(&crashed, 2, confirmed)
                .map_err(|error| format!("seed {seed}, op {op} {kind:?}, {variant:?}: {error}"))?;
            tried += 1;
        }
        if disk.op_count() <= op {
            break;
        }
    }
    Ok(tried)
}

/// How a store was left whose bits are flipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Left {
    /// Closed: every segment has a footer.
    Closed,
    /// Quiet, with a closing mark: the last segment's records are read.
    Quiet,
}

/// Flips one bit after the other in a store: it must be refused, or hold everything.
/// Gives how many flips were refused and how many were harmless.
pub(crate) fn flip_bits(seed: u64, flips: u64, left: Left) -> Result<(u64, u64), String> {
    let mut random = SeededNumbers::new(seed);
    let disk = SimDisk::new();
    let mut life = Life::default();
    let (journal, mut driver, _) =
        open(&disk, 1, SyncMode::Disk).map_err(|error| error.to_string())?;
    for _ in 0..400 {
        life.step(&journal, &mut driver, &mut random)
            .map_err(|error| error.0)?;
    }
    let ended = match left {
        Left::Closed => driver.close(&journal),
        Left::Quiet => (|| {
            while driver.quiet_turn()? {}
            Ok(())
        })(),
    };
    ended.map_err(|failure: StorageFailure| failure.to_string())?;
    let files = disk.crash(CrashVariant::LoseAll, 0).files();
    let bits: u64 = files.iter().map(|(_, len)| *len as u64 * 8).sum();
    let (mut refused, mut harmless) = (0, 0);
    for _ in 0..flips {
        let mut bit = usize::try_from(random.below(bits)).unwrap_or(0);
        let damaged = disk.crash(CrashVariant::LoseAll, 0);
        for (path, len) in &files {
            if bit < len * 8 {
                damaged.flip_bit(path, bit);
                break;
            }
            bit -= len * 8;
        }
        match open(&damaged, 2, SyncMode::Disk) {
            Err(_) => refused += 1,
            Ok((journal, _driver, recovered)) => match found(&journal, &recovered) {
                Ok(found) if found == *life.live() => harmless += 1,
                // Records that a footer tells of are not read by the start, but by who wants them.
                Err(error) if error.contains("is damaged") => refused += 1,
                Ok(_) | Err(_) => {
                    return Err(format!("seed {seed}: a flipped bit changed what is found"));
                }
            },
        }
    }
    Ok((refused, harmless))
}

/// Every crash point of random lives leaves a store with all that was confirmed, and nothing else.
// req: JOURNAL-5 JOURNAL-6 JOURNAL-11 JOURNAL-12 JOURNAL-20 JOURNAL-26 JOURNAL-30 JOURNAL-31
#[test]
fn crash_at_every_change() {
    let seed = setting("WARREN_SEED", 1);
    let points = setting("WARREN_CRASH_POINTS", 20_000);
    let tried = crash_everywhere(seed, points, SyncMode::Disk).unwrap_or_else(|e| panic!("{e}"));
    println!("{tried} crash points");
    assert!(tried >= points);
}

/// With `sync = os` a crash may lose the end of the log, but leaves a store that opens.
// req: JOURNAL-7
#[test]
fn crash_at_every_change_without_waiting_for_the_disk() {
    let seed = setting("WARREN_SEED", 2);
    let points = setting("WARREN_CRASH_POINTS", 20_000) / 10;
    crash_everywhere(seed, points, SyncMode::Os).unwrap_or_else(|error| panic!("{error}"));
}

/// After a failed operation nothing more is confirmed, and a restart has all that was.
// req: JOURNAL-22
#[test]
fn failure_of_every_operation() {
    let seed = setting("WARREN_SEED", 3);
    let mut tried = 0;
    for run in 0..setting("WARREN_FAULT_RUNS", 3) {
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            tried += fail_everywhere(seed + run, kind).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    println!("{tried} restarts after a failed operation");
    assert!(tried > 1_000, "only {tried} failures were tried");
}

/// A batch whose second half found no space for its segment was published by half; a restart dropped it.
// req: JOURNAL-11
#[test]
fn what_was_found_once_stays_mended() {
    let tried = fail_everywhere(7_005, io::ErrorKind::StorageFull);
    let tried = tried.unwrap_or_else(|error| panic!("{error}"));
    assert!(tried > 100, "only {tried} failures were tried");
}

/// One flipped bit is refused or harmless, never silent.
// req: JOURNAL-9 JOURNAL-25
#[test]
fn flipped_bit_is_never_silent() {
    let seed = setting("WARREN_SEED", 4);
    let flips = setting("WARREN_BIT_FLIPS", 1_000);
    let lefts = [Left::Closed, Left::Quiet, Left::Closed, Left::Quiet];
    for (run, left) in (0..).zip(lefts) {
        let (refused, harmless) =
            flip_bits(seed + run, flips / 4, left).unwrap_or_else(|error| panic!("{error}"));
        println!("{refused} refused, {harmless} harmless");
        assert!(refused > 0, "some bits matter");
    }
}

/// Whether the journal says that space is short, from now on.
fn alarm_of(journal: &Journal) -> Arc<AtomicBool> {
    let is_low = Arc::new(AtomicBool::new(false));
    let alarm = Arc::clone(&is_low);
    journal.set_space_listener(Box::new(move |is_low| {
        alarm.store(is_low, Ordering::Release)
    }));
    is_low
}

/// A disk that fills up, blocks, is drained and goes on, loses nothing and needs no restart.
// req: JOURNAL-23 JOURNAL-24
#[test]
fn full_disk_is_survived() {
    for cycle in 0..setting("WARREN_FULL_CYCLES", 2) {
        let disk = SimDisk::new();
        let (journal, mut driver, _) = open(&disk, 1, SyncMode::Disk).unwrap();
        let mut random = SeededNumbers::new(cycle + setting("WARREN_SEED", 5));
        let mut life = Life::default();
        let is_low = alarm_of(&journal);
        while driver.turn().unwrap() {}
        disk.set_capacity(Some(disk.used_bytes() + 60_000));
        for _ in 0..3 {
            // Publishers are paused at the alarm; what they had sent by then still comes in.
            let mut published = 0;
            while !is_low.load(Ordering::Acquire) {
                life.publish(&journal, &mut random).unwrap();
                driver.turn().unwrap();
                published += 1;
                assert!(published < 10_000, "the disk never filled up");
            }
            assert!(published > 10, "there was room for some");
            while driver.turn().unwrap() {}
            life.ack_all(&journal).unwrap();
            while driver.turn().unwrap() {}
            assert_eq!(journal.pending_bytes(), 0, "acks find room on a full disk");
            assert!(!is_low.load(Ordering::Acquire), "the acks made room");
        }
        let crashed = disk.crash(CrashVariant::LoseAll, 0);
        let end = journal.durable_lsn().lsn();
        life.check(&crashed, 2, end)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Where space cannot be reserved, records without room wait in front of all others, whatever a crash leaves of them
/// meanwhile, and are confirmed when they are written.
// req: JOURNAL-44
#[test]
fn records_without_room_are_written_again() {
    let disk = SimDisk::new();
    let (journal, mut driver, _) = open(&disk, 1, SyncMode::Disk).unwrap();
    let mut random = SeededNumbers::new(setting("WARREN_SEED", 7));
    let mut life = Life::default();
    let is_low = alarm_of(&journal);
    while driver.turn().unwrap() {}
    for _ in 0..5 {
        let confirmed = journal.durable_lsn().lsn();
        life.publish(&journal, &mut random).unwrap();
        for _ in 0..3 {
            disk.fail_op(disk.op_count(), io::ErrorKind::StorageFull);
            driver.turn().unwrap();
            assert!(journal.failed().is_none());
            assert!(is_low.load(Ordering::Acquire), "publishers are to wait");
            assert!(journal.pending_bytes() > 0);
            assert_eq!(journal.durable_lsn().lsn(), confirmed);
            for variant in CrashVariant::ALL {
                let crashed = disk.crash(variant, random.next_u64());
                let checked = life.check(&crashed, 2, confirmed);
                checked.unwrap_or_else(|error| panic!("{variant:?}: {error}"));
            }
        }
        while driver.turn().unwrap() {}
        assert_eq!(journal.pending_bytes(), 0);
        assert!(journal.durable_lsn().lsn() > confirmed);
        assert!(!is_low.load(Ordering::Acquire), "there is room again");
    }
    let crashed = disk.crash(CrashVariant::LoseAll, 0);
    let checked = life.check(&crashed, 2, journal.durable_lsn().lsn());
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// Any bytes in a store whose checksums are believed make a start fail or go on, never panic.
// req: JOURNAL-27
#[cfg(feature = "sabotage")]
#[test]
fn believed_damage_never_panics() {
    use warren::sabotage::{Sabotage, plant};
    let mut random = SeededNumbers::new(setting("WARREN_SEED", 6));
    let disk = SimDisk::new();
    let mut life = Life::default();
    let (journal, mut driver, _) = open(&disk, 1, SyncMode::Disk).unwrap();
    for _ in 0..300 {
        life.step(&journal, &mut driver, &mut random).unwrap();
    }
    driver.close(&journal).unwrap();
    let files = disk.files();
    let (mut opened, mut refused) = (0, 0);
    for start in 2..setting("WARREN_BIT_FLIPS", 1_000) {
        let damaged = disk.crash(CrashVariant::KeepAll, 0);
        for _ in 0..=random.below(3) {
            let index = usize::try_from(random.below(files.len() as u64)).unwrap();
            let (path, len) = &files[index];
            // Mostly near the end, where footers are.
            let bound = if random.one_in(3) { 4_096 } else { 400 };
            let back = random.below(bound);
            let at = len.saturating_sub(1 + usize::try_from(back).unwrap());
            let value = random.next_u64().to_le_bytes()[0];
            damaged.damage(path, |content| content[at] = value);
        }
        plant(Sabotage::IgnoreChecksums);
        match open(&damaged, start, SyncMode::Disk) {
            Ok((journal, mut driver, recovered)) => {
                opened += 1;
                drop(found(&journal, &recovered));
                for _ in 0..20 {
                    drop(driver.turn());
                }
            }
            Err(_) => refused += 1,
        }
        plant(Sabotage::None);
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 0 && refused > 0);
}
