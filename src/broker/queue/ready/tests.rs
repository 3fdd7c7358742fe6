//! A list with tiny windows against a plain sorted map.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::super::message::{Body, Message, MessageTraits, Persistence};
use super::super::super::spill::{QUEUE_BYTES_LEAST, SpillSettings, page};
use super::super::expiry::Deadline;
use super::*;
use crate::disk::ReadFrom;
use crate::testing::disk::SimDisk;

/// Two messages at either end.
const LIST_BYTES_MAX: usize = 500;

const TRAITS: MessageTraits = MessageTraits {
    persistence: Persistence::Transient,
    priority: 0,
    expiration: None,
};

fn entry(number: u64) -> Entry {
    let body = Body::Inline(Bytes::copy_from_slice(&number.to_be_bytes()));
    Entry {
        message: Message::new(b"", b"q", &[0, 0], TRAITS, body),
        lsn: Lsn::ZERO,
        location: crate::journal::Appended::NONE.location,
        redelivered: false,
        return_count: 0,
        deadline: Deadline::NEVER,
    }
}

fn spill(disk: &SimDisk, total_bytes_max: usize) -> Arc<Spill> {
    let settings = SpillSettings {
        disk: Arc::new(disk.clone()),
        dir: "/spill".into(),
        queue_bytes_max: LIST_BYTES_MAX,
        total_bytes_max,
    };
    Spill::open(settings).unwrap()
}

/// A list, and the batches that were begun and not yet written.
struct Driven {
    disk: SimDisk,
    spill: Arc<Spill>,
    list: Ready,
    model: BTreeMap<u64, ()>,
    out: Vec<(MessageSeq, Entry)>,
    writing: Vec<Arc<Batch>>,
    next: u64,
}

impl Driven {
    fn new() -> Self {
        let disk = SimDisk::new();
        let spill = spill(&disk, usize::MAX);
        Self {
            list: Ready::new(QueueId(1), Some(Arc::clone(&spill))),
            disk,
            spill,
            model: BTreeMap::new(),
            out: Vec::new(),
            writing: Vec::new(),
            next: 0,
        }
    }

    fn push(&mut self) {
        self.list.push_back(MessageSeq(self.next), entry(self.next));
        self.model.insert(self.next, ());
        self.next += 1;
        self.begin_batches();
    }

    fn begin_batches(&mut self) {
        while let Some(batch) = self.list.next_batch() {
            self.writing.push(batch);
        }
    }

    fn write(&mut self, at: usize, fails: bool) {
        if self.writing.is_empty() {
            return;
        }
        let batch = self.writing.remove(at % self.writing.len());
        let octets = page::encode(batch.line.iter(), 0);
        self.disk.set_capacity(fails.then_some(0));
        let written = batch.area.write(&octets);
        assert_eq!(written.is_err(), fails);
        self.disk.set_capacity(None);
        self.list.written(&batch, written);
        self.begin_batches();
    }

    fn load(&mut self) -> bool {
        let Some(load) = self.list.next_load() else {
            return false;
        };
        let (Source::Returned(page) | Source::Page(page)) = load.source else {
            panic!("nothing was recovered");
        };
        let octets = load.area.read(ReadFrom::Disk, page.extent).unwrap();
        let decoded = page::decode(&octets).unwrap();
        let entries = decoded.iter().map(|found| {
            let page::Content::Whole(image) = found.content else {
                panic!("nothing is in the journal");
            };
            let message = Message::from_image(image, None).unwrap();
            let entry = entry(0);
            (found.seq, Entry { message, ..entry })
        });
        let lost = self.list.install(&load, Loaded::Page(entries.collect()));
        assert_eq!(lost, Some(0));
        self.begin_batches();
        true
    }

    fn pop(&mut self) {
        let expected = self.model.keys().next().copied();
        for _ in 0..self.model.len() + 2 {
            match self.list.pop_front() {
                Front::Message(seq, entry) => {
                    let (front, _) = entry.message.image();
                    assert!(
                        front.ends_with(&seq.0.to_be_bytes()),
                        "it is its own message"
                    );
                    assert_eq!(Some(seq.0), expected);
                    self.model.remove(&seq.0);
                    self.out.push((seq, entry));
                    return;
                }
                Front::Empty => return assert_eq!(expected, None),
                Front::Loading => assert!(self.load(), "what is on disk can be loaded"),
            }
        }
        panic!("loading never brings the front");
    }

    fn put_back(&mut self, at: usize) {
        if !self.out.is_empty() {
            let (seq, entry) = self.out.remove(at % self.out.len());
            self.model.insert(seq.0, ());
            self.list.put_back(seq, entry);
            self.begin_batches();
        }
    }

    fn check(&self) {
        assert_eq!(self.list.len(), self.model.len());
        assert_eq!(self.list.bytes(), 8 * self.model.len() as u64);
        assert_eq!(self.list.is_empty(), self.model.is_empty());
        if let Some((seq, _)) = self.list.front() {
            assert_eq!(Some(&seq.0), self.model.keys().next());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is written late, loaded early, put back in any order or cannot be written: the first is
    /// the first, and nothing is lost or there twice.
    // req: SPILL-2 SPILL-4 SPILL-6
    #[test]
    fn a_list_is_a_sorted_map(commands in prop::collection::vec((0..12_u8, any::<u16>()), 0..400)) {
        let mut driven = Driven::new();
        for (kind, at) in commands {
            let at = usize::from(at);
            match kind {
                0..=3 => driven.push(),
                4 | 5 => driven.pop(),
                6 => driven.put_back(at),
                7 => (0..at % 16).for_each(|_| driven.put_back(at)),
                8 => drop(driven.load()),
                9 => driven.write(at, at % 8 == 0),
                10 => (0..at % 8).for_each(|_| driven.push()),
                _ => (0..at % 8).for_each(|_| driven.pop()),
            }
            driven.check();
        }
        while !driven.model.is_empty() {
            driven.pop();
            driven.check();
        }
        // Writers that come late leave nothing behind. req: SPILL-3
        while !driven.writing.is_empty() {
            driven.write(0, false);
        }
        driven.spill.sweep();
        let files = driven.disk.files();
        prop_assert!(files.is_empty(), "{files:?}");
    }
}

/// Of many messages only what a list may hold stays in memory, and a page costs 56 bytes.
// req: SPILL-8
#[test]
fn a_long_list_holds_little() {
    let mut driven = Driven::new();
    for _ in 0..10_000 {
        driven.push();
        driven.write(0, false);
    }
    let page_count = 10_000 / 2;
    let held = driven.list.memory_bytes();
    assert!(held < LIST_BYTES_MAX + 60 * page_count, "{held} bytes");
    for number in 0..10_000 {
        assert_eq!(driven.model.keys().next(), Some(&number));
        driven.pop();
    }
}

/// A million messages that come back at once leave the memory too.
#[test]
fn what_comes_back_is_paged_as_well() {
    let mut driven = Driven::new();
    for _ in 0..2_000 {
        driven.push();
        driven.write(0, false);
    }
    for _ in 0..2_000 {
        driven.pop();
    }
    for _ in 0..2_000 {
        driven.put_back(0);
        driven.write(0, false);
    }
    let held = driven.list.memory_bytes();
    assert!(held < LIST_BYTES_MAX + 60 * 2_000, "{held} bytes");
    while !driven.model.is_empty() {
        driven.pop();
    }
}

/// A list that may hold nothing any more because others hold too much keeps the least.
// req: SPILL-8
#[test]
fn lists_share_a_budget() {
    let disk = SimDisk::new();
    let settings = SpillSettings {
        disk: Arc::new(disk),
        dir: "/spill".into(),
        queue_bytes_max: 1 << 20,
        total_bytes_max: 64 << 10,
    };
    let spill = Spill::open(settings).unwrap();
    let mut lists: Vec<_> = (0..10)
        .map(|at| Ready::new(QueueId(at), Some(Arc::clone(&spill))))
        .collect();
    for number in 0..10_000 {
        for list in &mut lists {
            list.push_back(MessageSeq(number), entry(number));
            while let Some(batch) = list.next_batch() {
                let written = batch.area.write(&page::encode(batch.line.iter(), 0));
                list.written(&batch, written);
            }
        }
    }
    let held: usize = lists.iter().map(Ready::memory_bytes).sum();
    let bound = (64 << 10) + 10 * (QUEUE_BYTES_LEAST + (16 << 10));
    assert!(held < bound, "{held} bytes of {bound}");
    drop(lists);
    assert_eq!(
        spill.list_bytes_max(),
        1 << 20,
        "what is gone holds nothing"
    );
}

/// A fan-out is in memory once, and is not written for each queue; who is left alone with its messages
/// writes them.
// req: SPILL-9
#[test]
fn shared_messages_are_written_by_who_is_left_with_them() {
    const LIST_COUNT: u64 = 20;
    let disk = SimDisk::new();
    let settings = SpillSettings {
        disk: Arc::new(disk),
        dir: "/spill".into(),
        queue_bytes_max: 256 << 10,
        total_bytes_max: 1 << 30,
    };
    let spill = Spill::open(settings).unwrap();
    let list = |at| Ready::new(QueueId(at), Some(Arc::clone(&spill)));
    let mut lists: Vec<_> = (0..LIST_COUNT).map(list).collect();
    let mut written_count = 0;
    let mut push = |list: &mut Ready, number, entry| {
        list.push_back(MessageSeq(number), entry);
        while let Some(batch) = list.next_batch() {
            written_count += 1;
            let written = batch.area.write(&page::encode(batch.line.iter(), 0));
            list.written(&batch, written);
        }
        written_count
    };
    let body = Bytes::from(vec![b'x'; 10_000]);
    let long = |body: &Bytes| {
        let message = Message::new(b"", b"q", &[0, 0], TRAITS, Body::Inline(body.clone()));
        Entry {
            message,
            ..entry(0)
        }
    };
    // Twice what one list may hold.
    for number in 0..50 {
        let shared = long(&body);
        for list in &mut lists {
            assert_eq!(push(list, number, shared.clone()), 0);
        }
    }
    let mut slow = lists.pop().unwrap();
    drop(lists);
    let more = (50..70).map(|number| push(&mut slow, number, long(&body)));
    assert!(more.max() > Some(0), "nobody else holds them any more");
}

/// An error of the disk is an error of the batch, not of the list.
#[test]
fn a_batch_that_cannot_be_written_stays() {
    let mut driven = Driven::new();
    (0..20).for_each(|_| driven.push());
    let batch = driven.writing.remove(0);
    driven
        .list
        .written(&batch, Err(io::ErrorKind::StorageFull.into()));
    for _ in 0..20 {
        driven.pop();
    }
    driven.check();
}
