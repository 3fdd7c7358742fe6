//! A client's socket, whatever it is: TCP, TLS over it, or one of this machine's own.
//!
//! Owns: the same few calls for each, none of which waits but [`Socket::readable`] and
//! [`Socket::writable`].

use std::io::{self, IoSlice};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use super::tls::TlsSocket;

/// The socket of one AMQP connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsSocket>),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Tls(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.writable().await,
            Self::Tls(socket) => socket.writable().await,
            Self::Unix(socket) => socket.writable().await,
        }
    }

    /// Takes what is there into the room that `buffer` has. 0 is the end of the stream.
    #[inline]
    pub(super) fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Tls(socket) => socket.try_read(buffer),
            Self::Unix(socket) => socket.try_read_buf(buffer),
        }
    }

    /// Gives the socket what it takes.
    #[inline]
    pub(super) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(slices),
            Self::Tls(socket) => socket.try_write(slices),
            Self::Unix(socket) => socket.try_write_vectored(slices),
        }
    }

    /// Whether something that was written is still on its way out of this process.
    #[inline]
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(socket) => socket.has_unsent(),
        }
    }

    /// Sends what [`Self::has_unsent`] tells of. Would block if it does not all go.
    pub(super) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(socket) => socket.try_flush(),
        }
    }

    /// Says that nothing more comes, then takes and drops what the client still sends, until it ends
    /// too: closing a socket with unread input would take back the last words.
    pub(super) async fn linger(self) {
        match self {
            Self::Tcp(socket) => linger_tcp(socket).await,
            Self::Tls(socket) => linger_tcp(socket.finish()).await,
            Self::Unix(mut socket) => {
                // Its kernel buffers outlive the close.
                let _ = socket.shutdown().await;
            }
        }
    }
}

async fn linger_tcp(mut socket: TcpStream) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut dropped = [0; 4096];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut dropped) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
}
