//! The headers exchange: the arguments of a binding against the headers of a message.
//!
//! Owns: the bindings one by one; each is tried for each message.
//! Values compare as RabbitMQ compares them: numbers by value across types, a string equals a byte array
//! of the same octets, and a binding's void matches anything that is present.
//! Spec: AMQP 0-9-1 §3.1.3.4; RabbitMQ's `x-match` of `all`, `any`, `all-with-x`, `any-with-x`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};

use super::super::binding::Binding;
use super::super::error::Error;
use super::super::events::binary;
use super::super::queue::arguments::term;
use super::destinations::Destination;

/// Bindings in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct HeadersTable(BTreeMap<u64, Bound>);

#[derive(Debug)]
struct Bound {
    rule: Rule,
    wanted: Vec<(ShortString, FieldValue)>,
    destination: Destination,
}

/// How many of the wanted headers must match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rule {
    All,
    Any,
}

/// Whether headers that begin with `x-` take part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum XHeaders {
    Ignored,
    Matched,
}

impl HeadersTable {
    pub(super) fn bind(&mut self, binding: &Arc<Binding>, destination: Destination) {
        let (rule, x_headers) =
            match_rule(binding.arguments()).unwrap_or((Rule::All, XHeaders::Ignored));
        let wanted = binding.arguments().iter().filter(|(name, _)| {
            name != "x-match"
                && (x_headers == XHeaders::Matched || !name.as_bytes().starts_with(b"x-"))
        });
        let bound = Bound {
            rule,
            wanted: wanted.collect(),
            destination,
        };
        self.0.insert(binding.id, bound);
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        self.0.remove(&binding.id);
    }

    pub(super) fn route(&self, headers: Option<&FieldTable>, found: &mut Vec<Destination>) {
        let headers: Vec<_> = headers.into_iter().flatten().collect();
        for bound in self.0.values() {
            if bound.matches(&headers) {
                found.push(bound.destination.clone());
            }
        }
    }
}

impl Bound {
    fn matches(&self, headers: &[(ShortString, FieldValue)]) -> bool {
        let is_there = |(name, wanted): &(ShortString, FieldValue)| {
            let header = headers.iter().find(|(found, _)| found == name);
            header.is_some_and(|(_, value)| is_match(wanted, value))
        };
        match self.rule {
            Rule::All => self.wanted.iter().all(is_there),
            Rule::Any => self.wanted.iter().any(is_there),
        }
    }
}

/// Refuses a binding whose `x-match` says nothing known.
pub(crate) fn check_arguments(arguments: &FieldTable) -> Result<(), Error> {
    match_rule(arguments).map(|_| ())
}

fn match_rule(arguments: &FieldTable) -> Result<(Rule, XHeaders), Error> {
    match arguments.get("x-match") {
        None => Ok((Rule::All, XHeaders::Ignored)),
        Some(FieldValue::LongString(text)) => match text.as_ref() {
            b"all" => Ok((Rule::All, XHeaders::Ignored)),
            b"any" => Ok((Rule::Any, XHeaders::Ignored)),
            b"all-with-x" => Ok((Rule::All, XHeaders::Matched)),
            b"any-with-x" => Ok((Rule::Any, XHeaders::Matched)),
            other => Err(Error::InvalidMatch {
                value: binary(other),
            }),
        },
        Some(other) => Err(Error::InvalidMatchType {
            type_name: other.type_name(),
            value: match &other {
                FieldValue::ByteArray(octets) => binary(octets),
                other => term(other),
            },
        }),
    }
}

fn is_match(wanted: &FieldValue, value: &FieldValue) -> bool {
    if let FieldValue::Void = wanted {
        return true;
    }
    match (number(wanted), number(value)) {
        (Some(wanted), Some(value)) => wanted == value,
        (Some(_), None) | (None, Some(_)) => false,
        (None, None) => match (wanted.as_bytes(), value.as_bytes()) {
            (Some(wanted), Some(value)) => wanted == value,
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => wanted == value,
        },
    }
}

/// A value as a number, if it is one; a timestamp is.
fn number(value: &FieldValue) -> Option<Number> {
    match value {
        FieldValue::Float(value) => Some(Number::Float(f64::from(*value))),
        FieldValue::Double(value) => Some(Number::Float(*value)),
        FieldValue::Timestamp(seconds) => Some(Number::Integer(i128::from(*seconds))),
        FieldValue::ShortShortInt(_)
        | FieldValue::ShortShortUint(_)
        | FieldValue::ShortInt(_)
        | FieldValue::ShortUint(_)
        | FieldValue::LongInt(_)
        | FieldValue::LongUint(_)
        | FieldValue::LongLongInt(_) => value
            .as_integer()
            .map(|value| Number::Integer(value.into())),
        FieldValue::Boolean(_)
        | FieldValue::Decimal { .. }
        | FieldValue::LongString(_)
        | FieldValue::Array(_)
        | FieldValue::Table(_)
        | FieldValue::Void
        | FieldValue::ByteArray(_) => None,
    }
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left == right,
            (Self::Float(left), Self::Float(right)) => left == right,
            (Self::Integer(integer), Self::Float(float))
            | (Self::Float(float), Self::Integer(integer)) => {
                // Equal only if the float is that very integer; 2^63 is exact as a float.
                float.fract() == 0.0 && float.abs() < 1e30 && (*float as i128) == *integer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::binding::{BindingKey, DestinationName};
    use super::super::super::error::ResourceKind;
    use super::super::super::name::Name;
    use super::super::super::queue::Durability;
    use super::super::destinations::DestinationId;
    use super::super::test_queue;
    use super::*;

    fn matches(arguments: FieldTable, headers: Option<FieldTable>) -> bool {
        let destination = DestinationName {
            kind: ResourceKind::Queue,
            name: Name::from("q1"),
        };
        let key = BindingKey::new(Name::from("x"), destination, Name::from(""), &arguments);
        let binding = Arc::new(Binding {
            key,
            id: 1,
            target: DestinationId::Queue(1),
            durability: Durability::Transient,
        });
        let mut table = HeadersTable::default();
        table.bind(&binding, Destination::Queue(test_queue(1)));
        let mut found = Vec::new();
        table.route(headers.as_ref(), &mut found);
        table.unbind(&binding);
        assert!(table.0.is_empty());
        !found.is_empty()
    }

    fn one(value: FieldValue) -> FieldTable {
        FieldTable::from([("k", value)])
    }

    #[test]
    fn values_compare_by_number_and_by_octets() {
        let text = |text: &'static [u8]| FieldValue::LongString(Bytes::from_static(text));
        let bytes = |text: &'static [u8]| FieldValue::ByteArray(Bytes::from_static(text));
        for (wanted, value, expected) in [
            (FieldValue::from(1), FieldValue::LongLongInt(1), true),
            (FieldValue::from(1), FieldValue::Double(1.0), true),
            (FieldValue::from(1), FieldValue::Double(1.5), false),
            (FieldValue::from(1), text(b"1"), false),
            (FieldValue::from(1), FieldValue::Boolean(true), false),
            (text(b"a"), bytes(b"a"), true),
            (text(b"a"), text(b"b"), false),
            (FieldValue::Void, text(b"b"), true),
            (text(b"b"), FieldValue::Void, false),
        ] {
            let found = matches(one(wanted.clone()), Some(one(value.clone())));
            assert_eq!(found, expected, "{wanted:?} {value:?}");
        }
        assert!(!matches(one(FieldValue::Void), None));
    }

    #[test]
    fn all_of_nothing_matches_and_any_of_nothing_does_not() {
        assert!(matches(FieldTable::default(), None));
        let any = FieldTable::from([("x-match", FieldValue::from("any"))]);
        assert!(!matches(any, Some(one(FieldValue::from(1)))));
    }

    #[test]
    fn x_headers_take_part_only_when_asked_to() {
        for (rule, value, expected) in [
            ("all", 2, true),
            ("any", 1, false),
            ("all-with-x", 2, false),
            ("all-with-x", 1, true),
            ("any-with-x", 1, true),
        ] {
            let arguments = FieldTable::from([
                ("x-match", FieldValue::from(rule)),
                ("x-k", FieldValue::from(1)),
            ]);
            let headers = FieldTable::from([("x-k", FieldValue::from(value))]);
            assert_eq!(matches(arguments, Some(headers)), expected, "{rule}");
        }
    }

    #[test]
    fn an_unknown_rule_is_refused_with_its_value() {
        let some = FieldTable::from([("x-match", FieldValue::from("some"))]);
        assert_eq!(
            check_arguments(&some).map_err(|error| error.to_string()),
            Err(
                "Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or \
                 any-with-x"
                    .to_owned()
            )
        );
        let number = FieldTable::from([("x-match", FieldValue::from(1))]);
        assert_eq!(
            check_arguments(&number).map_err(|error| error.to_string()),
            Err("Invalid x-match field type signedint (value 1); expected longstr".to_owned())
        );
    }
}
