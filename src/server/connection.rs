//! One task for each AMQP connection: reads, lets the session work, writes.
//!
//! Owns: the socket and its buffers. All frames of one read are handled before anything is written,
//! and many frames go out with one system call.
//! Bounds: [`READ_BYTES_MAX`] of input, [`UNSENT_BYTES_MAX`] of output before reading stops.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tracing::Instrument as _;

use super::Shared;
use super::admission::Place;
use super::early::Audience;
use super::output::{FileRange, Output};
use super::payloads::{Octets, Part, Payloads, Streamed, UPLOAD_PARTS_MAX, Uploaded};
use super::registry::{Orders, Registered};
use super::socket::Socket;
use super::workers::Seat;
use crate::broker::{BodyOctets, Origin, Waker};
use crate::disk::{self, DiskFile};
use crate::journal::Lsn;
use crate::payload::store::PayloadReader;
use crate::session::{Action, Addresses, Chunk, PayloadPart, Session, TlsFacts, UploadId};

/// Bytes read at once by a connection that has little to say.
const READ_BYTES_MIN: usize = 8 * 1024;
/// Bytes read at once by a busy connection.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Input that a connection handles before others on its thread have their turn, in bytes.
const TURN_BYTES: usize = 32 * 1024;
/// Output that a connection writes before others on its thread have their turn, in bytes.
const TURN_OUTPUT_BYTES: usize = 256 * 1024;
/// The same of a connection that is alone on its thread, which only looks for what came meanwhile.
const TURN_OUTPUT_BYTES_ALONE: usize = 1024 * 1024;
/// Who sent more at once has more to do than to wait for the disk, in bytes.
const LED_READ_BYTES_MAX: usize = 4 * 1024;
/// Unsent output, in bytes, beyond which nothing more is read from the client.
const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Output gathered for writing before the socket is tried, in bytes.
const GATHER_BYTES: usize = 1024 * 1024;
/// Least octets of a body in a frame for which a file goes to the socket past this process, in bytes: below, two system
/// calls for each frame cost more than copying.
const DIRECT_FRAME_BYTES_MIN: u32 = 64 * 1024;
/// How long a client may take to read the last words, and how long a closed connection is read from so
/// that they arrive.
const LINGER: Duration = Duration::from_secs(5);

/// Until when a timer is set that nobody waits for yet.
const UNSET_TIMER: Duration = Duration::from_secs(3_600);

/// Wakes the connection's task.
#[derive(Debug, Default)]
struct Signal(Notify);

impl Waker for Signal {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A client that is connected, as far as the transport knows it.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) socket: Socket,
    /// Where the client is, and where it came to.
    pub(super) addresses: Addresses,
    pub(super) tls: Option<Arc<TlsFacts>>,
}

/// Serves one connection until it ends, on the thread with the fewest.
pub(super) fn start(transport: Transport, place: Place, shared: Arc<Shared>) {
    let span = tracing::info_span!("conn", address = %transport.addresses.peer);
    let seat = shared.workers.seat();
    let runtime = seat.runtime().clone();
    let tasks = shared.tasks.clone();
    let served = async move {
        // Made on its own thread, and apart, so that what waits for the client is small.
        let connection = Connection::new(transport, place, seat, &shared);
        match connection.map(Box::new) {
            Ok(connection) => connection.serve(&shared).await,
            Err(error) => tracing::error!(%error, "cannot serve a connection"),
        }
    };
    tasks.spawn_on(served.instrument(span), &runtime);
}

struct Connection {
    stream: Socket,
    session: Session,
    signal: Arc<Signal>,
    place: Place,
    /// Its place on a thread.
    seat: Seat,
    registered: Registered,
    durable: watch::Receiver<Lsn>,
    input: BytesMut,
    read_bytes: usize,
    output: Output,
    /// What was handled and written since others on the thread had their turn.
    turn: TurnBytes,
    payloads: Arc<Payloads>,
    /// Where payloads are read and written.
    runtime: Handle,
    /// Where the parts of each upload go.
    uploads: HashMap<UploadId, mpsc::Sender<Part>>,
    /// Where they tell their results; made with the first of them, since most connections have none.
    results: Option<(mpsc::Sender<Uploaded>, mpsc::Receiver<Uploaded>)>,
    /// An action that waits for room in its upload.
    waiting: Option<(mpsc::Sender<Part>, Part)>,
    /// Content that is being read from the payload store; nothing behind it may be written before.
    reading: Option<JoinHandle<Result<Content, String>>>,
    /// The payload whose body goes out, while more of it is to come.
    streamed: Option<PayloadReader>,
}

/// What a connection handled and wrote in one turn on its thread, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct TurnBytes {
    input: usize,
    output: usize,
}

/// What was read from the payload store.
#[derive(Debug)]
enum Content {
    /// A manifest as frames.
    Manifest(BytesMut),
    /// A part of a body.
    Part(PayloadPart, Streamed),
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    GoesOn,
    /// There is more to write, after others on the thread had their turn.
    Rests,
    Ends,
}

/// Why a connection is not served on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pause {
    /// A login came, whose password may take its time.
    Login,
    Ended,
}

impl Connection {
    /// A connection on the runtime that this is called on, where it has `seat`.
    fn new(transport: Transport, place: Place, seat: Seat, shared: &Shared) -> io::Result<Self> {
        let Addresses {
            peer: address,
            local,
        } = transport.addresses;
        let signal = Arc::new(Signal::default());
        let waker = Arc::clone(&signal) as Arc<dyn Waker>;
        let registered = shared.registry.register(address, local, unix_ms(), waker);
        let origin = if address.ip().to_canonical().is_loopback() {
            Origin::Loopback
        } else {
            Origin::Remote
        };
        let mut session = Session::new(
            shared.session_settings.load_full(),
            Arc::clone(&shared.broker),
            origin,
            Arc::clone(&signal) as Arc<dyn Waker>,
            Instant::now(),
        );
        session.set_addresses(transport.addresses);
        if let Some(tls) = transport.tls {
            session.set_tls(tls);
        }
        Ok(Self {
            stream: transport.socket.moved()?,
            session,
            signal,
            place,
            seat,
            registered,
            durable: shared.durable.clone(),
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            output: Output::default(),
            turn: TurnBytes::default(),
            payloads: Arc::clone(&shared.payloads),
            runtime: shared.runtime.clone(),
            uploads: HashMap::new(),
            results: None,
            waiting: None,
            reading: None,
            streamed: None,
        })
    }

    /// Serves it until it ends.
    async fn serve(mut self: Box<Self>, shared: &Shared) {
        let result = loop {
            match self.exchange(shared).await {
                Ok(Pause::Login) => match self.log_in(shared).await {
                    Some(connection) => self = connection,
                    None => return,
                },
                Ok(Pause::Ended) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.end(result).await;
    }

    /// Lets the session check a password where that stops nobody else; none if the server is at its end.
    async fn log_in(mut self: Box<Self>, shared: &Shared) -> Option<Box<Self>> {
        let permit = shared.logins.acquire().await.ok()?;
        let checked = shared.runtime.spawn_blocking(move || {
            self.session.handle_bytes(&mut self.input, Instant::now());
            self
        });
        let connection = checked.await;
        drop(permit);
        connection.ok()
    }

    async fn end(mut self: Box<Self>, result: io::Result<()>) {
        if self.session.login_was_refused() {
            self.place.login_failed(Instant::now());
        }
        self.session.handle_disconnect(Instant::now());
        match result {
            Ok(()) => self.linger().await,
            Err(error) => tracing::debug!(%error, "the connection is gone"),
        }
    }

    /// Reads, works and writes until session or socket ends.
    async fn exchange(&mut self, shared: &Shared) -> io::Result<Pause> {
        // Set to what comes first, since each setting anew wakes the thread once more.
        let timer = match self.session.poll_timeout() {
            Some(at) => tokio::time::sleep_until(at.into()),
            None => tokio::time::sleep(UNSET_TIMER),
        };
        let mut timer = std::pin::pin!(timer);
        let mut stopping = false;
        // When a closed session's last words must be out.
        let mut ends_at = None;
        loop {
            if let Some(orders) = self.registered.entry.take_orders() {
                self.obey(orders);
            }
            self.act();
            // Before the client hears of it: what it does then counts on it.
            if self.session.is_open() {
                self.place.authenticated();
                let of_vhost = self.session.client_statistics();
                self.registered.entry.opened_in(of_vhost);
            }
            match self.write()? {
                Life::GoesOn => {}
                Life::Rests => self.let_others().await,
                Life::Ends => return Ok(Pause::Ended),
            }
            if self.session.may_take_long(&[]) {
                return Ok(Pause::Login);
            }
            let timeout = if self.session.is_closed() {
                Some(*ends_at.get_or_insert_with(|| Instant::now() + LINGER))
            } else {
                self.session.poll_timeout()
            };
            let has_timeout = arm(timer.as_mut(), timeout);
            let reads = self.session.wants_bytes()
                && self.output.bytes() < UNSENT_BYTES_MAX
                && self.waiting.is_none();
            let writes = self.output.bytes() > 0 || self.stream.has_unsent();
            let (stream, input, room_bytes) = (&mut self.stream, &mut self.input, self.read_bytes);
            let turn = poll_fn(|cx| {
                poll_turn(
                    cx,
                    stream,
                    writes,
                    reads.then_some((&mut *input, room_bytes)),
                )
            });
            tokio::select! {
                turn = turn, if reads || writes => match turn? {
                    Turn::Read(0) => return Ok(Pause::Ended),
                    Turn::Read(count) => {
                        self.was_received(count);
                        if self.session.may_take_long(&self.input) {
                            return Ok(Pause::Login);
                        }
                        if self.handle_read(count, shared)? == Life::Ends {
                            return Ok(Pause::Ended);
                        }
                        self.turn.input += count;
                        if self.turn_is_over() {
                            self.let_others().await;
                        }
                    }
                    Turn::Writable => {}
                },
                () = self.signal.0.notified() => self.session.handle_wake(Instant::now()),
                changed = self.durable.changed(), if self.session.waits_for_commit() => {
                    if changed.is_err() {
                        return Ok(Pause::Ended);
                    }
                    self.was_committed();
                }
                () = async { self.place.evicted().await }, if !self.session.is_open() && ends_at.is_none() => {
                    tracing::info!("too many have not logged in; the oldest goes");
                    return Ok(Pause::Ended);
                }
                () = room(&self.waiting), if self.waiting.is_some() => {}
                Some(uploaded) = received(&mut self.results), if self.results.is_some() => {
                    self.uploaded(uploaded);
                }
                read = finish(&mut self.reading), if self.reading.is_some() => self.was_read(read),
                () = timer.as_mut(), if has_timeout => {
                    let now = Instant::now();
                    if ends_at.is_some_and(|at| at <= now) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.session.handle_timeout(now);
                }
                () = shared.storage_failed.cancelled(), if !stopping => {
                    stopping = true;
                    self.session.handle_storage_failure(Instant::now());
                }
                () = shared.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    // A server that stops because its disk failed says that.
                    if shared.storage_failed.is_cancelled() {
                        self.session.handle_storage_failure(Instant::now());
                    } else {
                        self.session.handle_shutdown(Instant::now());
                    }
                }
            }
        }
    }

    fn turn_is_over(&self) -> bool {
        let output_bytes_max = match self.seat.is_alone() {
            true => TURN_OUTPUT_BYTES_ALONE,
            false => TURN_OUTPUT_BYTES,
        };
        self.turn.input >= TURN_BYTES || self.turn.output >= output_bytes_max
    }

    /// Others on the thread have their turn. Waiting alone would not give it to them: as long as another thread feeds a
    /// consumer, it has something to do each time that it looks.
    async fn let_others(&mut self) {
        self.turn = TurnBytes::default();
        tokio::task::yield_now().await;
    }

    /// Does what an operator asked for.
    fn obey(&mut self, orders: Orders) {
        if let Some(reason) = orders.close {
            self.session.handle_forced_close(&reason, Instant::now());
        }
        for asker in orders.views {
            // Who does not wait any more needs no answer.
            let _ = asker.send(self.session.view());
        }
    }

    /// Carries out what the session asks for, as far as uploads have room.
    fn act(&mut self) {
        if let Some((sender, part)) = self.waiting.take() {
            self.send_part(sender, part);
        }
        while self.waiting.is_none()
            && let Some(action) = self.session.poll_action()
        {
            match action {
                Action::PayloadBegin {
                    upload,
                    scope,
                    size_bytes,
                    node_queues,
                    kind,
                } => {
                    let results = (self.results)
                        .get_or_insert_with(|| mpsc::channel(UPLOAD_PARTS_MAX))
                        .0
                        .clone();
                    let _runtime = self.runtime.enter();
                    let sender = self.payloads.begin_upload(
                        upload,
                        (scope, size_bytes),
                        kind,
                        Audience::of(node_queues),
                        results,
                    );
                    self.uploads.insert(upload, sender);
                }
                Action::PayloadBytes { upload, bytes } => {
                    if let Some(sender) = self.uploads.get(&upload).cloned() {
                        self.send_part(sender, Part::Bytes(bytes));
                    }
                }
                Action::PayloadEnd { upload } => {
                    if let Some(sender) = self.uploads.remove(&upload) {
                        self.send_part(sender, Part::End);
                    }
                }
                Action::PayloadAbort { upload } => {
                    self.uploads.remove(&upload);
                }
            }
        }
    }

    fn send_part(&mut self, sender: mpsc::Sender<Part>, part: Part) {
        match sender.try_send(part) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(part)) => self.waiting = Some((sender, part)),
            // It failed, and its result is on the way.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    fn uploaded(&mut self, uploaded: Uploaded) {
        self.uploads.remove(&uploaded.upload);
        self.session
            .handle_payload(uploaded.upload, &uploaded.result, Instant::now());
        // Only now: the message holds a reference of its own.
        drop(uploaded.reference);
    }

    fn was_read(&mut self, read: Result<Content, String>) {
        self.reading = None;
        match read {
            Ok(Content::Manifest(frames)) => self.output.push(frames.freeze()),
            Ok(Content::Part(part, streamed)) => {
                match streamed.octets {
                    Octets::Frames(frames) => self.output.push(frames.freeze()),
                    Octets::File(file) => self.put_direct(&part, &file),
                }
                self.streamed = streamed.reader.filter(|_| !part.is_last());
            }
            Err(reason) => self.session.handle_stream_failed(&reason, Instant::now()),
        }
    }

    /// Counts what was read.
    fn was_received(&mut self, count: usize) {
        self.registered.entry.received(count);
        // Busy connections read more at once; before the login nobody gets more than the least.
        if count >= self.read_bytes && self.session.is_open() {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if count < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
    }

    /// Handles what was read. A connection that is alone on its thread and waits for the disk then, for little,
    /// commits it here.
    fn handle_read(&mut self, count: usize, shared: &Shared) -> io::Result<Life> {
        let may_lead = self.seat.is_alone() && count <= LED_READ_BYTES_MAX;
        let gathering = may_lead.then(|| shared.leader.gather()).flatten();
        self.handle_input();
        if let Some(gathering) = gathering
            && self.session.waits_for_commit()
        {
            // What needs no disk does not wait for it.
            self.act();
            match self.write()? {
                Life::GoesOn if shared.leader.commit(gathering) => self.was_committed(),
                Life::GoesOn | Life::Rests => {}
                Life::Ends => return Ok(Life::Ends),
            }
        }
        Ok(Life::GoesOn)
    }

    fn was_committed(&mut self) {
        let durable = *self.durable.borrow_and_update();
        self.session.handle_committed(durable, Instant::now());
    }

    fn handle_input(&mut self) {
        self.session.handle_bytes(&mut self.input, Instant::now());
        if self.input.is_empty() && self.read_bytes == READ_BYTES_MIN {
            // An idle connection holds no buffer.
            self.input = BytesMut::new();
        }
    }

    /// Writes what the session has, as far as the socket takes it, for one turn.
    fn write(&mut self) -> io::Result<Life> {
        loop {
            self.gather();
            if self.output.bytes() == 0 {
                break;
            }
            if self.turn_is_over() {
                return Ok(Life::Rests);
            }
            match self.output.write_to(&mut self.stream) {
                Ok(written) => {
                    self.turn.output += written;
                    self.registered.entry.sent(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Life::GoesOn);
                }
                Err(error) => return Err(error),
            }
            if self.output.bytes() == 0 {
                self.session.handle_transmitted(Instant::now());
                // A session that was choked reads on, and may ask for something.
                self.act();
            } else {
                self.session.handle_progress(Instant::now());
            }
        }
        match self.stream.try_flush() {
            Ok(()) if self.session.is_closed() => Ok(Life::Ends),
            Ok(()) => Ok(Life::GoesOn),
            // The rest goes when the socket has room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Life::GoesOn),
            Err(error) => Err(error),
        }
    }

    /// Takes what the session has to send, up to a bound; stops at content that must be read first.
    fn gather(&mut self) {
        while self.output.bytes() < GATHER_BYTES && self.reading.is_none() {
            match self.session.poll_transmit() {
                Some(Chunk::Bytes(bytes)) => self.output.push(bytes),
                Some(Chunk::Payload(part)) => self.stream(part),
                Some(Chunk::Manifest(part)) => {
                    let payloads = Arc::clone(&self.payloads);
                    self.reading = Some(self.runtime.spawn(async move {
                        let frames = payloads.read_manifest(part).await;
                        frames.map(Content::Manifest)
                    }));
                }
                None => {
                    // Nothing is streamed any more, whatever became of it.
                    self.streamed = None;
                    break;
                }
            }
        }
    }

    /// Sends a part of a body: from memory if it is there, from the system's cache if the socket takes it from there, read
    /// on another thread if not.
    // req: MEMBODY-4
    fn stream(&mut self, part: PayloadPart) {
        let takes_files =
            self.stream.takes_files() && part.frame_payload_bytes_max >= DIRECT_FRAME_BYTES_MIN;
        match part.body.octets() {
            Some(BodyOctets::Memory(octets)) => {
                let output = &mut self.output;
                let last = part.frames_around(|before, range| {
                    output.push(before);
                    octets.range(range).for_each(|piece| output.push(piece));
                });
                self.output.push(last);
                return;
            }
            Some(BodyOctets::File(body)) => {
                let range = (part.offset_bytes, part.length_bytes);
                let is_cached = |os| disk::is_cached(os, range.0, range.1);
                if takes_files && body.file().os_file().is_some_and(is_cached) {
                    self.put_direct(&part, body.file());
                    return;
                }
            }
            None => {}
        }
        let reader = self.streamed.as_ref().filter(|reader| {
            takes_files
                && part.body.id().is_some_and(|id| reader.id() == *id)
                && reader.scope() == part.body.scope()
        });
        let file =
            reader.and_then(|reader| reader.cached_file(part.offset_bytes, part.length_bytes));
        if let Some(file) = file {
            self.put_direct(&part, &file);
            if part.is_last() {
                self.streamed = None;
            }
            return;
        }
        let payloads = Arc::clone(&self.payloads);
        self.reading = Some(self.runtime.spawn(async move {
            let streamed = payloads.read(part.clone(), takes_files).await?;
            Ok(Content::Part(part, streamed))
        }));
    }

    /// Puts the frames of a part of a body, whose octets come from the file.
    fn put_direct(&mut self, part: &PayloadPart, file: &Arc<dyn DiskFile>) {
        let output = &mut self.output;
        let last = part.frames_around(|before, range| {
            output.push(before);
            output.push_file(FileRange {
                file: Arc::clone(file),
                offset_bytes: range.start,
                length_bytes: usize::try_from(range.end - range.start).unwrap_or(usize::MAX),
                _content: Some(part.body.clone()),
            });
        });
        self.output.push(last);
    }

    /// Lets the last words arrive: closing a socket with unread input would take them back.
    async fn linger(self: Box<Self>) {
        let _ = tokio::time::timeout(LINGER, self.stream.linger()).await;
    }
}

/// What a socket was ready for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// So many bytes came; 0 is the end of the stream.
    Read(usize),
    Writable,
}

/// Reads, if `input` has a place for it, or waits for room to write.
fn poll_turn(
    context: &mut Context<'_>,
    stream: &mut Socket,
    writes: bool,
    input: Option<(&mut BytesMut, usize)>,
) -> Poll<io::Result<Turn>> {
    if writes && let Poll::Ready(ready) = stream.poll_writable(context) {
        return Poll::Ready(ready.map(|()| Turn::Writable));
    }
    let Some((input, room_bytes)) = input else {
        return Poll::Pending;
    };
    let read = stream.poll_read(context, input, room_bytes);
    read.map_ok(Turn::Read)
}

/// The time by the calendar, in milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until an upload has room, or has ended.
async fn room(waiting: &Option<(mpsc::Sender<Part>, Part)>) {
    if let Some((sender, _)) = waiting {
        // Whether there is room or nobody to take it, trying again tells.
        let _ = sender.reserve().await;
    }
}

/// Waits for the result of an upload.
async fn received(
    results: &mut Option<(mpsc::Sender<Uploaded>, mpsc::Receiver<Uploaded>)>,
) -> Option<Uploaded> {
    results.as_mut()?.1.recv().await
}

/// Waits for content that is being read.
async fn finish(
    reading: &mut Option<JoinHandle<Result<Content, String>>>,
) -> Result<Content, String> {
    match reading {
        Some(reading) => reading.await.unwrap_or_else(|error| Err(error.to_string())),
        None => Err("nothing is being read".to_owned()),
    }
}

/// Sets the timer, but only forward when it fires: an early look costs less than a reset per message.
fn arm(mut timer: Pin<&mut Sleep>, timeout: Option<Instant>) -> bool {
    let Some(timeout) = timeout else { return false };
    let timeout = tokio::time::Instant::from_std(timeout);
    if timer.is_elapsed() || timeout < timer.deadline() {
        timer.as_mut().reset(timeout);
    }
    true
}
