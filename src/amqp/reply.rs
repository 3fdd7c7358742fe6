//! Reply codes: their numbers, names, and whether they close the channel or the connection.
//!
//! Spec: AMQP 0-9-1 §1.8 "Domains", reply-code; the XML's constants of class `soft-error` and
//! `hard-error`. Names are printed as RabbitMQ prints them.

use std::fmt;

use crate::amqp::field::ShortString;
use crate::amqp::limits::SHORT_STRING_BYTES_MAX;

/// Why a channel or a connection is closed, or a message returned.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u16)]
pub enum ReplyCode {
    /// 200: nothing went wrong (`reply-success`).
    Success = 200,
    /// 311: the content is too large now.
    ContentTooLarge = 311,
    /// 312: a mandatory message reached no queue; RabbitMQ's addition to 0-9-1.
    NoRoute = 312,
    /// 313: an immediate message found no consumer.
    NoConsumers = 313,
    /// 320: an operator closes the connection.
    ConnectionForced = 320,
    /// 402: a virtual host name without meaning.
    InvalidPath = 402,
    /// 403: no right to do this.
    AccessRefused = 403,
    /// 404: no such queue, exchange or binding.
    NotFound = 404,
    /// 405: somebody else holds the queue exclusively.
    ResourceLocked = 405,
    /// 406: a condition of the request does not hold.
    PreconditionFailed = 406,
    /// 501: a frame that cannot be decoded.
    FrameError = 501,
    /// 502: a field with an illegal value.
    SyntaxError = 502,
    /// 503: a method that is not legal in this order.
    CommandInvalid = 503,
    /// 504: a channel that is not open, or open already.
    ChannelError = 504,
    /// 505: a frame that was not expected here.
    UnexpectedFrame = 505,
    /// 506: the server lacks resources.
    ResourceError = 506,
    /// 530: forbidden by the server's settings.
    NotAllowed = 530,
    /// 540: not implemented.
    NotImplemented = 540,
    /// 541: the server failed.
    InternalError = 541,
}

impl ReplyCode {
    /// Every code, in ascending order.
    pub const ALL: [Self; 19] = [
        Self::Success,
        Self::ContentTooLarge,
        Self::NoRoute,
        Self::NoConsumers,
        Self::ConnectionForced,
        Self::InvalidPath,
        Self::AccessRefused,
        Self::NotFound,
        Self::ResourceLocked,
        Self::PreconditionFailed,
        Self::FrameError,
        Self::SyntaxError,
        Self::CommandInvalid,
        Self::ChannelError,
        Self::UnexpectedFrame,
        Self::ResourceError,
        Self::NotAllowed,
        Self::NotImplemented,
        Self::InternalError,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code with this number, if there is one.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The name that opens a reply text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "REPLY_SUCCESS",
            Self::ContentTooLarge => "CONTENT_TOO_LARGE",
            Self::NoRoute => "NO_ROUTE",
            Self::NoConsumers => "NO_CONSUMERS",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::InvalidPath => "INVALID_PATH",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether this code closes the whole connection (the XML's `hard-error`) rather than the
    /// channel alone.
    // req: REPLY-1
    pub const fn is_connection_error(self) -> bool {
        match self {
            Self::ConnectionForced
            | Self::InvalidPath
            | Self::FrameError
            | Self::SyntaxError
            | Self::CommandInvalid
            | Self::ChannelError
            | Self::UnexpectedFrame
            | Self::ResourceError
            | Self::NotAllowed
            | Self::NotImplemented
            | Self::InternalError => true,
            Self::Success
            | Self::ContentTooLarge
            | Self::NoRoute
            | Self::NoConsumers
            | Self::AccessRefused
            | Self::NotFound
            | Self::ResourceLocked
            | Self::PreconditionFailed => false,
        }
    }

    /// The reply text for a close with this code: `NAME - explanation`, or the name alone if there
    /// is nothing to explain. Longer than a short string, it ends in `...` after 252 bytes.
    // req: REPLY-2
    pub fn text(self, explanation: impl fmt::Display) -> ShortString {
        let mut text = format!("{} - ", self.name());
        let prefix_bytes = text.len();
        // Writing to a string cannot fail; a `Display` that fails leaves what it wrote.
        let _ = fmt::write(&mut text, format_args!("{explanation}"));
        if text.len() == prefix_bytes {
            text.truncate(self.name().len());
        }
        if text.len() > SHORT_STRING_BYTES_MAX {
            let cut = text.floor_char_boundary(SHORT_STRING_BYTES_MAX - ELLIPSIS.len());
            text.truncate(cut);
            text.push_str(ELLIPSIS);
        }
        ShortString::truncated(text)
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands for the rest of a reply text that is too long.
const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_leads_back_to_its_code() {
        for code in ReplyCode::ALL {
            assert_eq!(ReplyCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ReplyCode::from_number(0), None);
        assert_eq!(ReplyCode::from_number(407), None);
    }

    // req: REPLY-1
    #[test]
    fn soft_errors_close_the_channel_and_hard_errors_the_connection() {
        for code in ReplyCode::ALL {
            let hard = matches!(code.number(), 320 | 402 | 501..=506 | 530 | 540 | 541);
            assert_eq!(code.is_connection_error(), hard, "{code}");
        }
    }

    // req: REPLY-2
    #[test]
    fn text_is_name_and_explanation() {
        assert_eq!(
            ReplyCode::NotFound.text("no queue 'q'"),
            "NOT_FOUND - no queue 'q'"
        );
        assert_eq!(ReplyCode::InternalError.text(""), "INTERNAL_ERROR");
    }

    // req: REPLY-2
    #[test]
    fn long_text_is_cut_at_252_bytes() {
        let text = ReplyCode::NotFound.text("x".repeat(300));
        assert_eq!(text.len(), 255);
        assert!(text.as_bytes().ends_with(b"xxx..."));
        let fits = ReplyCode::NotFound.text("x".repeat(255 - "NOT_FOUND - ".len()));
        assert_eq!(fits.len(), 255);
        assert!(fits.as_bytes().ends_with(b"xxx"));
    }

    // req: REPLY-2
    #[test]
    fn long_text_is_cut_between_characters() {
        let text = ReplyCode::NotFound.text("ä".repeat(300));
        assert!(text.as_str().is_some(), "still UTF-8");
        assert!(text.len() <= 255);
    }
}
