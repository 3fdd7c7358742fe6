//! What a connection has to write: octets, and ranges of files between them.
//!
//! Owns: the order of both, and how they reach the socket: many parts of memory with one system call, a range of a file
//! with one that takes it from the system's cache to the socket, past this process.
//! Bound: none of its own; the connection gathers no more than it may.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::socket::Socket;
use crate::broker::PayloadBody;
use crate::disk::DiskFile;

/// Most parts of one vectored write.
const SLICE_COUNT_MAX: usize = 64;

/// The output of one connection, in order.
#[derive(Debug, Default)]
pub(super) struct Output {
    parts: VecDeque<Outgoing>,
    bytes: usize,
}

#[derive(Debug)]
enum Outgoing {
    Bytes(Bytes),
    File(FileRange),
}

/// A range of a file that is the system's own ([`DiskFile::os_file`]).
#[derive(Debug)]
pub(super) struct FileRange {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offset_bytes: u64,
    pub(super) length_bytes: usize,
    /// Keeps the content, and so its place in the system's cache, until it is written.
    pub(super) _content: Option<PayloadBody>,
}

impl Output {
    /// Octets of memory and files that are not written yet.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts octets behind what is there.
    #[inline]
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.parts.push_back(Outgoing::Bytes(bytes));
    }

    /// Puts a range of a file behind what is there; only for a socket that takes files.
    pub(super) fn push_file(&mut self, range: FileRange) {
        self.bytes += range.length_bytes;
        self.parts.push_back(Outgoing::File(range));
    }

    /// Gives the socket what it takes at once; gives how many octets that were.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` among them; `UnexpectedEof` if a file is shorter than its range.
    pub(super) fn write_to(&mut self, socket: &mut Socket) -> io::Result<usize> {
        let written = match self.parts.front() {
            Some(Outgoing::File(range)) => range.write_to(socket)?,
            Some(Outgoing::Bytes(_)) | None => self.write_bytes(socket)?,
        };
        self.advance(written);
        Ok(written)
    }

    fn write_bytes(&self, socket: &mut Socket) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICE_COUNT_MAX];
        let mut count = 0;
        let mut parts = self.parts.iter();
        for (slice, part) in slices.iter_mut().zip(&mut parts) {
            let Outgoing::Bytes(bytes) = part else {
                // The head of a frame is not worth a packet of its own.
                return socket.try_write_more(&slices[..count]);
            };
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        socket.try_write(&slices[..count])
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(front) = self.parts.front_mut() {
            let length = match front {
                Outgoing::Bytes(bytes) => bytes.len(),
                Outgoing::File(range) => range.length_bytes,
            };
            if count >= length {
                count -= length;
                self.parts.pop_front();
                continue;
            }
            match front {
                Outgoing::Bytes(bytes) => bytes.advance(count),
                Outgoing::File(range) => {
                    range.offset_bytes += count as u64;
                    range.length_bytes -= count;
                }
            }
            break;
        }
    }
}

impl FileRange {
    fn write_to(&self, socket: &mut Socket) -> io::Result<usize> {
        let Some(file) = self.file.os_file() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        socket.try_send_file(file, self.offset_bytes, self.length_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;
    use crate::disk::{Disk as _, OpenMode, OsDisk};

    /// Octets and ranges of a file arrive in order through a socket that takes little at a time, and the count
    /// of what is left goes down to nothing.
    #[tokio::test]
    async fn octets_and_files_arrive_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let file = OsDisk.open(&folder.path().join("file"), OpenMode::CreateNew);
        let file: Arc<dyn DiskFile> = Arc::from(file.expect("a file"));
        file.write_at(&content, 0).expect("room");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let reader = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut all = Vec::new();
            socket.read_to_end(&mut all).expect("all of it");
            all
        });
        let stream = tokio::net::TcpStream::connect(address).await;
        let mut socket = Socket::Tcp(stream.expect("a listener"));
        let mut output = Output::default();
        let mut expected = Vec::new();
        for (text, offset, length) in [("one", 10, 1_000_000), ("two", 0, 2_999_000), ("", 5, 7)] {
            output.push(Bytes::from_static(text.as_bytes()));
            output.push_file(FileRange {
                file: Arc::clone(&file),
                offset_bytes: offset as u64,
                length_bytes: length,
                _content: None,
            });
            expected.extend_from_slice(text.as_bytes());
            expected.extend_from_slice(&content[offset..offset + length]);
        }
        output.push(Bytes::from_static(b"end"));
        expected.extend_from_slice(b"end");
        assert_eq!(output.bytes(), expected.len());
        while output.bytes() > 0 {
            match output.write_to(&mut socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::future::poll_fn(|context| socket.poll_writable(context))
                        .await
                        .expect("open");
                }
                Err(error) => panic!("{error}"),
            }
        }
        drop(socket);
        assert!(reader.join().expect("a reader") == expected);
        let mut past = Output::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = tokio::net::TcpStream::connect(listener.local_addr().expect("bound")).await;
        past.push_file(FileRange {
            file,
            offset_bytes: content.len() as u64,
            length_bytes: 1,
            _content: None,
        });
        let ended = past.write_to(&mut Socket::Tcp(stream.expect("a listener")));
        let kind = ended.expect_err("nothing is there").kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof);
    }
}
