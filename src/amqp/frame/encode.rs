//! Writing frames: each function appends whole frames to a buffer.
//!
//! Spec: AMQP 0-9-1 §4.2.3, §4.2.6; `spec/amqp.md` FRAME-8, CONTENT-4, CONTENT-5.

use bytes::{BufMut, BytesMut};

use super::FrameKind;
use crate::amqp::header::ContentHeader;
use crate::amqp::limits::{FRAME_BYTES_MIN, FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use crate::amqp::method::Encode;

/// How a frame begins: `type u8 | channel u16 | size u32`.
#[must_use]
#[inline]
pub fn frame_head(kind: FrameKind, channel: u16, payload_bytes: u32) -> [u8; FRAME_HEADER_BYTES] {
    let [c1, c0] = channel.to_be_bytes();
    let [s3, s2, s1, s0] = payload_bytes.to_be_bytes();
    [kind.number(), c1, c0, s3, s2, s1, s0]
}

/// Appends [`frame_head`]; the payload and [`FRAME_END`] must follow.
#[inline]
pub fn put_frame_head(output: &mut BytesMut, kind: FrameKind, channel: u16, payload_bytes: u32) {
    output.put_slice(&frame_head(kind, channel, payload_bytes));
}

/// Appends a method frame.
pub fn put_method(output: &mut BytesMut, channel: u16, method: &impl Encode) {
    let start = output.len();
    put_frame_head(output, FrameKind::Method, channel, 0);
    method.encode(output);
    let payload_bytes = output.len() - start - FRAME_HEADER_BYTES;
    let size = u32::try_from(payload_bytes)
        .expect("a method is below 4 GiB")
        .to_be_bytes();
    let size_field = output
        .get_mut(start + SIZE_OFFSET_BYTES..start + FRAME_HEADER_BYTES)
        .expect("the frame header was just written");
    size_field.copy_from_slice(&size);
    output.put_u8(FRAME_END);
}

/// Appends a content header frame: one, however long the header is. Headers are never split.
// req: FRAME-8
pub fn put_header(output: &mut BytesMut, channel: u16, header: &ContentHeader) {
    let payload_bytes = u32::try_from(header.payload_bytes()).expect("a header came in a frame");
    put_frame_head(output, FrameKind::Header, channel, payload_bytes);
    header.encode(output);
    output.put_u8(FRAME_END);
}

/// Appends one body frame; the caller keeps `piece` within the receiver's frame-max less 8.
pub fn put_body(output: &mut BytesMut, channel: u16, piece: &[u8]) {
    let payload_bytes = u32::try_from(piece.len()).expect("a body frame is below 4 GiB");
    put_frame_head(output, FrameKind::Body, channel, payload_bytes);
    output.put_slice(piece);
    output.put_u8(FRAME_END);
}

/// Appends a body as frames of at most `frame_bytes_max` bytes, the receiver's frame-max; none for
/// an empty body.
// req: CONTENT-4
// req: CONTENT-5
pub fn put_body_frames(output: &mut BytesMut, channel: u16, body: &[u8], frame_bytes_max: u32) {
    let payload_bytes_max = frame_bytes_max.max(FRAME_BYTES_MIN) - FRAME_OVERHEAD_BYTES;
    for piece in body.chunks(payload_bytes_max as usize) {
        put_body(output, channel, piece);
    }
}

/// Appends a content header and its body.
pub fn put_content(
    output: &mut BytesMut,
    channel: u16,
    header: &ContentHeader,
    body: &[u8],
    frame_bytes_max: u32,
) {
    put_header(output, channel, header);
    put_body_frames(output, channel, body, frame_bytes_max);
}

/// Appends all frames of a method that carries content (`basic.deliver`, `basic.get-ok`,
/// `basic.return`, `basic.publish`) after making room for them once.
pub fn put_method_with_content(
    output: &mut BytesMut,
    channel: u16,
    method: &impl Encode,
    header: &ContentHeader,
    body: &[u8],
    frame_bytes_max: u32,
) {
    output.reserve(METHOD_ROOM_BYTES + header.payload_bytes() + body.len());
    put_method(output, channel, method);
    put_content(output, channel, header, body, frame_bytes_max);
}

/// Appends a heartbeat frame, always on channel 0.
pub fn put_heartbeat(output: &mut BytesMut) {
    put_frame_head(output, FrameKind::Heartbeat, 0, 0);
    output.put_u8(FRAME_END);
}

/// Where the size stands in a frame header.
const SIZE_OFFSET_BYTES: usize = 3;

/// Room for a typical method with its frame and the overhead of header and body; more is made if
/// three long names need it.
const METHOD_ROOM_BYTES: usize = 256;
