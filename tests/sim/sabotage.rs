//! Each planted fault is found by at least one suite within its budget: otherwise these tests would prove
//! nothing.
//!
//! Faults are planted into the thread that drives the cores; a panic of a suite counts as a finding.
//! Spec: RELIABILITY 7.1.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use warren::journal::SyncMode;
use warren::sabotage::{Sabotage, plant};
use warren::testing::disk::SeededNumbers;
use warren::testing::queue_model;

use crate::stale::live_on_stale_bytes;
use crate::{crash, joint, payload_crash};

/// How often a suite of a few seconds may be tried with another seed; a nightly run tries far more.
const SEEDS: u64 = 20;

fn caught(fault: Sabotage, suite: impl Fn(u64) -> Result<(), String>) {
    for seed in 0..SEEDS {
        plant(fault);
        let outcome = catch_unwind(AssertUnwindSafe(|| suite(seed)));
        plant(Sabotage::None);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(finding)) => {
                println!("{fault:?} is caught with seed {seed}: {finding}");
                return;
            }
            Err(_) => {
                println!("{fault:?} is caught with seed {seed} by a panic");
                return;
            }
        }
    }
    panic!("{fault:?} is not caught");
}

fn journal_crashes(seed: u64) -> Result<(), String> {
    crash::crash_everywhere(seed, 2_000, SyncMode::Disk).map(drop)
}

fn payload_crashes(seed: u64) -> Result<(), String> {
    payload_crash::crash_everywhere(seed, 2_000).map(drop)
}

/// Data that is not synced is lost in a crash.
#[test]
fn skipped_sync_is_caught() {
    caught(Sabotage::SkipSync, journal_crashes);
}

/// A crash between confirm and sync loses what was confirmed.
#[test]
fn confirm_before_sync_is_caught() {
    caught(Sabotage::ConfirmBeforeSync, journal_crashes);
}

/// A segment without a durable name is lost in a crash.
#[test]
fn skipped_directory_sync_is_caught() {
    caught(Sabotage::SkipDirSync, journal_crashes);
}

/// Torn records are taken for whole.
#[test]
fn ignored_checksum_is_caught() {
    caught(Sabotage::IgnoreChecksums, journal_crashes);
}

/// Records of an earlier life of a file are taken for new ones.
#[test]
fn ignored_salt_is_caught() {
    caught(Sabotage::IgnoreSalt, |seed| {
        live_on_stale_bytes(seed).map(drop)
    });
}

/// Damage cut away is a silent loss.
#[test]
fn truncation_at_first_bad_record_is_caught() {
    caught(Sabotage::TruncateAtFirstBad, |seed| {
        crash::flip_bits(seed, 250, crash::Left::Quiet).map(drop)
    });
}

/// What a failed sync dropped is confirmed by the next.
#[test]
fn retried_sync_is_caught() {
    caught(Sabotage::RetryFailedSync, |seed| {
        crash::fail_everywhere(seed, io::ErrorKind::Other).map(drop)
    });
}

/// A message that comes back looks as if nobody had ever had it.
#[test]
fn lost_redelivery_flag_is_caught() {
    caught(Sabotage::RequeueLosesFlag, |seed| {
        let mut random = SeededNumbers::new(seed);
        let commands: Vec<u8> = (0..2_000).map(|_| random.next_u64() as u8).collect();
        queue_model::run(&commands, Instant::now());
        Ok(())
    });
}

/// A piece that is not what the manifest says is taken.
#[test]
fn unchecked_piece_is_caught() {
    caught(Sabotage::PieceUnchecked, payload_crashes);
}

/// A payload is confirmed while its bytes are in memory only.
#[test]
fn unsynced_payload_is_caught() {
    caught(Sabotage::PayloadUnsynced, payload_crashes);
    caught(Sabotage::PayloadUnsynced, |seed| {
        joint::crash_everywhere(seed, 2_000).map(drop)
    });
}

/// A payload is confirmed and its name is lost.
#[test]
fn skipped_directory_sync_of_a_payload_is_caught() {
    caught(Sabotage::PayloadSkipDirSync, payload_crashes);
}

/// An acknowledged message comes back, and its payload has gone.
#[test]
fn early_removal_of_a_payload_is_caught() {
    caught(Sabotage::PayloadRemovedEarly, |seed| {
        joint::crash_everywhere(seed, 3_000).map(drop)
    });
}

/// The list of faults has no two names alike, so that `WARREN_SABOTAGE` can name each.
#[test]
fn faults_have_names_of_their_own() {
    let names: BTreeSet<_> = Sabotage::ALL.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), Sabotage::ALL.len());
}
