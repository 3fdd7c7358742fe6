//! From a TCP connection to an open AMQP connection.
//!
//! start ──start-ok (PLAIN, EXTERNAL)──> tune ──tune-ok, open──> open-ok

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::ClientError;
use super::reader::{decode_method, method_frame, next_frame, read_more};
use super::tls::client_config;
use super::uri::AmqpUri;
use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::frame::{FrameKind, ProtocolHeader};
use crate::amqp::limits::{FRAME_BYTES_BEFORE_TUNE, FRAME_BYTES_DEFAULT, FRAME_BYTES_MIN};
use crate::amqp::method::{Encode, Method, connection};

/// How to connect; the URI's query goes before it.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// Longest time for connecting and logging in.
    pub timeout: Duration,
    /// Heartbeat interval to ask for; zero asks for none.
    pub heartbeat: Duration,
    /// Name under which the broker lists the connection.
    pub name: String,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(20),
            name: "warren".to_owned(),
        }
    }
}

/// What is read from, over whatever the connection goes.
pub(super) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// What is written to.
pub(super) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// What the two sides agreed on, with the socket.
pub(super) struct Opened {
    pub(super) read: ReadHalf,
    pub(super) write: WriteHalf,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// Bytes that came behind the last answer.
    pub(super) buffer: BytesMut,
    pub(super) frame_bytes_max: u32,
    pub(super) channel_max: u16,
    /// Agreed interval; `None` if there are no heartbeats.
    pub(super) heartbeat: Option<Duration>,
}

/// Connects, logs in and enters the vhost.
pub(super) async fn open(uri: &AmqpUri, settings: &ConnectSettings) -> Result<Opened, ClientError> {
    let limit = uri.options().connection_timeout.unwrap_or(settings.timeout);
    let timed_out = |_| ClientError::Timeout {
        what: "connecting and logging in",
        seconds: limit.as_secs(),
    };
    timeout(limit, shake_hands(uri, settings))
        .await
        .map_err(timed_out)?
}

async fn shake_hands(uri: &AmqpUri, settings: &ConnectSettings) -> Result<Opened, ClientError> {
    let connected = TcpStream::connect((uri.host(), uri.port())).await;
    let socket = connected.map_err(|source| ClientError::Connect {
        address: uri.authority(),
        cause: Arc::new(source),
    })?;
    socket.set_nodelay(true)?;
    let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
    let (read, write): (ReadHalf, WriteHalf) = if uri.is_tls() {
        let (read, write) = tokio::io::split(start_tls(uri, socket).await?);
        (Box::new(read), Box::new(write))
    } else {
        let (read, write) = socket.into_split();
        (Box::new(read), Box::new(write))
    };
    let mut wire = Wire {
        read,
        write,
        buffer: BytesMut::new(),
    };
    wire.write.write_all(&ProtocolHeader::ANSWER).await?;

    let start = match wire.method().await? {
        Method::ConnectionStart(start) => start,
        other => return Err(refused(other)),
    };
    let mechanism = choose(uri, &start.mechanisms)?;
    let name = uri
        .options()
        .connection_name
        .as_ref()
        .unwrap_or(&settings.name);
    wire.send(&connection::StartOk {
        client_properties: client_properties(name),
        mechanism: ShortString::from_static(mechanism.name()),
        response: mechanism.response(uri).into(),
        locale: ShortString::from_static("en_US"),
    })
    .await?;

    let tune = match wire.method().await? {
        Method::ConnectionTune(tune) => tune,
        other => return Err(refused(other)),
    };
    let frame_bytes_max = match tune.frame_max {
        0 => FRAME_BYTES_DEFAULT,
        offered => offered.clamp(FRAME_BYTES_MIN, FRAME_BYTES_DEFAULT),
    };
    let channel_max = [tune.channel_max, uri.options().channel_max.unwrap_or(0)]
        .into_iter()
        .filter(|limit| *limit != 0)
        .min()
        .unwrap_or(u16::MAX);
    let wanted = uri
        .options()
        .heartbeat
        .unwrap_or(settings.heartbeat)
        .as_secs();
    let heartbeat = u16::try_from(wanted).unwrap_or(u16::MAX);
    wire.send(&connection::TuneOk {
        channel_max,
        frame_max: frame_bytes_max,
        heartbeat,
    })
    .await?;
    let vhost = ShortString::try_from(uri.vhost())
        .map_err(|_| ClientError::Unusable("the vhost's name is too long"))?;
    wire.send(&connection::Open {
        virtual_host: vhost,
    })
    .await?;
    match wire.method().await? {
        Method::ConnectionOpenOk(_) => {}
        other => return Err(refused(other)),
    }
    let Wire {
        read,
        write,
        buffer,
    } = wire;
    let heartbeat = (heartbeat != 0).then(|| Duration::from_secs(heartbeat.into()));
    Ok(Opened {
        read,
        write,
        peer,
        local,
        buffer,
        frame_bytes_max,
        channel_max,
        heartbeat,
    })
}

/// Shakes hands over TLS as the URI says.
async fn start_tls(
    uri: &AmqpUri,
    socket: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ClientError> {
    let failed = |cause| ClientError::Tls {
        address: uri.authority(),
        cause,
    };
    let (config, name) =
        client_config(uri.host(), uri.options()).map_err(|error| failed(Arc::new(error)))?;
    let connected = TlsConnector::from(config).connect(name, socket).await;
    connected.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => failed(Arc::new(error)),
        // A broker that goes in the middle of it may come back.
        _ => error.into(),
    })
}

/// The ways to log in that this client knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mechanism {
    Plain,
    External,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::External => "EXTERNAL",
        }
    }

    fn response(self, uri: &AmqpUri) -> Bytes {
        match self {
            Self::Plain => Bytes::from(format!("\0{}\0{}", uri.user(), uri.password())),
            // The certificate has said it.
            Self::External => Bytes::new(),
        }
    }
}

/// The first mechanism of the URI that the broker offers; PLAIN if the URI names none.
fn choose(uri: &AmqpUri, offered: &[u8]) -> Result<Mechanism, ClientError> {
    let is_offered = |mechanism: &Mechanism| {
        let mut names = offered.split(|byte| *byte == b' ');
        names.any(|name| name == mechanism.name().as_bytes())
    };
    let wanted = &uri.options().auth_mechanisms;
    let mut wanted = wanted.iter().filter_map(|name| match name.as_str() {
        "plain" => Some(Mechanism::Plain),
        "external" => Some(Mechanism::External),
        _ => None,
    });
    let chosen = match uri.options().auth_mechanisms.is_empty() {
        true => Some(Mechanism::Plain).filter(is_offered),
        false => wanted.find(is_offered),
    };
    chosen.ok_or(ClientError::Unusable(
        "the broker does not offer the login that is wanted; auth_mechanism in the URI may be plain or external",
    ))
}

/// The socket while both sides speak in turns.
struct Wire {
    read: ReadHalf,
    write: WriteHalf,
    buffer: BytesMut,
}

impl Wire {
    async fn send(&mut self, method: &impl Encode) -> Result<(), ClientError> {
        Ok(self.write.write_all(&method_frame(0, method)).await?)
    }

    /// The next method on channel 0.
    async fn method(&mut self) -> Result<Method, ClientError> {
        loop {
            if self.buffer.first_chunk() == Some(b"AMQP") {
                return Err(ClientError::Protocol(
                    "it does not speak AMQP 0-9-1, as its protocol header says".to_owned(),
                ));
            }
            if let Some(frame) = next_frame(&mut self.buffer, FRAME_BYTES_BEFORE_TUNE)? {
                match frame.kind {
                    FrameKind::Method if frame.channel == 0 => {
                        return decode_method(&frame.payload);
                    }
                    FrameKind::Heartbeat => {}
                    FrameKind::Method | FrameKind::Header | FrameKind::Body => {
                        return Err(ClientError::Protocol("a frame before the login".to_owned()));
                    }
                }
            } else {
                read_more(&mut self.read, &mut self.buffer, None).await?;
            }
        }
    }
}

/// The error that stands for an answer which is not the expected one.
fn refused(method: Method) -> ClientError {
    match method {
        Method::ConnectionClose(close) => ClientError::ConnectionClosed {
            code: close.reply_code,
            text: close.reply_text.to_string(),
        },
        other => ClientError::Protocol(format!("unexpected {} while logging in", other.name())),
    }
}

fn client_properties(name: &str) -> FieldTable {
    let capabilities = FieldTable::from([
        ("publisher_confirms", FieldValue::Boolean(true)),
        ("consumer_cancel_notify", FieldValue::Boolean(true)),
        ("basic.nack", FieldValue::Boolean(true)),
        ("connection.blocked", FieldValue::Boolean(true)),
        ("authentication_failure_close", FieldValue::Boolean(true)),
    ]);
    FieldTable::from([
        ("product", FieldValue::from("Warren")),
        ("version", FieldValue::from(env!("CARGO_PKG_VERSION"))),
        ("platform", FieldValue::from("Rust")),
        ("capabilities", FieldValue::from(capabilities)),
        ("connection_name", FieldValue::from(name)),
    ])
}
