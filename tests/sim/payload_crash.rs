//! A payload that is told to be stored survives: crash points (T2), failing operations (T3), bit rot (T4)
//! and a full disk (T6) of the payload store, alone and joined with the journal.
//!
//! Spec: RELIABILITY, "Test plan"; `spec/payload-store.md`, STORE-1 to STORE-20.
//! `WARREN_PAYLOAD_POINTS` (5,000) and the settings of `crash.rs` set how long and what is tried.

use std::io;
use std::sync::Arc;

use warren::testing::disk::{CrashVariant, SeededNumbers};

use crate::crash::setting;
use crate::payload_model::{Crash, Library, StoreLife, check_no_litter, new_disk};

/// Lives through random steps, crashes after every change of the disk in every way, and goes on from one
/// of the crashes. Gives how many were tried.
pub(crate) fn crash_everywhere(seed: u64, points: u64) -> Result<u64, String> {
    let library = Library::new();
    let mut random = SeededNumbers::new(seed);
    let mut disk = new_disk(&library);
    let mut tried = 0;
    while tried < points {
        disk.record();
        let mut life = StoreLife::open(&library, &disk).map_err(|e| format!("seed {seed}: {e}"))?;
        for _ in 0..10 + random.below(60) {
            life.step(&mut random)
                .map_err(|error| format!("seed {seed}: {error}"))?;
        }
        let history = disk.history();
        let next_at = usize::try_from(random.below(history.len() as u64 + 1)).unwrap_or(0);
        let mut next = None;
        let mut crash_points = history.crash_points();
        loop {
            let at = crash_points.index();
            for variant in CrashVariant::ALL {
                let crashed = crash_points.crash(variant, random.next_u64());
                if at == next_at && next.is_none() && random.one_in(6) {
                    next = Some(crashed.crash(CrashVariant::KeepAll, 0));
                }
                let ends = |error| format!("seed {seed}, change {at}, {variant:?}: {error}");
                let store = life.check(&crashed, at, Crash::Power).map_err(ends)?;
                if random.one_in(4) {
                    check_no_litter(&crashed, &store).map_err(ends)?;
                }
                tried += 1;
            }
            let killed = crash_points.kill();
            if at == next_at && next.is_none() {
                next = Some(crash_points.kill());
            }
            let ends = |error| format!("seed {seed}, kill at change {at}: {error}");
            drop(life.check(&killed, at, Crash::Kill).map_err(ends)?);
            // What the next process finds must outlive a power loss, since it tells others of it.
            let found = StoreLife::open(&library, &killed).map_err(ends)?;
            let lost = killed.crash(CrashVariant::LoseAll, 0);
            found.check(&lost, 0, Crash::Power).map_err(ends)?;
            tried += 2;
            if !crash_points.advance() {
                break;
            }
        }
        drop(life);
        disk = match next {
            Some(next) if !random.one_in(8) => next,
            _ => new_disk(&library),
        };
    }
    Ok(tried)
}

/// Fails one operation after the other; gives how many restarts were tried.
pub(crate) fn fail_everywhere(seed: u64, kind: io::ErrorKind) -> Result<u64, String> {
    let library = Library::new();
    let mut tried = 0;
    for op in 0.. {
        let (restarts, is_last) = fail_one(&library, seed, op, kind)?;
        tried += restarts;
        if is_last {
            break;
        }
    }
    Ok(tried)
}

/// Fails one operation; gives how many restarts were tried, and whether the run had no such operation.
fn fail_one(
    library: &Arc<Library>,
    seed: u64,
    op: u64,
    kind: io::ErrorKind,
) -> Result<(u64, bool), String> {
    let mut random = SeededNumbers::new(seed);
    let disk = new_disk(library);
    disk.record();
    let first = disk.op_count();
    disk.fail_op(first + op, kind);
    let mut tried = 0;
    // A store that could not be opened has told nobody anything.
    if let Ok(mut life) = StoreLife::open(library, &disk) {
        for _ in 0..80 {
            life.step(&mut random)
                .map_err(|error| format!("seed {seed}, op {op} {kind:?}: {error}"))?;
        }
        for variant in CrashVariant::ALL {
            let crashed = disk.crash(variant, random.next_u64());
            let store = life
                .check(&crashed, usize::MAX, Crash::Power)
                .and_then(|store| check_no_litter(&crashed, &store).map(|()| store))
                .map_err(|e| format!("seed {seed}, op {op} {kind:?}, {variant:?}: {e}"))?;
            drop(store);
            tried += 1;
        }
    }
    Ok((tried, disk.op_count() <= first + op))
}

/// Every crash point of random lives leaves a store with all that was told to be stored, all of it right,
/// and after a sweep no file that nobody needs.
// req: STORE-1 STORE-3 STORE-4 STORE-9 STORE-10 STORE-20
#[test]
fn crash_at_every_change() {
    let points = setting("WARREN_PAYLOAD_POINTS", 5_000);
    let seed = setting("WARREN_SEED", 1);
    let tried = crash_everywhere(seed, points).unwrap_or_else(|error| panic!("{error}"));
    println!("{tried} crash points of the payload store");
    assert!(tried >= points);
}

/// A failed operation costs its own payload and no other, and a restart has all that was told to be stored.
// req: STORE-18
#[test]
fn failure_of_every_operation() {
    let seed = setting("WARREN_SEED", 3);
    let mut tried = 0;
    for run in 0..setting("WARREN_FAULT_RUNS", 3) {
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            tried += fail_everywhere(seed + run, kind).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    println!("{tried} restarts of the payload store after a failed operation");
    assert!(tried > 1_000, "only {tried} failures were tried");
}

/// Runs that found something once: a partial payload that was begun anew under the old names, so that after a
/// loss of power the old record of what is synced could stand beside the new file.
// req: STORE-9
#[test]
fn what_was_found_once_stays_mended() {
    let library = Library::new();
    let (seed, op, kind) = (1_046, 165, io::ErrorKind::Other);
    fail_one(&library, seed, op, kind).unwrap_or_else(|error| panic!("{error}"));
}
