//! Numbers that the broker adds to a message's headers on its way to one client.
//!
//! Owns: changing the encoded properties of a message without reading what does not matter. The number
//! is added at the end of the headers table, or takes the place of a header of the same name.
//! Spec: RabbitMQ's `x-delivery-count` (quorum queues) and `x-stream-offset` (streams), of type `l`.

use bytes::Bytes;

use crate::amqp::field::{FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};

/// The bits of the property flags that say which of the first three properties are there.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;

/// How often a message of a quorum queue came back.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";
/// A message's place in its stream.
pub(crate) const STREAM_OFFSET: &str = "x-stream-offset";

/// Property flags and properties with the header `name` set to `number`; the same again if they
/// cannot be read, which was checked when they came.
pub(crate) fn with_number(header: &[u8], name: &'static str, number: u64) -> Vec<u8> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    added(header, name, number)
        .or_else(|| replaced(header, name, number))
        .unwrap_or_else(|| header.to_vec())
}

/// The quick way: no header of that name is there.
fn added(header: &[u8], name: &'static str, number: i64) -> Option<Vec<u8>> {
    let flags = u16::from_be_bytes(*header.first_chunk()?);
    let mut at = size_of::<u16>();
    for flag in [CONTENT_TYPE, CONTENT_ENCODING] {
        if flags & flag != 0 {
            at += 1 + usize::from(*header.get(at)?);
        }
    }
    let (elements, behind) = if flags & HEADERS == 0 {
        (&[][..], at)
    } else {
        let size = u32::from_be_bytes(*header.get(at..)?.first_chunk()?) as usize;
        let start = at + size_of::<u32>();
        (header.get(start..start.checked_add(size)?)?, start + size)
    };
    if elements
        .windows(name.len())
        .any(|window| window == name.as_bytes())
    {
        return None;
    }
    let element_bytes = 1 + name.len() + 1 + size_of::<i64>();
    let table_bytes = u32::try_from(elements.len() + element_bytes).ok()?;
    let mut out = Vec::with_capacity(header.len() + size_of::<u32>() + element_bytes);
    out.extend_from_slice(&(flags | HEADERS).to_be_bytes());
    out.extend_from_slice(header.get(size_of::<u16>()..at)?);
    out.extend_from_slice(&table_bytes.to_be_bytes());
    out.extend_from_slice(elements);
    out.push(u8::try_from(name.len()).ok()?);
    out.extend_from_slice(name.as_bytes());
    out.push(b'l');
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(header.get(behind..)?);
    Some(out)
}

/// The thorough way.
fn replaced(header: &[u8], name: &'static str, number: i64) -> Option<Vec<u8>> {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: Bytes::copy_from_slice(header),
    };
    let mut properties = content.properties().ok()?;
    let headers = properties.headers.get_or_insert_default();
    headers.insert(
        ShortString::from_static(name),
        FieldValue::LongLongInt(number),
    );
    Some(properties.encode().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::field::FieldTable;
    use crate::amqp::header::Properties;

    fn stamped(properties: &Properties) -> Properties {
        let raw = with_number(&properties.encode(), STREAM_OFFSET, 7);
        let content = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: 0,
            raw: Bytes::from(raw),
        };
        content.properties().expect("what was stamped can be read")
    }

    fn check(mut properties: Properties) {
        let mut expected = properties.headers.clone().unwrap_or_default();
        expected.insert(
            ShortString::from_static(STREAM_OFFSET),
            FieldValue::LongLongInt(7),
        );
        let stamped = stamped(&properties);
        properties.headers = Some(expected);
        assert_eq!(stamped, properties);
    }

    /// Whatever properties and headers there are, one header is added and nothing else changes.
    #[test]
    fn the_number_is_added_and_the_rest_stays() {
        let short = |text: &'static str| Some(ShortString::from_static(text));
        let headers = FieldTable::from([("a", FieldValue::from("b")), ("z", true.into())]);
        for content_type in [None, short("text/plain")] {
            for content_encoding in [None, short("gzip")] {
                for headers in [None, Some(FieldTable::EMPTY), Some(headers.clone())] {
                    check(Properties {
                        content_type: content_type.clone(),
                        content_encoding: content_encoding.clone(),
                        headers,
                        delivery_mode: Some(2),
                        message_id: short("x-stream-offset"),
                        ..Properties::default()
                    });
                }
            }
        }
    }

    #[test]
    fn a_header_of_the_same_name_is_replaced() {
        check(Properties {
            headers: Some(FieldTable::from([
                (STREAM_OFFSET, FieldValue::from("mine")),
                ("b", 1_i64.into()),
            ])),
            ..Properties::default()
        });
    }

    #[test]
    fn octets_that_are_no_properties_stay_as_they_are() {
        for octets in [&[][..], &[0xff], &[0xff, 0xff, 9]] {
            assert_eq!(with_number(octets, STREAM_OFFSET, 1), octets);
        }
    }
}
