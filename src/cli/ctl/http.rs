//! The little HTTP/1.1 that `warren ctl` needs: one request on one connection, over TLS or not, then the end.
//!
//! Bounds: [`ANSWER_BYTES_MAX`] of an answer; [`WAIT`] for each read.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use base64::Engine as _;
use rustls::ClientConnection;
use serde_json::Value;

use crate::client::uri::UriOptions;
use crate::client::{TlsSetupError, client_config};

/// Largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Longest wait for the broker to say something.
const WAIT: Duration = Duration::from_secs(60);

/// A broker's management API, and who asks it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Host and port.
    pub(super) authority: String,
    /// What comes before `/api`, as in `/prefix`; empty for nothing.
    pub(super) prefix: String,
    /// Whom to believe, for `https`; `None` for `http`.
    pub(super) tls: Option<UriOptions>,
    pub(super) user: String,
    pub(super) password: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// Nobody is there.
    #[error("unable to connect to {authority}: {source}")]
    Connect {
        authority: String,
        source: std::io::Error,
    },
    /// TLS cannot be used as it was asked for.
    #[error("no TLS connection to {authority}: {source}")]
    Tls {
        authority: String,
        source: TlsSetupError,
    },
    /// The connection broke.
    #[error("the connection to the broker broke: {0}")]
    Broken(#[from] std::io::Error),
    /// What came is no HTTP.
    #[error("the broker's answer is not HTTP: {0}")]
    NotHttp(&'static str),
}

/// What the broker said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The broker's words for what went wrong.
    pub(super) fn reason(&self) -> String {
        let reason = self.body.get("reason").and_then(Value::as_str);
        let reason = reason.map(|reason| reason.replace("&lt;", "<").replace("&gt;", ">"));
        reason.unwrap_or_else(|| format!("the broker answered with HTTP {}", self.status))
    }
}

impl Client {
    /// Sends a request to `/api/PATH` and takes the whole answer.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, HttpError> {
        let failed = |source| HttpError::Connect {
            authority: self.authority.clone(),
            source,
        };
        let mut addresses = self.authority.to_socket_addrs().map_err(failed)?;
        let mut stream = None;
        let mut last = std::io::ErrorKind::NotFound.into();
        while let (None, Some(address)) = (&stream, addresses.next()) {
            match TcpStream::connect_timeout(&address, WAIT) {
                Ok(connected) => stream = Some(connected),
                Err(error) => last = error,
            }
        }
        let mut stream = stream.ok_or(last).map_err(failed)?;
        stream.set_read_timeout(Some(WAIT))?;
        let engine = base64::engine::general_purpose::STANDARD;
        let credentials = engine.encode(format!("{}:{}", self.user, self.password));
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!(
            "{method} {}/api/{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {credentials}\r\n\
             Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            self.prefix,
            self.authority,
            body.len()
        );
        for (name, value) in headers {
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        let answer = match &self.tls {
            None => exchange(&mut stream, request.as_bytes())?,
            Some(options) => {
                let mut tls = self.start_tls(options)?;
                exchange(
                    &mut rustls::Stream::new(&mut tls, &mut stream),
                    request.as_bytes(),
                )?
            }
        };
        parse(&answer)
    }
}

impl Client {
    fn start_tls(&self, options: &UriOptions) -> Result<ClientConnection, HttpError> {
        let failed = |source| HttpError::Tls {
            authority: self.authority.clone(),
            source,
        };
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let (config, name) = client_config(host, options).map_err(failed)?;
        ClientConnection::new(config, name).map_err(|error| failed(error.into()))
    }
}

/// Sends the request, and takes all that comes until the other side ends.
fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Vec<u8>, HttpError> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        // A server may end without TLS' own goodbye; whether all came is told by what came.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(answer),
    }
}

fn parse(answer: &[u8]) -> Result<Answer, HttpError> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or(HttpError::NotHttp("it has no end of its head"))?;
    let (head, body) = answer.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or(HttpError::NotHttp("it has no status"))?;
    let is_chunked = lines.any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("transfer-encoding:") && line.contains("chunked")
    });
    let body = match is_chunked {
        true => unchunk(body).ok_or(HttpError::NotHttp("its chunks are broken"))?,
        false => body.to_vec(),
    };
    let body = match body.iter().all(u8::is_ascii_whitespace) {
        true => Value::Null,
        false => serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    Ok(Answer { status, body })
}

/// The body without the sizes in it.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line_end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(body.get(..line_end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        body = body.get(line_end + 2..)?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_chunks() {
        let plain = b"HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n{\"reason\":\"x\"}";
        let answer = parse(plain).expect("HTTP");
        assert_eq!((answer.status, answer.reason().as_str()), (404, "x"));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n2;x\r\n,2\r\n1\r\n]\r\n0\r\n\r\n";
        let answer = parse(chunked).expect("HTTP");
        assert_eq!(answer.body, serde_json::json!([1, 2]));
        let empty = parse(b"HTTP/1.1 204 No Content\r\n\r\n").expect("HTTP");
        assert!(empty.is_success() && empty.body.is_null());
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n").is_err());
    }
}
