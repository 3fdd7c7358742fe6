//! The arguments of a consumer: which type of queue knows which, and what they mean.
//!
//! Owns: the checks of `basic.consume` with RabbitMQ's texts, in RabbitMQ's order.
//! Where RabbitMQ fails with 541 on an `x-stream-offset` that it cannot read, it is refused with the
//! words that RabbitMQ has for the others.
//! Spec: RabbitMQ's consumer arguments; `spec/amqp.md`.

use std::time::Duration;

use smallvec::SmallVec;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::super::error::{Error, Resource};
use super::super::super::name::Name;
use super::{QueueKind, age, checks};

/// Where a consumer of a stream begins (`x-stream-offset`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum StreamOffset {
    /// At the oldest message that is kept.
    First,
    /// At the newest one.
    Last,
    /// At what is published from now on.
    #[default]
    Next,
    /// At this offset, or the first one behind it.
    Number(u64),
    /// At the first message published then or later, in milliseconds since 1970.
    UnixMs(u64),
    /// At what was published this long ago.
    Ago(Duration),
}

/// Most values of one `x-stream-filter`; the rest is not looked at.
const FILTER_VALUES_MAX: usize = 64;

/// What the arguments of a consumer mean.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ConsumerArguments {
    /// `x-priority`.
    pub(crate) priority: i64,
    /// `x-stream-offset`.
    pub(crate) offset: StreamOffset,
    /// `x-stream-filter`: only messages with one of these values; all if there are none.
    pub(crate) filter: SmallVec<[Name; 1]>,
    /// `x-stream-match-unfiltered`: and messages without a value.
    pub(crate) match_unfiltered: bool,
}

impl ConsumerArguments {
    /// Checks what a consumer of a queue of this kind asks for, and reads it.
    pub(crate) fn read(
        arguments: &FieldTable,
        kind: QueueKind,
        resource: &Resource,
    ) -> Result<Self, Error> {
        let mut read = Self::default();
        let invalid = |argument: &str, problem| Error::InvalidArgument {
            argument: argument.to_owned(),
            resource: resource.clone(),
            problem,
        };
        let is_stream = kind == QueueKind::Stream;
        if let Some(value) = arguments.get("x-priority")
            && !is_stream
        {
            read.priority = value
                .as_integer()
                .ok_or_else(|| invalid("x-priority", checks::not_an_integer(&value)))?;
        }
        if let Some(value) = arguments.get("x-cancel-on-ha-failover")
            && kind == QueueKind::Classic
            && value.as_bool().is_none()
        {
            let problem = checks::unacceptable_type(&value);
            return Err(invalid("x-cancel-on-ha-failover", problem));
        }
        if let Some(value) = arguments.get("x-stream-offset")
            && is_stream
        {
            read.offset = offset(&value).ok_or_else(|| {
                let problem = format!("{{invalid_stream_offset_arg,{}}}", typed_term(&value));
                invalid("x-stream-offset", problem)
            })?;
        }
        for (argument, known_to) in KNOWN_TO {
            if !known_to.contains(&kind) && arguments.contains(argument) {
                return Err(Error::InvalidArgumentForType {
                    argument: (*argument).to_owned(),
                    resource: resource.clone(),
                    queue_type: kind.module_name(),
                });
            }
        }
        if is_stream {
            read.read_filter(arguments, invalid)?;
        }
        Ok(read)
    }

    fn read_filter(
        &mut self,
        arguments: &FieldTable,
        invalid: impl Fn(&str, String) -> Error,
    ) -> Result<(), Error> {
        let name = |value: &FieldValue| match value {
            FieldValue::LongString(bytes) => Ok(Name::new(bytes)),
            other => Err(invalid("x-stream-filter", checks::unacceptable_type(other))),
        };
        match arguments.get("x-stream-filter") {
            None => {}
            Some(FieldValue::Array(values)) => {
                for value in values.iter().take(FILTER_VALUES_MAX) {
                    self.filter.push(name(&value)?);
                }
            }
            Some(value) => self.filter.push(name(&value)?),
        }
        if let Some(value) = arguments.get("x-stream-match-unfiltered") {
            self.match_unfiltered = value.as_bool().ok_or_else(|| {
                invalid(
                    "x-stream-match-unfiltered",
                    checks::unacceptable_type(&value),
                )
            })?;
        }
        Ok(())
    }
}

/// Which types know an argument; a consumer of another type is refused with it.
const KNOWN_TO: &[(&str, &[QueueKind])] = &[
    ("x-priority", &[QueueKind::Classic, QueueKind::Quorum]),
    ("x-cancel-on-ha-failover", &[QueueKind::Classic]),
    ("x-stream-offset", &[QueueKind::Stream]),
];

// req: STREAM-2
fn offset(value: &FieldValue) -> Option<StreamOffset> {
    match value {
        FieldValue::LongString(text) => match text.as_ref() {
            b"first" => Some(StreamOffset::First),
            b"last" => Some(StreamOffset::Last),
            b"next" => Some(StreamOffset::Next),
            text => age(text).map(StreamOffset::Ago),
        },
        FieldValue::Timestamp(seconds) => Some(StreamOffset::UnixMs(seconds.saturating_mul(1_000))),
        // A number below 0 is before the first message.
        other => {
            let number = other.as_integer()?;
            Some(StreamOffset::Number(u64::try_from(number).unwrap_or(0)))
        }
    }
}

/// A value with its type, as RabbitMQ prints the pair.
fn typed_term(value: &FieldValue) -> String {
    match value {
        FieldValue::LongString(bytes) => {
            format!("{{longstr,<<\"{}\">>}}", String::from_utf8_lossy(bytes))
        }
        other => format!("{{{},{}}}", other.type_name(), super::term(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::super::error::ResourceKind;
    use super::*;

    fn resource() -> Resource {
        Resource {
            kind: ResourceKind::Queue,
            vhost: Name::from("/"),
            name: Name::from("q"),
        }
    }

    fn offset_of(value: impl Into<FieldValue>) -> Result<StreamOffset, String> {
        let arguments = FieldTable::from([("x-stream-offset", value.into())]);
        ConsumerArguments::read(&arguments, QueueKind::Stream, &resource())
            .map(|read| read.offset)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn all_forms_of_an_offset_are_read() {
        assert_eq!(offset_of("first"), Ok(StreamOffset::First));
        assert_eq!(offset_of("last"), Ok(StreamOffset::Last));
        assert_eq!(offset_of("next"), Ok(StreamOffset::Next));
        assert_eq!(offset_of(7_i64), Ok(StreamOffset::Number(7)));
        assert_eq!(offset_of(-7_i64), Ok(StreamOffset::Number(0)));
        assert_eq!(
            offset_of(FieldValue::Timestamp(5)),
            Ok(StreamOffset::UnixMs(5_000))
        );
        let seven_days = Duration::from_secs(7 * 86_400);
        assert_eq!(offset_of("7D"), Ok(StreamOffset::Ago(seven_days)));
        assert_eq!(
            offset_of("1h"),
            Ok(StreamOffset::Ago(Duration::from_secs(3_600)))
        );
    }

    #[test]
    fn what_is_no_offset_is_refused_with_the_words_of_rabbitmq() {
        for text in ["1", "0s", "1x", "bad", ""] {
            let expected = format!(
                "invalid arg 'x-stream-offset' for queue 'q' in vhost '/': \
                 {{invalid_stream_offset_arg,{{longstr,<<\"{text}\">>}}}}"
            );
            assert_eq!(offset_of(text), Err(expected));
        }
        assert!(offset_of(true).is_err());
    }

    #[test]
    fn arguments_of_other_types_are_refused() {
        let refused = |argument: &'static str, kind| {
            let arguments = FieldTable::from([(argument, FieldValue::from(1_i64))]);
            ConsumerArguments::read(&arguments, kind, &resource()).is_err()
        };
        assert!(refused("x-priority", QueueKind::Stream));
        assert!(!refused("x-priority", QueueKind::Quorum));
        assert!(refused("x-stream-offset", QueueKind::Classic));
        assert!(refused("x-stream-offset", QueueKind::Quorum));
        assert!(refused("x-cancel-on-ha-failover", QueueKind::Quorum));
        assert!(!refused("x-unknown", QueueKind::Stream));
    }
}
