//! A connection whose user writes and reads the frames: the login is the client's, all behind it the caller's.
//!
//! Owns: the two halves of a socket on which an AMQP connection is open, without a task, a channel or a
//! heartbeat. For who moves so many messages that a call for each would be most of the work (`warren bench`).
//! Bound: what was read and not taken, one frame and one read.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;

use super::error::ClientError;
use super::handshake::{self, ConnectSettings, ReadHalf, WriteHalf};
use super::reader::read_more;
use super::uri::AmqpUri;
use crate::amqp::frame;

/// An open connection, to be divided into its halves.
pub struct RawConnection {
    reader: RawReader,
    writer: RawWriter,
}

impl RawConnection {
    /// Connects and logs in as [`Connection::open`](super::Connection::open) does, but asks for no heartbeats.
    ///
    /// # Errors
    /// What went wrong, with the broker's reply code and text where it gave them.
    pub async fn open(uri: &AmqpUri, settings: &ConnectSettings) -> Result<Self, ClientError> {
        let opened = handshake::open(&uri.clone().without_heartbeat(), settings).await?;
        let frame_bytes_max = opened.frame_bytes_max;
        Ok(Self {
            reader: RawReader {
                socket: opened.read,
                buffer: opened.buffer,
                frame_bytes_max,
            },
            writer: RawWriter {
                socket: opened.write,
                frame_bytes_max,
            },
        })
    }

    /// The two directions.
    #[must_use]
    pub fn split(self) -> (RawReader, RawWriter) {
        (self.reader, self.writer)
    }
}

/// What the broker sends.
pub struct RawReader {
    socket: ReadHalf,
    buffer: BytesMut,
    frame_bytes_max: u32,
}

impl RawReader {
    /// Waits for more bytes. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The end of the stream is one.
    pub async fn fill(&mut self) -> Result<(), ClientError> {
        read_more(&mut self.socket, &mut self.buffer, None).await
    }

    /// All whole frames that were read and not taken yet, to be walked with [`frame::parse`]; often empty.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if the next frame cannot be one.
    pub fn take_frames(&mut self) -> Result<Bytes, ClientError> {
        let end = frame::complete_bytes(&self.buffer, self.frame_bytes_max);
        if end == 0 {
            // Either there is more to come, or the frame is too large, which this tells.
            frame::parse(&self.buffer, self.frame_bytes_max)
                .map_err(|error| ClientError::Protocol(error.to_string()))?;
        }
        Ok(self.buffer.split_to(end).freeze())
    }

    /// The negotiated frame-max, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }
}

/// What is sent to the broker.
pub struct RawWriter {
    socket: WriteHalf,
    frame_bytes_max: u32,
}

impl RawWriter {
    /// Writes whole frames.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write(&mut self, frames: &[u8]) -> Result<(), ClientError> {
        self.socket.write_all(frames).await?;
        // TLS keeps what it has not sent yet until it is told to.
        Ok(self.socket.flush().await?)
    }

    /// The negotiated frame-max, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }
}
