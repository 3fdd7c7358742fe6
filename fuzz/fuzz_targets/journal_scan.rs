//! A journal of which any bytes were changed: opened or refused, never a panic, within bounded memory.
//!
//! * The first byte says whether checksums are believed; without them every decoder meets any bytes.
//! * The rest changes bytes: file, offset (two bytes), value.
//! * What is recovered can be read, or the read gives an error.
#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use warren::sabotage::{Sabotage, plant};
use warren::journal::{
    BodyRecord, Entry, Journal, JournalSettings, Lsn, NewMessage, PayloadRecord, QueueId,
};
use warren::testing::disk::{CrashVariant, SimDisk};
use warrenmq_fuzz::{CountingAllocator, peak_bytes_of};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What opening may take at once: images of the few small files, and the reading windows.
const PEAK_BYTES_MAX: usize = 8 << 20;

const DIR: &str = "/journal";

fn settings(start: u8) -> JournalSettings {
    JournalSettings {
        segment_bytes: 4 << 10,
        free_bytes_min: 0,
        seed: [start; 32],
        ..JournalSettings::default()
    }
}

/// A store with every kind of record in several segments, the last of them with an open end.
fn store() -> &'static SimDisk {
    static STORE: OnceLock<SimDisk> = OnceLock::new();
    STORE.get_or_init(|| {
        let disk = SimDisk::new();
        for start in 0..3 {
            let (journal, mut driver, _) =
                Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings(start))
                    .expect("an empty or sound store opens");
            let one = [QueueId(u64::from(start) + 1)];
            let several = [QueueId(7), QueueId(8), QueueId(9)];
            let mut message = NewMessage {
                exchange: b"e",
                routing_key: b"key",
                header: b"header",
                body: BodyRecord::Inline(&[5; 200]),
                queues: &one,
                flags: 1,
                time_unix_ms: 2,
            };
            let mut first = None;
            for round in 0..20 {
                let at = journal.append_message(&message).expect("it is open");
                journal
                    .put_definition(&[round], Some(&[round; 30]))
                    .expect("it is open");
                if round % 3 > 0 {
                    journal.append_acks(one[0], &[at.lsn]).expect("it is open");
                }
                first.get_or_insert(at.lsn);
                while driver.turn().expect("the disk works") {}
            }
            message.queues = &several;
            journal
                .append_batch(&[Entry::Message(message), Entry::QueueDelete(QueueId(8))])
                .expect("open");
            message.body = BodyRecord::Payload(PayloadRecord {
                scope: 1,
                id: [3; 32],
                size_bytes: 1 << 30,
            });
            journal.append_message(&message).expect("it is open");
            journal
                .append_delivered(one[0], first.as_slice())
                .expect("it is open");
            journal
                .append_noted(one[0], first.as_slice(), 3)
                .expect("it is open");
            if start == 1 {
                driver.close(&journal).expect("the disk works");
            } else {
                driver.turn().expect("the disk works");
            }
        }
        disk
    })
}

// req: JOURNAL-8 JOURNAL-25
fuzz_target!(|input: &[u8]| {
    let Some((mode, changes)) = input.split_first() else {
        return;
    };
    let disk = store().crash(CrashVariant::KeepAll, 0);
    let files = disk.files();
    for change in changes.chunks_exact(4) {
        let (path, len) = &files[usize::from(change[0]) % files.len()];
        let offset = usize::from(u16::from_le_bytes([change[1], change[2]]));
        if offset < *len {
            disk.damage(path, |content| content[offset] = change[3]);
        }
    }
    if mode % 2 == 0 {
        plant(Sabotage::IgnoreChecksums);
    }
    let (_, peak_bytes) = peak_bytes_of(|| {
        let opened = Journal::open_by_hand(Arc::new(disk.clone()), Path::new(DIR), settings(9));
        let Ok((journal, mut driver, recovered)) = opened else {
            return;
        };
        for queue in recovered.queues.keys() {
            let mut after = Lsn::ZERO;
            while let Ok(read) = journal.read_backlog(*queue, after, 10, 1 << 20) {
                let Some(last) = read.last() else { break };
                assert!(last.lsn > after, "numbers only grow");
                after = last.lsn;
            }
        }
        for _ in 0..50 {
            let _ = driver.turn();
        }
    });
    plant(Sabotage::None);
    assert!(peak_bytes < PEAK_BYTES_MAX, "{peak_bytes} bytes");
});
