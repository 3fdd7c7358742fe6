//! One message: where it was published, its raw content header, and its body or the name of it.
//!
//! Owns: the shared, unchanging form that every queue and consumer a message reaches holds. Knows
//! nothing of queues. A clone costs one count; the header goes on as the octets that came in.
//! Bound: what the frames and the payload threshold allow; 16 bytes where it is held.
//! Spec: AMQP 0-9-1 §4.2.6; `spec/amqp.md`.

mod head;
mod template;
mod traits;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::amqp::field::FieldTable;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, PropertiesRef};
use crate::journal::{BodyRecord, Lsn, PayloadRecord, StoredRef};

use super::limits::{BODY_COPY_BYTES_MAX, PACKED_BYTES_MAX};
use super::name::Name;
use super::payloads::PayloadBody;
use super::stamp;
use super::vhost::split_bcc;

pub use template::Template;
pub use traits::{MessageTraits, Persistence};

use head::{
    EXPIRATION_AT, FLAG_EXPIRES, FLAG_HIDDEN_KEYS, FLAG_PERSISTENT, HEAD_OVERHEAD_BYTES,
    HIDDEN_SIZE_BYTES, PRIORITY_AT, ROUTE_AT, Scratch, header_size, hidden_size, put_head, short,
};

/// The body of a message.
#[derive(Clone, Debug)]
pub enum Body {
    /// The octets themselves.
    Inline(Bytes),
    /// Content in the payload store, with the reference that keeps it there.
    Payload(PayloadBody),
}

/// The body of a message, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub enum BodyRef<'a> {
    /// The octets themselves.
    Inline(&'a [u8]),
    /// Content in the payload store.
    Payload(&'a PayloadBody),
}

impl BodyRef<'_> {
    /// Length of the body in bytes, as the content header has it.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Payload(payload) => payload.size_bytes(),
        }
    }
}

/// A published message, shared by all that hold it.
///
/// `packed` is one allocation: traits, route, header and, if it is short, the body:
/// `flags u8 | priority u8 | header size u32 | expiration u32 | exchange size u8 | exchange | key size u8 | key |
/// property flags and properties | hidden keys | body`. Hidden keys, if flagged: `size u16 | (size u8 | key)*`.
#[derive(Clone)]
pub struct Message(Form);

#[derive(Clone)]
enum Form {
    /// Everything in one piece of memory.
    Packed(Arc<[u8]>),
    /// The body apart: long, or in the payload store.
    Split(Arc<Split>),
}

struct Split {
    head: Box<[u8]>,
    body: Body,
}

/// In a journal record's flags, above the priority: the header has an expiration.
pub(crate) const JOURNAL_FLAG_EXPIRES: u32 = 1 << 8;
/// The header has a `BCC`, which is hidden from everybody else.
pub(crate) const JOURNAL_FLAG_HIDDEN_KEYS: u32 = 1 << 9;
/// The message is transient, and is in the journal only where it waits for its time.
pub(crate) const JOURNAL_FLAG_TRANSIENT: u32 = 1 << 10;

impl Message {
    /// Makes a message; short ones are copied into memory of their own.
    ///
    /// `header` is what stands behind the body size in a content header frame: property flags and
    /// properties, octet by octet as they came.
    #[must_use]
    pub fn new(
        exchange: &[u8],
        routing_key: &[u8],
        header: &[u8],
        traits: MessageTraits,
        body: Body,
    ) -> Self {
        Self::with_hidden_keys(exchange, routing_key, header, traits, body, &[])
    }

    /// As [`Self::new`], with routing keys that nobody but the broker sees: those of a `BCC` header,
    /// which dead letters are routed by again.
    pub(crate) fn with_hidden_keys(
        exchange: &[u8],
        routing_key: &[u8],
        header: &[u8],
        traits: MessageTraits,
        body: Body,
        hidden_keys: &[Name],
    ) -> Self {
        match body {
            Body::Inline(body) if header.len() + body.len() <= PACKED_BYTES_MAX => {
                let mut all = Scratch::new();
                put_head(&mut all, exchange, routing_key, header, traits, hidden_keys);
                all.extend_from_slice(&body);
                Self(Form::Packed(Arc::from(all.as_slice())))
            }
            body => {
                let mut head = Scratch::new();
                put_head(
                    &mut head,
                    exchange,
                    routing_key,
                    header,
                    traits,
                    hidden_keys,
                );
                Self(Form::Split(Arc::new(Split {
                    head: Box::from(head.as_slice()),
                    body,
                })))
            }
        }
    }

    /// The exchange it was published to.
    #[must_use]
    pub fn exchange(&self) -> &[u8] {
        short(self.head(), ROUTE_AT)
    }

    /// The routing key it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &[u8] {
        let head = self.head();
        short(head, ROUTE_AT + 1 + short(head, ROUTE_AT).len())
    }

    /// Exchange and routing key as two short strings in a row, as `basic.deliver`, `basic.get-ok` and
    /// `basic.return` carry them.
    #[must_use]
    pub fn route_wire(&self) -> &[u8] {
        let head = self.head();
        head.get(ROUTE_AT..self.header_at(head)).unwrap_or_default()
    }

    /// Property flags and properties, as they came.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        let head = self.head();
        let start = self.header_at(head);
        head.get(start..start + header_size(head))
            .unwrap_or_default()
    }

    /// The property `timestamp`, in seconds since 1970; none too if the properties cannot be read.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        PropertiesRef::parse(self.header()).ok()?.timestamp
    }

    /// The body, or the name of it.
    #[must_use]
    pub fn body(&self) -> BodyRef<'_> {
        match &self.0 {
            Form::Packed(all) => {
                let start = self.hidden_at(all) + hidden_size(all, self.hidden_at(all));
                BodyRef::Inline(all.get(start..).unwrap_or_default())
            }
            Form::Split(split) => match &split.body {
                Body::Inline(bytes) => BodyRef::Inline(bytes),
                Body::Payload(payload) => BodyRef::Payload(payload),
            },
        }
    }

    /// What is kept in one piece with the body in front of it, and the body; none if they are apart, or if
    /// something is between.
    pub(crate) fn head_and_body(&self) -> Option<(&[u8], &[u8])> {
        match &self.0 {
            Form::Packed(all) if all.first()? & FLAG_HIDDEN_KEYS == 0 => {
                all.split_at_checked(self.hidden_at(all))
            }
            Form::Packed(_) | Form::Split(_) => None,
        }
    }

    /// The body, if what is in front of it is the same as this, which another message's
    /// [`head_and_body`](Self::head_and_body) gave; and so all that it says.
    #[inline]
    pub(crate) fn body_behind(&self, head: &[u8]) -> Option<&[u8]> {
        match &self.0 {
            Form::Packed(all) if !head.is_empty() => all.strip_prefix(head),
            Form::Packed(_) | Form::Split(_) => None,
        }
    }

    /// The inline body as a shared slice, if it is long enough to be kept apart: sending it then needs
    /// no copy. `None` for short bodies and payloads.
    #[must_use]
    pub fn shared_body(&self) -> Option<&Bytes> {
        match &self.0 {
            Form::Split(split) => match &split.body {
                Body::Inline(bytes) => Some(bytes),
                Body::Payload(_) => None,
            },
            Form::Packed(_) => None,
        }
    }

    /// Length of the body in bytes, a payload's included.
    #[must_use]
    #[inline]
    pub fn size_bytes(&self) -> u64 {
        match &self.0 {
            Form::Packed(all) => {
                let at = self.hidden_at(all);
                all.len().saturating_sub(at + hidden_size(all, at)) as u64
            }
            Form::Split(split) => match &split.body {
                Body::Inline(bytes) => bytes.len() as u64,
                Body::Payload(payload) => payload.size_bytes(),
            },
        }
    }

    /// What holding it costs in memory, in bytes; a payload's content is not in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Packed(all) => all.len(),
            Form::Split(split) => match &split.body {
                Body::Inline(bytes) => split.head.len() + bytes.len(),
                Body::Payload(_) => split.head.len(),
            },
        }
    }

    /// How many hold it now, this one included.
    pub(crate) fn holder_count(&self) -> usize {
        match &self.0 {
            Form::Packed(all) => Arc::strong_count(all),
            Form::Split(split) => Arc::strong_count(split),
        }
    }

    /// What the broker must know of it.
    #[must_use]
    pub fn traits(&self) -> MessageTraits {
        let head = self.head();
        let persistence = match head.first() {
            Some(flags) if flags & FLAG_PERSISTENT != 0 => Persistence::Persistent,
            _ => Persistence::Transient,
        };
        MessageTraits {
            persistence,
            priority: head.get(PRIORITY_AT).copied().unwrap_or(0),
            expiration: self.expiration(),
        }
    }

    /// How long it may wait, by its expiration property.
    #[must_use]
    #[inline]
    pub fn expiration(&self) -> Option<Duration> {
        let head = self.head();
        if head.first()? & FLAG_EXPIRES == 0 {
            return None;
        }
        let milliseconds = head.get(EXPIRATION_AT..ROUTE_AT)?.try_into().ok()?;
        let milliseconds = u32::from_le_bytes(milliseconds);
        Some(Duration::from_millis(milliseconds.into()))
    }

    /// The same message with another header, for the properties that the broker must change.
    #[must_use]
    pub fn with_header(&self, header: &[u8]) -> Self {
        let hidden_keys: Vec<_> = self.hidden_keys().map(Name::new).collect();
        Self::with_hidden_keys(
            self.exchange(),
            self.routing_key(),
            header,
            self.traits(),
            self.owned_body(),
            &hidden_keys,
        )
    }

    /// The message with no more than so many bytes of its body; a payload stays a reference.
    pub(crate) fn cut(self, body_bytes_max: usize) -> Self {
        let body = match self.body() {
            BodyRef::Inline(body) => body.get(..body_bytes_max).map(Bytes::copy_from_slice),
            BodyRef::Payload(_) => None,
        };
        let Some(body) = body.filter(|body| (body.len() as u64) < self.size_bytes()) else {
            return self;
        };
        let hidden_keys: Vec<_> = self.hidden_keys().map(Name::new).collect();
        Self::with_hidden_keys(
            self.exchange(),
            self.routing_key(),
            self.header(),
            self.traits(),
            Body::Inline(body),
            &hidden_keys,
        )
    }

    /// The body to be put into another message: shared if it is long, by reference if it is a payload.
    pub(crate) fn owned_body(&self) -> Body {
        match &self.0 {
            Form::Packed(_) => match self.body() {
                BodyRef::Inline(bytes) => Body::Inline(Bytes::copy_from_slice(bytes)),
                BodyRef::Payload(payload) => Body::Payload(payload.clone()),
            },
            Form::Split(split) => split.body.clone(),
        }
    }

    /// Routing keys that it was published with in a `BCC` header, which is gone.
    pub(crate) fn hidden_keys(&self) -> impl Iterator<Item = &[u8]> {
        let head = self.head();
        let at = self.hidden_at(head);
        let mut rest = head.get(at..at + hidden_size(head, at)).unwrap_or_default();
        rest = rest.get(HIDDEN_SIZE_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            let key = rest.get(1..1 + length)?;
            rest = rest.get(1 + length..)?;
            Some(key)
        })
    }

    /// Its headers table, if it has one.
    pub(crate) fn headers(&self) -> Option<FieldTable> {
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: Bytes::copy_from_slice(self.header()),
        };
        content.headers()
    }

    /// The same message with a header that is a number, for one client. Spec: `broker/stamp.rs`.
    pub(crate) fn with_number(&self, name: &'static str, number: u64) -> Self {
        self.with_header(&stamp::with_number(self.header(), name, number))
    }

    /// The message that the journal has; `hold` refers to its payload.
    pub(crate) fn from_stored(
        stored: &StoredRef<'_>,
        hold: impl FnOnce(&PayloadRecord) -> PayloadBody,
    ) -> Self {
        debug_assert_ne!(stored.lsn, Lsn::ZERO, "records count from 1");
        let is_flagged = |flag| stored.flags & flag != 0;
        let mut traits = MessageTraits {
            persistence: match is_flagged(JOURNAL_FLAG_TRANSIENT) {
                false => Persistence::Persistent,
                true => Persistence::Transient,
            },
            priority: u8::try_from(stored.flags & 0xff).unwrap_or(0),
            expiration: None,
        };
        let (exchange, key) = (stored.exchange, stored.routing_key);
        let is_plain = !is_flagged(JOURNAL_FLAG_EXPIRES | JOURNAL_FLAG_HIDDEN_KEYS);
        if let BodyRecord::Inline(body) = stored.body
            && is_plain
            && stored.header.len() + body.len() <= PACKED_BYTES_MAX
        {
            let mut all = Scratch::new();
            put_head(&mut all, exchange, key, stored.header, traits, &[]);
            all.extend_from_slice(body);
            return Self(Form::Packed(Arc::from(all.as_slice())));
        }
        let mut header = Bytes::copy_from_slice(stored.header);
        let mut hidden_keys = Vec::new();
        if is_flagged(JOURNAL_FLAG_HIDDEN_KEYS) {
            (header, hidden_keys) = split_bcc(&header);
        }
        if is_flagged(JOURNAL_FLAG_EXPIRES) {
            traits.expiration = MessageTraits::of_header(&header).expiration;
        }
        let body = match stored.body {
            BodyRecord::Inline(body) => Body::Inline(Bytes::copy_from_slice(body)),
            BodyRecord::Payload(payload) => Body::Payload(hold(&payload)),
        };
        Self::with_hidden_keys(exchange, key, &header, traits, body, &hidden_keys)
    }

    /// The message as octets, in two pieces that follow each other, for a place outside memory: all but
    /// a payload's content.
    pub(crate) fn image(&self) -> (&[u8], &[u8]) {
        match &self.0 {
            Form::Packed(all) => (all, &[]),
            Form::Split(split) => match &split.body {
                Body::Inline(bytes) => (&split.head, bytes),
                Body::Payload(_) => (&split.head, &[]),
            },
        }
    }

    /// The message whose [`image`](Self::image) this is, with its payload if it had one; none if the
    /// octets are not such an image.
    pub(crate) fn from_image(image: &[u8], payload: Option<PayloadBody>) -> Option<Self> {
        let route = short(image, ROUTE_AT).len();
        let key = short(image, ROUTE_AT + 1 + route).len();
        let hidden_at = HEAD_OVERHEAD_BYTES + route + key + header_size(image);
        let head_bytes = hidden_at + hidden_size(image, hidden_at);
        let body = image.get(head_bytes..)?;
        if let Some(payload) = payload {
            let (head, body) = (Box::from(image), Body::Payload(payload));
            return Some(Self(Form::Split(Arc::new(Split { head, body }))));
        }
        if header_size(image) + body.len() <= PACKED_BYTES_MAX {
            return Some(Self(Form::Packed(Arc::from(image))));
        }
        let head = Box::from(image.get(..head_bytes)?);
        let body = Body::Inline(Bytes::copy_from_slice(body));
        Some(Self(Form::Split(Arc::new(Split { head, body }))))
    }

    /// The payload that is its body, if it has one.
    pub(crate) fn payload(&self) -> Option<&PayloadBody> {
        match &self.0 {
            Form::Packed(_) => None,
            Form::Split(split) => match &split.body {
                Body::Payload(payload) => Some(payload),
                Body::Inline(_) => None,
            },
        }
    }

    /// Makes sure that keeping the message long does not keep a read buffer much longer than itself.
    pub(crate) fn detach(&mut self) {
        let Form::Split(split) = &self.0 else { return };
        if let Body::Inline(bytes) = &split.body
            && bytes.len() < BODY_COPY_BYTES_MAX
            && !self.is_detached()
        {
            let body = Body::Inline(Bytes::copy_from_slice(bytes));
            let head = split.head.clone();
            self.0 = Form::Split(Arc::new(Split { head, body }));
        }
    }

    /// Whether nobody else shares the body's memory.
    fn is_detached(&self) -> bool {
        match &self.0 {
            Form::Packed(_) => true,
            Form::Split(split) => match &split.body {
                Body::Inline(bytes) => bytes.is_unique(),
                Body::Payload(_) => true,
            },
        }
    }

    fn head(&self) -> &[u8] {
        match &self.0 {
            Form::Packed(all) => all,
            Form::Split(split) => &split.head,
        }
    }

    fn hidden_at(&self, head: &[u8]) -> usize {
        self.header_at(head) + header_size(head)
    }

    #[inline]
    fn header_at(&self, head: &[u8]) -> usize {
        let length_at = |at: usize| head.get(at).map_or(0, |length| usize::from(*length));
        let exchange_bytes = length_at(ROUTE_AT);
        let key_bytes = length_at(ROUTE_AT + 1 + exchange_bytes);
        HEAD_OVERHEAD_BYTES + exchange_bytes + key_bytes
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("exchange", &String::from_utf8_lossy(self.exchange()))
            .field("routing_key", &String::from_utf8_lossy(self.routing_key()))
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAITS: MessageTraits = MessageTraits {
        persistence: Persistence::Persistent,
        priority: 7,
        expiration: Some(Duration::from_millis(60_000)),
    };

    fn message(body_bytes: usize) -> Message {
        let body = Body::Inline(Bytes::from(vec![b'x'; body_bytes]));
        Message::new(b"logs", b"a.b", &[0, 0], TRAITS, body)
    }

    fn check_accessors(message: &Message, body_bytes: usize) {
        assert_eq!(message.exchange(), b"logs");
        assert_eq!(message.routing_key(), b"a.b");
        assert_eq!(message.route_wire(), b"\x04logs\x03a.b");
        assert_eq!(message.header(), &[0, 0]);
        assert_eq!(message.traits(), TRAITS);
        assert_eq!(message.size_bytes(), body_bytes as u64);
        let BodyRef::Inline(body) = message.body() else {
            panic!("the body was given inline");
        };
        assert_eq!(body, vec![b'x'; body_bytes]);
    }

    #[test]
    fn both_forms_give_back_what_was_put_in() {
        for body_bytes in [0, 1, 100, PACKED_BYTES_MAX, 2 * PACKED_BYTES_MAX] {
            check_accessors(&message(body_bytes), body_bytes);
        }
    }

    #[test]
    fn an_image_is_the_message() {
        for body_bytes in [0, 1, 100, PACKED_BYTES_MAX, 2 * PACKED_BYTES_MAX] {
            let original = message(body_bytes);
            let (front, back) = original.image();
            let image = [front, back].concat();
            check_accessors(&Message::from_image(&image, None).unwrap(), body_bytes);
        }
        let image = message(0).image().0.to_vec();
        assert!(Message::from_image(&image[..image.len() - 1], None).is_none());
    }

    #[test]
    fn a_message_takes_sixteen_bytes_where_it_is_held() {
        assert_eq!(size_of::<Message>(), 16);
    }

    #[test]
    fn a_template_makes_the_same_messages() {
        let mut template = Template::new(b"logs", b"a.b", &[0, 0], TRAITS);
        assert_eq!(
            (template.exchange(), template.routing_key()),
            (&b"logs"[..], &b"a.b"[..])
        );
        for body_bytes in [1, PACKED_BYTES_MAX - 2, PACKED_BYTES_MAX - 1, 100, 10_000] {
            let body = Bytes::from(vec![b'x'; body_bytes]);
            let made = template.message(&body, &body);
            check_accessors(&made, body_bytes);
            assert_eq!(made.image(), message(body_bytes).image());
        }
    }

    #[test]
    fn detaching_leaves_the_read_buffer() {
        let buffer = Bytes::from(vec![b'x'; 100_000]);
        let body = Body::Inline(buffer.slice(..10_000));
        let mut message = Message::new(b"logs", b"a.b", &[0, 0], TRAITS, body);
        message.detach();
        assert!(buffer.is_unique());
        check_accessors(&message, 10_000);
    }

    #[test]
    fn a_new_header_leaves_the_rest() {
        for body_bytes in [5, 2 * PACKED_BYTES_MAX] {
            let changed = message(body_bytes).with_header(&[0x10, 0, 2]);
            assert_eq!(changed.header(), &[0x10, 0, 2]);
            assert_eq!(changed.route_wire(), b"\x04logs\x03a.b");
            assert_eq!(changed.size_bytes(), body_bytes as u64);
        }
    }
}
