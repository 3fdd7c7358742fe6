//! Judges a history: what was lost, invented, doubled, disordered, changed or forgotten.
//!
//! Owns: the accounting over one history; a function of its events and of nothing else.
//! An outcome that the checker never learnt (no answer before the connection ended) may be either.
//! Bound: about 150 bytes of memory for a message. Rules: the checker of the reliability document.
//!
//! | finding | what the broker did |
//! |---|---|
//! | lost | confirmed a message that no consumer of one of its queues ever saw |
//! | lost after delivery | confirmed and delivered a message, then forgot it before it was acked |
//! | unexpected | delivered what nobody published, or from a queue it was not routed to |
//! | nacked and delivered | refused a message with one target queue, and had it all the same |
//! | duplicate unmarked | delivered again without `redelivered`, though it was published once |
//! | recovered unmarked | delivered without `redelivered` what had survived a kill |
//! | returned after ack | delivered again, without a crash in between, what it knew to be acked |
//! | order | gave one consumer two messages of one channel in the wrong order |
//! | corrupted | delivered other bytes than were published |
//! | unroutable | returned a message whose exchange, queues and bindings had been declared |
//! | topology | forgot a declare-ok or bind-ok, or brought back what was deleted |
//! | remaining | says that a queue holds messages after everything was taken out of it |
//! | torn transaction | has some messages of a transaction and not the others |
//! | broken protocol | sent what the standard forbids, or did not answer at all |
//! | not drained | is not to blame: the history ends too early for a verdict |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::history::{BodyPrint, Entity, Event, LifeEnd, MessageKey};

/// Findings of one kind that are kept with their text; the others are only counted.
const EXAMPLES_MAX: usize = 10;

/// What a broker can be found guilty of; the table above says what each means.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Finding {
    BrokenProtocol,
    Corrupted,
    DuplicateUnmarked,
    Lost,
    LostAfterDelivery,
    NackedAndDelivered,
    NotDrained,
    Order,
    RecoveredUnmarked,
    Remaining,
    ReturnedAfterAck,
    Topology,
    TornTransaction,
    Unexpected,
    Unroutable,
}

impl Finding {
    /// Every kind, in the order of a report.
    pub(crate) const ALL: [Self; 15] = [
        Self::Lost,
        Self::LostAfterDelivery,
        Self::Unexpected,
        Self::NackedAndDelivered,
        Self::DuplicateUnmarked,
        Self::RecoveredUnmarked,
        Self::ReturnedAfterAck,
        Self::Order,
        Self::Corrupted,
        Self::Unroutable,
        Self::Topology,
        Self::Remaining,
        Self::TornTransaction,
        Self::BrokenProtocol,
        Self::NotDrained,
    ];

    /// The kind's name in reports, lower case with underscores.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BrokenProtocol => "broken_protocol",
            Self::Corrupted => "corrupted",
            Self::DuplicateUnmarked => "duplicate_unmarked",
            Self::Lost => "lost",
            Self::LostAfterDelivery => "lost_after_delivery",
            Self::NackedAndDelivered => "nacked_and_delivered",
            Self::NotDrained => "not_drained",
            Self::Order => "order",
            Self::RecoveredUnmarked => "recovered_unmarked",
            Self::Remaining => "remaining",
            Self::ReturnedAfterAck => "returned_after_ack",
            Self::Topology => "topology",
            Self::TornTransaction => "torn_transaction",
            Self::Unexpected => "unexpected",
            Self::Unroutable => "unroutable",
        }
    }
}

/// What was counted, whatever the verdict.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Ends of the process by SIGKILL, and how many of these came before it served.
    pub(crate) kills: u64,
    pub(crate) kills_starting: u64,
    /// Messages published at least once, and the attempts for them.
    pub(crate) messages: u64,
    pub(crate) attempts: u64,
    pub(crate) confirmed: u64,
    /// Confirmed messages of at least [`LARGE_BYTES`].
    pub(crate) confirmed_large: u64,
    pub(crate) nacked: u64,
    /// Messages of which the checker never learnt the outcome.
    pub(crate) unknown: u64,
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
    /// Deliveries of what had been acked before: allowed after a crash.
    pub(crate) after_ack: u64,
    /// Things seen by probes after a restart, whose state was known before it.
    pub(crate) topology_checked: u64,
    /// Transactions that were to be committed, and those whose outcome the checker never learnt.
    pub(crate) transactions: u64,
    pub(crate) transactions_unknown: u64,
}

/// From this size on a message counts as large, in bytes: the default payload threshold.
pub(crate) const LARGE_BYTES: u32 = 1 << 20;

/// The judge's answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) counts: Counts,
    /// How often each kind was found; a kind that was not found is absent.
    pub(crate) found: BTreeMap<Finding, u64>,
    /// The first findings of each kind, as text.
    pub(crate) examples: Vec<(Finding, String)>,
}

impl Verdict {
    /// Whether the broker kept every promise.
    pub(crate) fn is_good(&self) -> bool {
        self.found.is_empty()
    }

    fn find(&mut self, finding: Finding, text: impl FnOnce() -> String) {
        let count = self.found.entry(finding).or_default();
        *count += 1;
        if *count <= EXAMPLES_MAX as u64 {
            self.examples.push((finding, text()));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{} kills ({} while starting); {} messages in {} attempts: {} confirmed ({} large), \
             {} nacked, {} unknown",
            counts.kills,
            counts.kills_starting,
            counts.messages,
            counts.attempts,
            counts.confirmed,
            counts.confirmed_large,
            counts.nacked,
            counts.unknown
        )?;
        writeln!(
            f,
            "{} deliveries, {} of them marked as redelivered, {} after an ack that a crash undid; \
             {} topology probes; {} transactions, {} of unknown outcome",
            counts.deliveries,
            counts.redeliveries,
            counts.after_ack,
            counts.topology_checked,
            counts.transactions,
            counts.transactions_unknown
        )?;
        for (finding, text) in &self.examples {
            writeln!(f, "{}: {text}", finding.name())?;
        }
        for finding in Finding::ALL {
            let count = self.found.get(&finding).copied().unwrap_or(0);
            write!(
                f,
                "{} {count}{}",
                finding.name(),
                if finding == Finding::NotDrained {
                    "\n"
                } else {
                    ", "
                }
            )?;
        }
        Ok(())
    }
}

/// What one target queue did with one message.
#[derive(Clone, Debug, Default)]
struct Fate {
    queue: u16,
    /// Deliveries without the redelivered flag.
    fresh: u32,
    /// Life of the last delivery; none before the first.
    delivered: Option<u32>,
    /// Who had the last delivery, unless it was asked for to be put back.
    holder: Option<u32>,
    ack_sent: bool,
    /// Life in which the broker provably had the ack.
    settled: Option<u32>,
}

#[derive(Clone, Debug)]
struct Message {
    attempts: u32,
    /// First attempt's session and its place in it.
    session: u32,
    place: u32,
    body: BodyPrint,
    confirmed: bool,
    nacked: bool,
    returned: bool,
    fates: Vec<Fate>,
}

#[derive(Debug, Default)]
struct Session {
    life: u32,
    attempts: u32,
}

#[derive(Debug, Default)]
struct Consumer {
    queue: u16,
    life: u32,
    /// What was delivered and neither acked nor requeued.
    held: HashMap<u64, MessageKey>,
    /// Acked, but not yet known to have reached the broker.
    unsettled: Vec<MessageKey>,
    /// Highest place delivered so far, of each session.
    places: HashMap<u32, u32>,
}

/// Whether an entity exists, as far as answers tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Existence {
    Absent,
    Present,
    Unknown,
}

/// The accounting over the events so far.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    verdict: Verdict,
    messages: HashMap<MessageKey, Message>,
    sessions: HashMap<u32, Session>,
    consumers: HashMap<u32, Consumer>,
    routes: HashMap<u16, Vec<u16>>,
    queue_names: HashMap<u16, String>,
    entities: HashMap<Entity, Existence>,
    /// Queue and life in which something went back into the queue, so that its order is mixed.
    mixed: HashSet<(u16, u32)>,
    /// Lives that ended by SIGTERM.
    clean_ends: HashSet<u32>,
    /// Lives in which somebody was served; one that was killed before cannot have changed anything.
    served: HashSet<u32>,
    drained: bool,
    /// The messages of each transaction that was to be committed.
    transactions: Vec<Vec<MessageKey>>,
}

impl Judge {
    /// Takes the next event of the history.
    pub(crate) fn take(&mut self, event: &Event) {
        match event {
            Event::Acked { consumer, tag } => self.take_acked(*consumer, *tag),
            Event::Ask { entity, create } => self.take_ask(entity, *create),
            Event::Attempt {
                message,
                session,
                route,
                body,
            } => self.take_attempt(*message, *session, *route, *body),
            Event::Broken(text) => self.verdict.find(Finding::BrokenProtocol, || text.clone()),
            Event::Confirm(message) => {
                if let Some(message) = self.messages.get_mut(message) {
                    message.confirmed = true;
                }
            }
            Event::Consumer {
                consumer,
                queue,
                life,
            } => {
                let fresh = Consumer {
                    queue: *queue,
                    life: *life,
                    ..Consumer::default()
                };
                self.consumers.insert(*consumer, fresh);
                self.served.insert(*life);
            }
            Event::Deliver {
                consumer,
                tag,
                message,
                redelivered,
                body,
            } => self.take_deliver(*consumer, *tag, *message, *redelivered, *body),
            Event::Done { entity, create } => self.take_done(entity, *create),
            Event::Drained => self.drained = true,
            Event::Dropped { consumer } => {
                if let Some(consumer) = self.consumers.get(consumer) {
                    self.mixed.insert((consumer.queue, consumer.life));
                }
            }
            Event::End { life, how } => match how {
                LifeEnd::Clean => {
                    self.clean_ends.insert(*life);
                }
                LifeEnd::Killed => self.verdict.counts.kills += 1,
                LifeEnd::KilledStarting => {
                    self.verdict.counts.kills += 1;
                    self.verdict.counts.kills_starting += 1;
                }
            },
            Event::Foreign { consumer } => self.verdict.find(Finding::Unexpected, || {
                format!("consumer {consumer} got a message without a name of this run")
            }),
            Event::Life { .. } | Event::Note(_) => {}
            Event::Nack(message) => {
                if let Some(message) = self.messages.get_mut(message) {
                    message.nacked = true;
                }
            }
            Event::Probe { entity, present } => self.take_probe(entity, *present),
            Event::Queue { queue, name } => {
                self.queue_names.insert(*queue, name.clone());
            }
            Event::Remaining { queue, messages } => {
                if *messages > 0 {
                    let queue = self.queue_name(*queue);
                    self.verdict.find(Finding::Remaining, || {
                        format!("{queue} says it holds {messages} messages after the drain")
                    });
                }
            }
            Event::Requeued { consumer, tag } => {
                if let Some(consumer) = self.consumers.get_mut(consumer) {
                    let (key, queue) = (consumer.held.remove(tag), consumer.queue);
                    self.mixed.insert((queue, consumer.life));
                    if let Some(fate) = key.and_then(|key| self.fate(key, queue)) {
                        fate.holder = None;
                    }
                }
            }
            Event::Returned(message) => {
                if let Some(found) = self.messages.get_mut(message) {
                    found.returned = true;
                }
                self.verdict
                    .find(Finding::Unroutable, || format!("{message} was returned"));
            }
            Event::Route { route, queues } => {
                self.routes.insert(*route, queues.clone());
            }
            Event::Session { session, life } => {
                let fresh = Session {
                    life: *life,
                    attempts: 0,
                };
                self.sessions.insert(*session, fresh);
                self.served.insert(*life);
            }
            Event::Settled { consumer } => self.take_settled(*consumer),
            Event::Transaction(messages) => self.transactions.push(messages.clone()),
        }
    }

    fn queue_name(&self, queue: u16) -> String {
        let name = self.queue_names.get(&queue).cloned();
        name.unwrap_or_else(|| format!("queue {queue}"))
    }

    fn take_attempt(&mut self, key: MessageKey, session: u32, route: u16, body: BodyPrint) {
        self.verdict.counts.attempts += 1;
        let place = {
            let session = self.sessions.entry(session).or_default();
            session.attempts += 1;
            session.attempts
        };
        let message = self.messages.entry(key).or_insert_with(|| Message {
            attempts: 0,
            session,
            place,
            body,
            confirmed: false,
            nacked: false,
            returned: false,
            fates: Vec::new(),
        });
        message.attempts += 1;
        if message.fates.is_empty() {
            let queues = self.routes.get(&route).map_or(&[][..], Vec::as_slice);
            message.fates = queues
                .iter()
                .map(|queue| Fate {
                    queue: *queue,
                    ..Fate::default()
                })
                .collect();
        }
    }

    fn take_deliver(
        &mut self,
        id: u32,
        tag: u64,
        key: MessageKey,
        redelivered: bool,
        body: BodyPrint,
    ) {
        self.verdict.counts.deliveries += 1;
        self.verdict.counts.redeliveries += u64::from(redelivered);
        let Some(consumer) = self.consumers.get_mut(&id) else {
            self.verdict.find(Finding::BrokenProtocol, || {
                format!("delivery of {key} to consumer {id}, which the history does not know")
            });
            return;
        };
        consumer.held.insert(tag, key);
        let (queue, life) = (consumer.queue, consumer.life);
        let name = self
            .queue_names
            .get(&queue)
            .map_or("a queue", String::as_str);
        let verdict = &mut self.verdict;
        let Some(message) = self.messages.get_mut(&key) else {
            verdict.find(Finding::Unexpected, || {
                format!("{key} came from {name} but was never published")
            });
            return;
        };
        if body != message.body {
            let expected = message.body;
            verdict.find(Finding::Corrupted, || {
                format!("{key} from {name}: published {expected:x?}, delivered {body:x?}")
            });
        }
        let once = message.attempts == 1;
        let Some(fate) = message.fates.iter_mut().find(|fate| fate.queue == queue) else {
            verdict.find(Finding::Unexpected, || {
                format!("{key} came from {name}, to which it was not routed")
            });
            return;
        };

        // Consumers of a killed life may write their last deliveries down after the next life's
        // consumers have begun: an earlier delivery is one of the same or an earlier life.
        // Nor does what the one of two consumers wrote down first have to be what was sent first: what the other still
        // reads of a connection that is gone already went before.
        let is_of_another = fate.holder.is_some_and(|holder| holder != id);
        let earlier =
            (fate.delivered).is_some_and(|last| last < life || (last == life && !is_of_another));
        if !redelivered {
            fate.fresh += 1;
        }
        if !redelivered && (fate.fresh > message.attempts || (once && earlier)) {
            verdict.find(Finding::DuplicateUnmarked, || {
                format!("{key} came from {name} again in life {life} without the redelivered flag")
            });
        }
        if fate.ack_sent && redelivered && once {
            verdict.counts.after_ack += 1;
        }
        let ended_well = |l| self.clean_ends.contains(&l) || !self.served.contains(&l);
        let is_calm = |since: u32| (since..life).all(ended_well);
        let published = self.sessions.get(&message.session);
        let published = published.map_or(life, |session| session.life);
        if !redelivered && once && !is_calm(published) {
            verdict.find(Finding::RecoveredUnmarked, || {
                format!(
                    "{key} of life {published} came from {name} in life {life} without the flag"
                )
            });
        }
        let settled = fate.settled.filter(|settled| *settled <= life);
        if once && settled.is_some_and(is_calm) {
            verdict.find(Finding::ReturnedAfterAck, || {
                format!("{key} came from {name} again in life {life}, in which its ack was known")
            });
        }

        // Only a first delivery has a place to keep. A recovered one carries the redelivered flag
        // and still comes in order, unless something has gone back into its queue since the start.
        let recovered = published < life && !self.mixed.contains(&(queue, life));
        if once && fate.delivered.is_none() && (!redelivered || recovered) {
            let last = consumer.places.entry(message.session).or_default();
            if message.place < *last {
                verdict.find(Finding::Order, || {
                    format!("{key} came from {name} after a later message of its channel")
                });
            } else {
                *last = message.place;
            }
        }
        fate.delivered = fate.delivered.max(Some(life));
        fate.holder = Some(id);
    }

    fn fate(&mut self, key: MessageKey, queue: u16) -> Option<&mut Fate> {
        let fates = &mut self.messages.get_mut(&key)?.fates;
        fates.iter_mut().find(|fate| fate.queue == queue)
    }

    fn take_acked(&mut self, id: u32, tag: u64) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let Some(key) = consumer.held.remove(&tag) else {
            return;
        };
        consumer.unsettled.push(key);
        let queue = consumer.queue;
        if let Some(fate) = self.fate(key, queue) {
            fate.ack_sent = true;
        }
    }

    fn take_settled(&mut self, id: u32) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        let (queue, life) = (consumer.queue, consumer.life);
        for key in std::mem::take(&mut consumer.unsettled) {
            if let Some(fate) = self.fate(key, queue) {
                fate.settled = Some(life);
            }
        }
    }

    /// The bindings that go when this queue or exchange goes.
    fn bindings_of(&mut self, entity: &Entity) -> impl Iterator<Item = &mut Existence> {
        self.entities
            .iter_mut()
            .filter_map(move |(other, existence)| {
                let gone = match (entity, other) {
                    (Entity::Queue(name), Entity::Binding { queue, .. }) => name == queue,
                    (Entity::Exchange(name), Entity::Binding { exchange, .. }) => name == exchange,
                    _ => false,
                };
                gone.then_some(existence)
            })
    }

    fn take_ask(&mut self, entity: &Entity, create: bool) {
        let existence = self
            .entities
            .entry(entity.clone())
            .or_insert(Existence::Unknown);
        let already = if create {
            Existence::Present
        } else {
            Existence::Absent
        };
        if *existence == already {
            return;
        }
        *existence = Existence::Unknown;
        if !create {
            for binding in self.bindings_of(entity) {
                if *binding == Existence::Present {
                    *binding = Existence::Unknown;
                }
            }
        }
    }

    fn take_done(&mut self, entity: &Entity, create: bool) {
        let now = if create {
            Existence::Present
        } else {
            Existence::Absent
        };
        self.entities.insert(entity.clone(), now);
        if !create {
            for binding in self.bindings_of(entity) {
                *binding = Existence::Absent;
            }
        }
    }

    fn take_probe(&mut self, entity: &Entity, present: bool) {
        let seen = if present {
            Existence::Present
        } else {
            Existence::Absent
        };
        let before = self
            .entities
            .insert(entity.clone(), seen)
            .unwrap_or(Existence::Unknown);
        if before == Existence::Unknown {
            return;
        }
        self.verdict.counts.topology_checked += 1;
        if before != seen {
            self.verdict.find(Finding::Topology, || match seen {
                Existence::Present => format!("{entity} was deleted and is there again"),
                Existence::Absent | Existence::Unknown => {
                    format!("{entity} was declared and is not there")
                }
            });
        }
    }

    /// Looks for transactions of which a part is there. What was published more than once says nothing.
    fn judge_transactions(&mut self) {
        for keys in &self.transactions {
            self.verdict.counts.transactions += 1;
            let messages: Vec<&Message> = keys
                .iter()
                .filter_map(|key| self.messages.get(key))
                .filter(|message| message.attempts == 1)
                .collect();
            // A committed one whose message is missing has lost it, which is found as such.
            if messages.iter().any(|message| message.confirmed) {
                continue;
            }
            self.verdict.counts.transactions_unknown += 1;
            // What came in the life of the commit alone was handed out before it was safe, as it may be.
            let (mut there, mut missing) = (0, 0);
            for message in messages {
                let life = self.sessions.get(&message.session).map_or(0, |s| s.life);
                for fate in &message.fates {
                    there += usize::from(fate.delivered.is_some_and(|last| last > life));
                    missing += usize::from(fate.delivered.is_none());
                }
            }
            if self.drained && there > 0 && missing > 0 {
                let first = keys.first();
                self.verdict.find(Finding::TornTransaction, || {
                    let first = first.map_or_else(String::new, ToString::to_string);
                    format!("that of {first}: {there} of its messages came, {missing} did not")
                });
            }
        }
    }

    /// Draws up the accounts at the end of the history.
    pub(crate) fn finish(mut self) -> Verdict {
        self.judge_transactions();
        let verdict = &mut self.verdict;
        let names = &self.queue_names;
        verdict.counts.messages = self.messages.len() as u64;
        let mut keys: Vec<&MessageKey> = self.messages.keys().collect();
        keys.sort_unstable();
        for key in keys {
            let message = &self.messages[key];
            let life = self.sessions.get(&message.session).map_or(0, |s| s.life);
            match (message.confirmed, message.nacked) {
                (true, _) => {
                    verdict.counts.confirmed += 1;
                    let large = message.body.bytes >= LARGE_BYTES;
                    verdict.counts.confirmed_large += u64::from(large);
                }
                (false, true) => verdict.counts.nacked += 1,
                (false, false) => verdict.counts.unknown += 1,
            }
            for fate in &message.fates {
                let name = names.get(&fate.queue).map_or("a queue", String::as_str);
                let bytes = message.body.bytes;
                if message.confirmed && !message.returned && !fate.ack_sent && self.drained {
                    match fate.delivered {
                        None => verdict.find(Finding::Lost, || {
                            format!("{key} ({bytes} bytes, published in life {life}) from {name}")
                        }),
                        Some(last) => verdict.find(Finding::LostAfterDelivery, || {
                            format!("{key} ({bytes} bytes), last seen from {name} in life {last}")
                        }),
                    }
                }
                let only_nacked = message.nacked && !message.confirmed && message.attempts == 1;
                if only_nacked && message.fates.len() == 1 && fate.delivered.is_some() {
                    verdict.find(Finding::NackedAndDelivered, || format!("{key} from {name}"));
                }
            }
            if message.confirmed && message.nacked && message.attempts == 1 {
                verdict.find(Finding::BrokenProtocol, || {
                    format!("{key} was confirmed and nacked")
                });
            }
        }
        if !self.drained {
            verdict.find(Finding::NotDrained, || {
                "the history ends before the drain, so nothing can be said to be lost".to_owned()
            });
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests;
