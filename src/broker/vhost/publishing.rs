//! Publishing: from an exchange and a key into queues.
//!
//! A channel that repeats itself finds its queues in what it remembers, and takes one lock per queue.
//! Spec: AMQP 0-9-1, `basic.publish`; RabbitMQ's `CC` and `BCC`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::amqp::field::FieldTable;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, PropertiesRef};
use crate::journal::{Appended, BodyRecord, Lsn, NewMessage, PayloadRecord};

use super::super::access::Access;
use super::super::error::{Error, ResourceKind};
use super::super::exchange::{Exchange, RouteInput};
use super::super::message::{Body, BodyRef, Message, MessageTraits, Persistence};
use super::super::outbox::Wakes;
use super::super::queue::Enqueued;
use super::super::route::{Publisher, Repeatable, Route, may_have_more_keys, more_keys, walk};
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
        let traits = MessageTraits {
            persistence: match publish.properties.delivery_mode {
                Some(2) => Persistence::Persistent,
                Some(_) | None => Persistence::Transient,
            },
            priority: publish.properties.priority.unwrap_or(0),
        };
        let (exchange, key) = (publish.exchange, publish.routing_key);
        if let Some(elements) = publish.properties.headers
            && may_have_more_keys(elements)
        {
            return self.publish_with_more_keys(by, publish, elements, traits, now, wakes);
        }
        let generation = self.generation();
        let headers = (publish.header, publish.properties.headers);
        let message = Message::new(exchange, key, publish.header, traits, publish.body);
        if let Some(route) = publisher.recall(exchange, key, generation) {
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
        match walked.repeatable {
            Repeatable::Yes => {
                let route = publisher.remember(exchange, key, generation, walked.route);
                self.deliver(message, route, now, wakes)
            }
            Repeatable::No => self.deliver_walked(message, walked, now, wakes),
        }
    }

    fn publish_with_more_keys(
        &self,
        by: &Connection,
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
        let header = match has_bcc {
            true => without_bcc(publish.header),
            false => publish.header.clone(),
        };
        let message = Message::new(publish.exchange, first, &header, traits, publish.body);
        let input = RouteInput {
            keys: &keys,
            headers: Some(&headers),
            properties: Some(publish.properties),
            message: Some(&message),
            unix_ms: self.shared.clock.unix_ms(now),
        };
        let walked = walk(self, &source, input);
        self.deliver_walked(message, walked, now, wakes)
    }

    /// Puts a message into the queues of a route, and into the journal first if any of them needs it:
    /// so no acknowledgement of it can come before it there.
    pub(super) fn deliver(
        &self,
        mut message: Message,
        route: &Route,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Published, Error> {
        let record = match &self.shared.journal {
            Some(journal)
                if !route.durable.is_empty()
                    && message.traits().persistence == Persistence::Persistent =>
            {
                let new = NewMessage {
                    exchange: message.exchange(),
                    routing_key: message.routing_key(),
                    header: message.header(),
                    body: body_record(&message),
                    queues: &route.durable,
                    flags: flags(&message),
                    time_unix_ms: self.shared.clock.unix_ms(now),
                };
                journal.append_message(&new)?
            }
            Some(_) | None => Appended::NONE,
        };
        let lsn = record.lsn;
        let (taken_count, rejected_count) =
            self.enqueue_all(&mut message, route, record, now, wakes);
        let outcome = match (rejected_count, taken_count) {
            (0, 0) => {
                self.unroutable_count.fetch_add(1, Ordering::Relaxed);
                PublishOutcome::Unroutable
            }
            (0, _) => PublishOutcome::Routed {
                wait_for: (lsn != Lsn::ZERO).then_some(lsn),
            },
            (_, _) => PublishOutcome::Rejected,
        };
        Ok(Published { message, outcome })
    }

    /// Puts a message into each queue of a route; gives how many took it, and how many refused it.
    pub(super) fn enqueue_all(
        &self,
        message: &mut Message,
        route: &Route,
        record: Appended,
        now: Instant,
        wakes: &mut Wakes,
    ) -> (usize, usize) {
        let mut taken_count = 0;
        let mut rejected_count = 0;
        for queue in &route.queues {
            let queue_record = match queue.is_journalled() {
                true => record,
                false => Appended::NONE,
            };
            match queue.enqueue(message, queue_record, now, wakes) {
                Enqueued::Taken => taken_count += 1,
                refused @ (Enqueued::Rejected | Enqueued::Gone) => {
                    if refused == Enqueued::Rejected {
                        rejected_count += 1;
                    }
                    if queue_record.lsn != Lsn::ZERO {
                        queue.journal_left(&[queue_record.lsn]);
                    }
                }
            }
        }
        (taken_count, rejected_count)
    }

    /// Whether a message may be published to this exchange, without publishing one.
    ///
    /// # Errors
    /// What publishing would be refused with.
    pub fn check_publish(&self, by: &Connection, exchange: &[u8]) -> Result<(), Error> {
        self.exchange_to_publish(by, exchange).map(|_| ())
    }

    /// Finds the exchange and checks that the connection may publish to it.
    fn exchange_to_publish(&self, by: &Connection, name: &[u8]) -> Result<Arc<Exchange>, Error> {
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
fn table_in(header: &Bytes, elements: &[u8]) -> Option<FieldTable> {
    FieldTable::from_elements(header.slice_ref(elements)).ok()
}

pub(super) fn body_record(message: &Message) -> BodyRecord<'_> {
    match message.body() {
        BodyRef::Inline(bytes) => BodyRecord::Inline(bytes),
        BodyRef::Payload(payload) => BodyRecord::Payload(PayloadRecord {
            scope: payload.scope().get(),
            id: *payload.id().as_bytes(),
            size_bytes: payload.size_bytes(),
        }),
    }
}

/// What the journal keeps of a message beside its parts: its priority, and whether it is transient, as
/// messages that wait for their time may be.
pub(super) fn flags(message: &Message) -> u32 {
    let traits = message.traits();
    let transient = match traits.persistence {
        Persistence::Persistent => 0,
        Persistence::Transient => FLAG_TRANSIENT,
    };
    u32::from(traits.priority) | transient
}

/// The bit in a record's flags that marks a transient message.
const FLAG_TRANSIENT: u32 = 1 << 8;

/// What [`flags`] keeps.
pub(crate) fn traits(flags: u32) -> MessageTraits {
    let persistence = match flags & FLAG_TRANSIENT {
        0 => Persistence::Persistent,
        _ => Persistence::Transient,
    };
    MessageTraits {
        persistence,
        priority: u8::try_from(flags & 0xff).unwrap_or(0),
    }
}

/// The same properties without the `BCC` header.
fn without_bcc(header: &Bytes) -> Bytes {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: header.clone(),
    };
    let Ok(mut properties) = content.properties() else {
        return header.clone();
    };
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    properties.encode()
}
