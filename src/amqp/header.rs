//! Content headers: kept as the octets that came, with properties read when somebody asks.
//!
//! Owns: the content header's fixed part, and the 14 properties of class basic in both directions.
//! Bound: reading properties keeps nothing but slices; tables are bounded as everywhere.
//! Spec: AMQP 0-9-1 §4.2.6.1; `spec/amqp.md` CONTENT-1 to CONTENT-3.

mod properties;

use bytes::{BufMut, Bytes, BytesMut};

use crate::amqp::field::{FieldError, FieldTable, ShortString};
use crate::amqp::reply::ReplyCode;

pub use properties::{Properties, PropertiesRef};

/// Class id of `basic`, the only class with content.
pub const CLASS_ID_BASIC: u16 = 60;

/// The header of a message: how long its body is, and its properties as they came.
///
/// `class u16 | weight u16 = 0 | body size u64 | property flags u16 | properties`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContentHeader {
    /// The class whose content this is; only `basic` (60) has content.
    pub class_id: u16,
    /// Length of the body, in bytes.
    pub body_bytes: u64,
    /// Property flags and properties, not looked at yet.
    pub raw: Bytes,
}

/// A payload that is no content header, or properties that do not fit their flags.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// A property that cannot be read.
    #[error("property cannot be decoded: {0}")]
    Property(FieldError),
    /// Octets behind the last property.
    #[error("{octet_count} octets behind the last property")]
    TrailingOctets {
        /// How many there are.
        octet_count: usize,
    },
    /// Fewer octets than class, weight and body size take.
    #[error("content header is cut off")]
    Truncated,
    /// A weight other than 0: RabbitMQ does not take this for a content header at all.
    #[error("content header has weight {weight}")]
    Weight {
        /// The weight as it came.
        weight: u16,
    },
}

impl HeaderError {
    /// The code that closes the connection: 541 for malformed properties as in RabbitMQ, 502 for a
    /// table beyond its bounds, 505 for what is no content header.
    // req: CONTENT-3
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::Property(FieldError::Truncated | FieldError::UnknownType { .. })
            | Self::TrailingOctets { .. } => ReplyCode::InternalError,
            Self::Property(
                FieldError::TableTooLong { .. } | FieldError::TooDeep | FieldError::TooManyElements,
            ) => ReplyCode::SyntaxError,
            Self::Truncated | Self::Weight { .. } => ReplyCode::UnexpectedFrame,
        }
    }
}

impl ContentHeader {
    /// A header for a message with these properties.
    pub fn new(body_bytes: u64, properties: &Properties) -> Self {
        Self {
            class_id: CLASS_ID_BASIC,
            body_bytes,
            raw: properties.encode(),
        }
    }

    /// Reads the payload of a header frame. The properties are not looked at.
    ///
    /// # Errors
    /// [`HeaderError::Truncated`] and [`HeaderError::Weight`].
    pub fn decode(payload: &Bytes) -> Result<Self, HeaderError> {
        Self::decode_in(payload, payload)
    }

    /// Like [`decode`](Self::decode), for a payload that is a part of `owner`.
    ///
    /// # Errors
    /// [`HeaderError::Truncated`] and [`HeaderError::Weight`].
    ///
    /// # Panics
    /// If `payload` does not lie in `owner`.
    // req: CONTENT-1
    pub fn decode_in(owner: &Bytes, payload: &[u8]) -> Result<Self, HeaderError> {
        let Some((fixed_part, raw)) = payload.split_first_chunk::<FIXED_PART_BYTES>() else {
            return Err(HeaderError::Truncated);
        };
        let &[c1, c0, w1, w0, body_bytes @ ..] = fixed_part;
        let weight = u16::from_be_bytes([w1, w0]);
        if weight != 0 {
            return Err(HeaderError::Weight { weight });
        }
        Ok(Self {
            class_id: u16::from_be_bytes([c1, c0]),
            body_bytes: u64::from_be_bytes(body_bytes),
            raw: owner.slice_ref(raw),
        })
    }

    /// Appends the payload of a header frame.
    pub fn encode(&self, output: &mut BytesMut) {
        output.put_slice(&self.fixed_part());
        output.put_slice(&self.raw);
    }

    /// Class, weight and body size.
    fn fixed_part(&self) -> [u8; FIXED_PART_BYTES] {
        let [c1, c0] = self.class_id.to_be_bytes();
        let [b7, b6, b5, b4, b3, b2, b1, b0] = self.body_bytes.to_be_bytes();
        [c1, c0, 0, 0, b7, b6, b5, b4, b3, b2, b1, b0]
    }

    /// Length of the payload that [`encode`](Self::encode) writes, in bytes.
    pub fn payload_bytes(&self) -> usize {
        FIXED_PART_BYTES + self.raw.len()
    }

    /// Reads and checks all properties in one pass that keeps nothing.
    ///
    /// # Errors
    /// If the octets are not exactly the properties that the flags announce.
    pub fn properties_ref(&self) -> Result<PropertiesRef<'_>, HeaderError> {
        PropertiesRef::parse(&self.raw)
    }

    /// All properties as values of their own, to change and to encode again.
    ///
    /// # Errors
    /// If the octets are not exactly the properties that the flags announce.
    pub fn properties(&self) -> Result<Properties, HeaderError> {
        Ok(self.properties_ref()?.to_owned_in(&self.raw))
    }

    /// The property `headers`. Absent too if the properties cannot be read.
    pub fn headers(&self) -> Option<FieldTable> {
        let elements = self.properties_ref().ok()?.headers?;
        FieldTable::from_elements(self.raw.slice_ref(elements)).ok()
    }

    /// Whether `delivery-mode` is 2, persistent. Absent means transient.
    pub fn is_persistent(&self) -> bool {
        self.properties_ref()
            .is_ok_and(|properties| properties.delivery_mode == Some(2))
    }

    /// The property `message-id`. Absent too if the properties cannot be read.
    pub fn message_id(&self) -> Option<ShortString> {
        let message_id = self.properties_ref().ok()?.message_id?;
        ShortString::try_from(self.raw.slice_ref(message_id)).ok()
    }

    /// The same header in memory of its own, so that it keeps no read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            raw: Bytes::copy_from_slice(&self.raw),
            ..*self
        }
    }
}

/// Length of class, weight and body size, in bytes.
const FIXED_PART_BYTES: usize = 12;

#[cfg(test)]
mod tests;
