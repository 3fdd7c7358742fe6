//! Journal and payload store on one disk, used as a broker uses them: a confirmed payload message implies
//! that all of its pieces are durable, readable and right, whenever the power fails.
//!
//! Owns: the broker's rules in short: a body is stored before its record is appended, a reference lives
//! as long as a queue holds the message, files go only when the acks that freed them are durable.
//! Spec: RELIABILITY section 1 "large payload (manifest), classic"; STORE-19; T2, T3, T6.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use warren::journal::{Driver, Journal, Lsn, PayloadRecord, QueueId, SyncMode};
use warren::payload::StoredPayload;
use warren::payload::store::Presence;
use warren::testing::disk::{CrashVariant, SeededNumbers, SimDisk};

use crate::crash::setting;
use crate::journal_model::{Life, State, open, payload_of};
use crate::payload_model::{Crash, Library, StoreLife, check_contents, new_disk, open_store};

/// Everything that lives from an open to a crash.
struct Joint {
    journal: Journal,
    driver: Arc<Mutex<Driver>>,
    life: Life,
    stores: StoreLife,
    /// What the messages in queues keep in the store.
    references: BTreeMap<(QueueId, Lsn), StoredPayload>,
    /// Uploads that were refused, and publishes that were done.
    refused: u64,
    published: u64,
}

impl Joint {
    fn open(
        library: &Arc<Library>,
        disk: &SimDisk,
        start: u64,
        life: Life,
    ) -> Result<Self, String> {
        let (journal, driver, _) =
            open(disk, start, SyncMode::Disk).map_err(|error| format!("refused: {error}"))?;
        let stores = StoreLife::open(library, disk)?;
        life.listen(&journal, disk);
        let driver = Arc::new(Mutex::new(driver));
        let (gate_driver, gate_journal) = (Arc::clone(&driver), journal.clone());
        stores.store.set_removal_gate(Box::new(move || {
            let mut driver = gate_driver.lock().unwrap();
            while matches!(driver.turn(), Ok(true)) {}
            gate_journal.wait_all_durable(Duration::ZERO)
        }));
        let mut joint = Self {
            journal,
            driver,
            life,
            stores,
            references: BTreeMap::new(),
            refused: 0,
            published: 0,
        };
        joint.take_references()?;
        Ok(joint)
    }

    /// As recovery does: every message takes its reference before the first sweep.
    fn take_references(&mut self) -> Result<(), String> {
        for (queue, messages) in &self.life.live().queues {
            for (lsn, body) in messages {
                if let Some(id) = payload_of(&body.body)
                    && !self.references.contains_key(&(*queue, *lsn))
                {
                    let stored = self
                        .stores
                        .store
                        .find(StoreLife::MESSAGE_SCOPE, id)
                        .map_err(|error| format!("message {lsn} has no payload: {error}"))?;
                    self.references.insert((*queue, *lsn), stored);
                }
            }
        }
        Ok(())
    }

    /// Messages that left their queues give their references back, after their acks were appended.
    fn give_back(&mut self) {
        let queues = &self.life.live().queues;
        self.references.retain(|(queue, lsn), _| {
            queues
                .get(queue)
                .is_some_and(|messages| messages.contains_key(lsn))
        });
    }

    /// One thing that clients or time do; an error is a broken promise, not a refusal.
    fn step(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        match random.below(12) {
            0..=3 => self.publish_payload(random)?,
            4 => self.stores.step(random)?,
            5 | 6 => self.stores.sweep_and_reconcile()?,
            _ => {
                let mut driver = self.driver.lock().unwrap();
                // An error means that the journal has failed; what follows is checked by the caller.
                let _ = self.life.step(&self.journal, &mut driver, random);
            }
        }
        self.give_back();
        Ok(())
    }

    fn publish_payload(&mut self, random: &mut SeededNumbers) -> Result<(), String> {
        let Some(stored) = self.stores.upload_any(random)? else {
            self.refused += 1;
            return Ok(());
        };
        let record = PayloadRecord {
            scope: StoreLife::MESSAGE_SCOPE.get(),
            id: *stored.id.as_bytes(),
            size_bytes: stored.geometry.size_bytes(),
        };
        if self
            .life
            .publish_payload(&self.journal, record, random)
            .is_ok()
        {
            self.published += 1;
            self.take_references()?;
        }
        Ok(())
    }

    /// Opens what a crash left: every message that is there has its payload.
    fn check(
        &self,
        library: &Library,
        disk: &SimDisk,
        start: u64,
        at: usize,
        crash: Crash,
    ) -> Result<(State, Lsn), String> {
        let confirmed = self.life.confirmed_at(at);
        let (state, end) = self.life.check(disk, start, confirmed)?;
        let store = match crash {
            Crash::Kill | Crash::Power => self.stores.check(disk, at, crash)?,
        };
        for body in state.queues.values().flat_map(BTreeMap::values) {
            if let Some(id) = payload_of(&body.body) {
                let stored = store.find(StoreLife::MESSAGE_SCOPE, id);
                stored.map_err(|error| format!("a message has lost its payload: {error}"))?;
            }
        }
        check_contents(library, &store)?;
        Ok((state, end))
    }
}

pub(crate) fn crash_everywhere(seed: u64, points: u64) -> Result<u64, String> {
    let library = Library::new();
    let mut random = SeededNumbers::new(seed);
    let mut disk = new_disk(&library);
    let mut life = Life::default();
    let (mut tried, mut start) = (0, 0);
    while tried < points {
        start += 1;
        disk.record();
        let mut joint = Joint::open(&library, &disk, start, life)
            .map_err(|error| format!("seed {seed}: {error}"))?;
        for _ in 0..10 + random.below(60) {
            joint
                .step(&mut random)
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
                let again = crashed.crash(CrashVariant::KeepAll, 0);
                let start = 1_000_000 + tried;
                let outcome = joint
                    .check(&library, &crashed, start, at, Crash::Power)
                    .map_err(|e| format!("seed {seed}, change {at}, {variant:?}: {e}"))?;
                tried += 1;
                if at >= next_at && next.is_none() && random.one_in(5) {
                    next = Some((again, outcome));
                }
            }
            if !crash_points.advance() {
                break;
            }
        }
        let queue_next = joint.life.queue_next();
        drop(joint);
        match next {
            Some((crashed, (state, end))) => {
                disk = crashed;
                life = Life::new(state, end, queue_next);
            }
            None => {
                disk = new_disk(&library);
                life = Life::new(State::default(), Lsn::ZERO, queue_next);
            }
        }
    }
    Ok(tried)
}

pub(crate) fn fail_everywhere(seed: u64, kind: io::ErrorKind) -> Result<u64, String> {
    let library = Library::new();
    let mut tried = 0;
    for op in 0.. {
        let mut random = SeededNumbers::new(seed);
        let disk = new_disk(&library);
        disk.record();
        let first = disk.op_count();
        disk.fail_op(first + op, kind);
        // A broker that does not start has confirmed nothing.
        if let Ok(mut joint) = Joint::open(&library, &disk, 1, Life::default()) {
            let says = |error: String| format!("seed {seed}, op {op} {kind:?}: {error}");
            let mut failed_at = None;
            for _ in 0..70 {
                joint.step(&mut random).map_err(says)?;
                if joint.journal.failed().is_some() {
                    let durable = joint.journal.durable_lsn();
                    if *failed_at.get_or_insert(durable) != durable {
                        return Err(says("confirmed after the failure".to_owned()));
                    }
                }
            }
            for variant in CrashVariant::ALL {
                let crashed = disk.crash(variant, random.next_u64());
                joint
                    .check(&library, &crashed, 2, usize::MAX, Crash::Power)
                    .map_err(|error| says(format!("{variant:?}: {error}")))?;
                tried += 1;
            }
        }
        if disk.op_count() <= first + op {
            break;
        }
    }
    Ok(tried)
}

/// Fills a small disk with payloads and messages until both are refused, drains it, and goes on.
fn fill_and_drain(seed: u64, cycles: u64) -> Result<(), String> {
    let library = Library::new();
    let mut random = SeededNumbers::new(seed);
    let disk = new_disk(&library);
    disk.record();
    let mut joint = Joint::open(&library, &disk, 1, Life::default())?;
    while matches!(joint.driver.lock().unwrap().turn(), Ok(true)) {}
    disk.set_capacity(Some(disk.used_bytes() + 60_000));
    for cycle in 0..cycles {
        let (refused, mut steps) = (joint.refused, 0);
        while joint.refused < refused + 3 {
            joint.publish_payload(&mut random)?;
            let mut driver = joint.driver.lock().unwrap();
            driver.turn().map_err(|failure| failure.to_string())?;
            steps += 1;
            if steps > 10_000 {
                return Err("the disk never filled up".to_owned());
            }
        }
        for variant in CrashVariant::ALL {
            // A full disk survives a crash; the next process has room, as an operator would see to it.
            let crashed = disk.crash(variant, random.next_u64());
            joint
                .check(&library, &crashed, 100 + cycle, usize::MAX, Crash::Power)
                .map_err(|error| format!("cycle {cycle}, {variant:?}: {error}"))?;
        }
        joint
            .life
            .ack_all(&joint.journal)
            .map_err(|error| error.0)?;
        joint.give_back();
        joint.stores.drop_references();
        joint.stores.sweep_and_reconcile()?;
        if joint.journal.pending_bytes() != 0 {
            return Err("acks find no room on a full disk".to_owned());
        }
        let left = joint.stores.store.list();
        if left.iter().any(|info| info.presence == Presence::Complete) {
            return Err(format!("what was drained is still there: {left:?}"));
        }
        let published = joint.published;
        joint.publish_payload(&mut random)?;
        if joint.published == published {
            return Err("the drained disk takes nothing".to_owned());
        }
    }
    Ok(())
}

/// Flips one bit of a closed store after the other; a start is refused, or nothing that comes is wrong:
/// a payload may be found to be damaged when it is read, but is never given out changed.
pub(crate) fn flip_bits(seed: u64, flips: u64) -> Result<(u64, u64, u64), String> {
    let library = Library::new();
    let mut random = SeededNumbers::new(seed);
    let disk = new_disk(&library);
    let mut joint = Joint::open(&library, &disk, 1, Life::default())?;
    for _ in 0..150 {
        joint.step(&mut random)?;
    }
    // Everything is written, and the closing mark covers it.
    while let Ok(true) = joint.driver.lock().unwrap().quiet_turn() {}
    let image = disk.crash(CrashVariant::KeepAll, 0);
    let expected = open_store(&image.crash(CrashVariant::KeepAll, 0), None)
        .map_err(|error| error.to_string())?
        .list()
        .len();
    let files: Vec<_> = image
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/data"))
        .collect();
    let bits: u64 = files.iter().map(|(_, len)| *len as u64 * 8).sum();
    let (mut refused, mut reported, mut harmless) = (0, 0, 0);
    for flip in 0..flips {
        let mut bit = usize::try_from(random.below(bits)).unwrap_or(0);
        let damaged = image.crash(CrashVariant::KeepAll, 0);
        for (path, len) in &files {
            if bit < len * 8 {
                damaged.flip_bit(path, bit);
                break;
            }
            bit -= len * 8;
        }
        if open(&damaged, 2, SyncMode::Disk).is_err() {
            refused += 1;
            continue;
        }
        let store = open_store(&damaged, None).map_err(|error| error.to_string())?;
        match library.read_all_checked(&store, expected) {
            Ok(true) => harmless += 1,
            Ok(false) => reported += 1,
            Err(error) => return Err(format!("seed {seed}, flip {flip}: {error}")),
        }
    }
    Ok((refused, reported, harmless))
}

/// Every crash point leaves a store in which every message that is found has its payload, whole.
// req: STORE-1 STORE-15 STORE-19
#[test]
fn confirmed_payload_message_has_its_payload() {
    let points = setting("WARREN_JOINT_POINTS", 4_000);
    let seed = setting("WARREN_SEED", 11);
    let tried = crash_everywhere(seed, points).unwrap_or_else(|error| panic!("{error}"));
    println!("{tried} crash points of journal and payload store");
    assert!(tried >= points);
}

/// Whatever operation fails, of either: no confirm after a failed journal, and a restart is right.
// req: STORE-18
#[test]
fn failure_of_every_operation() {
    let seed = setting("WARREN_SEED", 13);
    let mut tried = 0;
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        tried += fail_everywhere(seed, kind).unwrap_or_else(|error| panic!("{error}"));
    }
    println!("{tried} restarts of journal and payload store after a failed operation");
    assert!(tried > 500, "only {tried} failures were tried");
}

/// A disk full of payloads refuses more, takes acks, and goes on when it is drained.
// req: STORE-16
#[test]
fn full_disk_is_survived() {
    let seed = setting("WARREN_SEED", 17);
    fill_and_drain(seed, setting("WARREN_FULL_CYCLES", 2)).unwrap_or_else(|e| panic!("{e}"));
}

/// One flipped bit in journal or payload store is refused, reported, or harmless.
// req: STORE-5 STORE-21
#[test]
fn flipped_bit_is_never_silent() {
    let seed = setting("WARREN_SEED", 19);
    let flips = setting("WARREN_BIT_FLIPS", 1_000) / 2;
    let (refused, reported, harmless) =
        flip_bits(seed, flips).unwrap_or_else(|error| panic!("{error}"));
    println!("{refused} refused, {reported} reported, {harmless} harmless");
    assert!(reported > 0, "some bits of payloads matter");
}
