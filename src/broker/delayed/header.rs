//! The header of a delayed message: how long it waits, and that it has waited.
//!
//! Owns: `x-delay`, in the forms that the plugin takes.
//! Spec: `spec/amqp.md`, DELAY-1, DELAY-2.

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};

use super::super::limits::DELAY_MS_MAX;

/// The header that says how long a message waits, in milliseconds.
const DELAY_HEADER: &str = "x-delay";

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
}
