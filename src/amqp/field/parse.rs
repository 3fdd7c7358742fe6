//! Parsers of single fields, on complete slices.
//!
//! Framing is done before, so a parser never asks for more input: what is missing is an error.

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::complete::take;
use nom::error::{ErrorKind, ParseError};
use nom::{IResult, Parser};

use super::value::RawValue;
use super::{FieldTable, Secret, ShortString};
use crate::amqp::limits::{TABLE_BYTES_MAX, TABLE_DEPTH_MAX, TABLE_ELEMENTS_MAX};

/// Why a field cannot be decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The octets end before the field does.
    #[error("field is cut off")]
    Truncated,
    /// A table or an array longer than [`TABLE_BYTES_MAX`].
    #[error("table of {got_bytes} bytes is over the limit of {TABLE_BYTES_MAX}")]
    TableTooLong {
        /// Length that the table claims, in bytes.
        got_bytes: usize,
    },
    /// Tables nested deeper than [`TABLE_DEPTH_MAX`].
    #[error("table is nested deeper than {TABLE_DEPTH_MAX} levels")]
    TooDeep,
    /// A table with more values than [`TABLE_ELEMENTS_MAX`].
    #[error("table holds more than {TABLE_ELEMENTS_MAX} values")]
    TooManyElements,
    /// A type letter that RabbitMQ does not know either.
    #[error("unknown field type {letter:#04x}")]
    UnknownType {
        /// The octet in the place of the type letter.
        letter: u8,
    },
}

impl ParseError<&[u8]> for FieldError {
    fn from_error_kind(_input: &[u8], _kind: ErrorKind) -> Self {
        // The only way in which a parser of fixed sizes and lengths can fail by itself.
        Self::Truncated
    }

    fn append(_input: &[u8], _kind: ErrorKind, other: Self) -> Self {
        other
    }
}

impl From<nom::Err<Self>> for FieldError {
    fn from(error: nom::Err<Self>) -> Self {
        match error {
            nom::Err::Incomplete(_) => Self::Truncated,
            nom::Err::Error(error) | nom::Err::Failure(error) => error,
        }
    }
}

/// A field of a method: how it is read and how it is written.
///
/// `owner` is the buffer that `input` lies in; strings and tables become slices of it.
pub(in crate::amqp) trait Field: Sized {
    fn parse<'a>(input: &'a [u8], owner: &Bytes) -> IResult<&'a [u8], Self, FieldError>;
    fn put(&self, output: &mut BytesMut);

    /// Whether it is UTF-8, if it is a short string.
    #[inline]
    fn is_text(&self) -> bool {
        true
    }
}

impl Field for u8 {
    #[inline]
    fn parse<'a>(input: &'a [u8], _owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, octets) = octets(input)?;
        Ok((rest, Self::from_be_bytes(octets)))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        output.put_u8(*self);
    }
}

impl Field for u16 {
    #[inline]
    fn parse<'a>(input: &'a [u8], _owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, octets) = octets(input)?;
        Ok((rest, Self::from_be_bytes(octets)))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        output.put_u16(*self);
    }
}

impl Field for u32 {
    #[inline]
    fn parse<'a>(input: &'a [u8], _owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, octets) = octets(input)?;
        Ok((rest, Self::from_be_bytes(octets)))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        output.put_u32(*self);
    }
}

impl Field for u64 {
    #[inline]
    fn parse<'a>(input: &'a [u8], _owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, octets) = octets(input)?;
        Ok((rest, Self::from_be_bytes(octets)))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        output.put_u64(*self);
    }
}

/// `length u8 | bytes`.
// req: FIELD-1
impl Field for ShortString {
    #[inline]
    fn parse<'a>(input: &'a [u8], owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, bytes) = short_bytes(input)?;
        Ok((
            rest,
            Self::from_length_checked(bytes, || owner.slice_ref(bytes)),
        ))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        Self::put(self, output);
    }

    #[inline]
    fn is_text(&self) -> bool {
        std::str::from_utf8(self.as_bytes()).is_ok()
    }
}

/// `length u32 | bytes`: a long string.
impl Field for Bytes {
    #[inline]
    fn parse<'a>(input: &'a [u8], owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, bytes) = long_bytes(input)?;
        Ok((rest, owner.slice_ref(bytes)))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        put_long_bytes(self, output);
    }
}

impl Field for Secret {
    #[inline]
    fn parse<'a>(input: &'a [u8], owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, bytes) = Bytes::parse(input, owner)?;
        Ok((rest, Self::from(bytes)))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        self.expose().put(output);
    }
}

/// `length u32 | elements, length bytes`.
impl Field for FieldTable {
    #[inline]
    fn parse<'a>(input: &'a [u8], owner: &Bytes) -> IResult<&'a [u8], Self, FieldError> {
        let (rest, elements) = table_elements(input)?;
        Ok((rest, Self::from_checked(owner.slice_ref(elements))))
    }

    #[inline]
    fn put(&self, output: &mut BytesMut) {
        put_long_bytes(self.elements(), output);
    }
}

/// A fixed number of octets, for a number.
#[inline]
pub(in crate::amqp) fn octets<const N: usize>(input: &[u8]) -> IResult<&[u8], [u8; N], FieldError> {
    match input.split_first_chunk() {
        Some((octets, rest)) => Ok((rest, *octets)),
        None => Err(nom::Err::Error(FieldError::Truncated)),
    }
}

/// The bytes of a short string.
#[inline]
pub(in crate::amqp) fn short_bytes(input: &[u8]) -> IResult<&[u8], &[u8], FieldError> {
    let (rest, [length]) = octets(input)?;
    take(length).parse(rest)
}

/// The bytes of a long string; also what is inside a table or an array.
pub(super) fn long_bytes(input: &[u8]) -> IResult<&[u8], &[u8], FieldError> {
    let (rest, length) = octets(input)?;
    take(u32::from_be_bytes(length)).parse(rest)
}

/// Appends `length u32 | bytes`.
pub(super) fn put_long_bytes(bytes: &[u8], output: &mut BytesMut) {
    let length = u32::try_from(bytes.len()).expect("a long string is below 4 GiB");
    output.put_u32(length);
    output.put_slice(bytes);
}

/// The elements of a table, without its length, after checking every one of them.
// req: FIELD-3
// req: FIELD-4
// req: FIELD-5
pub(in crate::amqp) fn table_elements(input: &[u8]) -> IResult<&[u8], &[u8], FieldError> {
    let (rest, elements) = long_bytes(input)?;
    match check_table(elements) {
        Ok(()) => Ok((rest, elements)),
        Err(error) => Err(nom::Err::Failure(error)),
    }
}

/// Checks the elements of a table that stands for itself.
pub(super) fn check_table(elements: &[u8]) -> Result<(), FieldError> {
    if elements.len() > TABLE_BYTES_MAX {
        return Err(FieldError::TableTooLong {
            got_bytes: elements.len(),
        });
    }
    let mut element_count = 0;
    check_elements(elements, Names::Present, 1, &mut element_count)
}

/// Whether elements have names (a table's do, an array's do not).
#[derive(Clone, Copy)]
enum Names {
    Absent,
    Present,
}

/// Walks elements without keeping any; recursion ends at [`TABLE_DEPTH_MAX`].
fn check_elements(
    mut input: &[u8],
    names: Names,
    depth: u32,
    element_count: &mut u32,
) -> Result<(), FieldError> {
    if depth > TABLE_DEPTH_MAX {
        return Err(FieldError::TooDeep);
    }
    while !input.is_empty() {
        *element_count += 1;
        if *element_count > TABLE_ELEMENTS_MAX {
            return Err(FieldError::TooManyElements);
        }
        if let Names::Present = names {
            (input, _) = short_bytes(input)?;
        }
        let (rest, value) = RawValue::parse(input)?;
        match value {
            RawValue::Table(inner) => {
                check_elements(inner, Names::Present, depth + 1, element_count)?;
            }
            RawValue::Array(inner) => {
                check_elements(inner, Names::Absent, depth + 1, element_count)?;
            }
            RawValue::Plain(_) | RawValue::LongString(_) | RawValue::ByteArray(_) => {}
        }
        input = rest;
    }
    Ok(())
}
