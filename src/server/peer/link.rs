//! The transport under one connection, in its two directions.
//!
//! Owns: what is different between TCP and TLS over it. Only TCP sends a file's range past this process.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::secure::{Received, SecureSocket};
use crate::disk::DiskFile;
use crate::server::socket;
use crate::swarm::ChannelBinding;

/// The transport of one connection.
pub(super) enum Link {
    /// TCP.
    Plain(TcpStream),
    /// TLS over it.
    Secure(Arc<SecureSocket>),
}

impl Link {
    /// What proofs are bound to.
    pub(super) fn binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::default(),
            Self::Secure(socket) => socket.binding(),
        }
    }

    /// Its two directions.
    pub(super) fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Self::Secure(socket) => {
                let reader = Reader::Secure(Arc::clone(&socket), Received::default());
                (reader, Writer::Secure(socket))
            }
        }
    }
}

/// One connection's incoming direction.
pub(super) enum Reader {
    Plain(OwnedReadHalf),
    Secure(Arc<SecureSocket>, Received),
}

impl Reader {
    /// Fills `place` and then `beyond` with what is there, at least one octet; 0 is the end.
    pub(super) async fn read(&mut self, place: &mut [u8], beyond: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => loop {
                reader.readable().await?;
                let mut slices = [IoSliceMut::new(place), IoSliceMut::new(beyond)];
                match reader.try_read_vectored(&mut slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            },
            Self::Secure(socket, received) if place.is_empty() => {
                socket.read(received, beyond).await
            }
            Self::Secure(socket, received) => socket.read(received, place).await,
        }
    }
}

/// One connection's outgoing direction.
pub(super) enum Writer {
    Plain(OwnedWriteHalf),
    Secure(Arc<SecureSocket>),
}

impl Writer {
    /// Sends all of `bytes`.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(writer) => writer.write_all(bytes).await,
            Self::Secure(socket) => socket.write_all(bytes).await,
        }
    }

    /// Whether a file's range can be sent past this process: not where octets are changed on their way.
    pub(super) fn takes_files(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Sends `bytes` and the file's range behind them, which may wait for the disk. What has begun to be sent and fails
    /// leaves the connection of no use.
    pub(super) async fn send_file(
        &mut self,
        mut bytes: &[u8],
        file: &dyn DiskFile,
        range: Range<u64>,
    ) -> io::Result<()> {
        let (Self::Plain(writer), Some(file)) = (self, file.os_file()) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut at = range.start;
        while !bytes.is_empty() || at < range.end {
            writer.writable().await?;
            let socket = writer.as_ref();
            let sent = match bytes {
                [] => {
                    let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
                    socket::try_send_file(socket, file, at, left)
                }
                bytes => socket::try_write_more(socket, &[IoSlice::new(bytes)]),
            };
            match sent {
                Ok(sent) if bytes.is_empty() => at += sent as u64,
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::disk::{Disk as _, OpenMode, OsDisk};

    async fn pair() -> (Writer, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let near = TcpStream::connect(address).await.expect("a connection");
        let (far, _) = listener.accept().await.expect("the other end");
        let (_, writer) = Link::Plain(near).into_split();
        (writer, far)
    }

    fn file(content: &[u8]) -> Box<dyn DiskFile> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = OsDisk.open(&folder.path().join("file"), OpenMode::CreateNew);
        let file = file.expect("a file");
        file.write_at(content, 0).expect("written");
        file
    }

    /// Octets and ranges of a file arrive in their order, also of a range that no socket takes at once.
    #[tokio::test]
    async fn octets_and_ranges_arrive_in_order() {
        let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
        let file = file(&content);
        let (mut writer, mut far) = pair().await;
        let ranges = [7..19_999_999, 5..5, 100_000..165_536, 0..1];
        let expected: Vec<u8> = ranges
            .iter()
            .flat_map(|range| [b"head", &content[range.clone()]].concat())
            .collect();
        let sent = async {
            for range in ranges {
                let range = range.start as u64..range.end as u64;
                writer
                    .send_file(b"head", &*file, range)
                    .await
                    .expect("sent");
            }
            drop(writer);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(sent, far.read_to_end(&mut received));
        read.expect("received");
        assert!(received == expected, "{} octets", received.len());
    }

    /// A file that is shorter than it was is an error, and not waited for.
    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error() {
        let file = file(&[7; 1_000]);
        let (mut writer, _far) = pair().await;
        let sent = writer.send_file(b"head", &*file, 500..1_001).await;
        let error = sent.expect_err("an octet is missing");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
