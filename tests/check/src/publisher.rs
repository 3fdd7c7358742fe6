//! A publisher: one channel at a time, mandatory persistent messages, confirms within a window.
//!
//! Owns: its sequence numbers and what is unanswered. After the broker's death some of the messages
//! of unknown outcome are published again under their old names, the others are left as they are.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::body;
use crate::client::{ANSWER_MAX, ClientError, Connection, Incoming};
use crate::history::{Event, MessageKey};
use crate::random::Random;
use crate::shared::{ROUTES, Shared};
use crate::wire::{self, Args, Fields, Properties};

/// Of the messages with unknown outcome, so many in 100 are published again.
const REPUBLISH_PERCENT: u64 = 25;
/// How many messages are put into one write at most.
const BATCH_MAX: usize = 32;

/// Most messages of a transaction.
const TRANSACTION_MAX: usize = 20;
/// Of 100 transactions, so many are rolled back.
const ROLLBACK_PERCENT: u64 = 10;

/// Body sizes in bytes, each with its weight.
#[derive(Clone, Debug)]
pub(crate) struct Sizes(Vec<(u32, u64)>);

impl Sizes {
    /// Parses `BYTES:WEIGHT,...`; a weight left out is 1.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parse_one = |part: &str| {
            let (bytes, weight) = part.split_once(':').unwrap_or((part, "1"));
            Some((bytes.trim().parse().ok()?, weight.trim().parse().ok()?))
        };
        let sizes: Option<Vec<(u32, u64)>> = text.split(',').map(parse_one).collect();
        match sizes {
            Some(sizes) if sizes.iter().any(|(_, weight)| *weight > 0) => Ok(Self(sizes)),
            _ => Err(format!("'{text}' is not BYTES:WEIGHT,BYTES:WEIGHT,...")),
        }
    }

    fn pick(&self, random: &mut Random) -> u32 {
        let total = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(total);
        for (bytes, weight) in &self.0 {
            if left < *weight {
                return *bytes;
            }
            left -= weight;
        }
        0
    }
}

/// How a publisher behaves.
#[derive(Clone, Debug)]
pub(crate) struct PublisherPlan {
    pub(crate) number: u16,
    /// Most messages without an answer.
    pub(crate) window: usize,
    /// Messages a second on the long run.
    pub(crate) rate: f64,
    pub(crate) sizes: Sizes,
    /// Commits several messages as one instead of asking for confirms.
    pub(crate) is_transactional: bool,
    /// Sabotage: publish transient messages and still write them down as persistent.
    pub(crate) is_transient: bool,
}

#[derive(Clone, Copy)]
struct Sent {
    message: MessageKey,
    route: usize,
    bytes: u32,
}

struct Publisher<'a> {
    shared: &'a Shared,
    plan: PublisherPlan,
    random: Random,
    sequence: u32,
    again: Vec<Sent>,
}

/// Publishes until the run stops publishing and every message is answered.
pub(crate) fn run(shared: &Shared, plan: PublisherPlan) {
    let who = format!("publisher {}", plan.number);
    let mut publisher = Publisher {
        shared,
        random: Random::of(shared.seed, &who),
        plan,
        sequence: 0,
        again: Vec::new(),
    };
    while let Some((connection, life)) = shared.connect(&shared.stop_publishing) {
        let mut session = Session {
            number: shared.next_session(),
            connection,
            next_tag: 1,
            unanswered: BTreeMap::new(),
        };
        shared.history.add(&Event::Session {
            session: session.number,
            life,
        });
        let outcome = if publisher.plan.is_transactional {
            publisher.publish_transactions(&mut session)
        } else {
            publisher.publish(&mut session)
        };
        let unknown: Vec<Sent> = session.unanswered.into_values().collect();
        match outcome {
            Ok(()) => {
                session.connection.close();
                return;
            }
            Err(error) => shared.blame(&who, life, &error),
        }
        for sent in unknown {
            if publisher.random.percent(REPUBLISH_PERCENT) {
                publisher.again.push(sent);
            }
        }
    }
}

/// One channel of the publisher.
struct Session {
    number: u32,
    connection: Connection,
    next_tag: u64,
    /// By publish tag. Bound: the window.
    unanswered: BTreeMap<u64, Sent>,
}

impl Publisher<'_> {
    /// One transaction after the other; one in ten is taken back.
    fn publish_transactions(&mut self, session: &mut Session) -> Result<(), ClientError> {
        let select = Args::of(wire::TX_SELECT);
        session.connection.call(select, wire::TX_SELECT_OK)?;
        let mut pace = Pace::new(self.plan.rate, TRANSACTION_MAX as f64);
        while !self.shared.stop_publishing.load(Ordering::SeqCst) {
            let most = 1 + self.random.below(TRANSACTION_MAX as u64) as usize;
            let count = pace.take(most);
            if count == 0 {
                if let Some(incoming) = session.connection.next(Duration::from_millis(5))? {
                    self.take(session, incoming)?;
                }
                continue;
            }
            for _ in 0..count {
                self.put_one(session);
            }
            let is_taken_back = self.random.percent(ROLLBACK_PERCENT);
            if is_taken_back {
                let rollback = Args::of(wire::TX_ROLLBACK);
                session.connection.call(rollback, wire::TX_ROLLBACK_OK)?;
            } else {
                let messages = session.unanswered.values().map(|sent| sent.message);
                let transaction = Event::Transaction(messages.collect());
                self.shared.history.add(&transaction);
                let commit = Args::of(wire::TX_COMMIT);
                session.connection.call(commit, wire::TX_COMMIT_OK)?;
            }
            for sent in std::mem::take(&mut session.unanswered).into_values() {
                self.answered(sent.message, !is_taken_back);
            }
        }
        Ok(())
    }

    fn publish(&mut self, session: &mut Session) -> Result<(), ClientError> {
        let select = Args::of(wire::CONFIRM_SELECT).u8(0);
        session.connection.call(select, wire::CONFIRM_SELECT_OK)?;
        // Each session begins with a burst.
        let mut pace = Pace::new(self.plan.rate, self.plan.window as f64);
        let mut last_answer = Instant::now();
        loop {
            while let Some(incoming) = session.connection.next(Duration::ZERO)? {
                last_answer = Instant::now();
                self.take(session, incoming)?;
            }
            let is_stopping = self.shared.stop_publishing.load(Ordering::SeqCst);
            if is_stopping && session.unanswered.is_empty() {
                return Ok(());
            }
            let room = self.plan.window.saturating_sub(session.unanswered.len());
            let count = if is_stopping {
                0
            } else {
                pace.take(room.min(BATCH_MAX))
            };
            if count == 0 {
                if session.unanswered.is_empty() {
                    last_answer = Instant::now();
                } else if last_answer.elapsed() > ANSWER_MAX {
                    let count = session.unanswered.len();
                    return Err(ClientError::Silent(format!(
                        "{count} publishes without answer"
                    )));
                }
                if let Some(incoming) = session.connection.next(Duration::from_millis(5))? {
                    last_answer = Instant::now();
                    self.take(session, incoming)?;
                }
                continue;
            }
            for _ in 0..count {
                self.put_one(session);
            }
            session.connection.flush()?;
        }
    }

    /// Writes the attempt down and puts it into the connection's output.
    fn put_one(&mut self, session: &mut Session) {
        let sent = self.again.pop().unwrap_or_else(|| {
            self.sequence += 1;
            Sent {
                message: MessageKey {
                    publisher: self.plan.number,
                    sequence: self.sequence,
                },
                route: self.random.below(ROUTES.len() as u64) as usize,
                bytes: self.plan.sizes.pick(&mut self.random),
            }
        });
        let body = body::make(self.shared.seed, sent.message, sent.bytes);
        self.shared.history.add(&Event::Attempt {
            message: sent.message,
            session: session.number,
            route: sent.route as u16,
            body: body::print(&body),
        });
        let properties = Properties {
            delivery_mode: if self.plan.is_transient { 1 } else { 2 },
            message_id: sent.message.to_string(),
        };
        let (exchange, key, _) = ROUTES[sent.route];
        session
            .connection
            .put_publish(exchange, key, &properties, &body);
        session.unanswered.insert(session.next_tag, sent);
        session.next_tag += 1;
    }

    fn take(&self, session: &mut Session, incoming: Incoming) -> Result<(), ClientError> {
        let mut fields = Fields(&incoming.args);
        match incoming.id {
            wire::BASIC_RETURN => match MessageKey::parse(&incoming.properties.message_id) {
                Some(message) => self.shared.history.add(&Event::Returned(message)),
                None => {
                    return Err(ClientError::Violation(
                        "a foreign message returned".to_owned(),
                    ));
                }
            },
            wire::BASIC_ACK | wire::BASIC_NACK => {
                let (Ok(tag), Ok(flags)) = (fields.u64(), fields.u8()) else {
                    return Err(ClientError::Violation("a confirm cut short".to_owned()));
                };
                let is_multiple = flags & 1 != 0;
                let is_known = session.unanswered.contains_key(&tag);
                // The standard's tag 0 with `multiple` means everything so far.
                if !(is_known || is_multiple && tag < session.next_tag) {
                    return Err(ClientError::Violation(format!(
                        "a confirm of unknown tag {tag}"
                    )));
                }
                let answered: Vec<Sent> = if is_multiple {
                    let later = match tag {
                        0 => BTreeMap::new(),
                        tag => session.unanswered.split_off(&(tag + 1)),
                    };
                    std::mem::replace(&mut session.unanswered, later)
                        .into_values()
                        .collect()
                } else {
                    session.unanswered.remove(&tag).into_iter().collect()
                };
                for sent in answered {
                    self.answered(sent.message, incoming.id == wire::BASIC_ACK);
                }
            }
            id => return Err(ClientError::Violation(format!("{id:?} to a publisher"))),
        }
        Ok(())
    }

    fn answered(&self, message: MessageKey, is_ack: bool) {
        if is_ack {
            self.shared.confirmed.fetch_add(1, Ordering::Relaxed);
            self.shared.history.add(&Event::Confirm(message));
        } else {
            self.shared.history.add(&Event::Nack(message));
        }
    }
}

/// A token bucket that begins full.
struct Pace {
    rate: f64,
    most: f64,
    tokens: f64,
    last: Instant,
}

impl Pace {
    fn new(rate: f64, most: f64) -> Self {
        Self {
            rate,
            most,
            tokens: most,
            last: Instant::now(),
        }
    }

    /// How many messages may be sent now, at most `count`.
    fn take(&mut self, count: usize) -> usize {
        let now = Instant::now();
        self.tokens += now.duration_since(self.last).as_secs_f64() * self.rate;
        self.tokens = self.tokens.min(self.most.max(1.0));
        self.last = now;
        let count = count.min(self.tokens as usize);
        self.tokens -= count as f64;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes come in about the proportion of their weights, and nonsense is refused.
    #[test]
    fn sizes_follow_their_weights() {
        let sizes = Sizes::parse("10:3, 2000000").expect("two sizes");
        let mut random = Random::new(3);
        let draws: Vec<u32> = (0..1_000).map(|_| sizes.pick(&mut random)).collect();
        let small = draws.iter().filter(|bytes| **bytes == 10).count();
        assert!(draws.iter().all(|bytes| [10, 2_000_000].contains(bytes)));
        assert!((680..820).contains(&small), "{small} of 1000");
        for text in ["", "a", "10:", "10:0", "10:x"] {
            assert!(Sizes::parse(text).is_err(), "{text:?}");
        }
    }
}
