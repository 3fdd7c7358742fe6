//! Bounds of the wire format, with unit, origin and what happens beyond them.
//!
//! Spec: AMQP 0-9-1 §4.2.3, §4.2.5; `spec/amqp.md` FRAME-4, FIELD-3 to FIELD-5.

/// Least frame-max that may be negotiated, in bytes (constant `frame-min-size`).
pub const FRAME_BYTES_MIN: u32 = 4_096;

/// Frame-max that the broker offers, in bytes; the largest that a client may choose.
pub const FRAME_BYTES_DEFAULT: u32 = 131_072;

/// Frame-max before `connection.tune-ok`, in bytes: what RabbitMQ allows, so that long tokens fit.
pub const FRAME_BYTES_BEFORE_TUNE: u32 = 8_192;

/// Type, channel and size in front of each frame's payload, in bytes (§4.2.3).
pub const FRAME_HEADER_BYTES: usize = 7;

/// Frame header and end octet around each frame's payload, in bytes (§4.2.3).
pub const FRAME_OVERHEAD_BYTES: u32 = 8;

/// By how many bytes a payload may exceed `frame-max - 8` before the connection is closed with
/// 501: RabbitMQ's tolerance, on which clients that count only the payload rely.
pub const FRAME_TOLERANCE_BYTES: u32 = 8;

/// The octet that ends each frame (constant `frame-end`).
pub const FRAME_END: u8 = 0xCE;

/// Longest short string, in bytes: its length is one octet (§4.2.5.3).
pub const SHORT_STRING_BYTES_MAX: usize = 255;

/// How deep tables and arrays may nest; the outermost table is level 1. Beyond it: 502.
pub const TABLE_DEPTH_MAX: u32 = 16;

/// How many values one table may hold, nested ones included. Beyond it: 502.
pub const TABLE_ELEMENTS_MAX: u32 = 4_096;

/// Longest encoded table without its length field, in bytes. Beyond it: 502.
pub const TABLE_BYTES_MAX: usize = 65_536;

/// Octets of a frame's payload that a frame error quotes; RabbitMQ quotes as many.
pub const SNIPPET_BYTES_MAX: usize = 16;

const _: () = assert!(FRAME_BYTES_MIN <= FRAME_BYTES_BEFORE_TUNE);
const _: () = assert!(FRAME_BYTES_BEFORE_TUNE <= FRAME_BYTES_DEFAULT);
const _: () = assert!(FRAME_OVERHEAD_BYTES as usize == FRAME_HEADER_BYTES + 1);
const _: () = assert!(FRAME_TOLERANCE_BYTES < FRAME_BYTES_MIN);
const _: () = assert!(TABLE_BYTES_MAX < FRAME_BYTES_DEFAULT as usize);
