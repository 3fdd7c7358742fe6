//! One connection with one channel: what the checker needs of an AMQP client, with nothing hidden.
//!
//! Owns: a socket, the thread that reads it, and what has come in and was not yet taken. Nothing is
//! retried, reconnected or reordered here. Heartbeats are off: the broker's end is seen on the socket.
//! Bound: the broker may send up to the prefetch count or the confirm window ahead of the reader.

use std::collections::VecDeque;
use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::wire::{self, Args, Fields, MethodId, Properties};

/// How long a connection may take to be made; the broker is on this machine.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long the broker may take for an answer, or leave the socket full.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Largest body taken, in bytes.
const BODY_BYTES_MAX: u64 = 1 << 30;
/// Frames above this are not negotiated, in bytes.
const FRAME_BYTES_MAX: u32 = 131_072;
/// The only channel.
const CHANNEL: u16 = 1;

/// What ended an operation.
#[derive(Clone, Debug)]
pub(crate) enum ClientError {
    /// The broker closed the channel; it can be opened again with [`Connection::reopen`].
    ChannelClosed { code: u16, text: String },
    /// The broker closed the connection and said why.
    ConnectionClosed { code: u16, text: String },
    /// The socket ended; every outcome that was open stays unknown.
    Gone,
    /// Nothing came for [`ANSWER_MAX`].
    Silent(String),
    /// The broker sent what the standard forbids.
    Violation(String),
}

type Result<T> = std::result::Result<T, ClientError>;

/// A method, with its content if it carries one.
pub(crate) struct Incoming {
    pub(crate) id: MethodId,
    pub(crate) args: Vec<u8>,
    pub(crate) properties: Properties,
    pub(crate) body: Vec<u8>,
}

/// An open connection with an open channel.
pub(crate) struct Connection {
    socket: TcpStream,
    out: Vec<u8>,
    frame_bytes_max: usize,
    incoming: Receiver<Result<Incoming>>,
    waiting: VecDeque<Incoming>,
    ended: Option<ClientError>,
    reader: Option<JoinHandle<()>>,
}

impl Connection {
    /// Connects, logs in as guest and opens the channel.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let socket =
            TcpStream::connect_timeout(&address, CONNECT_MAX).map_err(|_| ClientError::Gone)?;
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| socket.set_write_timeout(Some(ANSWER_MAX)))
            .and_then(|()| socket.try_clone());
        let reading = prepared.map_err(|_| ClientError::Gone)?;
        let (sender, incoming) = mpsc::channel();
        let reader = thread::spawn(move || read_all(&reading, &sender));
        let mut connection = Self {
            socket,
            out: Vec::new(),
            frame_bytes_max: FRAME_BYTES_MAX as usize,
            incoming,
            waiting: VecDeque::new(),
            ended: None,
            reader: Some(reader),
        };
        connection.handshake()?;
        Ok(connection)
    }

    fn handshake(&mut self) -> Result<()> {
        self.out.extend_from_slice(wire::PROTOCOL_HEADER);
        self.flush()?;
        self.expect(wire::CONNECTION_START)?;
        let start_ok = Args::of(wire::CONNECTION_START_OK)
            .long(&client_properties())
            .short("PLAIN")
            .long(b"\0guest\0guest")
            .short("en_US");
        self.send(0, start_ok);
        self.flush()?;
        let tune = self.expect(wire::CONNECTION_TUNE)?;
        let mut fields = Fields(&tune.args);
        let (channels, frame) = parse(|| Ok((fields.u16()?, fields.u32()?)))?;
        let frame = if frame == 0 {
            FRAME_BYTES_MAX
        } else {
            frame.min(FRAME_BYTES_MAX)
        };
        self.frame_bytes_max = frame as usize;
        self.send(
            0,
            Args::of(wire::CONNECTION_TUNE_OK)
                .u16(channels)
                .u32(frame)
                .u16(0),
        );
        self.send(
            0,
            Args::of(wire::CONNECTION_OPEN).short("/").short("").u8(0),
        );
        self.flush()?;
        self.expect(wire::CONNECTION_OPEN_OK)?;
        self.reopen()
    }

    /// Opens the channel, the first time or after the broker closed it.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.call(
            Args::of(wire::CHANNEL_OPEN).short(""),
            wire::CHANNEL_OPEN_OK,
        )?;
        Ok(())
    }

    fn send(&mut self, channel: u16, args: Args) {
        wire::put_frame(&mut self.out, wire::METHOD, channel, &args.bytes());
    }

    /// Appends a method of the channel to what the next flush sends.
    pub(crate) fn put(&mut self, args: Args) {
        self.send(CHANNEL, args);
    }

    /// Appends a mandatory publish with its content to what the next flush sends.
    pub(crate) fn put_publish(
        &mut self,
        exchange: &str,
        key: &str,
        properties: &Properties,
        body: &[u8],
    ) {
        self.put(
            Args::of(wire::BASIC_PUBLISH)
                .u16(0)
                .short(exchange)
                .short(key)
                .u8(1),
        );
        let header = wire::content_header(body.len() as u64, properties);
        wire::put_frame(&mut self.out, wire::HEADER, CHANNEL, &header);
        for part in body.chunks(self.frame_bytes_max - wire::FRAME_OVERHEAD_BYTES) {
            wire::put_frame(&mut self.out, wire::BODY, CHANNEL, part);
        }
    }

    /// Sends what was put.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let sent = self.socket.write_all(&self.out);
        self.out.clear();
        self.out.shrink_to(1 << 20);
        match sent {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::Silent("the broker stopped reading".to_owned()))
            }
            // The reader knows better if the broker said why before it left.
            Err(_) => Err(self.why_gone()),
        }
    }

    fn why_gone(&mut self) -> ClientError {
        loop {
            match self.next(Duration::from_millis(100)) {
                Ok(Some(_)) => {}
                Ok(None) => return ClientError::Gone,
                Err(error) => return error,
            }
        }
    }

    /// The next thing that the broker sent; none if nothing comes in time.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Option<Incoming>> {
        if let Some(incoming) = self.waiting.pop_front() {
            return Ok(Some(incoming));
        }
        self.receive(patience)
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<Incoming>> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        match self.incoming.recv_timeout(patience) {
            Ok(Ok(incoming)) => Ok(Some(incoming)),
            Ok(Err(ClientError::ChannelClosed { code, text })) => {
                self.put(Args::of(wire::CHANNEL_CLOSE_OK));
                self.flush()?;
                Err(ClientError::ChannelClosed { code, text })
            }
            Ok(Err(error)) => {
                self.ended = Some(error.clone());
                Err(error)
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ClientError::Gone),
        }
    }

    /// Waits for this method; what comes before it is kept for [`Connection::next`].
    fn expect(&mut self, id: MethodId) -> Result<Incoming> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                Some(incoming) if incoming.id == id => return Ok(incoming),
                Some(incoming) => self.waiting.push_back(incoming),
                None => return Err(ClientError::Silent(format!("no answer of kind {id:?}"))),
            }
        }
    }

    /// Sends a method and waits for its answer.
    pub(crate) fn call(&mut self, args: Args, answer: MethodId) -> Result<Incoming> {
        self.put(args);
        self.flush()?;
        self.expect(answer)
    }

    /// `basic.get`: the message, or none if the queue is empty.
    pub(crate) fn get(&mut self, queue: &str) -> Result<Option<Incoming>> {
        self.put(Args::of(wire::BASIC_GET).u16(0).short(queue).u8(0));
        self.flush()?;
        match self.next(ANSWER_MAX)? {
            Some(incoming) if incoming.id == wire::BASIC_GET_OK => Ok(Some(incoming)),
            Some(incoming) if incoming.id == wire::BASIC_GET_EMPTY => Ok(None),
            Some(incoming) => Err(ClientError::Violation(format!(
                "{:?} in answer to basic.get",
                incoming.id
            ))),
            None => Err(ClientError::Silent("no answer to basic.get".to_owned())),
        }
    }

    /// Says good-bye and waits for the answer.
    pub(crate) fn close(mut self) {
        let close = Args::of(wire::CONNECTION_CLOSE)
            .u16(200)
            .short("")
            .u16(0)
            .u16(0);
        self.send(0, close);
        // Whatever the answer is, the connection is over.
        if self.flush().is_ok() {
            let _ = self.expect(wire::CONNECTION_CLOSE_OK);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The socket may be gone already; the reader ends either way.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Who this is, and the extensions of the protocol that it understands.
fn client_properties() -> Vec<u8> {
    let extensions = [
        "publisher_confirms",
        "basic.nack",
        "connection.blocked",
        "consumer_cancel_notify",
    ];
    let put = |args: Args, name: &&str| args.short(name).u8(b't').u8(1);
    let capabilities = extensions.iter().fold(Args::empty(), put).bytes();
    Args::empty()
        .short("product")
        .u8(b'S')
        .long(b"warren-check")
        .short("capabilities")
        .u8(b'F')
        .long(&capabilities)
        .bytes()
}

fn parse<T>(read: impl FnOnce() -> io::Result<T>) -> Result<T> {
    read().map_err(|error| ClientError::Violation(error.to_string()))
}

/// A content whose header or body has not all come.
struct Partial {
    incoming: Incoming,
    /// None until the header came.
    missing_bytes: Option<u64>,
}

/// The reader thread: frames to methods with contents, until the socket or the connection ends.
fn read_all(socket: &TcpStream, sender: &Sender<Result<Incoming>>) {
    let mut source = BufReader::with_capacity(1 << 18, socket);
    let mut partial: Option<Partial> = None;
    loop {
        let outcome = match wire::read_frame(&mut source) {
            Ok(frame) => parse_frame(frame, &mut partial),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(ClientError::Violation(error.to_string()))
            }
            Err(_) => Err(ClientError::Gone),
        };
        let (outcome, is_last) = match outcome {
            Ok(None) => continue,
            Ok(Some(incoming)) => (Ok(incoming), false),
            Err(error) => {
                let is_last = !matches!(error, ClientError::ChannelClosed { .. });
                (Err(error), is_last)
            }
        };
        if let Err(ClientError::ConnectionClosed { .. }) = &outcome {
            let mut answer = Vec::new();
            let close_ok = Args::of(wire::CONNECTION_CLOSE_OK).bytes();
            wire::put_frame(&mut answer, wire::METHOD, 0, &close_ok);
            // The broker may already have left.
            let _ = (&*socket).write_all(&answer);
        }
        if sender.send(outcome).is_err() || is_last {
            return;
        }
    }
}

fn parse_frame(frame: wire::Frame, partial: &mut Option<Partial>) -> Result<Option<Incoming>> {
    match frame.kind {
        wire::METHOD => {
            if partial.is_some() && frame.channel == CHANNEL {
                return Err(ClientError::Violation(
                    "a method inside a content".to_owned(),
                ));
            }
            parse_method(&frame, partial)
        }
        wire::HEADER => {
            let open = partial.as_mut().filter(|open| open.missing_bytes.is_none());
            let open =
                open.ok_or_else(|| ClientError::Violation("a header without method".to_owned()))?;
            let (bytes, properties) = parse(|| wire::parse_content_header(&frame.payload))?;
            if bytes > BODY_BYTES_MAX {
                return Err(ClientError::Violation(format!("a body of {bytes} bytes")));
            }
            open.incoming.properties = properties;
            open.missing_bytes = Some(bytes);
            Ok(finished(partial))
        }
        wire::BODY => {
            let open = partial
                .as_mut()
                .and_then(|open| Some((&mut open.incoming.body, open.missing_bytes.as_mut()?)));
            let (body, missing) =
                open.ok_or_else(|| ClientError::Violation("a body without header".to_owned()))?;
            body.extend_from_slice(&frame.payload);
            let left = missing.checked_sub(frame.payload.len() as u64);
            *missing =
                left.ok_or_else(|| ClientError::Violation("more body than declared".to_owned()))?;
            Ok(finished(partial))
        }
        wire::HEARTBEAT => Ok(None),
        kind => Err(ClientError::Violation(format!("a frame of type {kind}"))),
    }
}

fn finished(partial: &mut Option<Partial>) -> Option<Incoming> {
    let is_whole = partial
        .as_ref()
        .is_some_and(|open| open.missing_bytes == Some(0));
    if is_whole {
        partial.take().map(|open| open.incoming)
    } else {
        None
    }
}

fn parse_method(frame: &wire::Frame, partial: &mut Option<Partial>) -> Result<Option<Incoming>> {
    let (id, args) = parse(|| wire::split_method(&frame.payload))?;
    let on_connection = id.0 == 10;
    if on_connection != (frame.channel == 0) || frame.channel > CHANNEL {
        return Err(ClientError::Violation(format!(
            "{id:?} on channel {}",
            frame.channel
        )));
    }
    let mut fields = Fields(args);
    match id {
        wire::CONNECTION_CLOSE => {
            let (code, text) = parse(|| Ok((fields.u16()?, fields.short()?)))?;
            Err(ClientError::ConnectionClosed { code, text })
        }
        wire::CHANNEL_CLOSE => {
            let (code, text) = parse(|| Ok((fields.u16()?, fields.short()?)))?;
            Err(ClientError::ChannelClosed { code, text })
        }
        wire::CONNECTION_BLOCKED | wire::CONNECTION_UNBLOCKED => Ok(None),
        _ => {
            let incoming = Incoming {
                id,
                args: args.to_vec(),
                properties: Properties::default(),
                body: Vec::new(),
            };
            if matches!(
                id,
                wire::BASIC_DELIVER | wire::BASIC_GET_OK | wire::BASIC_RETURN
            ) {
                *partial = Some(Partial {
                    incoming,
                    missing_bytes: None,
                });
                return Ok(None);
            }
            Ok(Some(incoming))
        }
    }
}
