//! A blocking AMQP client that can say anything, right or wrong, and sees every frame.
//!
//! Owns: one socket. Built on the codec alone, so that a test decides each octet that is sent. Every wait
//! ends after [`PATIENCE`], so that a broker that says nothing fails the test instead of hanging it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use warren::amqp::field::{FieldTable, FieldValue, Secret, ShortString};
use warren::amqp::frame::{self, FrameKind, ProtocolHeader};
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::{Encode, Method, basic, channel, confirm, connection, queue};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come, where nothing is expected.
const QUIET: Duration = Duration::from_millis(150);

/// What came from the broker.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A method without content.
    Method(u16, Method),
    /// A method with its message.
    Content(u16, Message),
    /// A sign of life.
    Heartbeat,
    /// Eight octets of a protocol header, where the broker speaks another version.
    ProtocolHeader([u8; 8]),
    /// The broker closed the socket.
    Eof,
}

/// A message with the method that brought it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// `basic.deliver`, `basic.get-ok` or `basic.return`.
    pub(crate) method: Method,
    /// The content header.
    pub(crate) header: ContentHeader,
    /// The whole body.
    pub(crate) body: Bytes,
    /// Lengths of the body frames, in bytes.
    pub(crate) frame_bytes: Vec<usize>,
}

impl Message {
    /// The tag to settle it by.
    pub(crate) fn delivery_tag(&self) -> u64 {
        match &self.method {
            Method::BasicDeliver(deliver) => deliver.delivery_tag,
            Method::BasicGetOk(got) => got.delivery_tag,
            other => panic!("{} has no delivery tag", other.name()),
        }
    }

    /// Whether it may have been delivered before.
    pub(crate) fn redelivered(&self) -> bool {
        match &self.method {
            Method::BasicDeliver(deliver) => deliver.redelivered,
            Method::BasicGetOk(got) => got.redelivered,
            other => panic!("{} is no delivery", other.name()),
        }
    }
}

/// How a client opens its connection.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// User name.
    pub(crate) user: &'static str,
    /// Password.
    pub(crate) password: &'static str,
    /// Largest frame, in bytes.
    pub(crate) frame_bytes_max: u32,
    /// Heartbeat interval in seconds; 0 for none.
    pub(crate) heartbeat: u16,
    /// `product` of the client properties.
    pub(crate) product: &'static str,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            user: "guest",
            password: "guest",
            frame_bytes_max: 131_072,
            heartbeat: 0,
            product: "warren-it",
        }
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
    /// Came while the test waited for something on another channel.
    put_by: VecDeque<Event>,
    frame_bytes_max: u32,
    greeted: bool,
}

impl Client {
    /// Connects and says nothing yet.
    pub(crate) fn raw(broker: SocketAddr) -> Self {
        let stream = TcpStream::connect(broker).expect("the broker listens");
        stream.set_nodelay(true).expect("an open socket");
        Self {
            stream,
            input: BytesMut::new(),
            put_by: VecDeque::new(),
            frame_bytes_max: 131_072,
            greeted: false,
        }
    }

    /// Lets the system keep little of what comes and was not read, so that the broker gets rid of no more; otherwise that is
    /// up to 32 MiB on some machines.
    pub(crate) fn take_little(&self) {
        const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, RECEIVE_BUFFER_BYTES)
            .expect("an open socket");
    }

    /// Opens a connection as guest in vhost `/`.
    pub(crate) fn connect(broker: SocketAddr) -> Self {
        Self::connect_as(broker, &Opening::default())
    }

    /// Opens a connection in vhost `/`.
    pub(crate) fn connect_as(broker: SocketAddr, opening: &Opening) -> Self {
        let mut client = Self::raw(broker);
        client.greet();
        client.introduce(opening.user, opening.password, opening.product);
        client.expect_method(0, "connection.tune");
        client.tune(opening);
        client.call(
            0,
            connection::Open {
                virtual_host: ShortString::from_static("/"),
            },
        );
        client
    }

    /// Sends the protocol header and takes `connection.start`.
    pub(crate) fn greet(&mut self) {
        self.send_bytes(&ProtocolHeader::ANSWER);
        self.expect_method(0, "connection.start");
    }

    /// Sends `start-ok` with these credentials and all capabilities.
    pub(crate) fn log_in(&mut self, user: &str, password: &str) {
        self.introduce(user, password, Opening::default().product);
    }

    fn introduce(&mut self, user: &str, password: &str, product: &str) {
        let yes = || FieldValue::from(true);
        let capabilities = FieldTable::from([
            ("authentication_failure_close", yes()),
            ("basic.nack", yes()),
            ("connection.blocked", yes()),
            ("consumer_cancel_notify", yes()),
            ("publisher_confirms", yes()),
        ]);
        let response = format!("\0{user}\0{password}");
        self.send(
            0,
            connection::StartOk {
                client_properties: FieldTable::from([
                    ("capabilities", FieldValue::Table(capabilities)),
                    ("product", FieldValue::from(product)),
                ]),
                mechanism: ShortString::from_static("PLAIN"),
                response: Secret::from(Bytes::from(response)),
                locale: ShortString::from_static("en_US"),
            },
        );
    }

    /// Sends `tune-ok`.
    pub(crate) fn tune(&mut self, opening: &Opening) {
        self.frame_bytes_max = opening.frame_bytes_max;
        self.send(
            0,
            connection::TuneOk {
                channel_max: 2047,
                frame_max: opening.frame_bytes_max,
                heartbeat: opening.heartbeat,
            },
        );
    }

    /// Opens a channel.
    pub(crate) fn open(&mut self, channel: u16) {
        self.call(channel, channel::Open {});
    }

    /// Sends octets as they are.
    /// Closes a channel.
    pub(crate) fn close_channel(&mut self, channel: u16) {
        self.call(
            channel,
            channel::Close {
                reply_code: 200,
                reply_text: ShortString::EMPTY,
                class_id: 0,
                method_id: 0,
            },
        );
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends octets to a broker that may not read any more; false if it closed the socket.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a method.
    pub(crate) fn send(&mut self, channel: u16, method: impl Encode) {
        let mut output = BytesMut::new();
        frame::put_method(&mut output, channel, &method);
        self.send_bytes(&output);
    }

    /// Sends a method and takes the next answer on its channel, which must be its `-ok`.
    pub(crate) fn call(&mut self, channel: u16, method: impl Encode + Into<Method>) -> Method {
        let method = method.into();
        let expected = format!("{}-ok", method.name());
        self.send(channel, method);
        self.expect_method(channel, &expected)
    }

    /// Publishes a message with these properties.
    pub(crate) fn publish_with(
        &mut self,
        channel: u16,
        publish: &basic::Publish,
        properties: &Properties,
        body: &[u8],
    ) {
        let output = published(channel, publish, properties, body, self.frame_bytes_max);
        self.send_bytes(&output);
    }

    /// Publishes to the default exchange: into the queue of this name.
    pub(crate) fn publish(&mut self, channel: u16, queue: &ShortString, body: &[u8]) {
        let publish = basic::Publish {
            routing_key: queue.clone(),
            ..basic::Publish::default()
        };
        self.publish_with(channel, &publish, &Properties::default(), body);
    }

    /// Declares a server-named exclusive queue.
    pub(crate) fn exclusive_queue(&mut self, channel: u16) -> ShortString {
        self.declare(
            channel,
            queue::Declare {
                exclusive: true,
                ..queue::Declare::default()
            },
        )
    }

    /// Declares a queue; gives its name.
    pub(crate) fn declare(&mut self, channel: u16, declare: queue::Declare) -> ShortString {
        match self.call(channel, declare) {
            Method::QueueDeclareOk(declared) => declared.queue,
            other => panic!("{} is not queue.declare-ok", other.name()),
        }
    }

    /// How many messages wait in a queue.
    pub(crate) fn depth(&mut self, channel: u16, queue: &ShortString) -> u32 {
        let declare = queue::Declare {
            queue: queue.clone(),
            passive: true,
            ..queue::Declare::default()
        };
        match self.call(channel, declare) {
            Method::QueueDeclareOk(declared) => declared.message_count,
            other => panic!("{} is not queue.declare-ok", other.name()),
        }
    }

    /// Starts a consumer.
    pub(crate) fn consume(
        &mut self,
        channel: u16,
        queue: &ShortString,
        tag: &'static str,
        no_ack: bool,
    ) {
        self.call(
            channel,
            basic::Consume {
                queue: queue.clone(),
                consumer_tag: ShortString::from_static(tag),
                no_ack,
                ..basic::Consume::default()
            },
        );
    }

    /// Puts the channel into confirm mode.
    pub(crate) fn confirm_select(&mut self, channel: u16) {
        self.call(channel, confirm::Select { no_wait: false });
    }

    /// Sets the prefetch count for consumers started afterwards.
    pub(crate) fn qos(&mut self, channel: u16, prefetch_count: u16) {
        self.call(
            channel,
            basic::Qos {
                prefetch_count,
                ..basic::Qos::default()
            },
        );
    }

    /// Settles a delivery.
    pub(crate) fn ack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.send(
            channel,
            basic::Ack {
                delivery_tag,
                multiple,
            },
        );
    }

    /// Fetches a message, if one waits.
    pub(crate) fn get(
        &mut self,
        channel: u16,
        queue: &ShortString,
        no_ack: bool,
    ) -> Option<Message> {
        self.send(
            channel,
            basic::Get {
                queue: queue.clone(),
                no_ack,
            },
        );
        match self.next_on(channel) {
            Event::Content(_, message) => Some(message),
            Event::Method(_, Method::BasicGetEmpty(_)) => None,
            other => panic!("no answer to basic.get: {other:?}"),
        }
    }

    /// The next method on a channel, which must have this name.
    pub(crate) fn expect_method(&mut self, channel: u16, name: &str) -> Method {
        match self.next_on(channel) {
            Event::Method(_, method) if method.name() == name => method,
            other => panic!("expected {name} on channel {channel}, got {other:?}"),
        }
    }

    /// The next message on a channel.
    pub(crate) fn expect_message(&mut self, channel: u16) -> Message {
        match self.next_on(channel) {
            Event::Content(_, message) => message,
            other => panic!("expected a message on channel {channel}, got {other:?}"),
        }
    }

    /// Takes a server's `connection.close` with this code, answers it, and sees the socket closed.
    /// Gives the reply text.
    pub(crate) fn expect_connection_close(&mut self, reply_code: u16) -> String {
        let text = match self.expect_method(0, "connection.close") {
            Method::ConnectionClose(close) => {
                assert_eq!(close.reply_code, reply_code, "{}", close.reply_text);
                close.reply_text.to_string()
            }
            other => panic!("{} is not connection.close", other.name()),
        };
        self.send(0, connection::CloseOk {});
        self.expect_eof();
        text
    }

    /// Takes a server's `channel.close` with this code and answers it. Gives the reply text.
    pub(crate) fn expect_channel_close(&mut self, channel: u16, reply_code: u16) -> String {
        let text = match self.expect_method(channel, "channel.close") {
            Method::ChannelClose(close) => {
                assert_eq!(close.reply_code, reply_code, "{}", close.reply_text);
                close.reply_text.to_string()
            }
            other => panic!("{} is not channel.close", other.name()),
        };
        self.send(channel, channel::CloseOk {});
        text
    }

    /// The broker closes the socket and sends nothing before but heartbeats.
    pub(crate) fn expect_eof(&mut self) {
        loop {
            match self.next() {
                Event::Eof => return,
                Event::Heartbeat => {}
                other => panic!("expected the end of the connection, got {other:?}"),
            }
        }
    }

    /// Nothing comes for a moment.
    pub(crate) fn expect_quiet(&mut self) {
        if let Some(event) = self.next_within(QUIET) {
            panic!("expected nothing, got {event:?}");
        }
    }

    /// The next event on a channel; those of other channels wait. The end of the connection, and whatever
    /// the broker says on channel 0, is an event of each channel.
    pub(crate) fn next_on(&mut self, channel: u16) -> Event {
        let belongs = |event: &Event| match event {
            Event::Method(at, _) | Event::Content(at, _) => *at == channel || *at == 0,
            Event::Heartbeat => false,
            Event::ProtocolHeader(_) | Event::Eof => true,
        };
        if let Some(index) = self.put_by.iter().position(belongs)
            && let Some(event) = self.put_by.remove(index)
        {
            return event;
        }
        loop {
            let event = self.fresh(PATIENCE).expect("an answer in time");
            if belongs(&event) {
                return event;
            }
            self.put_by.push_back(event);
        }
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Event {
        self.next_within(PATIENCE).expect("an answer in time")
    }

    /// The next event, if it comes before `patience` ends.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<Event> {
        match self.put_by.pop_front() {
            Some(event) => Some(event),
            None => self.fresh(patience),
        }
    }

    fn fresh(&mut self, patience: Duration) -> Option<Event> {
        let mut content: Option<(u16, Message)> = None;
        loop {
            let Some(frame) = self.frame(patience) else {
                assert!(content.is_none(), "the broker stopped within a message");
                return None;
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(event) => return Some(event),
            };
            if content.is_none() {
                match frame.kind {
                    FrameKind::Heartbeat => return Some(Event::Heartbeat),
                    FrameKind::Method => {
                        let method = Method::decode(&frame.payload).expect("a method of ours");
                        if !method.has_content() {
                            return Some(Event::Method(frame.channel, method));
                        }
                        let header = ContentHeader::new(u64::MAX, &Properties::default());
                        let (body, frame_bytes) = (Bytes::new(), Vec::new());
                        let message = Message {
                            method,
                            header,
                            body,
                            frame_bytes,
                        };
                        content = Some((frame.channel, message));
                    }
                    FrameKind::Header | FrameKind::Body => panic!("content without a method"),
                }
                continue;
            }
            if frame.channel == 0 {
                // Heartbeats may come between a message's frames.
                assert_eq!(frame.kind, FrameKind::Heartbeat, "within a message");
                continue;
            }
            let (channel, mut message) = content.take().expect("just seen");
            assert_eq!(
                frame.channel, channel,
                "one message at a time is all this client reads"
            );
            match frame.kind {
                FrameKind::Header => {
                    message.header = ContentHeader::decode(&frame.payload).expect("a header");
                }
                FrameKind::Body => {
                    message.frame_bytes.push(frame.payload.len());
                    message.body = [&message.body[..], &frame.payload[..]].concat().into();
                }
                FrameKind::Method | FrameKind::Heartbeat => panic!("within a message: {frame:?}"),
            }
            if message.body.len() as u64 == message.header.body_bytes {
                return Some(Event::Content(channel, message));
            }
            content = Some((channel, message));
        }
    }

    /// The next frame, or what stands in its place; `None` when time is up. For tests of how frames of
    /// several channels mix; [`Self::next`] takes whole messages.
    pub(crate) fn frame(&mut self, patience: Duration) -> Option<Result<frame::Frame, Event>> {
        loop {
            if !self.greeted && self.input.first() == Some(&b'A') && self.input.len() >= 8 {
                let octets = self.input.split_to(8);
                return Some(Err(Event::ProtocolHeader(
                    octets[..].try_into().expect("eight"),
                )));
            }
            // A content header may be above the frame-max.
            match frame::decode(&mut self.input, u32::MAX) {
                Ok(Some(frame)) => {
                    self.greeted = true;
                    return Some(Ok(frame));
                }
                Ok(None) => {}
                Err(error) => panic!("the broker sent no frame: {error}"),
            }
            self.stream
                .set_read_timeout(Some(patience))
                .expect("a time above zero");
            let mut octets = [0; 65_536];
            match self.stream.read(&mut octets) {
                Ok(0) => return Some(Err(Event::Eof)),
                Ok(count) => self.input.extend_from_slice(&octets[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                        return Some(Err(Event::Eof));
                    }
                    _ => panic!("reading from the broker: {error}"),
                },
            }
        }
    }
}

/// The frames of a publish.
pub(crate) fn published(
    channel: u16,
    publish: &basic::Publish,
    properties: &Properties,
    body: &[u8],
    frame_bytes_max: u32,
) -> BytesMut {
    let mut output = BytesMut::new();
    let header = ContentHeader::new(body.len() as u64, properties);
    frame::put_method_with_content(
        &mut output,
        channel,
        publish,
        &header,
        body,
        frame_bytes_max,
    );
    output
}

/// Properties of a message that must survive.
pub(crate) fn persistent() -> Properties {
    Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    }
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> ShortString {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    ShortString::truncated(format!("it.{}.{count}.{name}", std::process::id()))
}

/// Octets that differ along their length, so that nothing can be lost or swapped unseen.
pub(crate) fn pattern(length_bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length_bytes).map(|_| step(&mut state)).collect()
}
