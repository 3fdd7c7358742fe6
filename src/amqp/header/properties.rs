//! The properties of class basic: `flags u16 | property, one for each flag`.
//!
//! The highest bit stands for the first property. The two lowest bits mean nothing: RabbitMQ reads
//! one word of flags and ignores the bit that would announce another.

use bytes::{BufMut, Bytes, BytesMut};
use nom::IResult;

use super::HeaderError;
use crate::amqp::field::{
    Field, FieldError, FieldTable, ShortString, octets, short_bytes, table_elements,
};

/// The properties of a message, as slices of its header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PropertiesRef<'a> {
    /// MIME content type.
    pub content_type: Option<&'a [u8]>,
    /// MIME content encoding.
    pub content_encoding: Option<&'a [u8]>,
    /// The elements of the headers table, checked; see [`FieldTable::from_elements`].
    pub headers: Option<&'a [u8]>,
    /// 1 is transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    /// 0 to 255; higher goes first.
    pub priority: Option<u8>,
    /// For replies: which request this answers.
    pub correlation_id: Option<&'a [u8]>,
    /// Where to send replies.
    pub reply_to: Option<&'a [u8]>,
    /// Time to live, milliseconds as decimal text.
    pub expiration: Option<&'a [u8]>,
    /// The application's name for the message.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The application's type of message.
    pub message_type: Option<&'a [u8]>,
    /// Who published it; checked against the connection's user.
    pub user_id: Option<&'a [u8]>,
    /// Which application published it.
    pub app_id: Option<&'a [u8]>,
    /// Reserved (`cluster-id` before 0-9-1); passed on.
    pub cluster_id: Option<&'a [u8]>,
}

/// The properties of a message as values that can be changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Properties {
    /// MIME content type.
    pub content_type: Option<ShortString>,
    /// MIME content encoding.
    pub content_encoding: Option<ShortString>,
    /// Named values of the application, and of RabbitMQ's extensions.
    pub headers: Option<FieldTable>,
    /// 1 is transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    /// 0 to 255; higher goes first.
    pub priority: Option<u8>,
    /// For replies: which request this answers.
    pub correlation_id: Option<ShortString>,
    /// Where to send replies.
    pub reply_to: Option<ShortString>,
    /// Time to live, milliseconds as decimal text.
    pub expiration: Option<ShortString>,
    /// The application's name for the message.
    pub message_id: Option<ShortString>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The application's type of message.
    pub message_type: Option<ShortString>,
    /// Who published it; checked against the connection's user.
    pub user_id: Option<ShortString>,
    /// Which application published it.
    pub app_id: Option<ShortString>,
    /// Reserved (`cluster-id` before 0-9-1); passed on.
    pub cluster_id: Option<ShortString>,
}

impl<'a> PropertiesRef<'a> {
    /// Reads and checks flags and properties, which must fill `raw` exactly.
    // req: CONTENT-2
    // req: CONTENT-3
    pub(crate) fn parse(raw: &'a [u8]) -> Result<Self, HeaderError> {
        let (rest, properties) =
            Self::parse_fields(raw).map_err(|error| HeaderError::Property(error.into()))?;
        if !rest.is_empty() {
            return Err(HeaderError::TrailingOctets {
                octet_count: rest.len(),
            });
        }
        Ok(properties)
    }

    fn parse_fields(raw: &'a [u8]) -> IResult<&'a [u8], Self, FieldError> {
        let (mut input, flags) = octets(raw)?;
        let flags = u16::from_be_bytes(flags);
        let mut properties = Self::default();
        if flags & FLAGS_KNOWN == 0 {
            return Ok((input, properties));
        }
        let rest = &mut input;
        properties.content_type = take_if(flags, CONTENT_TYPE, rest, short_bytes)?;
        properties.content_encoding = take_if(flags, CONTENT_ENCODING, rest, short_bytes)?;
        properties.headers = take_if(flags, HEADERS, rest, table_elements)?;
        properties.delivery_mode = take_if(flags, DELIVERY_MODE, rest, octet)?;
        properties.priority = take_if(flags, PRIORITY, rest, octet)?;
        properties.correlation_id = take_if(flags, CORRELATION_ID, rest, short_bytes)?;
        properties.reply_to = take_if(flags, REPLY_TO, rest, short_bytes)?;
        properties.expiration = take_if(flags, EXPIRATION, rest, short_bytes)?;
        properties.message_id = take_if(flags, MESSAGE_ID, rest, short_bytes)?;
        properties.timestamp = take_if(flags, TIMESTAMP, rest, timestamp)?;
        properties.message_type = take_if(flags, MESSAGE_TYPE, rest, short_bytes)?;
        properties.user_id = take_if(flags, USER_ID, rest, short_bytes)?;
        properties.app_id = take_if(flags, APP_ID, rest, short_bytes)?;
        properties.cluster_id = take_if(flags, CLUSTER_ID, rest, short_bytes)?;
        Ok((input, properties))
    }

    /// The same properties as slices of `owner`, which these were read from.
    pub(super) fn to_owned_in(self, owner: &Bytes) -> Properties {
        let short = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| ShortString::from_length_checked(bytes, || owner.slice_ref(bytes)))
        };
        Properties {
            content_type: short(self.content_type),
            content_encoding: short(self.content_encoding),
            headers: self.headers.map(|elements| {
                FieldTable::from_elements(owner.slice_ref(elements)).expect("checked when read")
            }),
            delivery_mode: self.delivery_mode,
            priority: self.priority,
            correlation_id: short(self.correlation_id),
            reply_to: short(self.reply_to),
            expiration: short(self.expiration),
            message_id: short(self.message_id),
            timestamp: self.timestamp,
            message_type: short(self.message_type),
            user_id: short(self.user_id),
            app_id: short(self.app_id),
            cluster_id: short(self.cluster_id),
        }
    }
}

impl Properties {
    /// Flags and properties, ready for [`ContentHeader::raw`](super::ContentHeader::raw).
    pub fn encode(&self) -> Bytes {
        let mut flags = 0;
        let mut output = BytesMut::with_capacity(64);
        output.put_u16(flags);
        put_if(&self.content_type, CONTENT_TYPE, &mut flags, &mut output);
        put_if(
            &self.content_encoding,
            CONTENT_ENCODING,
            &mut flags,
            &mut output,
        );
        put_if(&self.headers, HEADERS, &mut flags, &mut output);
        put_if(&self.delivery_mode, DELIVERY_MODE, &mut flags, &mut output);
        put_if(&self.priority, PRIORITY, &mut flags, &mut output);
        put_if(
            &self.correlation_id,
            CORRELATION_ID,
            &mut flags,
            &mut output,
        );
        put_if(&self.reply_to, REPLY_TO, &mut flags, &mut output);
        put_if(&self.expiration, EXPIRATION, &mut flags, &mut output);
        put_if(&self.message_id, MESSAGE_ID, &mut flags, &mut output);
        put_if(&self.timestamp, TIMESTAMP, &mut flags, &mut output);
        put_if(&self.message_type, MESSAGE_TYPE, &mut flags, &mut output);
        put_if(&self.user_id, USER_ID, &mut flags, &mut output);
        put_if(&self.app_id, APP_ID, &mut flags, &mut output);
        put_if(&self.cluster_id, CLUSTER_ID, &mut flags, &mut output);
        let flag_field = output
            .first_chunk_mut()
            .expect("the flags were written first");
        *flag_field = flags.to_be_bytes();
        output.freeze()
    }
}

/// A property of one octet.
fn octet(input: &[u8]) -> IResult<&[u8], u8, FieldError> {
    let (rest, [octet]) = octets(input)?;
    Ok((rest, octet))
}

/// Seconds since 1970.
fn timestamp(input: &[u8]) -> IResult<&[u8], u64, FieldError> {
    let (rest, seconds) = octets(input)?;
    Ok((rest, u64::from_be_bytes(seconds)))
}

/// Reads a property whose flag is set.
#[inline]
fn take_if<'a, T>(
    flags: u16,
    flag: u16,
    input: &mut &'a [u8],
    parse: impl FnOnce(&'a [u8]) -> IResult<&'a [u8], T, FieldError>,
) -> Result<Option<T>, nom::Err<FieldError>> {
    if flags & flag == 0 {
        return Ok(None);
    }
    let (rest, value) = parse(input)?;
    *input = rest;
    Ok(Some(value))
}

/// Appends a property that is there, and sets its flag.
fn put_if<T: Field>(value: &Option<T>, flag: u16, flags: &mut u16, output: &mut BytesMut) {
    if let Some(value) = value {
        *flags |= flag;
        value.put(output);
    }
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const MESSAGE_TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;

/// All flags with a meaning.
const FLAGS_KNOWN: u16 = !0b11;
