//! Events: what comes and goes in the broker, as messages of the exchange `amq.rabbitmq.event`.
//!
//! Owns: events that happened and are not published yet. They are noted where they happen, under whatever
//! lock, and published by [`Broker::handle_timeout`](super::Broker::handle_timeout), in their order. Its
//! waker is called under these locks, too: it must do no more than leave word.
//! While nothing is bound to the exchange an event costs one look at a flag.
//! Bound: [`EVENTS_WAITING_MAX`]; what comes beyond it is lost and counted.
//! Spec: the `rabbitmq_event_exchange` plugin's keys and headers as RabbitMQ 3.10.8 sends them;
//! `spec/amqp.md`, "Events".

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};

use super::binding::Binding;
use super::error::ResourceKind;
use super::limits::EVENTS_WAITING_MAX;
use super::timers::{Earliest, TimerKind, Timers};

/// The exchange that events go to, in vhost [`EVENT_VHOST`].
pub(crate) const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";

/// The vhost of that exchange: RabbitMQ's default vhost.
pub(crate) const EVENT_VHOST: &str = "/";

/// Who acts when nobody asked for it.
pub(crate) const INTERNAL_USER: &str = "rmq-internal";

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Event {
    /// Its routing key.
    pub(crate) name: &'static str,
    pub(crate) headers: EventHeaders,
}

/// The headers of an event.
#[derive(Debug, Default)]
pub struct EventHeaders(FieldTable);

impl EventHeaders {
    /// Adds a header.
    pub fn put(&mut self, name: &'static str, value: impl Into<FieldValue>) -> &mut Self {
        self.0.insert(ShortString::from_static(name), value);
        self
    }

    /// Adds a header that is text, or octets that need not be.
    pub fn text(&mut self, name: &'static str, text: impl AsRef<[u8]>) -> &mut Self {
        let text = Bytes::copy_from_slice(text.as_ref());
        self.put(name, FieldValue::LongString(text))
    }

    /// Adds a number, which RabbitMQ sends in 64 bits.
    pub fn number(&mut self, name: &'static str, number: u64) -> &mut Self {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.put(name, FieldValue::LongLongInt(number))
    }

    /// Adds a list of texts.
    pub fn texts(&mut self, name: &'static str, texts: &[String]) -> &mut Self {
        let texts = texts.iter().map(|text| FieldValue::from(text.as_str()));
        self.put(name, FieldValue::Array(texts.collect::<FieldArray>()))
    }

    /// Adds a table's entries as RabbitMQ prints them: one Erlang term each.
    pub fn terms(&mut self, name: &'static str, table: &FieldTable) -> &mut Self {
        let terms = table.iter().map(|(name, value)| {
            let printed = format!(
                "{{{},{},{}}}",
                binary(name.as_bytes()),
                value.type_name(),
                term(&value)
            );
            FieldValue::LongString(Bytes::from(printed))
        });
        self.put(name, FieldValue::Array(terms.collect::<FieldArray>()))
    }

    pub(crate) fn into_table(self) -> FieldTable {
        self.0
    }
}

/// What happened and was not published yet.
pub(crate) struct Events {
    is_on: AtomicBool,
    waiting: Mutex<VecDeque<Event>>,
    lost_count: AtomicU64,
    timers: Arc<Timers>,
    /// A moment that has passed: events are due at once.
    at: Instant,
}

impl Events {
    pub(crate) fn new(timers: Arc<Timers>, at: Instant) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            waiting: Mutex::default(),
            lost_count: AtomicU64::new(0),
            timers,
            at,
        }
    }

    /// Whether anything is bound to the event exchange.
    pub(crate) fn set_on(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Whether anybody listens.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Notes an event, and sees to it that it is published. Locks may be held.
    // req: EVENT-2
    pub(crate) fn emit(&self, name: &'static str, fill: impl FnOnce(&mut EventHeaders)) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut headers = EventHeaders::default();
        fill(&mut headers);
        let is_first = {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= EVENTS_WAITING_MAX {
                self.lost_count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push_back(Event { name, headers });
            waiting.len() == 1
        };
        if is_first {
            self.arm();
        }
    }

    /// Takes the next events, in their order; the rest stays due.
    pub(crate) fn take(&self, count_max: usize) -> Vec<Event> {
        let (taken, has_more) = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(count_max);
            let taken = waiting.drain(..count).collect();
            (taken, !waiting.is_empty())
        };
        if has_more {
            self.arm();
        }
        taken
    }

    fn arm(&self) {
        let (_, earliest) = self.timers.arm(self.at, TimerKind::Events);
        if earliest == Earliest::Yes {
            self.timers.wake();
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Events")
            .field("is_on", &self.is_on)
            .field("lost_count", &self.lost_count)
            .finish_non_exhaustive()
    }
}

/// The headers of `binding.created` and `binding.deleted`.
pub(crate) fn describe_binding(
    headers: &mut EventHeaders,
    binding: &Binding,
    vhost: &[u8],
    user: &[u8],
) {
    let kind = match binding.destination().kind {
        ResourceKind::Queue => "queue",
        ResourceKind::Exchange => "exchange",
    };
    headers
        .text("source_name", binding.source().as_bytes())
        .text("source_kind", "exchange")
        .text("destination_name", binding.destination().name.as_bytes())
        .text("destination_kind", kind)
        .text("routing_key", binding.routing_key().as_bytes())
        .terms("arguments", binding.arguments())
        .text("vhost", vhost)
        .text("user_who_performed_action", user);
}

/// Octets as Erlang prints them.
pub(crate) fn binary(octets: &[u8]) -> String {
    let is_printable = |octet: &u8| matches!(octet, b' '..=b'~');
    if octets.is_empty() {
        return "<<>>".to_owned();
    }
    if octets.iter().all(is_printable) {
        let text = String::from_utf8_lossy(octets);
        return format!(
            "<<\"{}\">>",
            text.replace('\\', "\\\\").replace('"', "\\\"")
        );
    }
    let numbers: Vec<_> = octets.iter().map(u8::to_string).collect();
    format!("<<{}>>", numbers.join(","))
}

/// A value as Erlang prints it.
fn term(value: &FieldValue) -> String {
    match value {
        FieldValue::LongString(octets) | FieldValue::ByteArray(octets) => binary(octets),
        FieldValue::Table(table) => {
            let entries: Vec<_> = table
                .iter()
                .map(|(name, value)| {
                    let name = binary(name.as_bytes());
                    format!("{{{name},{},{}}}", value.type_name(), term(&value))
                })
                .collect();
            format!("[{}]", entries.join(","))
        }
        FieldValue::Array(array) => {
            let entries: Vec<_> = array
                .iter()
                .map(|value| format!("{{{},{}}}", value.type_name(), term(&value)))
                .collect();
            format!("[{}]", entries.join(","))
        }
        other => super::queue::arguments::term(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_printed_as_rabbitmq_prints_them() {
        let inner = FieldTable::from([("basic.nack", FieldValue::from(true))]);
        let table = FieldTable::from([
            ("product", FieldValue::from("a \"b\"")),
            ("x-max-length", FieldValue::from(5)),
            ("capabilities", FieldValue::Table(inner)),
            ("odd", FieldValue::LongString(Bytes::from_static(&[1, 255]))),
            ("none", FieldValue::Void),
        ]);
        let mut headers = EventHeaders::default();
        headers.terms("arguments", &table);
        let table = headers.into_table();
        let Some(FieldValue::Array(terms)) = table.get("arguments") else {
            panic!("an array was put");
        };
        let terms: Vec<_> = terms
            .iter()
            .map(|term| term.as_str().expect("text").to_owned())
            .collect();
        assert_eq!(
            terms,
            [
                "{<<\"product\">>,longstr,<<\"a \\\"b\\\"\">>}",
                "{<<\"x-max-length\">>,signedint,5}",
                "{<<\"capabilities\">>,table,[{<<\"basic.nack\">>,bool,true}]}",
                "{<<\"odd\">>,longstr,<<1,255>>}",
                "{<<\"none\">>,void,undefined}",
            ]
        );
    }
}
