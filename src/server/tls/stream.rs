//! A TLS connection that is read and written when its socket is ready, without waiting.
//!
//! Owns: the socket and the TLS state behind the handshake. Plaintext that was decrypted and not taken, and
//! records that were made and not sent, stay in the TLS state.
//! Bounds: 64 KiB of each (the TLS library's limits); who does not read makes writing wait.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::ServerConnection;
use tokio::net::TcpStream;

/// Most records that may wait to be sent, in bytes.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// A connection whose handshake is done.
// req: TLS-1
#[derive(Debug)]
pub(in crate::server) struct TlsSocket {
    socket: TcpStream,
    tls: ServerConnection,
    /// Decrypted and not taken.
    has_plaintext: bool,
}

/// The socket as the TLS library sees it: what is not ready says so.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsSocket {
    pub(in crate::server) fn new(socket: TcpStream, mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Self {
            socket,
            tls,
            // What came with the end of the handshake.
            has_plaintext: true,
        }
    }

    /// As [`Socket::moved`](super::super::socket::Socket::moved).
    pub(in crate::server) fn moved(self) -> io::Result<Self> {
        let socket = TcpStream::from_std(self.socket.into_std()?)?;
        Ok(Self { socket, ..self })
    }

    /// As [`Socket::poll_read`](super::super::socket::Socket::poll_read).
    pub(in crate::server) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        room_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.has_plaintext {
                ready!(self.socket.poll_read_ready(context))?;
            }
            buffer.reserve(room_bytes);
            match self.try_read(buffer) {
                // Which the socket has noted.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    pub(in crate::server) fn poll_writable(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(context)
    }

    /// Takes what is there, up to the room in `buffer`. 0 is the end of the stream.
    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.take_plaintext(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // AMQP says by itself that it ends, so a stream that is cut off is just over.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                taken => return taken,
            }
            if self.tls.read_tls(&mut Ready(&self.socket))? == 0 {
                self.process()?;
                return match self.take_plaintext(buffer) {
                    Ok(count) => Ok(count),
                    Err(_) => Ok(0),
                };
            }
            self.process()?;
        }
    }

    fn process(&mut self) -> io::Result<()> {
        let processed = self.tls.process_new_packets();
        let state = processed.map_err(|error| {
            // The alert that says why.
            let _ = self.try_flush();
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        self.has_plaintext = state.plaintext_bytes_to_read() > 0;
        Ok(())
    }

    fn take_plaintext(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.has_plaintext = false;
        let room = (buffer.capacity() - buffer.len()).max(1);
        let mut taken = 0;
        while taken < room {
            let mut reader = self.tls.reader();
            let ready = match reader.fill_buf() {
                Ok([]) => return Ok(taken),
                Ok(ready) => ready,
                // What was taken goes first; the next call meets the same again.
                Err(_) if taken > 0 => return Ok(taken),
                Err(error) => return Err(error),
            };
            let count = ready.len().min(room - taken);
            buffer.extend_from_slice(ready.get(..count).unwrap_or_default());
            reader.consume(count);
            taken += count;
        }
        self.has_plaintext = true;
        Ok(taken)
    }

    /// Encrypts and sends; gives how much was taken, which may be on its way still.
    pub(in crate::server) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_flush()?;
        let mut taken = 0;
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let count = self.tls.writer().write(rest)?;
                taken += count;
                rest = rest.get(count..).unwrap_or_default();
                if count == 0 && !self.flushed()? {
                    return Ok(taken);
                }
            }
        }
        self.flushed()?;
        Ok(taken)
    }

    /// Whether records wait to be sent.
    pub(in crate::server) fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// Sends what waits. Would block if the socket does not take all of it.
    pub(in crate::server) fn try_flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Ready(&self.socket))?;
        }
        Ok(())
    }

    fn flushed(&mut self) -> io::Result<bool> {
        match self.try_flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says that nothing more comes, and gives the socket back.
    pub(in crate::server) fn finish(mut self) -> TcpStream {
        self.tls.send_close_notify();
        // Whoever does not take it learns of the end by the socket.
        let _ = self.try_flush();
        self.socket
    }
}
