//! Transactions: what was published and acknowledged together becomes true together.
//!
//! Owns: the commit. A message gets its route when it is published, as in RabbitMQ, and waits for the
//! commit outside of all queues. The commit is one batch of the journal: after a crash all of it is there,
//! messages and acknowledgements alike, or nothing. What a commit puts back (`requeue`) and the letters of
//! what it rejects are steps of their own behind it: a crash between them leaves what they concern where
//! it was. So are messages that an exchange delays or looks through for duplicates.
//! Spec: RabbitMQ's class tx; `spec/amqp.md` TX-1 to TX-4.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::journal::{Appended, Entry, Lsn, QueueId};

use super::super::access::Access;
use super::super::error::Error;
use super::super::exchange::{Exchange, RouteInput};
use super::super::message::Message;
use super::super::name::Name;
use super::super::outbox::Wakes;
use super::super::queue::{MessageSeq, Queue, Settle, Settled};
use super::super::route::{Route, Walked, walk};
use super::duplicates::Sifted;
use super::publishing::{
    Publish, PublishOutcome, Published, body_record, hidden_keys_back, new_record, table_in,
};
use super::streams::hold_orders;
use super::{Connection, Vhost};

/// Acknowledgements of one queue that go into one entry of a batch; far below what a record holds.
const ACKS_PER_ENTRY_MAX: usize = 4_096;

/// A message that waits for its commit, in no queue yet.
#[derive(Debug)]
pub struct Prepared {
    message: Message,
    to: To,
}

/// Where a prepared message goes.
#[derive(Debug)]
enum To {
    /// Into these queues, with the commit's batch.
    Queues(Route),
    /// An exchange on its way lets it wait or looks for duplicates, which begins with the commit: it is
    /// published again from here, behind the batch.
    Exchange(Arc<Exchange>),
}

impl Prepared {
    /// Its queues, if it goes with the batch.
    fn route(&self) -> Option<&Route> {
        match &self.to {
            To::Queues(route) => Some(route),
            To::Exchange(_) => None,
        }
    }

    /// What it takes in memory, in bytes; a body in the payload store takes none.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.message.memory_bytes()
    }
}

/// Deliveries of one queue that are settled in one way.
#[derive(Debug)]
pub struct Settlements {
    /// Their queue.
    pub queue: Arc<Queue>,
    /// Which, in the order of the client's words.
    pub seqs: Vec<MessageSeq>,
    /// How.
    pub how: Settle,
}

/// What a commit did.
#[derive(Debug)]
pub struct Committed {
    /// What became of each message, in order.
    pub published: Vec<Published>,
    /// What the answer must wait for: the journal up to this number.
    pub wait_for: Option<Lsn>,
}

impl Vhost {
    /// Finds out where a message goes, and keeps it for the commit. Answers by direct reply-to go at once,
    /// as in RabbitMQ.
    ///
    /// # Errors
    /// What publishing would be refused with.
    // req: TX-1
    pub fn prepare(
        &self,
        by: &Connection,
        channel: u16,
        publish: Publish<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Prepared, Error> {
        let source = self.exchange_to_publish(by, publish.exchange)?;
        self.authorize_topic(by, &source, publish.routing_key, Access::Write)?;
        let elements = publish.properties.headers;
        let headers = elements.and_then(|elements| table_in(publish.header, elements));
        let (mut message, keys) = Self::compose(&publish, headers.as_ref())?;
        message.detach();
        let keys: SmallVec<[&[u8]; 4]> = keys.iter().map(Name::as_bytes).collect();
        let input = RouteInput {
            keys: &keys,
            headers: headers.as_ref(),
            properties: Some(publish.properties),
            // Without it nobody looks for duplicates yet.
            message: None,
            unix_ms: self.unix_ms(now),
        };
        let Walked {
            mut route, aside, ..
        } = walk(self, &source, input);
        if self.is_tracing() {
            let queues = Self::traced_queues(&route);
            self.trace_publish(by, channel, &message, queues, now, wakes);
        }
        if aside.gate.is_some() || !aside.delays.is_empty() {
            let to = To::Exchange(source);
            return Ok(Prepared { message, to });
        }
        for history in aside
            .histories
            .iter()
            .filter_map(|exchange| exchange.history())
        {
            history.record(&message);
        }
        for asker in std::mem::take(&mut route.replies) {
            asker.answer(&message, wakes);
        }
        let to = To::Queues(route);
        Ok(Prepared { message, to })
    }

    /// Puts prepared messages into their queues and settles deliveries, all or nothing.
    ///
    /// # Errors
    /// If the journal does not take it. Nothing is published then; the broker is about to stop.
    // req: TX-2
    pub fn commit(
        &self,
        prepared: Vec<Prepared>,
        settlements: &[Settlements],
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Committed, Error> {
        let (put_back, removed): (Vec<_>, Vec<_>) =
            settlements.iter().partition(|group| group.how.goes_back());
        let mut settled: Vec<Settled> = removed
            .into_iter()
            .map(|group| {
                group
                    .queue
                    .settle_for_batch(&group.seqs, group.how, now, wakes)
            })
            .collect();
        let (outcomes, mut wait_for) =
            self.publish_prepared(&prepared, &mut settled, now, wakes)?;
        let mut published = Vec::with_capacity(prepared.len());
        for (Prepared { message, to }, outcome) in prepared.into_iter().zip(outcomes) {
            let one = match to {
                To::Queues(_) => Published { message, outcome },
                To::Exchange(source) => self.publish_from(&source, message, now, wakes)?,
            };
            if let PublishOutcome::Routed {
                wait_for: Some(lsn),
            } = one.outcome
            {
                wait_for = wait_for.max(Some(lsn));
            }
            published.push(one);
        }
        for settled in settled {
            settled.finish(now, wakes);
        }
        for group in put_back {
            group.queue.settle(&group.seqs, group.how, now, wakes);
        }
        Ok(Committed {
            published,
            wait_for,
        })
    }

    /// The batch: appends it, and puts its messages into their queues; gives what became of each, and what
    /// to wait for. What is not of the batch counts as unroutable here.
    fn publish_prepared(
        &self,
        prepared: &[Prepared],
        settled: &mut [Settled],
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(Vec<PublishOutcome>, Option<Lsn>), Error> {
        let mut dead = Vec::new();
        let orders = hold_orders(prepared.iter().filter_map(Prepared::route));
        let unix_ms = self.unix_ms(now);
        let sift = |prepared: &Prepared| match prepared.route() {
            Some(route) => Sifted::new(route, &prepared.message, unix_ms),
            None => Sifted::default(),
        };
        let sifted: Vec<Sifted> = prepared.iter().map(sift).collect();
        let (records, wait_for) = self.append_commit(prepared, &sifted, settled, now)?;
        let publish = |((prepared, sifted), record): ((&Prepared, &Sifted), Appended)| {
            let Some(route) = prepared.route() else {
                return PublishOutcome::Unroutable;
            };
            let mut message = prepared.message.clone();
            sifted.recorded(record);
            let spread = self.spread(&mut message, route, sifted, record, now, &mut dead, wakes);
            self.outcome(spread, record, route)
        };
        let outcomes = prepared.iter().zip(&sifted).zip(records);
        let outcomes = outcomes.map(publish).collect();
        drop(orders);
        if !dead.is_empty() {
            self.bury(dead, now, wakes);
        }
        Ok((outcomes, wait_for))
    }

    /// Appends all that must survive as one batch; gives each message's place in the journal.
    fn append_commit(
        &self,
        prepared: &[Prepared],
        sifted: &[Sifted],
        settled: &mut [Settled],
        now: Instant,
    ) -> Result<(Vec<Appended>, Option<Lsn>), Error> {
        let mut places = vec![Appended::NONE; prepared.len()];
        let Some(journal) = &self.shared.journal else {
            return Ok((places, None));
        };
        let headers: Vec<Option<Bytes>> = prepared
            .iter()
            .map(|prepared| hidden_keys_back(&prepared.message))
            .collect();
        let unix_ms = self.unix_ms(now);
        let mut entries = Vec::new();
        let mut indexes = Vec::new();
        let messages = prepared.iter().zip(sifted).zip(&headers);
        for (index, ((prepared, sifted), with_bcc)) in messages.enumerate() {
            let Some(route) = prepared.route().map(|route| sifted.route(route)) else {
                continue;
            };
            let message = &prepared.message;
            let queues = route.journalled(message.traits().persistence);
            if !queues.is_empty() {
                let body = body_record(message)?;
                let record = new_record(message, body, with_bcc.as_deref(), queues, unix_ms);
                indexes.push(index);
                entries.push(Entry::Message(record));
            }
        }
        let left: Vec<(QueueId, Vec<Lsn>)> = settled.iter_mut().map(Settled::take_left).collect();
        for (queue, lsns) in &left {
            for lsns in lsns.chunks(ACKS_PER_ENTRY_MAX) {
                let queue = *queue;
                entries.push(Entry::Acks { queue, lsns });
            }
        }
        if entries.is_empty() {
            return Ok((places, None));
        }
        let appended = journal.append_batch(&entries)?;
        for (index, place) in indexes.into_iter().zip(&appended) {
            if let Some(slot) = places.get_mut(index) {
                *slot = *place;
            }
        }
        Ok((places, appended.last().map(|last| last.lsn)))
    }
}

/// Whether all of a commit's messages are where they should be.
#[must_use]
pub fn is_whole(published: &[Published]) -> bool {
    published
        .iter()
        .all(|published| published.outcome != PublishOutcome::Rejected)
}

#[cfg(test)]
mod tests;
