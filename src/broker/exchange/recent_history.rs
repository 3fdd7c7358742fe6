//! The recent-history exchange: everything to everybody, and the last messages to who binds later.
//!
//! Owns: the last messages, whole; they are not durable. A message whose header
//! `x-recent-history-no-store` is true is not kept.
//! Bound: `x-recent-history-length` messages (20), and [`HISTORY_BYTES_MAX`] of memory; the oldest go.
//! Spec: the `rabbitmq_recent_history_exchange` plugin; `spec/amqp.md`.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::limits::HISTORY_BYTES_MAX;
use super::super::message::Message;

/// The last messages of one exchange, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    count_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl History {
    pub(super) fn new(count_max: usize) -> Self {
        Self {
            count_max,
            kept: Mutex::default(),
        }
    }

    /// Keeps a message in the place of the oldest.
    // req: EXCHANGE-3
    pub(crate) fn record(&self, message: &Message) {
        let mut message = message.clone();
        message.detach();
        let mut kept = self.kept.lock();
        kept.bytes += message.memory_bytes();
        kept.messages.push_back(message);
        while kept.messages.len() > self.count_max || kept.bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = kept.messages.pop_front() else {
                return;
            };
            kept.bytes -= oldest.memory_bytes();
        }
    }

    /// What is kept, oldest first.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.kept.lock().messages.iter().cloned().collect()
    }
}

/// Whether a message asks not to be kept.
pub(crate) fn asks_not_to_be_kept(headers: Option<&FieldTable>) -> bool {
    let asked = headers.and_then(|headers| headers.get("x-recent-history-no-store"));
    asked == Some(FieldValue::Boolean(true))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::message::{Body, BodyRef, MessageTraits, Persistence};
    use super::*;

    fn message(body: &'static [u8]) -> Message {
        let traits = MessageTraits {
            persistence: Persistence::Transient,
            priority: 0,
            expiration: None,
        };
        Message::new(
            b"x",
            b"k",
            &[0, 0],
            traits,
            Body::Inline(Bytes::from_static(body)),
        )
    }

    // req: EXCHANGE-3
    #[test]
    fn the_oldest_go_by_number_and_by_bytes() {
        static LONG: [u8; HISTORY_BYTES_MAX / 2] = [0; HISTORY_BYTES_MAX / 2];
        let history = History::new(3);
        for body in [b"1", b"2", b"3", b"4"] {
            history.record(&message(body));
        }
        let bodies: Vec<_> = history
            .messages()
            .iter()
            .map(|message| match message.body() {
                BodyRef::Inline(body) => body.to_vec(),
                BodyRef::Payload(_) => Vec::new(),
            })
            .collect();
        assert_eq!(bodies, [b"2", b"3", b"4"]);
        for _ in 0..3 {
            history.record(&message(&LONG));
        }
        assert_eq!(
            history.messages().len(),
            1,
            "two with their headers are too much"
        );
    }
}
