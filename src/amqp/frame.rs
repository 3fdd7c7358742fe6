//! Frames: the envelope around methods, content headers, bodies and heartbeats.
//!
//! Owns: cutting a stream of bytes into frames and writing frames. Knows only as much of a payload
//! as tells whether the frame can exist at all, as RabbitMQ's reader does.
//! Bound: a frame's size is compared with the frame-max before its payload is waited for.
//! Spec: AMQP 0-9-1 §4.2.2, §4.2.3; `spec/amqp.md` FRAME-1 to FRAME-9.

mod encode;
mod error;
mod protocol_header;

use bytes::{Buf, Bytes, BytesMut};

use crate::amqp::limits::{
    FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FRAME_TOLERANCE_BYTES,
};

pub use encode::{
    frame_head, put_body, put_body_frames, put_content, put_frame_head, put_header, put_heartbeat,
    put_method, put_method_with_content,
};
pub(super) use error::write_numbers;
pub use error::{FrameError, OctetSnippet};
pub use protocol_header::{ProtocolHeader, ProtocolHeaderError};

/// What a frame carries (constants `frame-method`, `frame-header`, `frame-body`,
/// `frame-heartbeat`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum FrameKind {
    /// 1: a method, at least its class and method id.
    Method = 1,
    /// 2: a content header, at least class, weight and body size.
    Header = 2,
    /// 3: a piece of a content's body.
    Body = 3,
    /// 8: a sign of life, without payload.
    Heartbeat = 8,
}

impl FrameKind {
    /// The octet on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with this octet, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }

    /// Whether a payload of this length can be one of this kind.
    const fn fits(self, payload_bytes: usize) -> bool {
        match self {
            Self::Method => payload_bytes >= METHOD_PAYLOAD_BYTES_MIN,
            Self::Header => payload_bytes >= HEADER_PAYLOAD_BYTES_MIN,
            Self::Body => true,
            Self::Heartbeat => payload_bytes == 0,
        }
    }
}

/// One frame whose payload shares the read buffer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// The octets between frame header and end octet.
    pub payload: Bytes,
}

impl Frame {
    /// `type 8, all octets = <<>>`: how RabbitMQ describes a frame in a reply text of code 505.
    pub fn description(&self) -> impl std::fmt::Display + use<> {
        error::FrameDescription {
            type_number: self.kind.number(),
            snippet: OctetSnippet::of(&self.payload),
        }
    }
}

/// One frame whose payload is borrowed from the read buffer: nothing is counted or copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameRef<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// The octets between frame header and end octet.
    pub payload: &'a [u8],
    /// Length of the whole frame, in bytes: the next one begins there.
    pub frame_bytes: usize,
}

/// `type u8 | channel u16 | size u32`: what stands in front of a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    /// The type's number as it came, which may be no [`FrameKind`].
    pub type_number: u8,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// Length of the payload that follows, in bytes.
    pub payload_bytes: u32,
}

impl FrameHeader {
    /// Reads a frame header; `None` if fewer than seven bytes are there.
    pub fn parse(input: &[u8]) -> Option<Self> {
        let &[type_number, c1, c0, s3, s2, s1, s0] = input.first_chunk::<FRAME_HEADER_BYTES>()?;
        Some(Self {
            type_number,
            channel: u16::from_be_bytes([c1, c0]),
            payload_bytes: u32::from_be_bytes([s3, s2, s1, s0]),
        })
    }

    /// Refuses a payload that is longer than the negotiated frame-max allows.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] if it exceeds `frame_bytes_max - 8` by more than RabbitMQ's
    /// tolerance of 8 bytes.
    // req: FRAME-4
    pub fn check_size(&self, frame_bytes_max: u32) -> Result<(), FrameError> {
        let limit_bytes = frame_bytes_max.saturating_sub(FRAME_OVERHEAD_BYTES);
        if self.payload_bytes > limit_bytes.saturating_add(FRAME_TOLERANCE_BYTES) {
            return Err(FrameError::TooLarge {
                type_number: self.type_number,
                channel: self.channel,
                payload_bytes: self.payload_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }
}

/// Looks at the first frame in `input`; `None` if it is not complete yet.
///
/// `frame_bytes_max` is the negotiated frame-max. The result is the same however the stream is cut
/// into reads, but that a frame that is too large is refused as soon as its header is there.
///
/// # Errors
/// What is wrong with the frame; see [`FrameError`] for what the connection must do.
// req: FRAME-1
// req: FRAME-2
// req: FRAME-3
pub fn parse(input: &[u8], frame_bytes_max: u32) -> Result<Option<FrameRef<'_>>, FrameError> {
    let Some(header) = FrameHeader::parse(input) else {
        return Ok(None);
    };
    header.check_size(frame_bytes_max)?;
    let payload_bytes = header.payload_bytes as usize;
    let payload_end = FRAME_HEADER_BYTES + payload_bytes;
    let Some(&end) = input.get(payload_end) else {
        return Ok(None);
    };
    let payload = input
        .get(FRAME_HEADER_BYTES..payload_end)
        .unwrap_or_default();
    debug_assert_eq!(
        payload.len(),
        payload_bytes,
        "the end octet is behind the payload"
    );
    let FrameHeader {
        type_number,
        channel,
        ..
    } = header;
    if end != FRAME_END {
        let snippet = OctetSnippet::of(payload);
        return Err(FrameError::WrongEnd {
            type_number,
            channel,
            end,
            snippet,
        });
    }
    match FrameKind::from_number(type_number) {
        Some(kind) if kind.fits(payload_bytes) => Ok(Some(FrameRef {
            kind,
            channel,
            payload,
            frame_bytes: payload_end + 1,
        })),
        Some(_) | None => {
            let snippet = OctetSnippet::of(payload);
            Err(FrameError::Unknown {
                type_number,
                channel,
                snippet,
            })
        }
    }
}

/// Takes the first frame out of `input`; `None` if it is not complete yet.
///
/// Like [`parse`], with a payload that lives on. Frames that are wrong stay in `input`: after an
/// error the stream is not to be read any further.
///
/// # Errors
/// What is wrong with the frame; see [`FrameError`] for what the connection must do.
pub fn decode(input: &mut BytesMut, frame_bytes_max: u32) -> Result<Option<Frame>, FrameError> {
    let Some(FrameRef {
        kind,
        channel,
        payload,
        ..
    }) = parse(input, frame_bytes_max)?
    else {
        return Ok(None);
    };
    let payload_bytes = payload.len();
    input.advance(FRAME_HEADER_BYTES);
    // An empty payload must not count as a user of the buffer.
    let payload = if payload_bytes == 0 {
        Bytes::new()
    } else {
        input.split_to(payload_bytes).freeze()
    };
    input.advance(1);
    Ok(Some(Frame {
        kind,
        channel,
        payload,
    }))
}

/// Length of all complete frames at the start of `input`, in bytes.
///
/// A reader that calls `buffer.split_to(complete_bytes(..)).freeze()` and then walks the frames with
/// [`parse`] shares one buffer with every value that it decodes, and counts one user per value
/// instead of one per frame. Stops in front of a frame that is too large; `parse` will say so.
pub fn complete_bytes(input: &[u8], frame_bytes_max: u32) -> usize {
    let mut end = 0;
    while let Some(header) = input.get(end..).and_then(FrameHeader::parse) {
        if header.check_size(frame_bytes_max).is_err() {
            break;
        }
        let frame_bytes = FRAME_HEADER_BYTES + header.payload_bytes as usize + 1;
        if input.len() - end < frame_bytes {
            break;
        }
        end += frame_bytes;
    }
    end
}

/// Class and method id.
const METHOD_PAYLOAD_BYTES_MIN: usize = 4;

/// Class, weight and body size; RabbitMQ's reader asks for no more.
const HEADER_PAYLOAD_BYTES_MIN: usize = 12;

#[cfg(test)]
mod tests;
