//! Messages that wait in a delayed exchange until their time.
//!
//! Owns: for each such exchange the order in which its messages become due. The messages themselves are
//! in the journal, under a queue id of the exchange's own, the transient ones too, so that memory does
//! not grow with them; 24 bytes are kept of each, and the next ones whole as long as there is room.
//! A due time is the publish's time by the calendar and the message's `x-delay`; both are in the
//! journal's record, so a restart finds them again, and what became due meanwhile goes out at once.
//! A message that is due enters its queues and leaves the exchange in one batch of the journal: a crash
//! neither loses nor doubles it.
//! Bounds: [`DELAYED_HELD_BYTES_MAX`] for each exchange, and 24 bytes for each message.
//! Spec: the `rabbitmq_delayed_message_exchange` plugin; `spec/amqp.md`, "Delayed messages".

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::journal::{Appended, Journal, Location, Lsn, QueueId};

use super::limits::{DELAY_MS_MAX, DELAYED_HELD_BYTES_MAX};
use super::message::{BodyRef, Message};
use super::timers::TimerKey;

/// The header that says how long a message waits, in milliseconds.
const DELAY_HEADER: &str = "x-delay";

/// What waits in one exchange.
#[derive(Debug)]
pub(crate) struct Delays {
    queue: QueueId,
    journal: Option<Journal>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Messages kept whole: those that no journal has, those whose body is a payload, since that must
    /// be referred to, and as many others as there is room for.
    held: HashMap<Lsn, Message>,
    held_bytes: usize,
    /// Numbers for what no journal has.
    number_last: u64,
    timer: Option<TimerKey>,
    is_deleted: bool,
}

/// One message that waits; ordered by due time, then by publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Waiting {
    due_unix_ms: u64,
    lsn: Lsn,
    location: Location,
}

const _: () = assert!(size_of::<Waiting>() == 24, "millions of them are kept");

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due_unix_ms, self.lsn).cmp(&(other.due_unix_ms, other.lsn))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A message whose time has come.
#[derive(Debug)]
pub(crate) struct Due {
    /// Its number in the journal, [`Lsn::ZERO`] if it is not there.
    pub(crate) lsn: Lsn,
    pub(crate) location: Location,
    /// The message, if it need not be read.
    pub(crate) message: Option<Message>,
}

impl Delays {
    pub(crate) fn new(queue: QueueId, journal: Option<Journal>) -> Self {
        Self {
            queue,
            journal,
            state: Mutex::default(),
        }
    }

    /// The id under which its messages are in the journal, if there is one.
    pub(crate) fn journal_queue(&self) -> Option<QueueId> {
        self.journal.as_ref().map(|_| self.queue)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Lets a message wait. `record` is where the journal has it, [`Appended::NONE`] if nowhere.
    /// False if the exchange was deleted meanwhile.
    pub(crate) fn add(&self, due_unix_ms: u64, record: Appended, message: &Message) -> bool {
        let mut state = self.state.lock();
        if state.is_deleted {
            return false;
        }
        let is_journalled = record.lsn != Lsn::ZERO;
        let lsn = match is_journalled {
            true => record.lsn,
            false => {
                state.number_last += 1;
                Lsn(state.number_last)
            }
        };
        let is_payload = matches!(message.body(), BodyRef::Payload(_));
        let bytes = message.memory_bytes();
        if !is_journalled || is_payload || state.held_bytes + bytes <= DELAYED_HELD_BYTES_MAX {
            let mut message = message.clone();
            message.detach();
            state.held_bytes += bytes;
            state.held.insert(lsn, message);
        }
        state.waiting.push(Reverse(Waiting {
            due_unix_ms,
            lsn,
            location: record.location,
        }));
        true
    }

    /// Puts back a message that recovery found; it is kept whole only if it refers to a payload.
    pub(crate) fn restore(&self, due_unix_ms: u64, record: Appended, message: &Message) {
        let mut state = self.state.lock();
        if let BodyRef::Payload(_) = message.body() {
            state.held_bytes += message.memory_bytes();
            state.held.insert(record.lsn, message.clone());
        }
        state.waiting.push(Reverse(Waiting {
            due_unix_ms,
            lsn: record.lsn,
            location: record.location,
        }));
    }

    /// Takes out the messages that are due at `unix_ms`, at most `count_max`, the earliest first.
    pub(crate) fn take_due(&self, unix_ms: u64, count_max: usize) -> Vec<Due> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while due.len() < count_max {
            match state.waiting.peek() {
                Some(Reverse(first)) if first.due_unix_ms <= unix_ms => {}
                Some(_) | None => break,
            }
            let Some(Reverse(first)) = state.waiting.pop() else {
                break;
            };
            let message = state.held.remove(&first.lsn);
            state.held_bytes -= message.as_ref().map_or(0, Message::memory_bytes);
            due.push(Due {
                lsn: match self.journal {
                    Some(_) => first.lsn,
                    None => Lsn::ZERO,
                },
                location: first.location,
                message,
            });
        }
        if state.waiting.is_empty() && state.held.capacity() > 1_024 {
            state.held.shrink_to_fit();
            state.waiting.shrink_to_fit();
        }
        due
    }

    /// When the first message is due, in milliseconds since 1970.
    pub(crate) fn first_due(&self) -> Option<u64> {
        let state = self.state.lock();
        state.waiting.peek().map(|Reverse(first)| first.due_unix_ms)
    }

    /// Puts another timer in the place of the armed one, which is given back.
    pub(crate) fn replace_timer(&self, timer: Option<TimerKey>) -> Option<TimerKey> {
        std::mem::replace(&mut self.state.lock().timer, timer)
    }

    /// The armed timer.
    pub(crate) fn timer(&self) -> Option<TimerKey> {
        self.state.lock().timer
    }

    /// Forgets everything, since the exchange is being deleted. Gives the timer to take out.
    pub(crate) fn clear(&self) -> Option<TimerKey> {
        let mut state = self.state.lock();
        let timer = state.timer.take();
        *state = State {
            is_deleted: true,
            ..State::default()
        };
        timer
    }
}

/// How long a message waits, in milliseconds; `None` if it does not: without the header, with none that
/// is a number, a negative or too long one. Strings of digits and floats count, as in the plugin.
// req: DELAY-1
pub(crate) fn delay_ms(headers: Option<&FieldTable>) -> Option<u64> {
    let delay = delay_in(&headers?.get(DELAY_HEADER)?)?;
    u64::try_from(delay)
        .ok()
        .filter(|delay| (1..=DELAY_MS_MAX).contains(delay))
}

fn delay_in(value: &FieldValue) -> Option<i64> {
    match value {
        FieldValue::LongString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        FieldValue::Float(number) => Some(*number as i64),
        FieldValue::Double(number) => Some(*number as i64),
        FieldValue::Boolean(_) | FieldValue::Timestamp(_) => None,
        value => value.as_integer(),
    }
}

/// The same header with the delay negated, as the plugin marks a message whose time has come, so that no
/// other delayed exchange delays it again; and its headers table.
pub(crate) fn due_header(header: &[u8]) -> (Bytes, Option<FieldTable>) {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: Bytes::copy_from_slice(header),
    };
    let Ok(mut properties) = content.properties() else {
        return (content.raw, None);
    };
    let Some(headers) = &mut properties.headers else {
        return (content.raw, None);
    };
    if let Some(delay) = delay_ms(Some(headers)).and_then(|delay| i64::try_from(delay).ok()) {
        let negated = match i32::try_from(-delay) {
            Ok(delay) => FieldValue::LongInt(delay),
            Err(_) => FieldValue::LongLongInt(-delay),
        };
        headers.insert(ShortString::from_static(DELAY_HEADER), negated);
    }
    let negated = headers.clone();
    (properties.encode(), Some(negated))
}

#[cfg(test)]
mod tests {
    use super::super::message::{Body, MessageTraits, Persistence};
    use super::*;

    fn headers(delay: impl Into<FieldValue>) -> FieldTable {
        FieldTable::from([
            ("before", FieldValue::from(1)),
            (DELAY_HEADER, delay.into()),
            ("after", FieldValue::from("x")),
        ])
    }

    #[test]
    fn a_delay_is_a_positive_number_of_milliseconds() {
        for (delay, expected) in [
            (FieldValue::from(1), Some(1)),
            (FieldValue::from(0), None),
            (FieldValue::from(-5), None),
            (FieldValue::from("1500"), Some(1_500)),
            (FieldValue::from("soon"), None),
            (FieldValue::Double(2.9), Some(2)),
            (FieldValue::Double(f64::NAN), None),
            (FieldValue::LongLongInt(4_294_967_295), Some(4_294_967_295)),
            (FieldValue::LongLongInt(4_294_967_296), None),
            (FieldValue::LongLongInt(i64::MIN), None),
            (FieldValue::from(true), None),
            (FieldValue::Void, None),
        ] {
            assert_eq!(
                delay_ms(Some(&headers(delay.clone()))),
                expected,
                "{delay:?}"
            );
        }
        assert_eq!(delay_ms(None), None);
        assert_eq!(delay_ms(Some(&FieldTable::EMPTY)), None);
    }

    #[test]
    fn a_due_message_carries_its_delay_negated_in_its_place() {
        for (delay, expected) in [
            (FieldValue::from(500), FieldValue::LongInt(-500)),
            (FieldValue::from("500"), FieldValue::LongInt(-500)),
            (
                FieldValue::LongLongInt(4_000_000_000),
                FieldValue::LongLongInt(-4_000_000_000),
            ),
            (
                FieldValue::LongLongInt(i64::MIN),
                FieldValue::LongLongInt(i64::MIN),
            ),
            (FieldValue::from("soon"), FieldValue::from("soon")),
        ] {
            let properties = crate::amqp::header::Properties {
                headers: Some(headers(delay)),
                delivery_mode: Some(2),
                ..crate::amqp::header::Properties::default()
            };
            let (raw, table) = due_header(&properties.encode());
            let table = table.expect("it has headers");
            assert_eq!(table, headers(expected));
            assert_eq!(delay_ms(Some(&table)), None, "it is not delayed again");
            let content = ContentHeader {
                class_id: CLASS_ID_BASIC,
                body_bytes: 0,
                raw,
            };
            let read = content.properties().expect("just written");
            assert_eq!(read.headers, Some(table));
            assert_eq!(read.delivery_mode, Some(2));
        }
    }

    fn message() -> Message {
        let traits = MessageTraits {
            persistence: Persistence::Transient,
            priority: 0,
            expiration: None,
        };
        let body = Body::Inline(Bytes::from(vec![0; 100_000]));
        Message::new(b"x", b"k", &[0, 0], traits, body)
    }

    /// Messages come out by due time, those of one time in the order of their publish; the journal's are
    /// kept whole only as long as there is room.
    #[test]
    fn messages_come_out_in_order_and_memory_is_bounded() {
        let delays = Delays::new(QueueId(1), None);
        for due in [30, 10, 20, 10] {
            assert!(delays.add(due, Appended::NONE, &message()));
        }
        assert_eq!(delays.first_due(), Some(10));
        assert_eq!(delays.take_due(9, 10).len(), 0);
        let due = delays.take_due(20, 2);
        assert_eq!(due.len(), 2);
        assert!(due.iter().all(|due| due.message.is_some()));
        assert_eq!(delays.take_due(20, 2).len(), 1);
        assert_eq!((delays.len(), delays.first_due()), (1, Some(30)));

        let delays = Delays::new(QueueId(1), None);
        for number in 1..=200 {
            let record = Appended {
                lsn: Lsn(number),
                location: Location {
                    segment: 1,
                    offset: 0,
                },
            };
            assert!(delays.add(number, record, &message()));
        }
        assert!(delays.state.lock().held_bytes <= DELAYED_HELD_BYTES_MAX);
        let due = delays.take_due(200, 200);
        assert_eq!(due.len(), 200);
        assert!(due.iter().any(|due| due.message.is_none()));
        let state = delays.state.lock();
        assert_eq!((state.held_bytes, state.held.len()), (0, 0));
    }

    #[test]
    fn a_deleted_exchange_takes_no_more() {
        let delays = Delays::new(QueueId(1), None);
        assert!(delays.add(1, Appended::NONE, &message()));
        assert_eq!(delays.clear(), None);
        assert!(!delays.add(1, Appended::NONE, &message()));
        assert_eq!(delays.len(), 0);
    }
}
