//! A client's socket, whatever it is: TCP, TLS over it, or one of this machine's own.
//!
//! Owns: the same few calls for each, none of which waits but [`Socket::linger`].

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use super::tls::TlsSocket;

/// The socket of one AMQP connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsSocket>),
    Unix(UnixStream),
}

impl Socket {
    /// Reads into `buffer` once something is there, up to `room_bytes`, which are only made then; gives how many
    /// bytes came. 0 is the end of the stream.
    ///
    /// A read that does not fill the room says that nothing more is there, so that none is made only to learn it.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        room_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => {
                ready!(socket.poll_read_ready(context))?;
                buffer.reserve(room_bytes);
                poll_read_buf(Pin::new(socket), context, buffer)
            }
            Self::Tls(socket) => socket.poll_read(context, buffer, room_bytes),
            Self::Unix(socket) => {
                ready!(socket.poll_read_ready(context))?;
                buffer.reserve(room_bytes);
                poll_read_buf(Pin::new(socket), context, buffer)
            }
        }
    }

    /// Takes part in the events of the runtime that this is called on, and of no other.
    pub(super) fn moved(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(TcpStream::from_std(socket.into_std()?)?),
            Self::Tls(socket) => Self::Tls(Box::new(socket.moved()?)),
            Self::Unix(socket) => Self::Unix(UnixStream::from_std(socket.into_std()?)?),
        })
    }

    /// Whether the socket takes something.
    pub(super) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(context),
            Self::Tls(socket) => socket.poll_writable(context),
            Self::Unix(socket) => socket.poll_write_ready(context),
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

    /// Gives the socket what it takes, of which more comes at once.
    pub(super) fn try_write_more(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => try_write_more(socket, slices),
            Self::Tls(_) | Self::Unix(_) => self.try_write(slices),
        }
    }

    /// Whether [`Self::try_send_file`] works: not where octets are changed on their way.
    pub(super) fn takes_files(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Gives the socket what it takes of a file's range, from the system's cache and past this process; waits for the
    /// disk if the range is not there.
    pub(super) fn try_send_file(
        &mut self,
        file: &File,
        offset_bytes: u64,
        length_bytes: usize,
    ) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => try_send_file(socket, file, offset_bytes, length_bytes),
            Self::Tls(_) | Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
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

/// Gives a socket what it takes, of which more comes at once.
pub(super) fn try_write_more(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    socket.try_io(Interest::WRITABLE, || {
        let mut nothing = SendAncillaryBuffer::default();
        Ok(sendmsg(socket, slices, &mut nothing, SendFlags::MORE)?)
    })
}

/// Gives a socket what it takes of a file's range, from the system's cache and past this process; waits for the disk if
/// the range is not there. Never 0 octets of a range that has some: then the file is too short.
pub(super) fn try_send_file(
    socket: &TcpStream,
    file: &File,
    mut offset_bytes: u64,
    length_bytes: usize,
) -> io::Result<usize> {
    let sent = socket.try_io(Interest::WRITABLE, || {
        let at = Some(&mut offset_bytes);
        Ok(rustix::fs::sendfile(socket, file, at, length_bytes)?)
    })?;
    match sent {
        0 if length_bytes > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        sent => Ok(sent),
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
