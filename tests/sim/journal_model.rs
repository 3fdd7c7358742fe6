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

/// A message in a queue.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) body: Vec<u8>,
    pub(crate) note: u32,
}

/// What a journal holds, kept plainly.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    pub(crate) queues: BTreeMap<QueueId, BTreeMap<Lsn, Held>>,
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
    Cleared {
        queue: QueueId,
        first: Lsn,
        last: Lsn,
    },
    Noted {
        queue: QueueId,
        lsns: Vec<Lsn>,
        note: u32,
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
                    let held = Held {
                        body: body.clone(),
                        note: 0,
                    };
                    self.queues.entry(*queue).or_default().insert(lsn, held);
                }
            }
            Change::Acks { queue, lsns } => {
                if let Some(messages) = self.queues.get_mut(queue) {
                    messages.retain(|lsn, _| !lsns.contains(lsn));
                }
            }
            Change::Cleared { queue, first, last } => {
                if let Some(messages) = self.queues.get_mut(queue) {
                    messages.retain(|lsn, _| lsn < first || lsn > last);
                }
            }
            Change::Noted { queue, lsns, note } => {
                let messages = self.queues.get_mut(queue).into_iter().flatten();
                for (_, held) in messages.filter(|(lsn, _)| lsns.contains(lsn)) {
                    held.note = held.note.max(*note);
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
        match random.below(23) {
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
            16 => {
                if let Some(queue) = self.any_queue(random).filter(|_| random.one_in(2)) {
                    let (first, last) = self.some_range(queue, random);
                    let lsn = journal.append_cleared(queue, &[(first, last)])?;
                    self.did(lsn, Change::Cleared { queue, first, last });
                }
            }
            17 => {
                if let Some(queue) = self.any_queue(random) {
                    let held = self.live.queues[&queue].keys().copied();
                    let lsns: Vec<Lsn> = held.filter(|_| random.one_in(3)).collect();
                    let note = u32::try_from(random.below(5)).unwrap_or(0);
                    if !lsns.is_empty() {
                        let lsn = journal.append_noted(queue, &lsns, note)?;
                        self.did(lsn, Change::Noted { queue, lsns, note });
                    }
                }
            }
            18 => self.read(journal, random)?,
            _ => {
                driver.turn()?;
            }
        }
        Ok(())
    }

    /// Two numbers near a queue's messages, the lower one first.
    fn some_range(&self, queue: QueueId, random: &mut SeededNumbers) -> (Lsn, Lsn) {
        let held = &self.live.queues[&queue];
        let any = |random: &mut SeededNumbers| {
            let index = usize::try_from(random.below(held.len() as u64)).unwrap_or(0);
            let lsn = held.keys().nth(index).map_or(0, |lsn| lsn.0);
            Lsn((lsn + random.below(3)).saturating_sub(1))
        };
        let (one, two) = (any(random), any(random));
        (one.min(two), one.max(two))
    }

    /// Reads a queue from somewhere on in the middle of everything: whatever is durable and not acked is
    /// there, in order, and nothing else but what was acked a moment ago.
    fn read(&self, journal: &Journal, random: &mut SeededNumbers) -> Result<(), StepError> {
        let Some(queue) = self.any_queue(random) else {
            return Ok(());
        };
        let (after, _) = self.some_range(queue, random);
        let durable = journal.durable_lsn();
        let read = read_queue(journal, queue, after).map_err(StepError)?.found;
        let wanted = self.live.queues[&queue]
            .iter()
            .filter(|(lsn, _)| **lsn > after && durable.covers(**lsn));
        for (lsn, held) in wanted {
            if read.get(lsn).map(|found| &found.body) != Some(&held.body) {
                return Err(StepError(format!("{lsn} is not read from queue {queue}")));
            }
        }
        let had = self
            .changes
            .iter()
            .filter_map(|(lsn, change)| match change {
                Change::Message { queues, .. } => queues.contains(&queue).then_some(*lsn),
                _ => None,
            });
        let had: BTreeSet<Lsn> = had.collect();
        let base = self.base.queues.get(&queue);
        let unknown = read
            .keys()
            .find(|lsn| !had.contains(lsn) && !base.is_some_and(|base| base.contains_key(lsn)));
        match unknown {
            Some(lsn) => Err(StepError(format!("{lsn} was never in queue {queue}"))),
            None => Ok(()),
        }
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

    /// Appends some things as one, at times so many that they fill more than a segment.
    fn batch(&mut self, journal: &Journal, random: &mut SeededNumbers) -> Result<(), StepError> {
        let mut changes = Vec::new();
        let mut acked = BTreeSet::new();
        let bound = if random.one_in(4) { 20 } else { 5 };
        for _ in 0..=random.below(bound) {
            changes.push(match (random.below(5), self.any_queue(random)) {
                (0, Some(queue)) if acked.insert(queue) => Change::Acks {
                    queue,
                    lsns: self.live.queues[&queue].keys().copied().collect(),
                },
                (1, _) => Change::Definition {
                    key: vec![7],
                    value: Some(Self::body(random)),
                },
                _ => Change::Message {
                    queues: self.some_queues(random),
                    body: Self::body(random),
                },
            });
        }
        let entries: Vec<Entry<'_>> = changes
            .iter()
            .map(|change| match change {
                Change::Acks { queue, lsns } => Entry::Acks {
                    queue: *queue,
                    lsns,
                },
                Change::Definition { key, value } => Entry::Definition {
                    key,
                    value: value.as_deref(),
                },
                Change::Message { queues, body } => Entry::Message(message(queues, body)),
                Change::Cleared { .. } | Change::Noted { .. } | Change::QueueDelete { .. } => {
                    unreachable!("none is made above")
                }
            })
            .collect();
        let appended = journal.append_batch(&entries)?;
        for (at, change) in appended.iter().zip(changes.clone()) {
            self.did(at.lsn, change);
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
        let Read {
            found,
            body_bytes,
            payloads,
        } = read_queue(journal, *queue, Lsn::ZERO)?;
        let ends = (found.keys().next(), found.keys().next_back());
        if (summary.count, summary.body_bytes) != (found.len() as u64, body_bytes)
            || ends != (Some(&summary.first), Some(&summary.last))
            || summary.payloads != payloads
        {
            return Err(format!("queue {queue} is not as announced: {summary:?}"));
        }
        let lsns: Vec<Lsn> = found.keys().copied().collect();
        for n in [0, lsns.len() / 2, lsns.len()] {
            let nth = journal.nth_message(*queue, n as u64);
            if nth.as_ref().ok() != Some(&lsns.get(n).copied()) {
                return Err(format!("queue {queue} has {nth:?} as message {n}"));
            }
        }
        check_spans(journal, *queue, &lsns, body_bytes)?;
        state.queues.insert(*queue, found);
    }
    Ok(state)
}

/// Spans of any length are the queue's messages, in order.
// req: JOURNAL-37
fn check_spans(
    journal: &Journal,
    queue: QueueId,
    lsns: &[Lsn],
    body_bytes: u64,
) -> Result<(), String> {
    let middle = lsns.get(lsns.len() / 2).copied().unwrap_or(Lsn::ZERO);
    for (after, bytes_max) in [(Lsn::ZERO, 1), (Lsn::ZERO, u64::MAX), (middle, 1_000)] {
        let spans = journal
            .spans(queue, after, bytes_max)
            .map_err(|error| error.to_string())?;
        let mut rest = lsns
            .get(lsns.partition_point(|lsn| *lsn <= after)..)
            .unwrap_or_default();
        for span in &spans {
            let count = usize::try_from(span.count).unwrap_or(usize::MAX);
            let (these, others) = rest.split_at_checked(count).unwrap_or_default();
            if these.last() != Some(&span.last)
                || these.first().is_none_or(|first| *first < span.first)
            {
                return Err(format!("queue {queue} is not in {span:?}"));
            }
            rest = others;
        }
        let bytes: u64 = spans.iter().map(|span| span.body_bytes).sum();
        if !rest.is_empty() || (after == Lsn::ZERO && bytes != body_bytes) {
            return Err(format!("queue {queue} is more than {spans:?}"));
        }
    }
    Ok(())
}

/// What a queue holds, as it is read.
#[derive(Debug, Default)]
struct Read {
    found: BTreeMap<Lsn, Held>,
    body_bytes: u64,
    payloads: Vec<(Lsn, PayloadRecord)>,
}

/// All messages of a queue behind `after`, read page by page.
fn read_queue(journal: &Journal, queue: QueueId, after: Lsn) -> Result<Read, String> {
    let mut all = Read::default();
    let mut after = after;
    loop {
        let read = journal
            .read_backlog(queue, after, 7, 3_000)
            .map_err(|error| format!("queue {queue} behind {after}: {error}"))?;
        if read.is_empty() {
            return Ok(all);
        }
        for message in read {
            let lsn = message.lsn;
            let body = match message.message.body {
                StoredBody::Inline(body) => {
                    all.body_bytes += body.len() as u64;
                    body.to_vec()
                }
                StoredBody::Payload(payload) => {
                    all.payloads.push((lsn, payload));
                    payload_body(payload.id)
                }
            };
            if !message.message.queues.contains(&queue) {
                return Err(format!("{lsn} does not know its queue {queue}"));
            }
            if lsn <= after {
                return Err(format!("{lsn} comes out of order in queue {queue}"));
            }
            after = lsn;
            let note = message.note;
            all.found.insert(lsn, Held { body, note });
        }
    }
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
