//! Publishing: from an exchange and a key into queues.
//!
//! A channel that repeats itself finds its queues in what it remembers, and takes one lock per queue.
//! Spec: AMQP 0-9-1, `basic.publish`; RabbitMQ's `CC` and `BCC`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, PropertiesRef};
use crate::journal::{Appended, BodyRecord, Lsn, NewMessage, PayloadRecord, QueueId};

use super::super::access::Access;
use super::super::dead_letter::Dead;
use super::super::error::{Error, ResourceKind};
use super::super::exchange::{Exchange, RouteInput};
use super::super::message::{
    Body, BodyRef, JOURNAL_FLAG_EXPIRES, JOURNAL_FLAG_HIDDEN_KEYS, JOURNAL_FLAG_TRANSIENT, Message,
    MessageTraits, Persistence,
};
use super::super::name::Name;
use super::super::outbox::Wakes;
use super::super::queue::{Enqueued, Queue, Run};
use super::super::route::{
    Publisher, Repeatable, Route, Walked, may_have_more_keys, more_keys, walk,
};
use super::duplicates::Sifted;
use super::streams::hold_orders;
use super::{Connection, Vhost, without_line_ends};

/// A message to publish. The session has checked its properties.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The exchange; empty for the default one.
    pub exchange: &'a [u8],
    /// The routing key.
    pub routing_key: &'a [u8],
    /// Property flags and properties as they came ([`ContentHeader::raw`]).
    pub header: &'a Bytes,
    /// The same, read.
    pub properties: &'a PropertiesRef<'a>,
    /// The body, or the name of it.
    pub body: Body,
}

/// What became of a published message.
#[derive(Debug)]
pub struct Published {
    /// The message as it went out, for returning it: a `BCC` header is removed.
    pub message: Message,
    /// What the publisher may be told.
    pub outcome: PublishOutcome,
}

/// What the publisher of a message may be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishOutcome {
    /// It is in all its queues. A confirm waits until the journal is durable up to the number, if any.
    Routed {
        /// What the confirm waits for.
        wait_for: Option<Lsn>,
    },
    /// A queue refused it; others may have it. The publisher gets a `basic.nack`.
    Rejected,
    /// No queue is meant: returned if mandatory, then confirmed.
    Unroutable,
}

/// What became of messages that were published in a run.
#[derive(Debug, Default)]
pub(crate) struct RunOutcome {
    /// How many were published; less than all only if the journal took no more.
    pub(crate) count: usize,
    /// Where the journal has them, if it has them.
    records: Vec<Appended>,
    /// Which of them a queue refused, in order; others may have them.
    refused: Vec<usize>,
    /// Whether any queue was there.
    pub(crate) is_routed: bool,
}

impl RunOutcome {
    fn clear(&mut self, count: usize) {
        self.count = count;
        self.records.clear();
        self.refused.clear();
        self.is_routed = false;
    }

    /// What became of each of them, in order.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = PublishOutcome> {
        let mut refused = self.refused.iter().peekable();
        (0..self.count).map(move |at| {
            if refused.next_if(|refused| **refused == at).is_some() {
                return PublishOutcome::Rejected;
            }
            if !self.is_routed {
                return PublishOutcome::Unroutable;
            }
            let lsn = self.records.get(at).map(|record| record.lsn);
            PublishOutcome::Routed {
                wait_for: lsn.filter(|lsn| *lsn != Lsn::ZERO),
            }
        })
    }
}

/// What the queues of a route did with a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    /// Queues that took it, also if they dropped it at once.
    pub(crate) taken_count: usize,
    /// Queues that were full and refused it.
    pub(crate) rejected_count: usize,
    /// Some queue had it already; where the journal has the first one.
    pub(crate) duplicate_of: Option<Lsn>,
}

impl Vhost {
    /// Publishes a message: to consumers, into queues, and to the journal if it must survive.
    ///
    /// `publisher` is the channel's, and remembers where its messages go. Consumers to wake are noted
    /// in `wakes`.
    pub fn publish(
        &self,
        by: &Connection,
        publisher: &mut Publisher,
        publish: Publish<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        let traits = MessageTraits::of(publish.properties);
        let (exchange, key) = (publish.exchange, publish.routing_key);
        if let Some(elements) = publish.properties.headers
            && may_have_more_keys(elements)
        {
            return self
                .publish_with_more_keys(by, publisher, publish, elements, traits, now, wakes);
        }
        let generation = self.generation();
        let headers = (publish.header, publish.properties.headers);
        let message = Message::new(exchange, key, publish.header, traits, publish.body);
        let is_tracing = self.is_tracing();
        if !is_tracing && let Some(route) = publisher.recall(exchange, key, generation) {
            return self.deliver(message, route, now, wakes);
        }
        let source = self.exchange_to_publish(by, exchange)?;
        self.authorize_topic(by, &source, key, Access::Write)?;
        let headers = headers.1.and_then(|elements| table_in(headers.0, elements));
        let input = RouteInput {
            keys: &[key],
            headers: headers.as_ref(),
            properties: Some(publish.properties),
            message: Some(&message),
            unix_ms: self.shared.clock.unix_ms(now),
        };
        let walked = walk(self, &source, input);
        if is_tracing {
            publisher.passes(exchange, &walked.route);
            return self.deliver_traced(by, publisher.channel(), message, walked, now, wakes);
        }
        match walked.repeatable {
            Repeatable::Yes => {
                let route = publisher.remember(exchange, key, generation, walked.route);
                self.deliver(message, route, now, wakes)
            }
            Repeatable::No => {
                publisher.passes(exchange, &walked.route);
                self.deliver_walked(message, walked, now, wakes)
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // what a publish is made of
    fn publish_with_more_keys(
        &self,
        by: &Connection,
        publisher: &mut Publisher,
        publish: Publish<'_>,
        elements: &[u8],
        traits: MessageTraits,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        let source = self.exchange_to_publish(by, publish.exchange)?;
        self.authorize_topic(by, &source, publish.routing_key, Access::Write)?;
        let headers = table_in(publish.header, elements).unwrap_or_default();
        let (more, has_bcc) = more_keys(&headers)?;
        let first = publish.routing_key;
        let mut keys: SmallVec<[&[u8]; 8]> = SmallVec::from_slice(&[first]);
        keys.extend(more.iter().map(|key| key.as_bytes()));
        let (header, hidden_keys) = match has_bcc {
            true => (without_bcc(publish.header), hidden_keys(&headers)),
            false => (publish.header.clone(), Vec::new()),
        };
        let message = Message::with_hidden_keys(
            publish.exchange,
            first,
            &header,
            traits,
            publish.body,
            &hidden_keys,
        );
        let input = RouteInput {
            keys: &keys,
            headers: Some(&headers),
            properties: Some(publish.properties),
            message: Some(&message),
            unix_ms: self.shared.clock.unix_ms(now),
        };
        let walked = walk(self, &source, input);
        publisher.passes(publish.exchange, &walked.route);
        if self.is_tracing() {
            let channel = publisher.channel();
            return self.deliver_traced(by, channel, message, walked, now, wakes);
        }
        self.deliver_walked(message, walked, now, wakes)
    }

    /// A message and its routing keys, the publish's own first, without what the queues must not see.
    pub(super) fn compose(
        publish: &Publish<'_>,
        headers: Option<&FieldTable>,
    ) -> Result<(Message, Vec<Name>), Error> {
        let (more, has_bcc) = headers.map(more_keys).transpose()?.unwrap_or_default();
        let (header, hidden_keys) = match (has_bcc, headers) {
            (true, Some(headers)) => (without_bcc(publish.header), hidden_keys(headers)),
            _ => (publish.header.clone(), Vec::new()),
        };
        let mut keys = vec![Name::new(publish.routing_key)];
        keys.extend(more);
        let message = Message::with_hidden_keys(
            publish.exchange,
            publish.routing_key,
            &header,
            MessageTraits::of(publish.properties),
            publish.body.clone(),
            &hidden_keys,
        );
        Ok((message, keys))
    }

    fn deliver_traced(
        &self,
        by: &Connection,
        channel: u16,
        message: Message,
        walked: Walked<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        let queues = Self::traced_queues(&walked.route);
        let published = self.deliver_walked(message, walked, now, wakes)?;
        self.trace_publish(by, channel, &published.message, queues, now, wakes);
        Ok(published)
    }

    /// Puts a message into the queues of a route, and buries what dies of it.
    pub(super) fn deliver(
        &self,
        mut message: Message,
        route: &Route,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        self.secure(&message, route)?;
        let mut dead = Vec::new();
        let (record, spread) = {
            let _orders = hold_orders([route]);
            let sifted = Sifted::new(route, &message, self.unix_ms(now));
            let record = self.append(&message, sifted.route(route), now)?;
            sifted.recorded(record);
            let spread = self.spread(&mut message, route, &sifted, record, now, &mut dead, wakes);
            (record, spread)
        };
        if !dead.is_empty() {
            self.bury(dead, now, wakes);
        }
        let outcome = self.outcome(spread, record, route);
        Ok(Published { message, outcome })
    }

    /// Puts a message that another queue has into this one as well, as it would come through the default exchange, but
    /// to no other queue, whatever its `CC` says.
    ///
    /// # Errors
    /// If the connection may not publish to the default exchange, or the journal takes no more.
    #[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
    pub(crate) fn publish_to_queue(
        &self,
        by: &Connection,
        queue: &Arc<Queue>,
        message: &Message,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<PublishOutcome, Error> {
        self.exchange_to_publish(by, b"")?;
        let message = Message::new(
            b"",
            queue.name().as_bytes(),
            message.header(),
            message.traits(),
            message.owned_body(),
        );
        let route = Route::new(vec![Arc::clone(queue)]);
        let published = self.deliver(message, &route, now, wakes)?;
        Ok(published.outcome)
    }

    /// The way of messages that differ from the channel's last ones in their bodies only, if all of them take it
    /// alike and nothing else is to be done for each: for [`Self::publish_run`].
    #[inline]
    pub(crate) fn way_of_run<'a>(
        &self,
        publisher: &'a mut Publisher,
        exchange: &[u8],
        routing_key: &[u8],
    ) -> Option<&'a Route> {
        if self.is_tracing() {
            return None;
        }
        let route = publisher.recall(exchange, routing_key, self.generation())?;
        (!route.has_order && route.replies.is_empty()).then_some(route)
    }

    /// Publishes messages that differ in their bodies only, in order: as [`Self::publish`] for each, with what
    /// can be paid once. `messages` is empty afterwards, unless no queue is there any more.
    ///
    /// # Errors
    /// The journal's, for the message behind those that the outcome knows of.
    pub(crate) fn publish_run(
        &self,
        route: &Route,
        messages: &mut Vec<Message>,
        now: Instant,
        wakes: &mut Wakes,
        outcome: &mut RunOutcome,
    ) -> Result<(), Error> {
        outcome.clear(messages.len());
        let result = self.append_run(messages, route, now, outcome);
        messages.truncate(outcome.count);
        let Some(persistence) = messages.first().map(|first| first.traits().persistence) else {
            return result;
        };
        route.count(outcome.count);
        let mut dead = Vec::new();
        let last = route.queues.len().saturating_sub(1);
        for (at, queue) in route.queues.iter().enumerate() {
            let run = match at == last {
                true => Run::Owned(messages),
                false => Run::Shared(messages),
            };
            let records = match queue.keeps(persistence) {
                true => outcome.records.as_slice(),
                false => &[],
            };
            let refused = &mut outcome.refused;
            match queue.enqueue_run(run, records, refused, now, &mut dead, wakes) {
                Enqueued::Taken | Enqueued::Rejected => outcome.is_routed = true,
                Enqueued::Gone => {}
            }
        }
        if route.queues.len() > 1 {
            outcome.refused.sort_unstable();
            outcome.refused.dedup();
        }
        if outcome.is_routed {
            messages.clear();
        } else {
            let count = outcome.count as u64;
            self.unroutable_count.fetch_add(count, Ordering::Relaxed);
        }
        if !dead.is_empty() {
            self.bury(dead, now, wakes);
        }
        result
    }

    /// Puts messages into the journal if any queue of the route needs them there, before they are in any.
    fn append_run(
        &self,
        messages: &[Message],
        route: &Route,
        now: Instant,
        outcome: &mut RunOutcome,
    ) -> Result<(), Error> {
        let (Some(journal), Some(first)) = (&self.shared.journal, messages.first()) else {
            return Ok(());
        };
        let queues = route.journalled(first.traits().persistence);
        if queues.is_empty() {
            return Ok(());
        }
        let unix_ms = self.shared.clock.unix_ms(now);
        // Their bodies are short, so that none has to be stored for it.
        let new = messages.iter().map_while(|message| {
            let body = body_record(message).ok()?;
            Some(new_record(message, body, None, queues, unix_ms))
        });
        let result = journal.append_messages(new, &mut outcome.records);
        outcome.count = outcome.records.len();
        Ok(result?)
    }

    /// What the publisher may be told of what the queues did.
    pub(super) fn outcome(
        &self,
        spread: Spread,
        record: Appended,
        route: &Route,
    ) -> PublishOutcome {
        match (spread.rejected_count, spread.taken_count) {
            (0, 0) if spread.duplicate_of.is_none() => {
                if route.replies.is_empty() {
                    self.unroutable_count.fetch_add(1, Ordering::Relaxed);
                }
                PublishOutcome::Unroutable
            }
            (0, _) => PublishOutcome::Routed {
                wait_for: self.wait_for(&spread, record),
            },
            (_, _) => PublishOutcome::Rejected,
        }
    }

    /// What a confirm waits for, if anything: `record` is where the journal has the message.
    pub(super) fn wait_for(&self, spread: &Spread, record: Appended) -> Option<Lsn> {
        let own = Some(record.lsn).filter(|lsn| *lsn != Lsn::ZERO);
        match spread.duplicate_of {
            None => own,
            first => self.not_durable_yet(own.max(first)),
        }
    }

    /// What is still to be waited for: nothing, if the journal is that far. Whoever waits hears of changes
    /// only, and the first message of a duplicate may have been safe for long.
    // req: DEDUP-8
    pub(super) fn not_durable_yet(&self, wait_for: Option<Lsn>) -> Option<Lsn> {
        let journal = self.shared.journal.as_ref()?;
        wait_for.filter(|lsn| *lsn > journal.durable_lsn().lsn())
    }

    /// Puts a message into the journal if any queue of the route needs it there: before it is in any of
    /// them, so that no acknowledgement of it can come before it.
    pub(crate) fn append(
        &self,
        message: &Message,
        route: &Route,
        now: Instant,
    ) -> Result<Appended, Error> {
        let Some(journal) = &self.shared.journal else {
            return Ok(Appended::NONE);
        };
        let traits = message.traits();
        let queues = route.journalled(traits.persistence);
        if queues.is_empty() {
            return Ok(Appended::NONE);
        }
        let with_bcc = hidden_keys_back(message);
        let unix_ms = self.shared.clock.unix_ms(now);
        let body = body_record(message)?;
        let new = new_record(message, body, with_bcc.as_deref(), queues, unix_ms);
        Ok(journal.append_message(&new)?)
    }

    /// Stores a body that is in memory, if the journal will refer to it. Blocks on the disk then, and so comes before
    /// any lock; rarely, since what is likely to need it was never in memory.
    // req: MEMBODY-3
    pub(super) fn secure(&self, message: &Message, route: &Route) -> Result<(), Error> {
        if let Some(payload) = message.payload()
            && payload.id().is_none()
            && self.shared.journal.is_some()
            && !route.journalled(message.traits().persistence).is_empty()
        {
            body_record(message)?;
        }
        Ok(())
    }

    /// Puts a message into the queues of a route. What dies of it, to be buried, is added to `dead`.
    #[allow(clippy::too_many_arguments)] // what a publish is made of
    pub(super) fn spread(
        &self,
        message: &mut Message,
        route: &Route,
        sifted: &Sifted,
        record: Appended,
        now: Instant,
        dead: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) -> Spread {
        let mut spread = Spread {
            duplicate_of: sifted.duplicate_of,
            ..Spread::default()
        };
        route.count(1);
        let route = sifted.route(route);
        for asker in &route.replies {
            asker.answer(message, wakes);
        }
        for queue in &route.queues {
            let queue_record = match queue.keeps(message.traits().persistence) {
                true => record,
                false => Appended::NONE,
            };
            match queue.enqueue(message, queue_record, now, dead, wakes) {
                Enqueued::Taken => spread.taken_count += 1,
                Enqueued::Rejected => spread.rejected_count += 1,
                Enqueued::Gone => {}
            }
        }
        spread
    }

    /// Milliseconds since 1970.
    pub(crate) fn unix_ms(&self, now: Instant) -> u64 {
        self.shared.clock.unix_ms(now)
    }

    /// Whether a message may be published to this exchange, without publishing one.
    ///
    /// # Errors
    /// What publishing would be refused with.
    pub fn check_publish(&self, by: &Connection, exchange: &[u8]) -> Result<(), Error> {
        self.exchange_to_publish(by, exchange).map(|_| ())
    }

    /// Whether the `CC` and `BCC` of a message are such that it may be published.
    ///
    /// # Errors
    /// 406, if one of them is no array.
    pub fn check_keys(&self, header: &Bytes, properties: &PropertiesRef<'_>) -> Result<(), Error> {
        let elements = properties.headers;
        let headers = elements.and_then(|elements| table_in(header, elements));
        headers.map_or(Ok(()), |headers| more_keys(&headers).map(|_| ()))
    }

    /// Finds the exchange and checks that the connection may publish to it.
    pub(super) fn exchange_to_publish(
        &self,
        by: &Connection,
        name: &[u8],
    ) -> Result<Arc<Exchange>, Error> {
        let name = &*without_line_ends(name);
        self.authorize(by, ResourceKind::Exchange, name, Access::Write)?;
        let exchange = self.exchange(name).ok_or_else(|| self.no_exchange(name))?;
        if exchange.is_internal() {
            return Err(Error::InternalExchange {
                resource: self.exchange_resource(name),
            });
        }
        Ok(exchange)
    }
}

/// The headers table whose elements lie in `header`.
pub(super) fn table_in(header: &Bytes, elements: &[u8]) -> Option<FieldTable> {
    FieldTable::from_elements(header.slice_ref(elements)).ok()
}

/// A message as a record for these queues. `body` is what [`body_record`] gives, `with_bcc` what
/// [`hidden_keys_back`].
pub(super) fn new_record<'a>(
    message: &'a Message,
    body: BodyRecord<'a>,
    with_bcc: Option<&'a [u8]>,
    queues: &'a [QueueId],
    time_unix_ms: u64,
) -> NewMessage<'a> {
    let hidden_keys = match with_bcc {
        Some(_) => JOURNAL_FLAG_HIDDEN_KEYS,
        None => 0,
    };
    NewMessage {
        exchange: message.exchange(),
        routing_key: message.routing_key(),
        header: match with_bcc {
            Some(header) => header,
            None => message.header(),
        },
        body,
        queues,
        flags: journal_flags(message.traits()) | hidden_keys,
        time_unix_ms,
    }
}

/// What the journal keeps beside the header, so that recovery need not read most headers.
fn journal_flags(traits: MessageTraits) -> u32 {
    let expires = match traits.expiration {
        Some(_) => JOURNAL_FLAG_EXPIRES,
        None => 0,
    };
    let transient = match traits.persistence {
        Persistence::Persistent => 0,
        Persistence::Transient => JOURNAL_FLAG_TRANSIENT,
    };
    u32::from(traits.priority) | expires | transient
}

/// A message's body as the journal has it; what is in memory alone is stored for it.
pub(super) fn body_record(message: &Message) -> Result<BodyRecord<'_>, Error> {
    Ok(match message.body() {
        BodyRef::Inline(bytes) => BodyRecord::Inline(bytes),
        BodyRef::Payload(payload) => {
            let stored = payload.store();
            let id = stored.map_err(|reason| Error::BodyNotStored { reason })?;
            BodyRecord::Payload(PayloadRecord {
                scope: payload.scope().get(),
                id: *id.as_bytes(),
                size_bytes: payload.size_bytes(),
            })
        }
    })
}

/// Splits the header of a journal record in two: what everybody sees, and the keys of its `BCC`.
pub(crate) fn split_bcc(header: &Bytes) -> (Bytes, Vec<Name>) {
    let headers = content(header).headers().unwrap_or_default();
    (without_bcc(header), hidden_keys(&headers))
}

/// The header with the `BCC` that it came with, for the journal; none if it had none.
pub(super) fn hidden_keys_back(message: &Message) -> Option<Bytes> {
    let mut keys = message.hidden_keys().peekable();
    keys.peek()?;
    let keys: FieldArray = keys
        .map(|key| FieldValue::LongString(Bytes::copy_from_slice(key)))
        .collect();
    let header = Bytes::copy_from_slice(message.header());
    let mut properties = content(&header).properties().ok()?;
    let mut headers = properties.headers.take().unwrap_or_default();
    headers.insert(ShortString::from_static("BCC"), FieldValue::Array(keys));
    properties.headers = Some(headers);
    Some(properties.encode())
}

/// The keys of a `BCC` header.
fn hidden_keys(headers: &FieldTable) -> Vec<Name> {
    let Some(FieldValue::Array(keys)) = headers.get("BCC") else {
        return Vec::new();
    };
    let keys = keys.iter().filter_map(|key| match key {
        FieldValue::LongString(key) => Some(Name::new(&key)),
        _ => None,
    });
    keys.collect()
}

/// The same properties without the `BCC` header.
fn without_bcc(header: &Bytes) -> Bytes {
    let Ok(mut properties) = content(header).properties() else {
        return header.clone();
    };
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    properties.encode()
}

fn content(header: &Bytes) -> ContentHeader {
    ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: header.clone(),
    }
}
