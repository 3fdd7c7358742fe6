//! The journal against a plain model of what it should hold, with restarts and crashes between.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

/// One step against the journal and the model.
#[derive(Clone, Debug)]
enum Step {
    Publish { queues: Vec<u64>, body: u16 },
    Ack { queue: u64, index: usize },
    Purge { queue: u64 },
    DeleteQueue { queue: u64 },
    Define { key: u8, value: Option<u8> },
    Batch { queue: u64, count: u8 },
    Commit,
    Quiet,
    Restart { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 1u64..5;
    prop_oneof![
        6 => (proptest::sample::subsequence(vec![1u64, 2, 3, 4], 1..=4), 0u16..900)
            .prop_map(|(queues, body)| Step::Publish { queues, body }),
        6 => (queue.clone(), any::<usize>()).prop_map(|(queue, index)| Step::Ack { queue, index }),
        1 => queue.clone().prop_map(|queue| Step::Purge { queue }),
        1 => queue.clone().prop_map(|queue| Step::DeleteQueue { queue }),
        2 => (0u8..6, proptest::option::of(any::<u8>()))
            .prop_map(|(key, value)| Step::Define { key, value }),
        1 => (queue, 1u8..5).prop_map(|(queue, count)| Step::Batch { queue, count }),
        4 => Just(Step::Commit),
        1 => Just(Step::Quiet),
        1 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
    ]
}

/// What the journal should hold, kept plainly.
#[derive(Default)]
struct Model {
    queues: BTreeMap<QueueId, BTreeMap<Lsn, (Location, usize)>>,
    definitions: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The journal's id of the queue that a step calls 1, 2, ...; changes when it is deleted.
    ids: HashMap<u64, QueueId>,
    id_next: u64,
}

impl Model {
    fn id(&mut self, queue: u64) -> QueueId {
        *self.ids.entry(queue).or_insert_with(|| {
            self.id_next += 1;
            QueueId(self.id_next)
        })
    }

    /// Places are those of the last start.
    fn relocate(&mut self, journal: &Journal) {
        for (queue, messages) in &mut self.queues {
            for found in backlog(journal, *queue) {
                messages.get_mut(&found.lsn).expect("checked before").0 = found.location;
            }
        }
    }

    fn check(&self, journal: &Journal, recovered: &Recovered) {
        let definitions: Vec<_> = self.definitions.clone().into_iter().collect();
        assert_eq!(recovered.definitions, definitions);
        let mut expected = self.queues.clone();
        expected.retain(|_, messages| !messages.is_empty());
        assert_eq!(recovered.queues.len(), expected.len());
        for (queue, messages) in expected {
            let summary = RecoveredQueue {
                count: messages.len() as u64,
                body_bytes: messages.values().map(|(_, len)| *len as u64).sum(),
                first: *messages.keys().next().unwrap(),
                last: *messages.keys().next_back().unwrap(),
                payloads: Vec::new(),
            };
            assert_eq!(recovered.queues[&queue], summary);
            let found = backlog(journal, queue);
            let numbers: Vec<_> = found.iter().map(|message| message.lsn).collect();
            assert_eq!(numbers, messages.keys().copied().collect::<Vec<_>>());
            for (found, (lsn, (_, len))) in found.iter().zip(&messages) {
                assert_eq!(inline(&found.message), vec![lsn.0.to_le_bytes()[0]; *len]);
                assert!(found.message.queues.contains(&queue));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever is done, the journal holds what a plain model holds, at any time and after restarts.
    #[test]
    fn agrees_with_a_plain_model(steps in proptest::collection::vec(step(), 1..150)) {
        let mut disk = SimDisk::new();
        let mut start = 1u8;
        let (mut journal, mut driver, _) = open(&disk, start);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Publish { queues, body } => {
                    let ids: Vec<_> = queues.into_iter().map(|queue| model.id(queue)).collect();
                    let next = journal.shared().lock().appender.last().next();
                    let body = vec![next.0.to_le_bytes()[0]; usize::from(body)];
                    let at = journal.append_message(&message(&body, &ids)).unwrap();
                    for id in ids {
                        let queue = model.queues.entry(id).or_default();
                        queue.insert(at.lsn, (at.location, body.len()));
                    }
                }
                Step::Ack { queue, index } => {
                    let id = model.id(queue);
                    let messages = model.queues.entry(id).or_default();
                    if !messages.is_empty() {
                        let lsn = *messages.keys().nth(index % messages.len()).unwrap();
                        journal.append_acks(id, &[lsn]).unwrap();
                        messages.remove(&lsn);
                    }
                }
                Step::Purge { queue } => {
                    let id = model.id(queue);
                    let messages = model.queues.entry(id).or_default();
                    let lsns: Vec<_> = messages.keys().rev().copied().collect();
                    journal.append_acks(id, &lsns).unwrap();
                    messages.clear();
                }
                Step::DeleteQueue { queue } => {
                    let id = model.id(queue);
                    journal.append_queue_delete(id).unwrap();
                    model.queues.remove(&id);
                    model.ids.remove(&queue);
                }
                Step::Define { key, value } => {
                    let key = vec![key];
                    let value = value.map(|value| vec![value; 20]);
                    journal.put_definition(&key, value.as_deref()).unwrap();
                    match value {
                        Some(value) => model.definitions.insert(key, value),
                        None => model.definitions.remove(&key),
                    };
                }
                Step::Batch { queue, count } => {
                    let ids = [model.id(queue)];
                    let next = journal.shared().lock().appender.last().next();
                    let bodies: Vec<_> = (0..u64::from(count))
                        .map(|index| vec![(next.0 + index).to_le_bytes()[0]; 30])
                        .collect();
                    let entries: Vec<_> =
                        bodies.iter().map(|body| Entry::Message(message(body, &ids))).collect();
                    for at in journal.append_batch(&entries).unwrap() {
                        let queue = model.queues.entry(ids[0]).or_default();
                        queue.insert(at.lsn, (at.location, 30));
                    }
                }
                Step::Commit => {
                    driver.turn().unwrap();
                }
                Step::Quiet => {
                    driver.quiet_turn().unwrap();
                }
                Step::Restart { clean } => {
                    settle(&mut driver);
                    if clean {
                        driver.close(&journal).unwrap();
                    }
                    disk = disk.crash(CrashVariant::LoseAll, 0);
                    start += 1;
                    let opened = open(&disk, start);
                    (journal, driver) = (opened.0, opened.1);
                    prop_assert_eq!(opened.2.clean, clean);
                    model.check(&journal, &opened.2);
                    model.relocate(&journal);
                }
            }
        }
        settle(&mut driver);
        for messages in model.queues.values() {
            for (lsn, (location, len)) in messages {
                let stored = journal.read_message(*lsn, *location).unwrap();
                prop_assert_eq!(inline(&stored).len(), *len);
            }
        }
        let (journal, _driver, recovered) = open(&disk.crash(CrashVariant::LoseAll, 0), start + 1);
        model.check(&journal, &recovered);
    }
}
