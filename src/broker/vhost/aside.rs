//! What exchanges do with a message beside passing it on: let it wait, tell duplicates, keep the last.
//!
//! Owns: the batch of the journal in which a message, the keys by which its duplicates will be told, and
//! its leaving of the exchange where it waited are one step; and the publish of what has become due.
//! Spec: `spec/amqp.md`, "Delayed messages", "Duplicates".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::journal::{Appended, BodyRecord, Entry, Lsn, NewMessage, QueueId};

use super::super::dead_letter::Dead;
use super::super::dedup::DedupCache;
use super::super::delayed::{Delays, Due, due_header};
use super::super::error::Error;
use super::super::exchange::{Exchange, RouteInput};
use super::super::limits::DELAYED_AT_ONCE_MAX;
use super::super::message::{Message, Persistence};
use super::super::outbox::Wakes;
use super::super::route::{Aside, Route, Walked, more_keys, walk};
use super::super::timers::{Earliest, TimerKind};
use super::duplicates::Sifted;
use super::publishing::{Spread, body_record, hidden_keys_back, new_record};
use super::streams::hold_orders;
use super::{PublishOutcome, Published, Vhost};

/// What the journal has of a publish.
struct Noted {
    /// The message itself, for queues.
    message: Appended,
    /// The message where it waits.
    waiting: Appended,
    /// What a confirm waits for.
    wait_for: Option<Lsn>,
}

/// What became of a message that was passed on.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) spread: Spread,
    /// It waits somewhere, or was dropped as a duplicate: it was not lost for want of a queue.
    pub(crate) is_kept: bool,
    /// What a confirm waits for.
    pub(crate) wait_for: Option<Lsn>,
}

impl Vhost {
    /// Delivers a message, and does what exchanges on its way want besides.
    pub(super) fn deliver_walked(
        &self,
        mut message: Message,
        walked: Walked<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        let has_askers = !walked.route.replies.is_empty();
        let mut dead = Vec::new();
        let passed = self.pass_on(&mut message, walked, now, &mut dead, wakes)?;
        if !dead.is_empty() {
            self.bury(dead, now, wakes);
        }
        let outcome = if passed.spread.rejected_count > 0 {
            PublishOutcome::Rejected
        } else if passed.spread.taken_count > 0 || passed.is_kept {
            PublishOutcome::Routed {
                wait_for: passed.wait_for,
            }
        } else {
            if !has_askers {
                self.unroutable_count.fetch_add(1, Ordering::Relaxed);
            }
            PublishOutcome::Unroutable
        };
        Ok(Published { message, outcome })
    }

    /// Passes a message on as a walk found it: into the journal, to where it waits, and into queues. What
    /// dies of it, to be buried, is added to `dead`.
    pub(crate) fn pass_on(
        &self,
        message: &mut Message,
        walked: Walked<'_>,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) -> Result<Passed, Error> {
        let Walked { route, aside, .. } = walked;
        for exchange in &aside.histories {
            if let Some(history) = exchange.history() {
                history.record(message);
            }
        }
        self.secure(message, &route)?;
        let _orders = hold_orders([&route]);
        let unix_ms = self.unix_ms(now);
        let sifted = Sifted::new(&route, message, unix_ms);
        let is_duplicate = sifted.duplicate_of.is_some();
        if aside.is_done() {
            let record = self.append(message, sifted.route(&route), now)?;
            sifted.recorded(record);
            let spread = self.spread(message, &route, &sifted, record, now, dead, wakes);
            return Ok(Passed {
                spread,
                is_kept: is_duplicate,
                wait_for: self.wait_for(&spread, record),
            });
        }
        let noted = self.note(message, sifted.route(&route), &aside, unix_ms)?;
        sifted.recorded(noted.message);
        let Aside {
            delays,
            keys,
            duplicate_of,
            gate,
            ..
        } = aside;
        drop(gate);
        for (exchange, delay_ms) in &delays {
            self.wait(exchange, unix_ms.saturating_add(*delay_ms), &noted, message);
        }
        let spread = self.spread(message, &route, &sifted, noted.message, now, dead, wakes);
        if spread.rejected_count > 0 {
            // The publisher will send it again, and that is no duplicate.
            for new in &keys {
                if let Some(cache) = new.exchange.dedup() {
                    cache.forget(new.key);
                }
            }
        }
        Ok(Passed {
            spread,
            is_kept: !delays.is_empty() || duplicate_of.is_some() || is_duplicate,
            wait_for: match duplicate_of.max(spread.duplicate_of) {
                None => noted.wait_for,
                first => self.not_durable_yet(noted.wait_for.max(first)),
            },
        })
    }

    /// Notes in the journal, in one batch, all that must be there.
    // req: DELAY-3 req: DELAY-4 req: DEDUP-3
    fn note(
        &self,
        message: &Message,
        route: &Route,
        aside: &Aside<'_>,
        unix_ms: u64,
    ) -> Result<Noted, Error> {
        let mut noted = Noted {
            message: Appended::NONE,
            waiting: Appended::NONE,
            wait_for: None,
        };
        let Some(journal) = &self.shared.journal else {
            return Ok(noted);
        };
        let persistence = message.traits().persistence;
        let mut queues: SmallVec<[QueueId; 4]> = SmallVec::new();
        queues.extend_from_slice(route.journalled(persistence));
        let for_queues_count = queues.len();
        let delays = aside
            .delays
            .iter()
            .filter_map(|(exchange, _)| exchange.delays());
        queues.extend(delays.filter_map(Delays::journal_queue));
        let keys: Vec<_> = aside
            .keys
            .iter()
            .filter_map(|new| {
                let queue = new.exchange.dedup().and_then(DedupCache::journal_queue)?;
                Some((new, queue, new.key.record(new.expires_unix_ms)))
            })
            .collect();
        let with_bcc = hidden_keys_back(message);
        let mut entries: SmallVec<[Entry<'_>; 4]> = SmallVec::new();
        if !queues.is_empty() {
            let body = body_record(message)?;
            let new = new_record(message, body, with_bcc.as_deref(), &queues, unix_ms);
            entries.push(Entry::Message(new));
        }
        for (_, queue, record) in &keys {
            entries.push(Entry::Message(key_record(queue, record, unix_ms)));
        }
        if let Some((queue, lsn)) = &aside.replaces {
            let lsns = std::slice::from_ref(lsn);
            entries.push(Entry::Acks {
                queue: *queue,
                lsns,
            });
        }
        if entries.is_empty() {
            return Ok(noted);
        }
        let appended = journal.append_batch(&entries)?;
        let last = appended.last().map_or(Lsn::ZERO, |last| last.lsn);
        let mut appended = appended.into_iter();
        if !queues.is_empty()
            && let Some(record) = appended.next()
        {
            if for_queues_count > 0 {
                noted.message = record;
            }
            if queues.len() > for_queues_count {
                noted.waiting = record;
            }
        }
        for ((new, _, _), record) in keys.iter().zip(appended) {
            if let Some(cache) = new.exchange.dedup() {
                cache.recorded(new.key, record.lsn, last);
            }
        }
        // What need not survive needs no wait, wherever it is noted.
        let must_survive = persistence == Persistence::Persistent || for_queues_count > 0;
        noted.wait_for = (must_survive && last != Lsn::ZERO).then_some(last);
        Ok(noted)
    }

    /// Lets a message wait in an exchange, and sees to it that somebody looks when its time has come.
    fn wait(&self, exchange: &Arc<Exchange>, due_unix_ms: u64, noted: &Noted, message: &Message) {
        let Some(delays) = exchange.delays() else {
            return;
        };
        if delays.add(due_unix_ms, noted.waiting, message) {
            self.arm_delays(exchange, delays);
        }
    }

    /// Arms the exchange's timer for its first message, unless one comes up early enough.
    pub(crate) fn arm_delays(&self, exchange: &Arc<Exchange>, delays: &Delays) {
        let (clock, timers) = (self.shared.clock, &self.shared.timers);
        let armed = delays.arm(|first, armed| {
            let at = clock.instant(first);
            if armed.is_some_and(|timer| timer.at() <= at) {
                return None;
            }
            let kind = TimerKind::Delayed {
                vhost: self.this.clone(),
                exchange: Arc::downgrade(exchange),
            };
            let (timer, earliest) = timers.arm(at, kind);
            if let Some(later) = armed {
                timers.disarm(later);
            }
            Some((timer, earliest))
        });
        if armed == Some(Earliest::Yes) {
            timers.wake();
        }
    }

    /// Publishes a message that was made before, as if it came now.
    pub(super) fn publish_from(
        &self,
        source: &Arc<Exchange>,
        message: Message,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: Bytes::copy_from_slice(message.header()),
        };
        let headers = content.headers();
        let more = headers.as_ref().map(more_keys).transpose()?;
        let more = more.map(|(more, _)| more).unwrap_or_default();
        let mut keys: SmallVec<[&[u8]; 4]> = SmallVec::from_slice(&[message.routing_key()]);
        keys.extend(more.iter().map(|key| key.as_bytes()));
        keys.extend(message.hidden_keys());
        let properties = content.properties_ref().ok();
        let input = RouteInput {
            keys: &keys,
            headers: headers.as_ref(),
            properties: properties.as_ref(),
            message: Some(&message),
            unix_ms: self.unix_ms(now),
        };
        let walked = walk(self, source, input);
        let message = message.clone();
        self.deliver_walked(message, walked, now, wakes)
    }

    /// Publishes messages of a delayed exchange whose time has come, some of them; the rest stays due.
    // req: DELAY-2
    pub(crate) fn publish_due(&self, exchange: &Arc<Exchange>, now: Instant, wakes: &mut Wakes) {
        let Some(delays) = exchange.delays() else {
            return;
        };
        if let Some(armed) = delays.take_timer() {
            self.shared.timers.disarm(armed);
        }
        let unix_ms = self.shared.clock.unix_ms(now);
        for due in delays.take_due(unix_ms, DELAYED_AT_ONCE_MAX) {
            if let Err(error) = self.publish_waiting(exchange, delays, &due, now, wakes) {
                // A journal that failed ends the broker, and has the message still.
                tracing::error!(exchange = %exchange.name(), %error, "a delayed message waits for a restart");
            }
        }
        self.arm_delays(exchange, delays);
    }

    fn publish_waiting(
        &self,
        exchange: &Arc<Exchange>,
        delays: &Delays,
        due: &Due,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        let message = match (&due.message, &self.shared.journal) {
            (Some(message), _) => message.clone(),
            (None, Some(journal)) => {
                let stored = journal.read_message(due.lsn, due.location)?;
                self.stored_message(stored)
            }
            (None, None) => return Ok(()),
        };
        let (header, headers) = due_header(message.header());
        let message = message.with_header(&header);
        let more = headers.as_ref().map(more_keys).transpose()?;
        let more = more.map(|(more, _)| more).unwrap_or_default();
        let mut keys: SmallVec<[&[u8]; 4]> = SmallVec::from_slice(&[message.routing_key()]);
        keys.extend(more.iter().map(|key| key.as_bytes()));
        keys.extend(message.hidden_keys());
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: header,
        };
        let properties = content.properties_ref().ok();
        let input = RouteInput {
            keys: &keys,
            headers: headers.as_ref(),
            properties: properties.as_ref(),
            message: Some(&message),
            unix_ms: self.shared.clock.unix_ms(now),
        };
        let mut walked = walk(self, exchange, input);
        walked.aside.replaces = match (due.lsn, delays.journal_queue()) {
            (Lsn::ZERO, _) | (_, None) => None,
            (lsn, Some(queue)) => Some((queue, lsn)),
        };
        let message = message.clone();
        self.deliver_walked(message, walked, now, wakes).map(drop)
    }
}

/// The record that keeps a key.
fn key_record<'a>(queue: &'a QueueId, record: &'a [u8], unix_ms: u64) -> NewMessage<'a> {
    NewMessage {
        exchange: b"",
        routing_key: b"",
        header: &[0, 0],
        body: BodyRecord::Inline(record),
        queues: std::slice::from_ref(queue),
        flags: 0,
        time_unix_ms: unix_ms,
    }
}
