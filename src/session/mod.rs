//! One AMQP connection as a state machine: bytes in; bytes, broker calls and actions out.
//!
//! Owns: the protocol state of one connection and of its channels. Knows no socket, file or clock:
//! the server reads and writes, keeps time, and carries bodies to and from the payload store.
//!
//! Call [`Session::handle_bytes`] with what was read, then carry out [`Session::poll_action`] until it
//! is `None`, then write [`Session::poll_transmit`] until it is `None` and say so with
//! [`Session::handle_transmitted`]. Call the other `handle_*` when what they are named after happens.
//!
//! ```text
//! Opening ─connection.open─> Running ─close, failure─> Closing ─close-ok, timeout─> Closed
//!    └──────────failure─────────────────────────────────────────────────────────────┘
//! ```
//! Bounds: `frame_bytes_max`, channels, the outbox; while a body is stored, or as many answers about the topology wait
//! for the disk as may (`transmit.rs`), no more is read; nor while
//! `UNSENT_BYTES_MAX` are unsent, nor from a publisher while an alarm is on (`blocked.rs`).
//! Spec: AMQP 0-9-1 §2.2, §4; `spec/amqp.md`.

mod blocked;
mod channel;
mod confirm;
mod content;
mod ending;
mod events;
mod failure;
mod handshake;
mod heartbeat;
mod incoming;
mod opening;
#[cfg(test)]
mod promise_tests;
mod properties;
mod qos;
mod timeouts;
mod tls;
mod transmit;
mod tx;
mod unsettled;
mod view;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::amqp::frame::ProtocolHeader;
use crate::amqp::limits::FRAME_BYTES_BEFORE_TUNE;
use crate::amqp::method::Method;
use crate::amqp::reply::ReplyCode;
use crate::broker::{AlarmWait, Broker, Connection, Name, Origin, OutboxItem, Waker, Wakes};
use crate::config::{AdmissionSettings, ConnectionSettings};
use crate::journal::Lsn;
use crate::payload::store::BodyFile;
use crate::payload::{PayloadId, ScopeId};

use channel::{Channel, Context, Repeats, Reply};
use content::SizeRules;
use failure::{Failure, MethodId};
use handshake::{Client, Handshake};
use heartbeat::Heartbeat;
use transmit::Transmit;
use view::Introduction;

#[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
pub(crate) use channel::NODE_QUEUE;
pub use channel::{DeliveryShare, ExchangeShare, PublishOutcomes};
pub use events::Addresses;
#[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
pub(crate) use properties::check_message;
pub use tls::{PeerCertificate, TlsFacts};
pub use transmit::{Chunk, ManifestPart, PayloadPart, STREAM_STEP_BYTES};
pub use view::{ChannelView, SessionView};

/// How often channels are looked through for deliveries that nobody acknowledges: a quarter of the wait, but
/// neither more often than the first nor more seldom than the second.
const TIMEOUT_CHECK_MIN: Duration = Duration::from_millis(250);
const TIMEOUT_CHECK_MAX: Duration = Duration::from_secs(60);
/// Longest wait for `connection.close-ok` before the socket is closed anyway.
const CLOSE_OK_WAIT: Duration = Duration::from_secs(10);
/// Answers and returns that the client has not taken, in bytes, beyond which nothing more that it sends is
/// handled: who asks without reading the answers waits for itself. Deliveries have the outbox's bound.
const UNSENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of deliveries that one connection holds behind a large body or an answer that waits for the disk, beside what
/// its outbox takes. So other channels are served meanwhile, and what a long backlog on the same channel costs is bounded.
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// `connection.close-ok` as a whole frame.
const CLOSE_OK_FRAME: [u8; 12] = [1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51, 0xCE];

/// What sessions are made with; shared by all connections of a listener.
#[derive(Clone, Debug, Default)]
pub struct SessionSettings {
    /// What a connection may do, and how the server presents itself.
    pub connection: ConnectionSettings,
    /// How long the handshake may take.
    pub admission: AdmissionSettings,
    /// A body of at least this many bytes goes to the payload store; `None` without a store.
    pub payload_threshold_bytes: Option<u64>,
    /// Large bodies are delivered with their content id (`x-payload-id`).
    pub tells_content_ids: bool,
}

/// A body on its way into the payload store; unique on its connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct UploadId(u64);

impl UploadId {
    /// The one upload of a caller that has no others to tell it from.
    pub const ONLY: Self = Self(0);
}

/// What the server must do for a session, in order.
#[derive(Debug)]
pub enum Action {
    /// A body for the payload store begins.
    PayloadBegin {
        /// Its name in the actions that follow.
        upload: UploadId,
        /// The vhost's scope in the store.
        scope: ScopeId,
        /// How long it will be, in bytes.
        size_bytes: u64,
        /// Queues of nodes that the message would go to if it came now.
        node_queues: Vec<Name>,
        /// What becomes of it.
        kind: UploadKind,
    },
    /// A part of it.
    PayloadBytes {
        /// Which body.
        upload: UploadId,
        /// The part.
        bytes: Bytes,
    },
    /// It is whole: answer with [`Session::handle_payload`] once it is stored and synced, or in its file.
    PayloadEnd {
        /// Which body.
        upload: UploadId,
    },
    /// It will not become whole; no answer is wanted.
    PayloadAbort {
        /// Which body.
        upload: UploadId,
    },
}

/// What becomes of a large body that does not stay in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UploadKind {
    /// A file of its own, or a payload if there are too many of them. Spec: MEMBODY-5.
    BodyFile,
    /// A payload in the store.
    Payload,
}

/// What became of a body that was sent to the payload store.
#[derive(Clone, Debug)]
pub enum UploadResult {
    /// It is whole, in a file of its own.
    InFile(Arc<BodyFile>),
    /// It is stored and synced.
    Stored {
        /// Its content id.
        id: PayloadId,
        /// Its length in bytes.
        size_bytes: u64,
    },
    /// It cannot be stored: the channel is closed with this reason (406).
    Refused {
        /// What happened, for the client.
        reason: String,
    },
}

/// Where the connection is in its life.
#[derive(Debug)]
enum State {
    Opening(Handshake),
    Running(Box<Connection>),
    /// The server sent `connection.close`: only its answer counts.
    Closing {
        deadline: Instant,
        frames: Frames,
        /// The client ends the connection too: nothing is left but answers that wait for the journal.
        is_answered: bool,
    },
    /// Nothing more is read; what is left to send is sent.
    Closed,
}

/// Whether frames can still be told apart in what the client sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Frames {
    Intact,
    /// A frame was wrong, so where the next one begins is not known.
    Lost,
}

/// A channel's place on the connection.
#[derive(Debug)]
enum Slot {
    Open(Box<Channel>),
    /// The server sent `channel.close`: all but the answer is dropped.
    Closing,
}

/// Channel numbers are spread well enough as they are.
#[derive(Default)]
struct ChannelHasher(u64);

impl Hasher for ChannelHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u16(&mut self, number: u16) {
        // The table looks at the highest bits too.
        self.0 = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type Channels = HashMap<u16, Slot, BuildHasherDefault<ChannelHasher>>;

/// One AMQP connection.
pub struct Session {
    settings: Arc<SessionSettings>,
    broker: Arc<Broker>,
    origin: Origin,
    waker: Arc<dyn Waker>,
    state: State,
    client: Client,
    introduction: Box<Introduction>,
    addresses: Option<Addresses>,
    tls: Option<Arc<TlsFacts>>,
    heartbeat: Heartbeat,
    /// A login was refused.
    login_refused: bool,
    /// The opening must be done by then.
    opening_deadline: Instant,
    channels: Channels,
    repeats: Repeats,
    /// Channels with acknowledgements to pass on or confirms to send.
    touched: Vec<u16>,
    transmit: Transmit,
    /// What was encoded, not yet written, and still counts in the outbox, in bytes.
    encoded_cost_bytes: usize,
    outbox_items: VecDeque<OutboxItem>,
    wakes: Wakes,
    actions: VecDeque<Action>,
    upload_next: u64,
    /// A body is being stored: what was read behind it waits.
    storing: Option<UploadId>,
    /// Something is short: the client's publishes wait, and all that is behind them.
    blocked: Option<AlarmWait>,
    /// When channels are looked through next for deliveries that nobody acknowledges.
    timeout_check_at: Option<Instant>,
    /// When the token that the client logged in with is over.
    token_expires_at: Option<Instant>,
    /// The client must take what is unsent before more is handled.
    choked: bool,
    /// The client's `connection.close` is in [`Self::unread`]; answers that wait for the disk come before its end.
    close_waits: bool,
    /// What was read and waits, see [`Self::is_waiting`].
    unread: Bytes,
    /// A new token is in it, and everything else can go on.
    secret_waits: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Session")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session for a connection that was just accepted. `waker` is called when
    /// [`Self::handle_wake`] is wanted.
    #[must_use]
    pub fn new(
        settings: Arc<SessionSettings>,
        broker: Arc<Broker>,
        origin: Origin,
        waker: Arc<dyn Waker>,
        now: Instant,
    ) -> Self {
        let opening_deadline = now + settings.admission.protocol_header_wait;
        Self {
            settings,
            broker,
            origin,
            waker,
            state: State::Opening(Handshake::Header),
            client: Client::default(),
            introduction: Box::default(),
            addresses: None,
            tls: None,
            heartbeat: Heartbeat::off(now),
            login_refused: false,
            opening_deadline,
            channels: Channels::default(),
            repeats: Repeats::default(),
            touched: Vec::new(),
            transmit: Transmit::new(),
            encoded_cost_bytes: 0,
            outbox_items: VecDeque::new(),
            wakes: Wakes::new(),
            actions: VecDeque::new(),
            upload_next: 0,
            storing: None,
            blocked: None,
            timeout_check_at: None,
            token_expires_at: None,
            choked: false,
            close_waits: false,
            unread: Bytes::new(),
            secret_waits: false,
        }
    }

    /// Takes what was read from the socket: all complete frames in it are handled, the rest stays.
    pub fn handle_bytes(&mut self, input: &mut BytesMut, now: Instant) {
        self.heartbeat.received(now);
        if std::mem::take(&mut self.secret_waits) && !self.is_waiting() {
            self.read_on_at_once(now);
        }
        loop {
            match &self.state {
                State::Opening(_) => {
                    if !self.open_step(input, now) {
                        break;
                    }
                }
                State::Running(_) | State::Closing { .. } => {
                    self.take_frames(input, now);
                    break;
                }
                State::Closed => {
                    input.clear();
                    break;
                }
            }
        }
        self.finish_batch(now);
    }

    /// The outbox has something, or no alarm is on any more.
    pub fn handle_wake(&mut self, now: Instant) {
        self.unblock_if_over(now);
        self.deliver_pending(now);
        self.wakes.wake_all();
    }

    /// The journal is durable up to `durable`: confirms and answers that waited for it go out.
    pub fn handle_committed(&mut self, durable: Lsn, now: Instant) {
        let waiting: Vec<u16> = self
            .channels
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Open(channel) if channel.waits_for_commit()))
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            self.with_channel(number, now, |channel, cx| {
                channel.committed(durable, cx);
                Ok(())
            });
        }
        if self.transmit.keep_promises(durable) {
            self.close_waits &= self.transmit.has_promise();
            if let State::Closing {
                is_answered: true, ..
            } = self.state
            {
                self.close_when_told();
            }
            self.read_on(now);
            self.finish_batch(now);
        }
    }

    /// The payload store is done with a body.
    pub fn handle_payload(&mut self, upload: UploadId, result: &UploadResult, now: Instant) {
        let number = self.channels.iter().find_map(|(number, slot)| match slot {
            Slot::Open(channel) if channel.is_uploading(upload) => Some(*number),
            Slot::Open(_) | Slot::Closing => None,
        });
        if let Some(number) = number {
            self.touch(number);
            self.with_channel(number, now, |channel, cx| channel.upload_done(result, cx));
        }
        if self.storing == Some(upload) {
            self.storing = None;
            self.read_on(now);
        }
        self.finish_batch(now);
    }

    /// Handles what was read while something had to be waited for; not a new token, which waits for
    /// [`Self::handle_bytes`], where it stops nobody else.
    fn read_on(&mut self, now: Instant) {
        if self.is_waiting() {
            return;
        }
        if let State::Running(connection) = &self.state
            && connection.user().has_token()
            && incoming::holds_secret(&self.unread)
        {
            self.secret_waits = true;
            return;
        }
        self.read_on_at_once(now);
    }

    fn read_on_at_once(&mut self, now: Instant) {
        let unread = std::mem::take(&mut self.unread);
        self.handle_frames(&unread, now);
    }

    /// Whether what the client sends must wait: for us, or for itself to take what is unsent.
    fn is_waiting(&self) -> bool {
        self.choked || self.is_busy()
    }

    /// Whether the store must take a body, the journal make answers true, or something that is short be
    /// there again, before more is handled.
    fn is_busy(&self) -> bool {
        self.storing.is_some()
            || self.transmit.is_full_of_promises()
            || self.close_waits
            || self.blocked.is_some()
            || self.secret_waits
    }

    /// A streamed body cannot be read back: the client cannot be told within its frames.
    pub fn handle_stream_failed(&mut self, reason: &str, now: Instant) {
        tracing::error!(reason, "a payload cannot be read; the connection is closed");
        self.end(now);
        self.transmit.clear();
    }

    /// The time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Opening(_) if self.opening_deadline <= now => {
                tracing::info!("the handshake took too long");
                self.state = State::Closed;
            }
            State::Closing { deadline, .. } if *deadline <= now => {
                self.transmit.drop_promises();
                self.state = State::Closed;
            }
            State::Opening(_) | State::Closed => {}
            State::Running(_) | State::Closing { .. } => {
                self.beat(now);
                self.expire_token(now);
                if self.timeout_check_at.is_some_and(|at| at <= now) {
                    self.check_timeouts(now);
                }
            }
        }
    }

    /// The socket is gone.
    pub fn handle_disconnect(&mut self, now: Instant) {
        self.transmit.drop_promises();
        self.end(now);
    }

    /// The server stops: the client is told so (320).
    pub fn handle_shutdown(&mut self, now: Instant) {
        let explanation = "broker forced connection closure with reason 'shutdown'";
        let code = ReplyCode::ConnectionForced;
        self.fail(
            0,
            Failure::connection(code, explanation, MethodId::default()),
            now,
        );
    }

    /// The disk failed under the journal: nothing more is confirmed, and the client is told so (541).
    pub fn handle_storage_failure(&mut self, now: Instant) {
        let explanation = "the disk failed; what was not confirmed may be lost";
        let code = ReplyCode::InternalError;
        let failure = Failure::connection(code, explanation, MethodId::default());
        // What waits for the disk will not be true any more; if the connection's end is among it, this one takes its place.
        match self.transmit.drop_promises() {
            true => self.put_close(failure.code, failure.text, failure.method),
            false => self.fail(0, failure, now),
        }
    }

    /// Some of what [`Self::poll_transmit`] gave has been written: a client that takes it lives.
    pub fn handle_progress(&mut self, now: Instant) {
        if self.choked {
            self.heartbeat.received(now);
        }
    }

    /// All that [`Self::poll_transmit`] gave has been written.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.heartbeat.sent(now);
        if self.encoded_cost_bytes > 0
            && let State::Running(connection) = &self.state
        {
            let outbox = Arc::clone(connection.outbox());
            // What is held is still in memory.
            let held_bytes = self.transmit.held_bytes().saturating_sub(HELD_BYTES_MAX);
            let kept_bytes = self.encoded_cost_bytes.min(held_bytes);
            outbox.released(
                std::mem::replace(&mut self.encoded_cost_bytes, kept_bytes) - kept_bytes,
                self.broker.time(now),
                &mut self.wakes,
            );
            self.wakes.wake_all();
        }
        if self.choked {
            self.heartbeat.received(now);
            self.choked = self.transmit.unsent_bytes() >= UNSENT_BYTES_MAX;
            self.read_on(now);
            self.finish_batch(now);
        }
    }

    /// What the server must do for the session, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What to write next.
    pub fn poll_transmit(&mut self) -> Option<Chunk> {
        self.transmit.poll()
    }

    /// Whether there is something to write.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        !self.transmit.is_empty()
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Opening(_) => Some(self.opening_deadline),
            State::Running(_) => self
                .heartbeat
                .next()
                .into_iter()
                .chain(self.timeout_check_at)
                .chain(self.token_expires_at)
                .min(),
            State::Closing { deadline, .. } => Some(
                self.heartbeat
                    .next()
                    .map_or(*deadline, |next| next.min(*deadline)),
            ),
            State::Closed => None,
        }
    }

    /// Whether more bytes may be read: not while a body is being stored, too many answers wait for the disk, an
    /// alarm blocks a publisher, or too much is unsent.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        !self.is_waiting() && !matches!(self.state, State::Closed)
    }

    /// Whether a confirm or an answer waits for the journal.
    #[must_use]
    pub fn waits_for_commit(&self) -> bool {
        self.transmit.has_promise()
            || self
                .channels
                .values()
                .any(|slot| matches!(slot, Slot::Open(channel) if channel.waits_for_commit()))
    }

    /// Whether the login is done: before, a connection may cost next to nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// Whether handling `input` may take some tens of milliseconds, or wait for another machine: a login is in it
    /// whose password must be hashed slowly, or a new token whose key must be fetched.
    #[must_use]
    pub fn may_take_long(&self, input: &[u8]) -> bool {
        match &self.state {
            // Who is in a hurry sends its login with the protocol header.
            State::Opening(Handshake::Header) => {
                let behind = input.get(ProtocolHeader::ANSWER.len()..);
                behind.is_some_and(|behind| self.login_takes_long(behind))
            }
            State::Opening(Handshake::Start) => self.login_takes_long(input),
            State::Opening(Handshake::Tune { user } | Handshake::Open { user }) => {
                user.has_token() && incoming::holds_secret(input)
            }
            State::Running(connection) => {
                self.secret_waits
                    || (connection.user().has_token() && incoming::holds_secret(input))
            }
            State::Closing { .. } | State::Closed => false,
        }
    }

    /// Whether its publishes wait for memory or disk.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Whether the socket is to be closed once everything is written.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed) && !self.transmit.has_promise()
    }

    fn frame_bytes_max(&self) -> u32 {
        match self.client.frame_bytes_max {
            0 => FRAME_BYTES_BEFORE_TUNE,
            negotiated => negotiated,
        }
    }

    /// An open channel with what it needs of its session.
    #[inline]
    fn channel(&mut self, number: u16, now: Instant) -> Option<(&mut Channel, Context<'_>)> {
        let Some(Slot::Open(channel)) = self.channels.get_mut(&number) else {
            return None;
        };
        let cx = context(
            &self.state,
            &self.settings,
            &mut self.wakes,
            &mut self.transmit,
            &mut self.actions,
            &mut self.upload_next,
            self.broker.time(now),
        )?;
        Some((channel, cx))
    }

    /// Does something on a channel, if it is open; a failure closes what it must.
    fn with_channel(
        &mut self,
        number: u16,
        now: Instant,
        act: impl FnOnce(&mut Channel, &mut Context<'_>) -> Result<(), Failure>,
    ) {
        let Some((channel, mut cx)) = self.channel(number, now) else {
            return;
        };
        if let Err(failure) = act(channel, &mut cx) {
            self.fail(number, failure, now);
        }
    }

    /// Remembers that a channel may have something to pass on at the end of the batch.
    #[inline]
    fn touch(&mut self, number: u16) {
        if self.touched.last() != Some(&number) {
            self.touched.push(number);
        }
    }

    /// Passes on what the batch left: acknowledgements, confirms, deliveries, wake-ups.
    fn finish_batch(&mut self, now: Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        if touched.len() > 1 {
            touched.sort_unstable();
            touched.dedup();
        }
        for number in touched.drain(..) {
            self.with_channel(number, now, |channel, cx| {
                channel.flush_settled(cx);
                channel.flush_confirms(cx);
                Ok(())
            });
        }
        self.touched = touched;
        self.deliver_pending(now);
        self.wakes.wake_all();
    }

    /// Turns what is in the outbox into frames.
    fn deliver_pending(&mut self, now: Instant) {
        let State::Running(connection) = &self.state else {
            return;
        };
        let mut items = std::mem::take(&mut self.outbox_items);
        connection.outbox().take(&mut items);
        let reply = match self.client.consumer_cancel_notify {
            true => Reply::Wanted,
            false => Reply::Unwanted,
        };
        for item in items.drain(..) {
            match item {
                OutboxItem::Deliver(deliveries) => {
                    let number = deliveries.consumer.channel();
                    self.encoded_cost_bytes += deliveries.cost_bytes();
                    if let Some((channel, mut cx)) = self.channel(number, now) {
                        channel.deliver(deliveries, &mut cx);
                    }
                }
                OutboxItem::Reply(reply) => {
                    let cost_bytes = reply.cost_bytes();
                    if let Some((channel, mut cx)) = self.channel(reply.consumer.channel(), now) {
                        channel.answer(&reply, &mut cx);
                    }
                    self.encoded_cost_bytes += cost_bytes;
                }
                OutboxItem::ConsumerCancelled(consumer) => {
                    if let Some((channel, mut cx)) = self.channel(consumer.channel(), now) {
                        channel.consumer_gone(&consumer, reply, &mut cx);
                    }
                }
            }
        }
        self.outbox_items = items;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A task that is dropped half way must not leave consumers behind.
        if matches!(self.state, State::Running(_)) {
            let now = self.opening_deadline;
            self.end(now);
        }
    }
}

/// What a channel needs of its session; none unless the connection is open.
#[inline]
fn context<'a>(
    state: &'a State,
    settings: &SessionSettings,
    wakes: &'a mut Wakes,
    transmit: &'a mut Transmit,
    actions: &'a mut VecDeque<Action>,
    upload_next: &'a mut u64,
    now: Instant,
) -> Option<Context<'a>> {
    let State::Running(connection) = state else {
        return None;
    };
    let rules = SizeRules {
        payload_threshold_bytes: settings.payload_threshold_bytes,
        message_bytes_max: settings.connection.message_bytes_max,
        tells_content_ids: settings.tells_content_ids,
        counts_prefetch_size: settings.connection.counts_prefetch_size,
    };
    Some(Context {
        connection,
        wakes,
        transmit,
        actions,
        upload_next,
        rules,
        now,
    })
}

fn id_of(method: &Method) -> MethodId {
    MethodId {
        class_id: method.class_id(),
        method_id: method.method_id(),
    }
}

#[cfg(test)]
mod tests;
