//! The wire: AMQP 0-9-1 bytes to values and back.
//!
//! Owns: frames, methods, field tables and content headers, each with its two directions side by
//! side. Holds no state, does no I/O, and never panics on what came from outside.
//! Bounds: [`limits`]; each is checked before anything is kept. Decoded values are slices of the
//! bytes that came in ([`bytes::Bytes`]), so decoding allocates nothing that grows with a peer's
//! claims. A value that outlives its connection should be [`detached`](field::ShortString::detached)
//! from the read buffer, lest it keep the whole buffer alive.
//! Spec: AMQP 0-9-1 §4.2; `spec/amqp.md`, which has each method's state.
#![deny(clippy::indexing_slicing)]

pub mod field;
pub mod frame;
pub mod header;
pub mod limits;
pub mod method;
pub mod reply;
