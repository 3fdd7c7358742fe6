//! Checks of a message's properties that RabbitMQ makes before it routes a message.
//!
//! Owns: the rules for `user-id`, `delivery-mode` and `expiration` with RabbitMQ's texts. `CC` and `BCC`
//! are the broker's, who routes by them.

use crate::amqp::field::ShortString;
use crate::amqp::header::{ContentHeader, PropertiesRef};
use crate::amqp::reply::ReplyCode;
use crate::broker::{User, Vhost};

use super::failure::{Failure, MethodId};

/// Longest expiration, in milliseconds: ten years (RabbitMQ).
const EXPIRATION_MS_MAX: u64 = 315_360_000_000;
/// Who has this tag may publish in another's name.
const IMPERSONATOR_TAG: &str = "impersonator";

/// All of RabbitMQ's checks of a message, for one that comes another way than through frames: what a client would be
/// told when its channel is closed for it.
#[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
pub(crate) fn check_message(
    header: &ContentHeader,
    user: &User,
    vhost: &Vhost,
    message_bytes_max: Option<u64>,
) -> Result<(), (ReplyCode, ShortString)> {
    let told = |failure: Failure| (failure.code, failure.text);
    if let Some(max) = message_bytes_max
        && header.body_bytes > max
    {
        return Err(told(too_large(header.body_bytes, max)));
    }
    let properties = header
        .properties_ref()
        .map_err(|error| told(refuse(format_args!("{error}"))))?;
    check_user_id(&properties, user).map_err(told)?;
    check_time(&properties).map_err(told)?;
    // RabbitMQ looks at CC and BCC before the delivery mode.
    vhost
        .check_keys(&header.raw, &properties)
        .map_err(|error| told(Failure::broker(&error, MethodId::PUBLISH)))?;
    check_delivery_mode(&properties).map_err(told)
}

/// A body over the limit.
pub(super) fn too_large(size_bytes: u64, max_bytes: u64) -> Failure {
    refuse(format_args!(
        "message size {size_bytes} is larger than configured max size {max_bytes}"
    ))
}

/// Refuses a message that claims to come from somebody else.
#[inline]
pub(super) fn check_user_id(properties: &PropertiesRef<'_>, user: &User) -> Result<(), Failure> {
    match properties.user_id {
        Some(claimed) if claimed != user.name().as_bytes() && !user.has_tag(IMPERSONATOR_TAG) => {
            Err(refuse(format_args!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(claimed),
                user.name()
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses a message whose time is no time.
#[inline]
pub(super) fn check_time(properties: &PropertiesRef<'_>) -> Result<(), Failure> {
    match properties.expiration {
        Some(expiration) => check_expiration(expiration),
        None => Ok(()),
    }
}

/// Refuses a message that is neither transient nor persistent.
#[inline]
pub(super) fn check_delivery_mode(properties: &PropertiesRef<'_>) -> Result<(), Failure> {
    match properties.delivery_mode {
        None | Some(1 | 2) => Ok(()),
        Some(mode) => Err(refuse(format_args!(
            "invalid message: {{delivery_mode_unknown,{mode}}}"
        ))),
    }
}

/// A number of milliseconds in decimal digits, as RabbitMQ reads it.
fn check_expiration(expiration: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(expiration);
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let digits = unsigned.len()
        - unsigned
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let (number, rest) = unsigned.split_at(digits);
    let problem = if number.is_empty() {
        "no_integer".to_owned()
    } else if !rest.is_empty() {
        format!("{{leftover_string,{}}}", erlang_string(rest))
    } else if text.starts_with('-') && number.bytes().any(|digit| digit != b'0') {
        format!("{{value_negative,-{}}}", number.trim_start_matches('0'))
    } else if number
        .parse::<u64>()
        .map_or(true, |ms| ms > EXPIRATION_MS_MAX)
    {
        match number.len() {
            // Where Erlang's lines of 80 columns end.
            ..LONG_NUMBER_DIGITS => format!("{{value_too_large,{number}}}"),
            digits => {
                let indent = digits + "invalid expiration '': {".len();
                format!("{{value_too_large,\n{:indent$}{number}}}", "")
            }
        }
    } else {
        return Ok(());
    };
    Err(refuse(format_args!(
        "invalid expiration '{text}': {problem}"
    )))
}

/// A string as Erlang prints it: one with octets that are not printable is a list of numbers.
fn erlang_string(text: &str) -> String {
    let is_printable = |octet: u8| matches!(octet, 8..=13 | 27 | 32..=126 | 160..);
    if !text.bytes().all(is_printable) {
        let numbers: Vec<_> = text.bytes().map(|octet| octet.to_string()).collect();
        return format!("[{}]", numbers.join(","));
    }
    let mut printed = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => printed.extend(['\\', letter]),
            '\u{8}' => printed.push_str("\\b"),
            '\t' => printed.push_str("\\t"),
            '\n' => printed.push_str("\\n"),
            '\u{b}' => printed.push_str("\\v"),
            '\u{c}' => printed.push_str("\\f"),
            '\r' => printed.push_str("\\r"),
            '\u{1b}' => printed.push_str("\\e"),
            letter => printed.push(letter),
        }
    }
    printed.push('"');
    printed
}

/// The quoted number and the number again fill a line of 80 columns, in digits.
const LONG_NUMBER_DIGITS: usize = 20;

fn refuse(explanation: std::fmt::Arguments<'_>) -> Failure {
    Failure::new(
        ReplyCode::PreconditionFailed,
        explanation,
        MethodId::PUBLISH,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(properties: &PropertiesRef<'_>) -> Option<String> {
        check_time(properties)
            .and_then(|()| check_delivery_mode(properties))
            .err()
            .map(|failure| failure.text.to_string())
    }

    /// Every rule with the text that RabbitMQ gives.
    #[test]
    fn refusals_have_the_texts_of_rabbitmq() {
        let expiration = |text: &'static str| PropertiesRef {
            expiration: Some(text.as_bytes()),
            ..PropertiesRef::default()
        };
        let cases = [
            (expiration("soon"), "invalid expiration 'soon': no_integer"),
            (
                expiration("-1"),
                "invalid expiration '-1': {value_negative,-1}",
            ),
            (
                expiration("100ms"),
                "invalid expiration '100ms': {leftover_string,\"ms\"}",
            ),
            (
                expiration("5\0"),
                "invalid expiration '5\0': {leftover_string,[0]}",
            ),
            (
                expiration("5\n\"\\"),
                "invalid expiration '5\n\"\\': {leftover_string,\"\\n\\\"\\\\\"}",
            ),
            (
                PropertiesRef {
                    delivery_mode: Some(7),
                    ..PropertiesRef::default()
                },
                "invalid message: {delivery_mode_unknown,7}",
            ),
            (
                expiration("315360000001"),
                "invalid expiration '315360000001': {value_too_large,315360000001}",
            ),
            (
                expiration("99999999999999999999"),
                "invalid expiration '99999999999999999999': {value_too_large,\n\
                 \u{20}                                           99999999999999999999}",
            ),
        ];
        for (properties, expected) in cases {
            let expected = format!("PRECONDITION_FAILED - {expected}");
            assert_eq!(text_of(&properties), Some(expected));
        }
        for fine in ["0", "60000", "-0", "+5", "315360000000"] {
            assert_eq!(text_of(&expiration(fine)), None, "{fine}");
        }
    }
}
