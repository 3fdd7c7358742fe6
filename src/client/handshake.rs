//! From a TCP connection to an open AMQP connection.
//!
//! start ──start-ok (PLAIN)──> tune ──tune-ok, open──> open-ok

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::error::ClientError;
use super::reader::{decode_method, method_frame, next_frame, read_more};
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

/// What the two sides agreed on, with the socket.
pub(super) struct Opened {
    pub(super) read: OwnedReadHalf,
    pub(super) write: OwnedWriteHalf,
    /// Bytes that came behind the last answer.
    pub(super) buffer: BytesMut,
    pub(super) frame_bytes_max: u32,
    pub(super) channel_max: u16,
    /// Agreed interval; `None` if there are no heartbeats.
    pub(super) heartbeat: Option<Duration>,
}

/// Connects, logs in and enters the vhost.
pub(super) async fn open(uri: &AmqpUri, settings: &ConnectSettings) -> Result<Opened, ClientError> {
    if uri.is_tls() {
        return Err(ClientError::TlsUnsupported);
    }
    let mechanisms = &uri.options().auth_mechanisms;
    if !mechanisms.is_empty() && !mechanisms.iter().any(|name| name == "plain") {
        return Err(ClientError::Unusable(
            "only auth_mechanism=plain is supported; leave it out of the URI",
        ));
    }
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
    let (read, write) = socket.into_split();
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
    if !start
        .mechanisms
        .split(|byte| *byte == b' ')
        .any(|name| name == b"PLAIN")
    {
        return Err(ClientError::Unusable(
            "the broker does not offer login by PLAIN",
        ));
    }
    let name = uri
        .options()
        .connection_name
        .as_ref()
        .unwrap_or(&settings.name);
    wire.send(&connection::StartOk {
        client_properties: client_properties(name),
        mechanism: ShortString::from_static("PLAIN"),
        response: plain_response(uri).into(),
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
        buffer,
        frame_bytes_max,
        channel_max,
        heartbeat,
    })
}

/// The socket while both sides speak in turns.
struct Wire {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
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

/// `NUL user NUL password`.
fn plain_response(uri: &AmqpUri) -> Bytes {
    Bytes::from(format!("\0{}\0{}", uri.user(), uri.password()))
}
