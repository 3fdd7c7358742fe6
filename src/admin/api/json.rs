//! Between JSON and what AMQP carries: tables, properties, times, and names in paths.
//!
//! Owns: RabbitMQ's mapping: strings are long strings, integers 64-bit ones, other numbers doubles.
//! Bounds: depth of JSON, by its parser.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Map, Number, Value};

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use crate::amqp::header::{Properties, PropertiesRef};
use crate::broker::policy::PolicyValue;

use super::error::ApiError;

/// A table as an object.
pub(super) fn from_table(table: &FieldTable) -> Value {
    let pairs = table.iter();
    let pairs = pairs.map(|(name, value)| (lossy(name.as_bytes()), from_field(&value)));
    Value::Object(pairs.collect())
}

fn from_field(value: &FieldValue) -> Value {
    match value {
        FieldValue::Boolean(flag) => Value::Bool(*flag),
        FieldValue::ShortShortInt(_)
        | FieldValue::ShortShortUint(_)
        | FieldValue::ShortInt(_)
        | FieldValue::ShortUint(_)
        | FieldValue::LongInt(_)
        | FieldValue::LongUint(_)
        | FieldValue::LongLongInt(_) => value.as_integer().unwrap_or_default().into(),
        FieldValue::Float(float) => float_value(f64::from(*float)),
        FieldValue::Double(double) => float_value(*double),
        FieldValue::Decimal { scale, value } => {
            float_value(f64::from(*value) / 10_f64.powi(i32::from(*scale)))
        }
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => lossy(bytes).into(),
        FieldValue::Array(array) => array.iter().map(|value| from_field(&value)).collect(),
        FieldValue::Timestamp(seconds) => (*seconds).into(),
        FieldValue::Table(table) => from_table(table),
        FieldValue::Void => Value::Null,
    }
}

fn float_value(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// An object as a table.
pub(super) fn to_table(value: Option<&Value>) -> Result<FieldTable, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(FieldTable::default()),
        Some(Value::Object(object)) => table_of(object),
        // An empty list is how some tools write an empty object.
        Some(Value::Array(array)) if array.is_empty() => Ok(FieldTable::default()),
        Some(_) => Err(ApiError::bad_request("arguments are not an object")),
    }
}

fn table_of(object: &Map<String, Value>) -> Result<FieldTable, ApiError> {
    let pairs = object.iter().map(|(name, value)| {
        let name = ShortString::try_from(name.as_bytes())
            .map_err(|_| ApiError::bad_request("a name in a table is over 255 bytes"))?;
        Ok((name, to_field(value)?))
    });
    pairs
        .collect::<Result<Vec<_>, ApiError>>()
        .map(FieldTable::from_iter)
}

fn to_field(value: &Value) -> Result<FieldValue, ApiError> {
    Ok(match value {
        Value::Null => FieldValue::Void,
        Value::Bool(flag) => FieldValue::Boolean(*flag),
        Value::Number(number) => match integer(number) {
            Some(integer) => FieldValue::LongLongInt(integer),
            None => FieldValue::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes())),
        Value::Array(values) => {
            let values: Result<Vec<_>, _> = values.iter().map(to_field).collect();
            FieldValue::Array(FieldArray::from_iter(values?))
        }
        Value::Object(object) => FieldValue::Table(table_of(object)?),
    })
}

/// The integer that a number is, also when it is written as 10.0.
pub(super) fn integer(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64()?;
    let is_whole = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    is_whole.then_some(float as i64)
}

/// The value of a policy's key.
pub(super) fn to_policy(value: &Value) -> PolicyValue {
    match value {
        Value::Null => PolicyValue::Null,
        Value::Bool(flag) => PolicyValue::Flag(*flag),
        Value::Number(number) => match integer(number) {
            Some(integer) => PolicyValue::Integer(integer),
            None => PolicyValue::Decimal(number.to_string()),
        },
        Value::String(text) => PolicyValue::Text(text.clone()),
        Value::Array(values) => PolicyValue::List(values.iter().map(to_policy).collect()),
        Value::Object(object) => {
            let pairs = object.iter();
            PolicyValue::Map(
                pairs
                    .map(|(key, value)| (key.clone(), to_policy(value)))
                    .collect(),
            )
        }
    }
}

/// The same back.
pub(super) fn from_policy(value: &PolicyValue) -> Value {
    match value {
        PolicyValue::Null => Value::Null,
        PolicyValue::Flag(flag) => Value::Bool(*flag),
        PolicyValue::Integer(integer) => (*integer).into(),
        PolicyValue::Decimal(digits) => digits
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or(Value::Null, Value::Number),
        PolicyValue::Text(text) => text.clone().into(),
        PolicyValue::List(values) => values.iter().map(from_policy).collect(),
        PolicyValue::Map(pairs) => {
            let pairs = pairs.iter();
            Value::Object(
                pairs
                    .map(|(key, value)| (key.clone(), from_policy(value)))
                    .collect(),
            )
        }
    }
}

/// A message's properties as an object: those that it has.
pub(super) fn from_properties(properties: &PropertiesRef<'_>) -> Value {
    let mut object = Map::new();
    let texts = [
        ("type", properties.message_type),
        ("message_id", properties.message_id),
        ("user_id", properties.user_id),
        ("app_id", properties.app_id),
        ("cluster_id", properties.cluster_id),
        ("expiration", properties.expiration),
        ("reply_to", properties.reply_to),
        ("correlation_id", properties.correlation_id),
        ("content_encoding", properties.content_encoding),
        ("content_type", properties.content_type),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            object.insert(name.to_owned(), lossy(text).into());
        }
    }
    let numbers = [
        ("timestamp", properties.timestamp),
        ("priority", properties.priority.map(u64::from)),
        ("delivery_mode", properties.delivery_mode.map(u64::from)),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            object.insert(name.to_owned(), number.into());
        }
    }
    if let Some(headers) = properties.headers
        && let Ok(table) = FieldTable::from_elements(Bytes::copy_from_slice(headers))
    {
        object.insert("headers".to_owned(), from_table(&table));
    }
    match object.is_empty() {
        // As RabbitMQ writes an empty object.
        true => Value::Array(Vec::new()),
        false => Value::Object(object),
    }
}

/// An object as a message's properties; an unknown one means nothing, as in RabbitMQ.
pub(super) fn to_properties(object: &Map<String, Value>) -> Result<Properties, ApiError> {
    let mut properties = Properties::default();
    for (name, value) in object {
        let wrong = || ApiError::bad_request(format!("property {name} cannot be {value}"));
        let text = || {
            let text = value.as_str();
            let text = text.ok_or_else(|| ApiError::bad_term("not_string", name.as_str()))?;
            ShortString::try_from(text.as_bytes())
                .map(Some)
                .map_err(|_| wrong())
        };
        let number = || {
            let number = value.as_number().and_then(integer);
            number.ok_or_else(|| ApiError::bad_term("not_int", name.as_str()))
        };
        let octet = || u8::try_from(number()?).map_err(|_| wrong());
        match name.as_str() {
            "content_type" => properties.content_type = text()?,
            "content_encoding" => properties.content_encoding = text()?,
            "headers" => properties.headers = Some(to_table(Some(value))?),
            "delivery_mode" => {
                let mode = number()?;
                let unknown = || {
                    let problem = format!("{{delivery_mode_unknown,{mode}}}");
                    let text = format!("406 PRECONDITION_FAILED - invalid message: {problem}");
                    ApiError::bad_request(text)
                };
                properties.delivery_mode = Some(u8::try_from(mode).map_err(|_| unknown())?);
            }
            "priority" => properties.priority = Some(octet()?),
            "correlation_id" => properties.correlation_id = text()?,
            "reply_to" => properties.reply_to = text()?,
            "expiration" => properties.expiration = text()?,
            "message_id" => properties.message_id = text()?,
            "timestamp" => {
                let seconds = u64::try_from(number()?).map_err(|_| wrong())?;
                properties.timestamp = Some(seconds);
            }
            "type" => properties.message_type = text()?,
            "user_id" => properties.user_id = text()?,
            "app_id" => properties.app_id = text()?,
            "cluster_id" => properties.cluster_id = text()?,
            _ => {}
        }
    }
    Ok(properties)
}

/// Octets as text; what is no UTF-8 shows as the replacement character.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether `+` means a space, as it does in queries and not in paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Plus {
    IsPlus,
    IsSpace,
}

/// Undoes percent-encoding; none if what comes out is no UTF-8. A percent sign that begins no code stays.
pub(super) fn percent_decode(text: &str, plus: Plus) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(octet) = bytes.get(at) {
        let code = match octet {
            b'%' => bytes
                .get(at + 1..at + 3)
                .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        decoded.push(match (code, octet) {
            (Some(code), _) => code,
            (None, b'+') if plus == Plus::IsSpace => b' ',
            (None, octet) => *octet,
        });
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

/// Percent-encodes what does not stand for itself in a part of a path.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-_.~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            let _ = write!(encoded, "%{octet:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_come_through_percent_encoding() {
        for name in ["/", "a b", "%", "ä/#?", ""] {
            let encoded = percent_encode(name);
            assert!(!encoded.contains('/'));
            assert_eq!(
                percent_decode(&encoded, Plus::IsPlus).as_deref(),
                Some(name)
            );
        }
        assert_eq!(
            percent_decode("a+b%2", Plus::IsSpace).as_deref(),
            Some("a b%2")
        );
        assert_eq!(percent_decode("%ff", Plus::IsPlus), None);
    }

    /// What JSON can say comes back from a table as it was.
    #[test]
    fn objects_come_through_tables() {
        let object = json!({
            "text": "ä", "integer": -5, "float": 1.5, "flag": true, "none": null,
            "list": [1, "x", [true]], "table": {"inner": {}},
        });
        let table = to_table(Some(&object)).expect("an object");
        assert_eq!(from_table(&table), object);
        assert!(to_table(Some(&json!("x"))).is_err());
        let table = to_table(Some(&json!({"ten": 10.0}))).expect("an object");
        assert_eq!(table.get("ten").and_then(|ten| ten.as_integer()), Some(10));
    }

    #[test]
    fn wrong_properties_are_refused() {
        let read = |value: Value| match value {
            Value::Object(object) => to_properties(&object),
            _ => unreachable!("objects only"),
        };
        let properties = read(json!({"delivery_mode": 2, "headers": {"a": 1}})).expect("known");
        assert_eq!(properties.delivery_mode, Some(2));
        assert!(read(json!({"delivery_mode": 256})).is_err());
        assert!(read(json!({"content_type": 1})).is_err());
        assert!(read(json!({"colour": "red"})).is_ok(), "it means nothing");
    }
}
