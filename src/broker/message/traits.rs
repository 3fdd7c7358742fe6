//! What the broker itself must know of a message, out of its properties.

use std::time::Duration;

use bytes::Bytes;

use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, PropertiesRef};

/// How a publisher wants the message kept (delivery-mode).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persistence {
    /// Mode 1, or none: it may be lost when the broker stops.
    Transient,
    /// Mode 2: it survives in durable queues.
    Persistent,
}

/// What the broker itself must know of a message; the rest stays raw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MessageTraits {
    /// From delivery-mode.
    pub persistence: Persistence,
    /// The priority property; 0 if it has none.
    pub priority: u8,
    /// The expiration property: how long it may wait, in whole milliseconds.
    pub expiration: Option<Duration>,
}

impl MessageTraits {
    /// What the broker must know of a message with these properties, which were checked.
    #[must_use]
    pub fn of(properties: &PropertiesRef<'_>) -> Self {
        Self {
            persistence: match properties.delivery_mode {
                Some(2) => Persistence::Persistent,
                Some(_) | None => Persistence::Transient,
            },
            priority: properties.priority.unwrap_or(0),
            expiration: properties.expiration.and_then(expiration),
        }
    }

    /// The same, of a header as a message keeps it.
    pub(crate) fn of_header(header: &Bytes) -> Self {
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: header.clone(),
        };
        Self::of(&content.properties_ref().unwrap_or_default())
    }
}

/// The time that an expiration property stands for: a number of milliseconds in decimal digits.
fn expiration(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let milliseconds: i64 = text.parse().ok()?;
    u32::try_from(milliseconds)
        .ok()
        .map(|milliseconds| Duration::from_millis(milliseconds.into()))
}
