//! A random life of a journal on a simulated disk, and what must be found after it ends.
//!
//! Owns: the plain model (queues of numbers, definitions), the random steps, and the check. The check is
//! exact: what a recovery gives must be the state after some record that was appended, none of the
//! confirmed ones missing, no batch in part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use warren::journal::{
    BodyRecord, Driver, Entry, Journal, JournalError, JournalSettings, Lsn, NewMessage,
    PayloadRecord, QueueId, Recovered, StorageFailure, StoredBody, SyncMode,
};
use warren::payload::PayloadId;
use warren::testing::disk::{SeededNumbers, SimDisk};

/// The journal's directory on the simulated disk.
pub(crate) const DIR: &str = "/data/journal";

/// Begins the body that stands for a payload; random bodies repeat eight bytes.
const PAYLOAD_MARK: [u8; 9] = *b"\0payload\x01";

/// Settings for small segments, so that a short life has many; `start` differs at each open.
pub(crate) fn settings(start: u64, sync: SyncMode) -> JournalSettings {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&start.to_le_bytes());
    JournalSettings {
        sync,
        segment_bytes: 4 << 10,
        free_bytes_min: 0,
        seed,
        ..Default::default()
    }
}

/// Opens the journal to be driven by hand.
pub(crate) fn open(
    disk: &SimDisk,
    start: u64,
    sync: SyncMode,
) -> Result<(Journal, Driver, Recovered), JournalError> {
    Journal::open_by_hand(
        Arc::new(disk.clone()),
        Path::new(DIR),
        settings(start, sync),
    )
}

/// What a journal holds, kept plainly.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    pub(crate) queues: BTreeMap<QueueId, BTreeMap<Lsn, Vec<u8>>>,
    pub(crate) definitions: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A change that one record makes.
#[derive(Clone, Debug)]
enum Change {
    Message {
        queues: Vec<QueueId>,
        body: Vec<u8>,
    },
    Acks {
        queue: QueueId,
        lsns: Vec<Lsn>,
    },
    QueueDelete {
        queue: QueueId,
    },
    Definition {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
}

impl State {
    fn apply(&mut self, lsn: Lsn, change: &Change) {
        match change {
            Change::Message { queues, body } => {
                for queue in queues {
                    self.queues
                        .entry(*queue)
                        .or_default()
                        .insert(lsn, body.clone());
                }
            }
            Change::Acks { queue, lsns } => {
                if let Some(messages) = self.queues.get_mut(queue) {
                    messages.retain(|lsn, _| !lsns.contains(lsn));
                }
            }
            Change::QueueDelete { queue } => {
                self.queues.remove(queue);
            }
            Change::Definition {
                key,
                value: Some(value),
            } => {
                self.definitions.insert(key.clone(), value.clone());
            }
            Change::Definition { key, value: None } => {
                self.definitions.remove(key);
            }
        }
        self.queues.retain(|_, messages| !messages.is_empty());
    }
}

/// A stretch of a journal's life, from an open to a crash.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// What was there at the open, which is after record `base_lsn`.
    base: State,
    pub(crate) base_lsn: Lsn,
    /// Each record in order; a number that ends no batch may not be where a recovery ends.
    changes: Vec<(Lsn, Change)>,
    inside_batches: BTreeSet<Lsn>,
    /// What was confirmed, and how many changes of the disk had been recorded then.
    pub(crate) confirms: Arc<Mutex<Vec<(usize, Lsn)>>>,
    live: State,
    queue_next: u64,
}

impl Life {
    /// A life that goes on from `base`, found after record `base_lsn`.
    pub(crate) fn new(base: State, base_lsn: Lsn, queue_next: u64) -> Self {
        let live = base.clone();
        Self {
            base,
            base_lsn,
            live,
            queue_next,
            ..Self::default()
        }
    }

    /// The state after the record `lsn`.
    pub(crate) fn state_at(&self, lsn: Lsn) -> State {
        let mut state = self.base.clone();
        for (at, change) in &self.changes {
            if *at <= lsn {
                state.apply(*at, change);
            }
        }
        state
    }

    /// The state if everything appended counts.
    pub(crate) fn live(&self) -> &State {
        &self.live
    }

    /// The first queue number that was not used.
    pub(crate) fn queue_next(&self) -> u64 {
        self.queue_next
    }

    /// Hears of confirms from now on.
    pub(crate) fn listen(&self, journal: &Journal, disk: &SimDisk) {
        let confirms = Arc::clone(&self.confirms);
        let disk = disk.clone();
        journal.set_commit_listener(Box::new(move |durable| {
            confirms
                .lock()
                .unwrap()
                .push((disk.recorded_len(), durable.lsn()));
        }));
    }

    /// The last record that was confirmed before a crash after `changes` changes of the disk.
    pub(crate) fn confirmed_at(&self, changes: usize) -> Lsn {
        let confirms = self.confirms.lock().unwrap();
        let before = confirms.iter().filter(|(at, _)| *at <= changes);
        before
            .map(|(_, lsn)| *lsn)
            .max()
            .unwrap_or(self.base_lsn)
            .max(self.base_lsn)
    }

    fn did(&mut self, lsn: Lsn, change: Change) {
        self.live.apply(lsn, &change);
        self.changes.push((lsn, change));
    }

    fn any_queue(&self, random: &mut SeededNumbers) -> Option<QueueId> {
        let count = self.live.queues.len() as u64;
        let index = usize::try_from(random.below(count.max(1))).ok()?;
        self.live.queues.keys().nth(index).copied()
    }

    fn some_queues(&mut self, random: &mut SeededNumbers) -> Vec<QueueId> {
        let mut queues = BTreeSet::new();
        for _ in 0..=random.below(3) {
            match self.any_queue(random) {
                Some(queue) if self.live.queues.len() > 4 || random.one_in(2) => {
                    queues.insert(queue);
                }
                _ => {
                    self.queue_next += 1;
                    queues.insert(QueueId(self.queue_next));
                }
            }
        }
        queues.into_iter().collect()
    }

    fn body(random: &mut SeededNumbers) -> Vec<u8> {
        let bound = if random.one_in(4) { 1_500 } else { 120 };
        let len = random.below(bound);
        let fill = random.next_u64().to_le_bytes();
        (0..len)
            .zip(fill.iter().cycle())
            .map(|(_, byte)| *byte)
            .collect()
    }

    /// Does one random thing; an error is the journal's, which has failed.
    pub(crate) fn step(
        &mut self,
        journal: &Journal,
        driver: &mut Driver,
        random: &mut SeededNumbers,
    ) -> Result<(), StepError> {
        match random.below(20) {
            0..=6 => self.publish(journal, random)?,
            7..=11 => {
                let Some(queue) = self.any_queue(random) else {
                    return Ok(());
                };
                let held: Vec<Lsn> = self.live.queues[&queue].keys().copied().collect();
                let lsns: Vec<Lsn> = match random.below(4) {
                    0 => held,
                    1 => held.into_iter().filter(|_| random.one_in(2)).collect(),
                    _ => held.into_iter().take(1).collect(),
                };
                if !lsns.is_empty() {
                    let lsn = journal.append_acks(queue, &lsns)?;
                    self.did(lsn, Change::Acks { queue, lsns });
                }
            }
            12 => {
                if let Some(queue) = self.any_queue(random).filter(|_| random.one_in(3)) {
                    let lsn = journal.append_queue_delete(queue)?;
                    self.did(lsn, Change::QueueDelete { queue });
                }
            }
            13 => {
                let key = vec![random.below(5).to_le_bytes()[0]];
                let value = (!random.one_in(3)).then(|| Self::body(random));
                let lsn = journal.put_definition(&key, value.as_deref())?;
                self.did(lsn, Change::Definition { key, value });
            }
            14 => self.batch(journal, random)?,
            15 => {
                driver.quiet_turn()?;
            }
            _ => {
                driver.turn()?;
            }
        }
        Ok(())
    }

    /// Appends one random message.
    pub(crate) fn publish(
        &mut self,
        journal: &Journal,
        random: &mut SeededNumbers,
    ) -> Result<(), StepError> {
        let queues = self.some_queues(random);
        let body = Self::body(random);
        let lsn = journal.append_message(&message(&queues, &body))?.lsn;
        self.did(lsn, Change::Message { queues, body });
        Ok(())
    }

    /// Appends a message to random queues whose body lies in the payload store.
    pub(crate) fn publish_payload(
        &mut self,
        journal: &Journal,
        payload: PayloadRecord,
        random: &mut SeededNumbers,
    ) -> Result<(), StepError> {
        let queues = self.some_queues(random);
        let new = NewMessage {
            body: BodyRecord::Payload(payload),
            ..message(&queues, b"")
        };
        let lsn = journal.append_message(&new)?.lsn;
        let body = payload_body(payload.id);
        self.did(lsn, Change::Message { queues, body });
        Ok(())
    }

    /// Acks all messages of all queues.
    pub(crate) fn ack_all(&mut self, journal: &Journal) -> Result<(), StepError> {
        for (queue, messages) in self.live.queues.clone() {
            let lsns: Vec<Lsn> = messages.keys().copied().collect();
            let lsn = journal.append_acks(queue, &lsns)?;
            self.did(lsn, Change::Acks { queue, lsns });
        }
        Ok(())
    }

    fn batch(&mut self, journal: &Journal, random: &mut SeededNumbers) -> Result<(), StepError> {
        let mut parts = Vec::new();
        for _ in 0..=random.below(5) {
            parts.push((self.some_queues(random), Self::body(random)));
        }
        let entries: Vec<Entry<'_>> = parts
            .iter()
            .map(|(queues, body)| Entry::Message(message(queues, body)))
            .collect();
        let appended = journal.append_batch(&entries)?;
        for (at, (queues, body)) in appended.iter().zip(parts.clone()) {
            self.did(at.lsn, Change::Message { queues, body });
            self.inside_batches.insert(at.lsn);
        }
        if let Some(last) = appended.last() {
            self.inside_batches.remove(&last.lsn);
        }
        Ok(())
    }

    /// Opens what a crash left and compares it; gives the state found and where it ends.
    ///
    /// `confirmed` is the last record that had been confirmed before the crash.
    pub(crate) fn check(
        &self,
        disk: &SimDisk,
        start: u64,
        confirmed: Lsn,
    ) -> Result<(State, Lsn), String> {
        let (journal, _driver, recovered) =
            open(disk, start, SyncMode::Disk).map_err(|error| format!("refused: {error}"))?;
        let found = found(&journal, &recovered)?;
        // The record behind the surviving ones notes the open itself.
        let end = Lsn(journal.durable_lsn().lsn().0 - 1);
        if end < confirmed {
            return Err(format!(
                "{confirmed} was confirmed, {end} is the last record found"
            ));
        }
        if self.inside_batches.contains(&end) {
            return Err(format!("the log ends at {end}, inside an atomic batch"));
        }
        let expected = self.state_at(end);
        if found != expected {
            return Err(difference(&expected, &found, end));
        }
        Ok((found, end))
    }
}

/// What stands in the model for a body that lies in the payload store.
fn payload_body(id: [u8; 32]) -> Vec<u8> {
    [PAYLOAD_MARK.as_slice(), &id].concat()
}

/// The payload that a body of the model stands for, if it does.
pub(crate) fn payload_of(body: &[u8]) -> Option<PayloadId> {
    let id = body.strip_prefix(PAYLOAD_MARK.as_slice())?;
    Some(PayloadId::from_bytes(id.try_into().ok()?))
}

fn message<'a>(queues: &'a [QueueId], body: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        exchange: b"e",
        routing_key: b"key",
        header: b"head",
        body: BodyRecord::Inline(body),
        queues,
        flags: 1,
        time_unix_ms: 2,
    }
}

/// Everything that a recovery gives, with the bodies read back.
pub(crate) fn found(journal: &Journal, recovered: &Recovered) -> Result<State, String> {
    let mut state = State {
        definitions: recovered.definitions.iter().cloned().collect(),
        ..State::default()
    };
    for (queue, summary) in &recovered.queues {
        let mut found = BTreeMap::new();
        let (mut body_bytes, mut payloads) = (0, Vec::new());
        loop {
            let after = found.keys().next_back().copied().unwrap_or(Lsn::ZERO);
            let read = journal
                .read_backlog(*queue, after, 7, 3_000)
                .map_err(|error| format!("queue {queue} behind {after}: {error}"))?;
            if read.is_empty() {
                break;
            }
            for message in read {
                let lsn = message.lsn;
                let body = match message.message.body {
                    StoredBody::Inline(body) => {
                        body_bytes += body.len() as u64;
                        body.to_vec()
                    }
                    StoredBody::Payload(payload) => {
                        payloads.push((lsn, payload));
                        payload_body(payload.id)
                    }
                };
                if !message.message.queues.contains(queue) {
                    return Err(format!("{lsn} does not know its queue {queue}"));
                }
                if found.keys().next_back().is_some_and(|last| *last >= lsn) {
                    return Err(format!("{lsn} comes out of order in queue {queue}"));
                }
                found.insert(lsn, body);
            }
        }
        let ends = (found.keys().next(), found.keys().next_back());
        if (summary.count, summary.body_bytes) != (found.len() as u64, body_bytes)
            || ends != (Some(&summary.first), Some(&summary.last))
            || summary.payloads != payloads
        {
            return Err(format!("queue {queue} is not as announced: {summary:?}"));
        }
        state.queues.insert(*queue, found);
    }
    Ok(state)
}

fn difference(expected: &State, found: &State, end: Lsn) -> String {
    let pairs = |state: &State| -> BTreeSet<(QueueId, Lsn)> {
        let each = state.queues.iter();
        each.flat_map(|(queue, messages)| messages.keys().map(|lsn| (*queue, *lsn)))
            .collect()
    };
    let (wanted, got) = (pairs(expected), pairs(found));
    let lost: Vec<_> = wanted.difference(&got).collect();
    let unexpected: Vec<_> = got.difference(&wanted).collect();
    let definitions = expected.definitions == found.definitions;
    format!(
        "after {end}: lost {lost:?}, unexpected {unexpected:?}, definitions agree: {definitions}"
    )
}

/// Why a step could not be done: the journal has failed.
#[derive(Debug)]
pub(crate) struct StepError(pub(crate) String);

impl From<JournalError> for StepError {
    fn from(error: JournalError) -> Self {
        Self(error.to_string())
    }
}

impl From<StorageFailure> for StepError {
    fn from(error: StorageFailure) -> Self {
        Self(error.to_string())
    }
}
