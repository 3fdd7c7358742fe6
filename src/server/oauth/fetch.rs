//! Fetches a small document over HTTP or HTTPS.
//!
//! Owns: one request on one connection, then the end; no redirects. Blocks.
//! Bounds: [`DOCUMENT_BYTES_MAX`]; [`WAIT`] for the connection and for each read, [`TOTAL_WAIT`] for all.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// Longest document, in bytes, with its head.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Longest wait for the connection, and for each read.
const WAIT: Duration = Duration::from_secs(3);
/// Longest wait for everything.
const TOTAL_WAIT: Duration = Duration::from_secs(6);

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("'{0}' is no http or https URL")]
    Url(String),
    #[error("cannot fetch it: {0}")]
    Io(#[from] io::Error),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("it took too long, or is too long")]
    TooMuch,
    #[error("the answer is no HTTP")]
    NotHttp,
    #[error("the answer's status is {0}")]
    Status(u16),
}

/// A URL in its parts.
#[derive(Debug, Eq, PartialEq)]
struct Url<'a> {
    is_tls: bool,
    /// With a port.
    authority: String,
    host: &'a str,
    path: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (is_tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let path_at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let is_plain = |text: &str| text.bytes().all(|octet| octet.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !is_plain(rest) {
            return None;
        }
        let port = authority
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok());
        let host = port.map_or(authority, |(host, _)| host);
        Some(Self {
            is_tls,
            authority: match port {
                Some(_) => authority.to_owned(),
                None => format!("{authority}:{}", if is_tls { 443 } else { 80 }),
            },
            host: host.trim_matches(['[', ']']),
            path: if path.is_empty() { "/" } else { path },
        })
    }
}

/// The document at `url`; `authorities` are those of an `https` server, as PEM.
pub(super) fn fetch(url: &str, authorities: Option<&Path>) -> Result<Vec<u8>, FetchError> {
    let url = Url::parse(url).ok_or_else(|| FetchError::Url(url.to_owned()))?;
    let mut last = io::ErrorKind::NotFound.into();
    let mut stream = None;
    for address in url.authority.to_socket_addrs()?.take(4) {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(connected) => {
                stream = Some(connected);
                break;
            }
            Err(error) => last = error,
        }
    }
    let mut stream = stream.ok_or(last)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    // With version 1.0 no server answers in chunks.
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
        url.path, url.authority
    );
    let answer = match url.is_tls {
        false => exchange(&mut stream, request.as_bytes())?,
        true => {
            let failed = |error: String| FetchError::Tls(error);
            let name = ServerName::try_from(url.host.to_owned());
            let name = name.map_err(|error| failed(error.to_string()))?;
            let tls = ClientConnection::new(tls_config(authorities)?, name);
            let mut tls = tls.map_err(|error| failed(error.to_string()))?;
            let mut stream = rustls::Stream::new(&mut tls, &mut stream);
            exchange(&mut stream, request.as_bytes())?
        }
    };
    body_of(answer)
}

/// Believes the authorities of a file, or those of the system.
fn tls_config(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, FetchError> {
    let failed = |error: String| FetchError::Tls(error);
    let roots =
        crate::trust::authorities(authorities).map_err(|error| failed(error.to_string()))?;
    if roots.is_empty() {
        return Err(failed("there are no authorities to believe".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| failed(error.to_string()))?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Vec<u8>, FetchError> {
    let begin = Instant::now();
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            // A server may end without TLS' own goodbye.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(answer),
            Err(error) => return Err(error.into()),
        }
        if answer.len() > DOCUMENT_BYTES_MAX || begin.elapsed() > TOTAL_WAIT {
            return Err(FetchError::TooMuch);
        }
    }
}

fn body_of(mut answer: Vec<u8>) -> Result<Vec<u8>, FetchError> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or(FetchError::NotHttp)?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut words = head.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|status| status.get(..3));
    match (is_http, status.and_then(|status| status.parse().ok())) {
        (true, Some(200)) => Ok(answer.split_off(end + 4)),
        (true, Some(status)) => Err(FetchError::Status(status)),
        (_, _) => Err(FetchError::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("https://[::1]:8443/keys?a=b").expect("a URL");
        assert_eq!((url.is_tls, url.host, url.path), (true, "::1", "/keys?a=b"));
        assert_eq!(url.authority, "[::1]:8443");
        let url = Url::parse("http://idp.example").expect("a URL");
        assert_eq!((url.authority.as_str(), url.path), ("idp.example:80", "/"));
        for wrong in ["ftp://x", "https://", "http://a@b/", "http://a b/"] {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn answers_are_read() {
        let body = body_of(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}".to_vec());
        assert_eq!(body.expect("a body"), b"{}");
        let status = body_of(b"HTTP/1.0 404 Not Found\r\n\r\n".to_vec());
        assert!(matches!(status, Err(FetchError::Status(404))));
        for wrong in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n"] {
            assert!(matches!(body_of(wrong.to_vec()), Err(FetchError::NotHttp)));
        }
    }
}
