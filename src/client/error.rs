//! What can go wrong between this client and a broker.
//!
//! Owns: one error type, cheap to clone, since one broken connection fails everything that waits on it.

use std::io;
use std::sync::Arc;

use super::uri::UriError;

/// Why a call failed. After anything but [`ChannelClosed`](Self::ChannelClosed), [`Nacked`](Self::Nacked),
/// [`Returned`](Self::Returned), [`BodyTooLarge`](Self::BodyTooLarge) and
/// [`ConsumerCancelled`](Self::ConsumerCancelled) the connection is gone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A whole body was wanted and it is longer than the caller takes.
    #[error("a message of {got_bytes} bytes is over the limit of {max_bytes}")]
    BodyTooLarge {
        /// Size of the body, in bytes.
        got_bytes: u64,
        /// What the caller takes, in bytes.
        max_bytes: u64,
    },
    /// The broker closed the channel.
    #[error("the broker closed the channel: {code} {text}")]
    ChannelClosed {
        /// Reply code of AMQP.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// No TCP connection came about.
    #[error(
        "cannot connect to {address}: {cause}; check that the broker runs and the address is right"
    )]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// The broker closed the connection.
    #[error("the broker closed the connection: {code} {text}")]
    ConnectionClosed {
        /// Reply code of AMQP.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// The broker ended the consumer, for instance because its queue was deleted.
    #[error("the broker cancelled the consumer; its queue is gone")]
    ConsumerCancelled,
    /// This side closed the channel or the connection.
    #[error("the connection was closed by this program")]
    Ended,
    /// Nothing came for two heartbeat intervals.
    #[error("the broker gave no sign of life for {seconds} s")]
    HeartbeatMissed {
        /// How long nothing came, in seconds.
        seconds: u64,
    },
    /// The socket failed or was closed without a word.
    #[error("the connection to the broker broke: {0}")]
    Io(Arc<io::Error>),
    /// The broker did not take the message.
    #[error("the broker refused the message (basic.nack)")]
    Nacked,
    /// The other side does not speak AMQP 0-9-1 as it should.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// No queue took a mandatory message.
    #[error("no queue took the message: {code} {text}")]
    Returned {
        /// Reply code of AMQP.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// No answer in time.
    #[error("no answer from the broker to {what} in {seconds} s")]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// No TLS connection came about: a certificate was not believed, or there is no TLS there.
    #[error("no TLS connection to {address}: {cause}")]
    Tls {
        /// `host:port`.
        address: String,
        /// What was wrong.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// More channels than the connection may have, or names that are too long.
    #[error("{0}")]
    Unusable(&'static str),
    /// The URI cannot be read.
    #[error(transparent)]
    Uri(#[from] UriError),
}

impl ClientError {
    /// The broker's reply code, where it gave one.
    #[must_use]
    pub fn reply_code(&self) -> Option<u16> {
        match self {
            Self::ChannelClosed { code, .. }
            | Self::ConnectionClosed { code, .. }
            | Self::Returned { code, .. } => Some(*code),
            Self::BodyTooLarge { .. }
            | Self::Connect { .. }
            | Self::ConsumerCancelled
            | Self::Ended
            | Self::HeartbeatMissed { .. }
            | Self::Io(_)
            | Self::Nacked
            | Self::Protocol(_)
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Unusable(_)
            | Self::Uri(_) => None,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
