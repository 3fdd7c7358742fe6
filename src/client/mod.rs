//! A small asynchronous AMQP 0-9-1 client: what the node and the distributor speak to a broker with.
//!
//! Owns: one connection and its channels. Knows nothing of files, swarms or of what messages mean;
//! coming back after a failure is its users' business.
//! A connection has two tasks: one reads and sorts frames, one writes them and keeps the heartbeat.
//! Bounds: [`OUTGOING_CHUNKS_MAX`] chunks wait to be written, then senders wait; a consumer holds at
//! most its prefetch count of whole bodies; a larger body streams, and a full stream stops the
//! reading of the socket. So who reads a stream must not wait for an answer on the same connection.
//! Spec: AMQP 0-9-1; `spec/control-plane.md`.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

mod channel;
mod connection;
mod delivery;
mod error;
mod handshake;
mod raw;
mod reader;
mod shared;
mod tls;
pub mod uri;
mod writer;

pub use channel::{Channel, Confirm, ConsumeSettings, Consumer, Publish, QueueSettings};
pub use connection::Connection;
pub use delivery::{Body, BodyStream, Delivery};
pub use error::ClientError;
pub use handshake::ConnectSettings;
pub use raw::{RawConnection, RawReader, RawWriter};
pub use tls::{TlsSetupError, client_config, system_trust};
pub use uri::{AmqpUri, UriError};

/// Chunks of bytes that wait to be written. Beyond it senders wait.
pub const OUTGOING_CHUNKS_MAX: usize = 64;
/// Chunks of one streamed body that wait to be taken. Beyond it the socket is not read.
pub const STREAM_CHUNKS_MAX: usize = 16;
/// Longest wait for the broker's answer to one method. Beyond it the connection is given up.
pub const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Longest wait for the broker to agree to the end of the connection.
pub const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Bodies longer than this stream unless the consumer asks for another bound, in bytes.
pub const WHOLE_BODY_BYTES_MAX: u64 = 4 << 20;
