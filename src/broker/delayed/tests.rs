//! What waits, against what it must be: in memory, and with hardly any memory.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::message::{Body, MessageTraits, Persistence};
use super::super::spill::SpillSettings;
use super::*;
use crate::testing::disk::SimDisk;

fn message(body_bytes: usize) -> Message {
    let traits = MessageTraits {
        persistence: Persistence::Transient,
        priority: 0,
        expiration: None,
    };
    let body = Body::Inline(Bytes::from(vec![0; body_bytes]));
    Message::new(b"x", b"k", &[0, 0], traits, body)
}

fn record(number: u64) -> Appended {
    Appended {
        lsn: Lsn(number),
        location: Location {
            segment: 1,
            offset: 8 * u32::try_from(number).expect("a short test"),
        },
    }
}

fn spill(disk: &SimDisk) -> Arc<Spill> {
    Spill::open(SpillSettings {
        disk: Arc::new(disk.clone()),
        dir: "/spill".into(),
        queue_bytes_max: 1_000,
        total_bytes_max: 1_000,
    })
    .expect("a new directory")
}

const SMALL: Bounds = Bounds {
    near_count_max: 8,
    page_count: 3,
};

/// Messages come out by due time, those of one time in the order of their publish; the journal's are
/// kept whole only as long as there is room.
#[test]
fn messages_come_out_in_order_and_memory_is_bounded() {
    let delays = Delays::new(QueueId(1), None, None);
    for due in [30, 10, 20, 10] {
        assert!(delays.add(due, Appended::NONE, &message(100)));
    }
    assert_eq!(delays.first_due(), Some(10));
    assert_eq!(delays.take_due(9, 10).len(), 0);
    let due = delays.take_due(20, 2);
    assert_eq!(due.len(), 2);
    assert!(
        due.iter()
            .all(|due| due.message.is_some() && due.lsn == Lsn::ZERO)
    );
    assert_eq!(delays.take_due(20, 2).len(), 1);
    assert_eq!((delays.len(), delays.first_due()), (1, Some(30)));

    let delays = Delays::new(QueueId(1), None, None);
    for number in 1..=200 {
        assert!(delays.add(number, record(number), &message(100_000)));
    }
    assert!(delays.state.lock().held_bytes <= DELAYED_HELD_BYTES_MAX);
    let due = delays.take_due(200, 200);
    assert_eq!(due.len(), 200);
    assert!(due.iter().any(|due| due.message.is_none()));
    let state = delays.state.lock();
    assert_eq!((state.held_bytes, state.held.len()), (0, 0));
}

#[test]
fn a_deleted_exchange_takes_no_more() {
    let disk = SimDisk::new();
    let spill = spill(&disk);
    let delays = Delays::with_bounds(QueueId(1), None, Some(&spill), SMALL);
    for number in 1..100 {
        assert!(delays.add(number, record(number), &message(1)));
    }
    assert!(!disk.files().is_empty());
    assert_eq!(delays.clear(), None);
    assert!(!delays.add(1, record(100), &message(1)));
    assert_eq!((delays.len(), delays.take_due(1_000, 10).len()), (0, 0));
    drop(delays);
    spill.sweep();
    assert!(disk.files().is_empty(), "its files go with it");
}

/// However many wait, memory holds the next ones and a batch that is being filled.
// req: SPILL-10
#[test]
fn what_is_far_takes_no_memory() {
    const COUNT: u64 = 100_000;
    let disk = SimDisk::new();
    let bounds = Bounds {
        near_count_max: 512,
        page_count: 64,
    };
    let delays = Delays::with_bounds(QueueId(1), None, Some(&spill(&disk)), bounds);
    let most_in_memory = |delays: &Delays| {
        let state = delays.state.lock();
        assert!(state.near.len() <= 2 * bounds.near_count_max);
        assert!(state.buffer.len() <= 2 * bounds.batch_count() + bounds.near_count_max);
        assert!(state.held.len() <= state.near.len());
    };
    // From the latest on, which is the worst order.
    for number in 1..=COUNT {
        assert!(delays.add(COUNT - number, record(number), &message(1)));
        if number % 1_000 == 0 {
            most_in_memory(&delays);
        }
    }
    assert_eq!(delays.len() as u64, COUNT);
    let mut next = 0;
    while delays.len() > 0 {
        for due in delays.take_due(u64::MAX, 100) {
            assert_eq!(due.lsn, Lsn(COUNT - next));
            next += 1;
        }
        most_in_memory(&delays);
    }
    assert_eq!(next, COUNT);
    assert!(disk.files().is_empty(), "nothing is left on disk");
}

/// Pages that cannot be read are waited for; nothing overtakes them.
#[test]
fn a_disk_that_does_not_answer_delays_and_loses_nothing() {
    let disk = SimDisk::new();
    let spill = spill(&disk);
    let delays = Delays::with_bounds(QueueId(1), None, Some(&spill), SMALL);
    for number in 1..=100 {
        assert!(delays.add(number, record(number), &message(1)));
    }
    let files = disk.files();
    let gone: Vec<_> = files.into_iter().map(|(path, _)| path).collect();
    for path in &gone {
        crate::disk::Disk::rename(&disk, path, &path.with_extension("away")).expect("it is there");
    }
    spill.close_all();
    let mut seen = Vec::new();
    let mut take = |unix_ms| {
        let due = delays.take_due(unix_ms, 1_000);
        seen.extend(due.iter().map(|due| due.lsn.0));
        seen.len()
    };
    let before = take(1_000);
    assert!(before < 100);
    assert_eq!(delays.first_due(), Some(2_000), "it is tried again");
    for path in &gone {
        crate::disk::Disk::rename(&disk, &path.with_extension("away"), path).expect("it is there");
    }
    assert_eq!(take(1_999), before, "not before its time");
    assert_eq!(take(2_000), 100);
    assert!(seen.into_iter().eq(1..=100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Against a set in order: whatever comes in between, what is due comes out, the earliest first, also
    /// while the disk has no room.
    // req: SPILL-10 req: DELAY-2
    #[test]
    fn far_messages_agree_with_a_set(
        capacity in prop::option::of(0_u64..2_000),
        restores in any::<bool>(),
        steps in prop::collection::vec((0_u8..4, 0_u64..60, 0_usize..30), 1..120),
    ) {
        let disk = SimDisk::new();
        let spill = spill(&disk);
        disk.set_capacity(capacity);
        let delays = Delays::with_bounds(QueueId(1), None, Some(&spill), SMALL);
        let mut set = BTreeSet::new();
        let (mut now, mut number) = (0, 0);
        for (kind, ms, count) in steps {
            match kind {
                0 => {
                    now += ms;
                    let due = delays.take_due(now, count);
                    for due in &due {
                        let first = set.pop_first();
                        prop_assert!(first.is_some_and(|(at, _)| at <= now));
                        prop_assert_eq!(first.map(|(_, number)| number), Some(due.lsn.0));
                    }
                    let is_all = set.first().is_none_or(|(at, _)| *at > now);
                    prop_assert!(is_all || due.len() == count);
                }
                _ => for at in 0..=count as u64 {
                    number += 1;
                    // Far and near ones, in no order.
                    let due = now + (ms * 7 + at * 13) % 60;
                    match restores {
                        true => delays.restore(due, record(number), &message(1)),
                        false => prop_assert!(delays.add(due, record(number), &message(1))),
                    }
                    set.insert((due, number));
                },
            }
            prop_assert_eq!(delays.len(), set.len());
            let first = set.first().map(|(at, _)| *at);
            prop_assert_eq!(delays.first_due(), first);
        }
        let rest = delays.take_due(u64::MAX, usize::MAX);
        let rest: Vec<_> = rest.iter().map(|due| due.lsn.0).collect();
        let expected: Vec<_> = set.iter().map(|(_, number)| *number).collect();
        prop_assert_eq!(rest, expected);
        drop(delays);
        spill.sweep();
        prop_assert!(disk.files().is_empty());
    }
}
