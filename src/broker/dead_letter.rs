//! Dead letters: what a message becomes when it dies in a queue, and where it goes then.
//!
//! Owns: the new message with its history (`dead_letter/history.rs`), the rule against circles, and the
//! order of things: a dead letter is in the journal before the message that died leaves it, so a crash
//! can repeat one and never lose one. A queue hands its dead out of its lock ([`Dead`]); nothing here
//! holds a lock while it publishes. A body in the payload store goes on as a reference.
//! What dies of a dead letter's arrival is worked off from a list, not by recursion, however queues lead
//! to each other.
//! Bounds: [`LETTERS_AT_ONCE_MAX`] for each call; the history has one entry for each queue and reason.
//! Spec: RabbitMQ 3.10's dead letter exchanges; `spec/amqp.md`.

mod history;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::amqp::field::FieldTable;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::journal::Lsn;

use super::error::Error;
use super::exchange::RouteInput;
use super::limits::LETTERS_AT_ONCE_MAX;
use super::message::{BodyRef, Message, MessageTraits};
use super::name::Name;
use super::outbox::Wakes;
use super::payloads::PayloadBody;
use super::queue::Queue;
use super::queue::arguments::QueueSettings;
use super::route::{Route, more_keys, walk};
use super::vhost::Vhost;

use history::Death;

/// Why a message died, as `x-death` names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DeathReason {
    /// It came back to a quorum queue too often.
    #[allow(dead_code)] // until deliveries are counted
    DeliveryLimit,
    /// Its time was over.
    Expired,
    /// The queue was full.
    MaxLength,
    /// A consumer did not want it, and not again either.
    Rejected,
}

impl DeathReason {
    fn name(self) -> &'static str {
        match self {
            Self::DeliveryLimit => "delivery_limit",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::Rejected => "rejected",
        }
    }
}

/// A message that died in a queue with a dead-letter exchange, and has left its lock.
#[derive(Debug)]
pub(crate) struct Dead {
    /// Where it died.
    pub(crate) queue: Arc<Queue>,
    /// What held there at that moment.
    pub(crate) settings: Arc<QueueSettings>,
    pub(crate) message: Message,
    /// Its number in the journal, to be noted as gone once the letter is there.
    pub(crate) lsn: Lsn,
    pub(crate) reason: DeathReason,
}

/// What is published for a message that died.
struct Letter {
    message: Message,
    content: ContentHeader,
    headers: Option<FieldTable>,
    /// What `CC` and `BCC` added to the routing key; nothing where the queue gave a key of its own.
    more_keys: Vec<Name>,
}

impl Vhost {
    /// Publishes what died to its dead-letter exchanges, in order. No lock may be held.
    pub(crate) fn bury(&self, dead: Vec<Dead>, now: Instant, wakes: &mut Wakes) {
        let mut rest_count = dead.len().saturating_add(LETTERS_AT_ONCE_MAX);
        let mut waiting = VecDeque::from(dead);
        let mut died = Vec::new();
        let mut left = LeftOfOne::default();
        while let Some(dead) = waiting.pop_front() {
            if rest_count == 0 {
                tracing::error!(
                    vhost = %self.name(),
                    dropped_count = waiting.len() + 1,
                    "dead letters make more dead letters without end; what waits of them is dropped"
                );
                left.note(&dead);
                waiting.iter().for_each(|dead| left.note(dead));
                break;
            }
            rest_count -= 1;
            match self.publish_letter(&dead, now, &mut died, wakes) {
                Ok(()) => left.note(&dead),
                // It was transient, and is gone as with a restart.
                Err(error @ Error::BodyNotStored { .. }) => {
                    tracing::warn!(queue = %dead.queue.name(), %error, "a dead letter is lost");
                }
                // Only a failed journal refuses it; the message stays there for the next start.
                Err(error) => {
                    tracing::debug!(queue = %dead.queue.name(), %error, "a dead letter was not kept");
                }
            }
            waiting.extend(died.drain(..));
        }
        left.flush();
    }

    // req: LETTER-1
    // req: LETTER-5
    fn publish_letter(
        &self,
        dead: &Dead,
        now: Instant,
        died: &mut Vec<Dead>,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        let Some(name) = &dead.settings.dead_letter_exchange else {
            return Ok(());
        };
        let Some(exchange) = self.exchange(name.as_bytes()) else {
            return Ok(());
        };
        let Some(mut letter) = Letter::new(dead, name, self.unix_ms(now) / 1_000) else {
            return Ok(());
        };
        let key = Bytes::copy_from_slice(letter.message.routing_key());
        let mut keys: SmallVec<[&[u8]; 8]> = SmallVec::from_slice(&[key.as_ref()]);
        keys.extend(letter.more_keys.iter().map(Name::as_bytes));
        let header = letter.content.properties_ref().ok();
        let input = RouteInput {
            keys: &keys,
            headers: letter.headers.as_ref(),
            properties: header.as_ref(),
            message: Some(&letter.message),
            unix_ms: self.unix_ms(now),
        };
        let kind = dead.settings.kind;
        self.statistics().letter_sent(kind, dead.reason);
        let mut walked = walk(self, &exchange, input);
        match dead.reason {
            DeathReason::Rejected => {}
            DeathReason::DeliveryLimit | DeathReason::Expired | DeathReason::MaxLength => {
                walked.route = without_circles(walked.route, letter.headers.as_ref());
            }
        }
        self.pass_on(&mut letter.message, walked, now, died, wakes)
            .map(drop)
    }
}

impl Letter {
    // req: LETTER-4
    // req: LETTER-6
    /// Makes the letter: new exchange, history, no expiration; the rest as it was. None if the header
    /// cannot be read, which was checked when it came.
    fn new(dead: &Dead, exchange: &Name, unix_seconds: u64) -> Option<Self> {
        let message = &dead.message;
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: Bytes::copy_from_slice(message.header()),
        };
        let mut properties = content.properties().ok()?;
        let headers = properties.headers.take().unwrap_or_default();
        let (copies, _) = more_keys(&headers).unwrap_or_default();
        let death = Death {
            reason: dead.reason.name(),
            queue: dead.queue.name().as_bytes(),
            unix_seconds,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            copies: &copies,
            expiration: properties.expiration.as_ref().map(AsRef::as_ref),
        };
        let mut headers = history::with_death(&headers, &death);
        let new_key = dead.settings.dead_letter_routing_key.as_ref();
        let mut more_keys = Vec::new();
        let mut hidden_keys = Vec::new();
        match new_key {
            Some(_) => headers.remove("CC"),
            None => {
                hidden_keys.extend(message.hidden_keys().map(Name::new));
                more_keys.extend(copies);
                more_keys.extend(hidden_keys.iter().cloned());
            }
        }
        properties.expiration = None;
        properties.headers = Some(headers.clone());
        let traits = MessageTraits {
            expiration: None,
            ..message.traits()
        };
        let content = ContentHeader {
            raw: properties.encode(),
            ..content
        };
        let message = Message::with_hidden_keys(
            exchange.as_bytes(),
            match new_key {
                Some(key) => key.as_bytes(),
                None => message.routing_key(),
            },
            &content.raw,
            traits,
            message.owned_body(),
            &hidden_keys,
        );
        Some(Self {
            message,
            content,
            headers: Some(headers),
            more_keys,
        })
    }
}

// req: LETTER-3
/// Takes out the queues where a letter died before, and has died only by itself since: it would go round
/// for ever.
fn without_circles(route: Route, headers: Option<&FieldTable>) -> Route {
    let Some(headers) = headers else { return route };
    let deaths = history::deaths(headers);
    let is_circle = |queue: &Arc<Queue>| history::is_circle(&deaths, queue.name().as_bytes());
    if !route.queues.iter().any(is_circle) {
        return route;
    }
    let queues = route.queues.into_iter();
    let queues = queues.filter(|queue| !is_circle(queue)).collect();
    Route::new(queues).with_replies(route.replies)
}

/// Journal numbers of messages that left one queue, noted together.
#[derive(Default)]
struct LeftOfOne {
    queue: Option<Arc<Queue>>,
    lsns: Vec<Lsn>,
    /// Their payloads, referred to until the journal knows.
    payloads: Vec<PayloadBody>,
}

impl LeftOfOne {
    fn note(&mut self, dead: &Dead) {
        if dead.lsn == Lsn::ZERO {
            return;
        }
        let is_same = |queue: &Arc<Queue>| Arc::ptr_eq(queue, &dead.queue);
        if !self.queue.as_ref().is_some_and(is_same) {
            self.flush();
            self.queue = Some(Arc::clone(&dead.queue));
        }
        self.lsns.push(dead.lsn);
        if let BodyRef::Payload(payload) = dead.message.body() {
            self.payloads.push(payload.clone());
        }
    }

    fn flush(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.journal_left(&self.lsns);
            self.lsns.clear();
            self.payloads.clear();
        }
    }
}
