//! Ranges over HTTP/1.1: one connection, one request at a time.
//!
//! Bounds: a head of [`HEAD_BYTES_MAX`], each wait [`STEP_WAIT`], a body of exactly what was asked for.
//! Spec: `spec/peer-protocol.md` section 7, WEB-2 to WEB-4.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::url::{Refused, WebUrl};

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for a connection, for a head, and for each further part of a body.
const STEP_WAIT: Duration = Duration::from_secs(10);

/// Why a range did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the server's answer is not the range that was asked for: {0}")]
    Answer(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no authorities are known that could vouch for a server")]
    NoTrust,
    #[error("the server does not answer")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a web seed.
pub(super) struct Http {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// Ranges that came over it.
    range_count: u64,
}

impl Http {
    /// Resolves the host, checks the address, and connects to that very address.
    ///
    /// `trust` says whom to believe over TLS.
    pub(super) async fn connect(
        url: &WebUrl,
        trust: Option<Arc<ClientConfig>>,
    ) -> Result<Self, HttpError> {
        // req: WEB-2
        let found = tokio::net::lookup_host((url.host.as_str(), url.port));
        let mut addresses = timeout(STEP_WAIT, found).await??;
        let address = addresses.next().ok_or(Refused::Address)?;
        url.check_address(address.ip())?;
        let socket = timeout(STEP_WAIT, TcpStream::connect(address)).await??;
        socket.set_nodelay(true)?;
        let stream: Box<dyn Stream> = if url.is_tls {
            let config = trust.ok_or(HttpError::NoTrust)?;
            let name = ServerName::try_from(url.host.clone()).map_err(|_| Refused::Url)?;
            let connected = TlsConnector::from(config).connect(name, socket);
            Box::new(timeout(STEP_WAIT, connected).await??)
        } else {
            Box::new(socket)
        };
        Ok(Self {
            stream,
            input: BytesMut::new(),
            range_count: 0,
        })
    }

    /// Whether it gave something before: then a server that ended it meanwhile has not failed.
    pub(super) fn has_worked(&self) -> bool {
        self.range_count > 0
    }

    /// Asks for `range` of a payload of `size_bytes` and gives exactly that.
    pub(super) async fn get(
        &mut self,
        url: &WebUrl,
        range: &Range<u64>,
        size_bytes: u64,
    ) -> Result<Bytes, HttpError> {
        // req: WEB-3
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nRange: bytes={first}-{last}\r\nAccept-Encoding: identity\r\n\
             User-Agent: warren\r\n\r\n",
            url.target,
            url.authority(),
        );
        timeout(STEP_WAIT, self.stream.write_all(request.as_bytes())).await??;
        let head = timeout(STEP_WAIT, self.head()).await??;
        check_head(&head, range, size_bytes)?;
        let len = usize::try_from(range.end - range.start);
        let len = len.map_err(|_| HttpError::Answer("too long"))?;
        while self.input.len() < len {
            self.input.reserve(len - self.input.len());
            let read = self.stream.read_buf(&mut self.input);
            if timeout(STEP_WAIT, read).await?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        self.range_count += 1;
        Ok(self.input.split_to(len).freeze())
    }

    /// The head of an answer, without the empty line.
    async fn head(&mut self) -> Result<String, HttpError> {
        loop {
            if let Some(end) = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.input.split_to(end);
                self.input.advance(4);
                let head = String::from_utf8(head.to_vec());
                return head.map_err(|_| HttpError::Answer("a head that is no text"));
            }
            if self.input.len() > HEAD_BYTES_MAX {
                return Err(HttpError::Answer("too long a head"));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// Whether a head promises exactly `range` of a whole of `size_bytes`.
fn check_head(head: &str, range: &Range<u64>, size_bytes: u64) -> Result<(), HttpError> {
    // req: WEB-4
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let is_http = status.starts_with("HTTP/1.1 ") || status.starts_with("HTTP/1.0 ");
    if !is_http || status.split(' ').nth(1) != Some("206") {
        return Err(HttpError::Answer("the status is not 206"));
    }
    let (mut has_range, mut has_length) = (false, false);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-range" => {
                let (first, last) = (range.start, range.end.saturating_sub(1));
                if value != format!("bytes {first}-{last}/{size_bytes}") {
                    return Err(HttpError::Answer("another range or another size"));
                }
                has_range = true;
            }
            "content-length" => {
                if value.parse() != Ok(range.end - range.start) {
                    return Err(HttpError::Answer("another length"));
                }
                has_length = true;
            }
            "transfer-encoding" | "content-encoding" => {
                return Err(HttpError::Answer("a coding"));
            }
            _ => {}
        }
    }
    if has_range && has_length {
        Ok(())
    } else {
        Err(HttpError::Answer("no range or no length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the very range of the very size is taken.
    // req: WEB-4
    #[test]
    fn only_the_range_is_taken() {
        let check = |head: &str| check_head(head, &(100..200), 1_000).is_ok();
        let good = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 100-199/1000\r\ncontent-length: 100";
        assert!(check(good));
        for (from, to) in [
            ("206", "200"),
            (
                "206 Partial Content",
                "302 Found\r\nLocation: http://127.0.0.1/",
            ),
            ("HTTP/1.1", "HTTP/2"),
            ("100-199/", "100-198/"),
            ("/1000", "/1001"),
            ("/1000", "/*"),
            ("length: 100", "length: 101"),
            ("content-length: 100", "Transfer-Encoding: chunked"),
            (
                "content-length: 100",
                "content-length: 100\r\nContent-Encoding: gzip",
            ),
            ("content-length: 100", "x: y"),
        ] {
            assert!(!check(&good.replace(from, to)), "{to}");
        }
        assert!(!check(""));
    }
}
