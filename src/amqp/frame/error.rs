//! What can be wrong with a frame, in RabbitMQ's words.

use std::fmt;

use crate::amqp::limits::SNIPPET_BYTES_MAX;
use crate::amqp::reply::ReplyCode;

/// A frame that cannot be: the connection is closed with 501, class and method id 0.
///
/// `Display` is the explanation of the reply text, as RabbitMQ prints it.
// req: FRAME-5
// req: FRAME-6
// req: FRAME-7
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The payload is longer than the frame-max allows; known from the frame header alone.
    #[error(
        "type {type_number}, all octets = <<>>: {{frame_too_large,{payload_bytes},{limit_bytes}}}"
    )]
    TooLarge {
        /// The frame's type as it came.
        type_number: u8,
        /// The frame's channel.
        channel: u16,
        /// Length of the payload, in bytes.
        payload_bytes: u32,
        /// The most that the frame-max leaves for a payload, in bytes.
        limit_bytes: u32,
    },
    /// A type that does not exist, or a payload that is none of its type.
    #[error("{}: unknown_frame", FrameDescription { type_number: *type_number, snippet: *snippet })]
    Unknown {
        /// The frame's type as it came.
        type_number: u8,
        /// The frame's channel.
        channel: u16,
        /// How the payload begins.
        snippet: OctetSnippet,
    },
    /// The last octet is not 0xCE.
    #[error("{}", WrongEndText { type_number: *type_number, end: *end, snippet: *snippet })]
    WrongEnd {
        /// The frame's type as it came.
        type_number: u8,
        /// The frame's channel.
        channel: u16,
        /// The octet in the place of the end octet.
        end: u8,
        /// How the payload begins.
        snippet: OctetSnippet,
    },
}

impl FrameError {
    /// 501 for all of them.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::TooLarge { .. } | Self::Unknown { .. } | Self::WrongEnd { .. } => {
                ReplyCode::FrameError
            }
        }
    }
}

/// The first octets of a payload, as Erlang prints a binary.
///
/// `all octets = <<0,1,2>>`, `all octets = <<"abc">>` if all can be printed, or
/// `first 16 octets = ...` if there are more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OctetSnippet {
    octets: [u8; SNIPPET_BYTES_MAX],
    /// How many of `octets` are the payload's.
    octet_count: u8,
    whole: bool,
}

impl OctetSnippet {
    /// The beginning of `payload`.
    pub fn of(payload: &[u8]) -> Self {
        let mut octets = [0; SNIPPET_BYTES_MAX];
        let mut octet_count = 0;
        for (slot, octet) in octets.iter_mut().zip(payload) {
            *slot = *octet;
            octet_count += 1;
        }
        Self {
            octets,
            octet_count,
            whole: payload.len() <= SNIPPET_BYTES_MAX,
        }
    }

    /// The octets that it holds.
    pub fn octets(&self) -> &[u8] {
        self.octets
            .get(..usize::from(self.octet_count))
            .unwrap_or_default()
    }
}

impl fmt::Display for OctetSnippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.whole {
            "all octets = "
        } else {
            "first 16 octets = "
        })?;
        let octets = self.octets();
        if !octets.is_empty() && octets.iter().copied().all(is_printable) {
            return write_text(octets, f);
        }
        write_numbers(octets, f)
    }
}

/// Octets as numbers, `<<1,2,3>>`: Erlang's way to print a binary that is no text.
pub(in crate::amqp) fn write_numbers(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("<<")?;
    for (index, octet) in octets.iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write!(f, "{octet}")?;
    }
    f.write_str(">>")
}

/// Octets as text, `<<"abc">>`.
fn write_text(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("<<\"")?;
    for &octet in octets {
        match octet {
            0x08 => f.write_str("\\b")?,
            b'\t' => f.write_str("\\t")?,
            b'\n' => f.write_str("\\n")?,
            0x0B => f.write_str("\\v")?,
            0x0C => f.write_str("\\f")?,
            b'\r' => f.write_str("\\r")?,
            0x1B => f.write_str("\\e")?,
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            octet => write!(f, "{}", char::from(octet))?,
        }
    }
    f.write_str("\">>")
}

/// What Erlang counts as text: Latin-1 without control characters, but for those with an escape.
fn is_printable(octet: u8) -> bool {
    matches!(octet, 0x08..=0x0D | 0x1B | 0x20..=0x7E | 0xA0..=0xFF)
}

/// `type 1, all octets = <<>>`.
pub(super) struct FrameDescription {
    pub(super) type_number: u8,
    pub(super) snippet: OctetSnippet,
}

impl fmt::Display for FrameDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {}, {}", self.type_number, self.snippet)
    }
}

/// The text of [`FrameError::WrongEnd`], which Erlang breaks where it would pass its line length.
struct WrongEndText {
    type_number: u8,
    end: u8,
    snippet: OctetSnippet,
}

impl fmt::Display for WrongEndText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Last column that Erlang's pretty printer fills.
        const COLUMN_MAX: usize = 78;
        let Self {
            type_number,
            end,
            snippet,
        } = *self;
        let head = format!(
            "{}: ",
            FrameDescription {
                type_number,
                snippet
            }
        );
        let term = format!("{{invalid_frame_end_marker,{end}}}");
        // A break inside the snippet itself starts a new line, from which columns count again.
        let column = head.chars().count();
        if column + term.len() <= COLUMN_MAX {
            write!(f, "{head}{term}")
        } else {
            write!(
                f,
                "{head}{{invalid_frame_end_marker,\n{:1$}{end}}}",
                "",
                column + 1
            )
        }
    }
}
