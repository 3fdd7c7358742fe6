//! One value of a field table: `type letter u8 | value`.
//!
//! Spec: AMQP 0-9-1 §4.2.5.5 with RabbitMQ's errata; `spec/amqp.md` FIELD-2, FIELD-6.

use std::hash::{Hash, Hasher};
use std::mem;

use bytes::{BufMut, Bytes, BytesMut};
use nom::IResult;

use super::parse::{long_bytes, octets, put_long_bytes};
use super::{FieldArray, FieldError, FieldTable};

/// A value in a field table or array, with its type; the letters are RabbitMQ's.
///
/// Two floats are equal if their bits are, so that a value always equals itself.
#[derive(Clone, Debug)]
pub enum FieldValue {
    /// `t`: any octet but 0 is true.
    Boolean(bool),
    /// `b`: signed, 8 bits.
    ShortShortInt(i8),
    /// `B`: unsigned, 8 bits.
    ShortShortUint(u8),
    /// `s`: signed, 16 bits.
    ShortInt(i16),
    /// `u`: unsigned, 16 bits.
    ShortUint(u16),
    /// `I`: signed, 32 bits.
    LongInt(i32),
    /// `i`: unsigned, 32 bits.
    LongUint(u32),
    /// `l`, and `L` when it is read: signed, 64 bits.
    LongLongInt(i64),
    /// `f`: 32 bits.
    Float(f32),
    /// `d`: 64 bits.
    Double(f64),
    /// `D`: `value` divided by ten to the power of `scale`.
    Decimal {
        /// How many decimal places.
        scale: u8,
        /// All digits; unsigned, as RabbitMQ reads it.
        value: u32,
    },
    /// `S`: text or octets.
    LongString(Bytes),
    /// `A`: values of any types.
    Array(FieldArray),
    /// `T`: seconds since 1970 (POSIX `time_t`).
    Timestamp(u64),
    /// `F`: a table within the table.
    Table(FieldTable),
    /// `V`: no value.
    Void,
    /// `x`: octets.
    ByteArray(Bytes),
}

impl FieldValue {
    /// The type as RabbitMQ names it in reply texts: `longstr`, `signedint`, ...
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "bool",
            Self::ShortShortInt(_) => "byte",
            Self::ShortShortUint(_) => "unsignedbyte",
            Self::ShortInt(_) => "short",
            Self::ShortUint(_) => "unsignedshort",
            Self::LongInt(_) => "signedint",
            Self::LongUint(_) => "unsignedint",
            Self::LongLongInt(_) => "long",
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
            Self::ByteArray(_) => "binary",
        }
    }

    /// The number, if this is an integer of any width. A timestamp is none.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::ShortShortInt(value) => Some(value.into()),
            Self::ShortShortUint(value) => Some(value.into()),
            Self::ShortInt(value) => Some(value.into()),
            Self::ShortUint(value) => Some(value.into()),
            Self::LongInt(value) => Some(value.into()),
            Self::LongUint(value) => Some(value.into()),
            Self::LongLongInt(value) => Some(value),
            Self::Boolean(_)
            | Self::Float(_)
            | Self::Double(_)
            | Self::Decimal { .. }
            | Self::LongString(_)
            | Self::Array(_)
            | Self::Timestamp(_)
            | Self::Table(_)
            | Self::Void
            | Self::ByteArray(_) => None,
        }
    }

    /// The truth value, if this is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Boolean(value) = self {
            Some(*value)
        } else {
            None
        }
    }

    /// The octets of a long string or a byte array.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        if let Self::LongString(bytes) | Self::ByteArray(bytes) = self {
            Some(bytes)
        } else {
            None
        }
    }

    /// The text of a long string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::LongString(bytes) = self {
            std::str::from_utf8(bytes).ok()
        } else {
            None
        }
    }

    /// The inner table, if this is one.
    pub fn as_table(&self) -> Option<&FieldTable> {
        if let Self::Table(table) = self {
            Some(table)
        } else {
            None
        }
    }

    /// The inner array, if this is one.
    pub fn as_array(&self) -> Option<&FieldArray> {
        if let Self::Array(array) = self {
            Some(array)
        } else {
            None
        }
    }

    /// Appends the type letter and the value.
    pub(super) fn put(&self, output: &mut BytesMut) {
        match self {
            Self::Boolean(value) => output.put_slice(&[b't', u8::from(*value)]),
            Self::ShortShortInt(value) => {
                output.put_u8(b'b');
                output.put_i8(*value);
            }
            Self::ShortShortUint(value) => output.put_slice(&[b'B', *value]),
            Self::ShortInt(value) => {
                output.put_u8(b's');
                output.put_i16(*value);
            }
            Self::ShortUint(value) => {
                output.put_u8(b'u');
                output.put_u16(*value);
            }
            Self::LongInt(value) => {
                output.put_u8(b'I');
                output.put_i32(*value);
            }
            Self::LongUint(value) => {
                output.put_u8(b'i');
                output.put_u32(*value);
            }
            Self::LongLongInt(value) => {
                output.put_u8(b'l');
                output.put_i64(*value);
            }
            Self::Float(value) => {
                output.put_u8(b'f');
                output.put_f32(*value);
            }
            Self::Double(value) => {
                output.put_u8(b'd');
                output.put_f64(*value);
            }
            Self::Decimal { scale, value } => {
                output.put_slice(&[b'D', *scale]);
                output.put_u32(*value);
            }
            Self::LongString(bytes) => {
                output.put_u8(b'S');
                put_long_bytes(bytes, output);
            }
            Self::Array(array) => {
                output.put_u8(b'A');
                put_long_bytes(array.elements(), output);
            }
            Self::Timestamp(seconds) => {
                output.put_u8(b'T');
                output.put_u64(*seconds);
            }
            Self::Table(table) => {
                output.put_u8(b'F');
                put_long_bytes(table.elements(), output);
            }
            Self::Void => output.put_u8(b'V'),
            Self::ByteArray(bytes) => {
                output.put_u8(b'x');
                put_long_bytes(bytes, output);
            }
        }
    }
}

impl PartialEq for FieldValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            (Self::ShortShortInt(a), Self::ShortShortInt(b)) => a == b,
            (Self::ShortShortUint(a), Self::ShortShortUint(b)) => a == b,
            (Self::ShortInt(a), Self::ShortInt(b)) => a == b,
            (Self::ShortUint(a), Self::ShortUint(b)) => a == b,
            (Self::LongInt(a), Self::LongInt(b)) => a == b,
            (Self::LongUint(a), Self::LongUint(b)) => a == b,
            (Self::LongLongInt(a), Self::LongLongInt(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Decimal { scale, value }, Self::Decimal { scale: s, value: v }) => {
                scale == s && value == v
            }
            (Self::LongString(a), Self::LongString(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Table(a), Self::Table(b)) => a == b,
            (Self::Void, Self::Void) => true,
            (Self::ByteArray(a), Self::ByteArray(b)) => a == b,
            // Two different types; each pair of the same type stands above.
            _ => false,
        }
    }
}

impl Eq for FieldValue {}

impl Hash for FieldValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mem::discriminant(self).hash(state);
        match self {
            Self::Boolean(value) => value.hash(state),
            Self::ShortShortInt(value) => value.hash(state),
            Self::ShortShortUint(value) => value.hash(state),
            Self::ShortInt(value) => value.hash(state),
            Self::ShortUint(value) => value.hash(state),
            Self::LongInt(value) => value.hash(state),
            Self::LongUint(value) => value.hash(state),
            Self::LongLongInt(value) => value.hash(state),
            Self::Float(value) => value.to_bits().hash(state),
            Self::Double(value) => value.to_bits().hash(state),
            Self::Decimal { scale, value } => (scale, value).hash(state),
            Self::LongString(bytes) | Self::ByteArray(bytes) => bytes.hash(state),
            Self::Array(array) => array.hash(state),
            Self::Timestamp(seconds) => seconds.hash(state),
            Self::Table(table) => table.hash(state),
            Self::Void => {}
        }
    }
}

impl From<bool> for FieldValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for FieldValue {
    fn from(value: i32) -> Self {
        Self::LongInt(value)
    }
}

impl From<i64> for FieldValue {
    fn from(value: i64) -> Self {
        Self::LongLongInt(value)
    }
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::LongString(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self::LongString(Bytes::from(text))
    }
}

impl From<FieldTable> for FieldValue {
    fn from(table: FieldTable) -> Self {
        Self::Table(table)
    }
}

impl From<FieldArray> for FieldValue {
    fn from(array: FieldArray) -> Self {
        Self::Array(array)
    }
}

/// A value whose octets are still borrowed and whose inner elements are not looked at yet.
pub(super) enum RawValue<'a> {
    /// A value of fixed size, complete.
    Plain(FieldValue),
    LongString(&'a [u8]),
    ByteArray(&'a [u8]),
    Array(&'a [u8]),
    Table(&'a [u8]),
}

impl<'a> RawValue<'a> {
    /// Reads `type letter u8 | value`.
    // req: FIELD-2
    pub(super) fn parse(input: &'a [u8]) -> IResult<&'a [u8], Self, FieldError> {
        let (input, [letter]) = octets(input)?;
        let plain = |(rest, value)| (rest, RawValue::Plain(value));
        Ok(match letter {
            b't' => plain(map(octets(input)?, |[octet]| {
                FieldValue::Boolean(octet != 0)
            })),
            b'b' => plain(map(octets(input)?, |o| {
                FieldValue::ShortShortInt(i8::from_be_bytes(o))
            })),
            b'B' => plain(map(octets(input)?, |[octet]| {
                FieldValue::ShortShortUint(octet)
            })),
            b's' => plain(map(octets(input)?, |o| {
                FieldValue::ShortInt(i16::from_be_bytes(o))
            })),
            b'u' => plain(map(octets(input)?, |o| {
                FieldValue::ShortUint(u16::from_be_bytes(o))
            })),
            b'I' => plain(map(octets(input)?, |o| {
                FieldValue::LongInt(i32::from_be_bytes(o))
            })),
            b'i' => plain(map(octets(input)?, |o| {
                FieldValue::LongUint(u32::from_be_bytes(o))
            })),
            b'l' | b'L' => plain(map(octets(input)?, |o| {
                FieldValue::LongLongInt(i64::from_be_bytes(o))
            })),
            b'f' => plain(map(octets(input)?, |o| {
                FieldValue::Float(f32::from_be_bytes(o))
            })),
            b'd' => plain(map(octets(input)?, |o| {
                FieldValue::Double(f64::from_be_bytes(o))
            })),
            b'D' => plain(map(octets(input)?, |[scale, d3, d2, d1, d0]| {
                FieldValue::Decimal {
                    scale,
                    value: u32::from_be_bytes([d3, d2, d1, d0]),
                }
            })),
            b'S' => map(long_bytes(input)?, Self::LongString),
            b'A' => map(long_bytes(input)?, Self::Array),
            b'T' => plain(map(octets(input)?, |o| {
                FieldValue::Timestamp(u64::from_be_bytes(o))
            })),
            b'F' => map(long_bytes(input)?, Self::Table),
            b'V' => (input, Self::Plain(FieldValue::Void)),
            b'x' => map(long_bytes(input)?, Self::ByteArray),
            letter => return Err(nom::Err::Failure(FieldError::UnknownType { letter })),
        })
    }

    /// The value with its octets as slices of `owner`; inner elements must have been checked.
    pub(super) fn into_value(self, owner: &Bytes) -> FieldValue {
        match self {
            Self::Plain(value) => value,
            Self::LongString(bytes) => FieldValue::LongString(owner.slice_ref(bytes)),
            Self::ByteArray(bytes) => FieldValue::ByteArray(owner.slice_ref(bytes)),
            Self::Array(inner) => {
                FieldValue::Array(FieldArray::from_checked(owner.slice_ref(inner)))
            }
            Self::Table(inner) => {
                FieldValue::Table(FieldTable::from_checked(owner.slice_ref(inner)))
            }
        }
    }
}

/// Changes what was parsed and keeps the rest.
fn map<A, B>((rest, parsed): (&[u8], A), f: impl FnOnce(A) -> B) -> (&[u8], B) {
    (rest, f(parsed))
}
