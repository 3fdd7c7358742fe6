//! Commits on the thread that appended, beside the journal's own thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::testing::disk::{CrashVariant, SimDisk};

use super::*;

const QUEUE: QueueId = QueueId(1);
/// Far more than any of this takes.
const LONG: Duration = Duration::from_secs(60);

fn open(disk: &SimDisk, start: u8) -> Journal {
    open_with(disk, start, Duration::from_millis(1))
}

fn open_with(disk: &SimDisk, start: u8, closing_mark_after: Duration) -> Journal {
    let settings = JournalSettings {
        segment_bytes: 16 << 10,
        free_bytes_min: 0,
        closing_mark_after,
        seed: [start; 32],
        ..JournalSettings::default()
    };
    let opened = Journal::open(Arc::new(disk.clone()), Path::new("/journal"), settings);
    opened.unwrap().0
}

fn append(journal: &Journal, body: &[u8]) -> Lsn {
    let message = NewMessage {
        exchange: b"",
        routing_key: b"k",
        header: b"header",
        body: BodyRecord::Inline(body),
        queues: &[QUEUE],
        flags: 0,
        time_unix_ms: 0,
    };
    journal.append_message(&message).unwrap().lsn
}

/// What is gathered is committed by its own thread once the sync thread sleeps; what is not, wakes that, whatever
/// it is waited for by.
// req: JOURNAL-42
#[test]
fn gathered_records_are_committed_here_or_wake_the_sync_thread() {
    let disk = SimDisk::new();
    let journal = open(&disk, 1);
    let told = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&told);
    journal.set_commit_listener(Box::new(move |durable| {
        hears.fetch_max(durable.lsn().0, Ordering::AcqRel);
    }));
    let mut led_count = 0;
    for number in 0..500u32 {
        let gathering = journal.gather();
        let lsn = append(&journal, &number.to_le_bytes());
        let has_led = match number % 5 {
            // Left to the sync thread.
            4 => {
                drop(gathering);
                false
            }
            // Waited for although it is gathered.
            3 => {
                journal.wait_durable(lsn).unwrap();
                gathering.commit()
            }
            _ => gathering.commit(),
        };
        if has_led {
            led_count += 1;
            assert!(journal.durable_lsn().covers(lsn), "it was synced here");
            assert!(
                told.load(Ordering::Acquire) >= lsn.0,
                "and its listener was told"
            );
        }
        assert!(journal.wait_all_durable(LONG));
    }
    assert!(led_count > 0, "the sync thread sleeps at times");
    // Nothing was gathered: nothing is committed, and nobody waits.
    assert!(!journal.gather().commit());
    let crashed = disk.crash(CrashVariant::LoseAll, 0);
    let again = open(&crashed, 2);
    let read = again
        .read_backlog(QUEUE, Lsn::ZERO, 1_000, 1 << 20)
        .unwrap();
    assert_eq!(read.len(), 500);
}

/// Threads that gather and threads that do not, on one journal: all of theirs is durable, in their order.
// req: JOURNAL-42 JOURNAL-2
#[test]
fn many_threads_may_commit() {
    let disk = SimDisk::new();
    let journal = open(&disk, 1);
    let led_count = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4u8 {
            let (journal, led_count) = (&journal, &led_count);
            scope.spawn(move || {
                for number in 0..200u8 {
                    let gathering = (thread % 2 == 0).then(|| journal.gather());
                    let lsn = append(journal, &[thread, number]);
                    if gathering.is_some_and(Gathering::commit) {
                        led_count.fetch_add(1, Ordering::Relaxed);
                    }
                    journal.wait_durable(lsn).unwrap();
                }
            });
        }
    });
    let again = open(&disk.crash(CrashVariant::LoseAll, 0), 2);
    let read = again
        .read_backlog(QUEUE, Lsn::ZERO, 10_000, 1 << 20)
        .unwrap();
    let mut next = [0u8; 4];
    for found in read {
        let StoredBody::Inline(body) = &found.message.body else {
            panic!("bodies were inline");
        };
        let next = &mut next[usize::from(body[0])];
        assert_eq!(*next, body[1]);
        *next += 1;
    }
    assert_eq!(next, [200; 4]);
}

/// A sync that fails in such a commit ends the journal as it would on the sync thread.
// req: JOURNAL-42 JOURNAL-22
#[test]
fn failure_of_a_commit_here_ends_the_journal() {
    let disk = SimDisk::new();
    let journal = open_with(&disk, 1, LONG);
    let (tell, failures) = mpsc::channel();
    journal.set_failure_listener(Box::new(move |_| {
        let _ = tell.send(());
    }));
    append(&journal, b"before");
    assert!(journal.wait_all_durable(LONG));
    disk.power_off_at(disk.op_count());
    let gathering = journal.gather();
    let lsn = append(&journal, b"lost");
    gathering.commit();
    assert!(matches!(
        journal.wait_durable(lsn),
        Err(JournalError::Failed(_))
    ));
    failures.recv_timeout(LONG).expect("the listener was told");
    assert!(!journal.durable_lsn().covers(lsn));
    assert!(matches!(journal.close(), Err(JournalError::Failed(_))));
}

/// The sync thread's wait for company ends with the last record that it waits for; and before that where somebody
/// blocks until his own is durable.
// req: JOURNAL-43
#[test]
fn company_ends_the_wait_for_it_and_so_does_who_blocks() {
    let disk = SimDisk::new();
    let (journal, _driver, _) = Journal::open_by_hand(
        Arc::new(disk),
        Path::new("/journal"),
        JournalSettings {
            free_bytes_min: 0,
            ..JournalSettings::default()
        },
    )
    .unwrap();
    let wait = |count, bytes_max| {
        let (shared, before) = (Arc::clone(&journal.handle.shared), last(&journal));
        let waiting = thread::spawn(move || {
            shared.await_more(count, bytes_max, LONG);
            shared.lock().appender.last().0 - before
        });
        while journal.shared().lock().awaited().is_none() && !waiting.is_finished() {
            thread::yield_now();
        }
        waiting
    };
    let waiting = wait(5, usize::MAX);
    for number in 0..5u8 {
        append(&journal, &[number]);
    }
    assert_eq!(waiting.join().unwrap(), 5);

    // So much is pending that nobody need come.
    assert_eq!(wait(5, 0).join().unwrap(), 0);

    let waiting = wait(5, usize::MAX);
    let lsn = append(&journal, b"of one who blocks");
    let blocked = journal.clone();
    let blocks = thread::spawn(move || blocked.wait_durable(lsn));
    assert_eq!(waiting.join().unwrap(), 1);
    // Nobody writes it: the journal ends, and who blocks is told.
    journal.shared().set_stopped();
    assert!(blocks.join().unwrap().is_err());
}

fn last(journal: &Journal) -> u64 {
    journal.shared().lock().appender.last().0
}
