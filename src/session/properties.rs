//! Checks of a message's properties that RabbitMQ makes before it routes a message.
//!
//! Owns: the rules for `user-id`, `delivery-mode` and `expiration` with RabbitMQ's texts. `CC` and `BCC`
//! are the broker's, who routes by them.

use crate::amqp::header::PropertiesRef;
use crate::amqp::reply::ReplyCode;
use crate::broker::User;

use super::failure::{Failure, MethodId};

/// Longest expiration, in milliseconds: ten years (RabbitMQ).
const EXPIRATION_MS_MAX: u64 = 315_360_000_000;
/// Who has this tag may publish in another's name.
const IMPERSONATOR_TAG: &str = "impersonator";

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

/// Refuses a message whose other properties do not hold.
#[inline]
pub(super) fn check(properties: &PropertiesRef<'_>) -> Result<(), Failure> {
    if let Some(expiration) = properties.expiration {
        check_expiration(expiration)?;
    }
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
        format!("{{leftover_string,\"{rest}\"}}")
    } else if text.starts_with('-') && number.bytes().any(|digit| digit != b'0') {
        format!("{{value_negative,-{}}}", number.trim_start_matches('0'))
    } else if number
        .parse::<u64>()
        .map_or(true, |ms| ms > EXPIRATION_MS_MAX)
    {
        format!("{{value_too_large,{number}}}")
    } else {
        return Ok(());
    };
    Err(refuse(format_args!(
        "invalid expiration '{text}': {problem}"
    )))
}

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
        check(properties)
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
