//! Checks of a message's properties that RabbitMQ makes before it routes a message.
//!
//! Owns: the rules for `user-id`, `delivery-mode` and `expiration` with RabbitMQ's texts. `CC` and `BCC`
//! are the broker's, who routes by them.

use crate::amqp::header::PropertiesRef;
use crate::amqp::reply::ReplyCode;

use super::failure::{Failure, MethodId};

/// Longest expiration, in milliseconds (RabbitMQ's timer).
const EXPIRATION_MS_MAX: u64 = 4_294_967_295;

/// Refuses a message whose properties do not hold. `user` is who a `user-id` must name; who may speak for
/// others gives none.
pub(super) fn check(properties: &PropertiesRef<'_>, user: Option<&[u8]>) -> Result<(), Failure> {
    if let (Some(claimed), Some(user)) = (properties.user_id, user)
        && claimed != user
    {
        return Err(refuse(format_args!(
            "user_id property set to '{}' but authenticated user was '{}'",
            String::from_utf8_lossy(claimed),
            String::from_utf8_lossy(user)
        )));
    }
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
        format!("{{value_too_big,{number}}}")
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
        check(properties, Some(b"guest"))
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
                PropertiesRef {
                    user_id: Some(b""),
                    ..PropertiesRef::default()
                },
                "user_id property set to '' but authenticated user was 'guest'",
            ),
        ];
        for (properties, expected) in cases {
            let expected = format!("PRECONDITION_FAILED - {expected}");
            assert_eq!(text_of(&properties), Some(expected));
        }
        let somebody = PropertiesRef {
            user_id: Some(b"somebody"),
            ..PropertiesRef::default()
        };
        assert!(check(&somebody, None).is_ok(), "an impersonator");
        for fine in ["0", "60000", "-0", "+5"] {
            assert_eq!(text_of(&expiration(fine)), None, "{fine}");
        }
    }
}
