//! What a connection has to send: frames of many channels, large bodies in turn.
//!
//! Owns: encoded frames until the server writes them, and the bodies that are streamed from the
//! payload store. While one streams on a channel, that channel's later frames wait behind it; other
//! channels' frames go between its parts. Answers that must not go out before the journal is durable
//! wait here too, and their channel's later frames behind them, in one line with the bodies.
//! Bound: deliveries are bounded by the outbox, whose room comes back when they have left; answers that wait, by
//! [`PROMISE_COUNT_MAX`].
//! Spec: AMQP 0-9-1 §4.2.6: content frames of one channel are not interleaved with its methods.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::amqp::frame::{self, FrameKind};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, HeaderError};
use crate::amqp::limits::{FRAME_BYTES_MIN, FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use crate::broker::PayloadBody;
use crate::journal::Lsn;
use crate::payload::Manifest;

/// Body of at least this many bytes is sent from where it lies; a shorter one is copied between frames,
/// which costs less than one more part of a system call.
const SHARED_BODY_BYTES_MIN: usize = 16 * 1024;
/// Answers of one connection that wait for the journal; beyond it, nothing more of the client's is handled until it has
/// come on. A disk that syncs in ten milliseconds still answers 100,000 a second.
pub(super) const PROMISE_COUNT_MAX: usize = 1_024;
/// Bytes of one large body that are sent before other channels get their turn.
pub const STREAM_STEP_BYTES: u64 = 512 * 1024;

/// Something to write to the socket next.
#[derive(Debug)]
pub enum Chunk {
    /// Octets as they are.
    Bytes(Bytes),
    /// A part of a body in the payload store, to be written as body frames.
    Payload(PayloadPart),
    /// The manifest of a payload, to be written as content header and body frames.
    Manifest(ManifestPart),
}

/// A manifest in the place of a body.
#[derive(Clone, Debug)]
pub struct ManifestPart {
    /// The channel of its frames.
    pub channel: u16,
    /// The payload that it stands for.
    pub payload: PayloadBody,
    /// Property flags and properties that the publisher gave.
    pub header: Bytes,
    frame_payload_bytes_max: u32,
}

impl ManifestPart {
    /// The manifest's content header and body as frames, appended to `output`.
    ///
    /// # Errors
    /// If the publisher's properties cannot be read, which the session checked when they came.
    pub fn put_frames(
        &self,
        manifest: &Manifest,
        output: &mut BytesMut,
    ) -> Result<(), HeaderError> {
        let publisher = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: self.payload.size_bytes(),
            raw: self.header.clone(),
        };
        let publisher = publisher.properties()?;
        let (properties, body) = manifest.to_message(&publisher);
        put_header(
            output,
            self.channel,
            &properties.encode(),
            body.len() as u64,
        );
        for piece in body.chunks(self.frame_payload_bytes_max.max(1) as usize) {
            frame::put_body(output, self.channel, piece);
        }
        Ok(())
    }
}

/// A part of a body in the payload store.
#[derive(Clone, Debug)]
pub struct PayloadPart {
    /// The channel of its frames.
    pub channel: u16,
    /// The body; while this lives, so does the content.
    pub body: PayloadBody,
    /// Where the part begins in the body, in bytes.
    pub offset_bytes: u64,
    /// Length of the part in bytes, at most [`STREAM_STEP_BYTES`].
    pub length_bytes: u64,
    /// Most octets of the body in one frame.
    pub frame_payload_bytes_max: u32,
}

impl PayloadPart {
    /// The part as body frames, whose octets `read` fills in: called with a place for them and the
    /// offset in the body, in bytes.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn read_frames<E>(
        &self,
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<BytesMut, E> {
        let frame_bytes_max = u64::from(self.frame_payload_bytes_max.max(1));
        let frame_count = self.length_bytes.div_ceil(frame_bytes_max);
        let room = self.length_bytes + frame_count * u64::from(FRAME_OVERHEAD_BYTES);
        let mut output = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
        let mut done_bytes = 0;
        while done_bytes < self.length_bytes {
            let piece_bytes = (self.length_bytes - done_bytes).min(frame_bytes_max);
            let size = u32::try_from(piece_bytes).unwrap_or(u32::MAX);
            frame::put_frame_head(&mut output, FrameKind::Body, self.channel, size);
            let start = output.len();
            output.resize(start + size as usize, 0);
            let place = output.get_mut(start..).unwrap_or_default();
            read(place, self.offset_bytes + done_bytes)?;
            output.put_u8(FRAME_END);
            done_bytes += piece_bytes;
        }
        Ok(output)
    }

    /// The part as body frames whose octets are elsewhere: `put` gets what stands before each range of the body, and the
    /// range; what is given back stands behind the last.
    pub fn frames_around(&self, mut put: impl FnMut(Bytes, Range<u64>)) -> Bytes {
        let frame_bytes_max = u64::from(self.frame_payload_bytes_max.max(1));
        let mut between = BytesMut::new();
        let mut done_bytes = 0;
        while done_bytes < self.length_bytes {
            let piece_bytes = (self.length_bytes - done_bytes).min(frame_bytes_max);
            let size = u32::try_from(piece_bytes).unwrap_or(u32::MAX);
            frame::put_frame_head(&mut between, FrameKind::Body, self.channel, size);
            let start = self.offset_bytes + done_bytes;
            put(between.split().freeze(), start..start + piece_bytes);
            between.put_u8(FRAME_END);
            done_bytes += piece_bytes;
        }
        between.freeze()
    }

    /// Whether the body ends with it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.offset_bytes + self.length_bytes >= self.body.size_bytes()
    }
}

/// Content that the server must fetch from the payload store.
#[derive(Debug)]
enum Content {
    /// All of the body, behind a content header that has been written.
    Body(PayloadBody),
    /// The manifest in the place of header and body.
    Manifest { payload: PayloadBody, header: Bytes },
}

/// What the frames of a channel that come behind it wait for.
#[derive(Debug)]
enum Wait {
    /// Content that is being streamed, or will be.
    Content(Box<Content>),
    /// The journal, until it is durable up to here, which it was not yet when that was told last.
    Durable(Lsn),
}

/// A place in a channel's line.
#[derive(Debug)]
struct Stop {
    /// Octets of the line in front of it, counted from the line's beginning.
    place: u64,
    wait: Wait,
}

/// Frames of one channel that cannot go yet, in order.
#[derive(Debug, Default)]
struct Line {
    /// In order; the first is what all wait for. A line without one is over.
    stops: VecDeque<Stop>,
    /// Octets of frames behind the first stop.
    octets: BytesMut,
    /// Octets that have left the line.
    left_bytes: u64,
    /// What was sent of the content at the first stop, in bytes.
    sent_bytes: u64,
}

impl Line {
    fn push_stop(&mut self, wait: Wait) {
        let place = self.left_bytes + self.octets.len() as u64;
        self.stops.push_back(Stop { place, wait });
    }

    /// Octets in front of a stop that are still here.
    fn octets_before(&self, stop: &Stop) -> usize {
        let count = stop.place.saturating_sub(self.left_bytes);
        usize::try_from(count).map_or(self.octets.len(), |count| count.min(self.octets.len()))
    }

    /// Takes out what stands in front of the first stop: all of it without one.
    fn take_front(&mut self) -> BytesMut {
        let first = self.stops.front();
        let count = first.map_or(self.octets.len(), |first| self.octets_before(first));
        self.left_bytes += count as u64;
        self.octets.split_to(count)
    }
}

/// The outgoing side of one connection.
#[derive(Debug)]
pub(super) struct Transmit {
    /// Octets that can go at once, in order; `tail` is behind them.
    chunks: VecDeque<Bytes>,
    /// Sum of `chunks`.
    chunk_bytes: usize,
    tail: BytesMut,
    /// Channels whose frames wait for something, by number.
    lines: HashMap<u16, Line>,
    /// Channels that stream content, in the order of their turns.
    turns: VecDeque<u16>,
    /// Stops that wait for the journal.
    promise_count: usize,
    /// The last of those that there ever was.
    promised: Lsn,
    /// How far the journal is, as far as was told.
    durable: Lsn,
    frame_payload_bytes_max: u32,
}

impl Transmit {
    pub(super) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            tail: BytesMut::new(),
            lines: HashMap::new(),
            turns: VecDeque::new(),
            promise_count: 0,
            promised: Lsn::ZERO,
            durable: Lsn::ZERO,
            frame_payload_bytes_max: FRAME_BYTES_MIN - FRAME_OVERHEAD_BYTES,
        }
    }

    /// Takes the negotiated frame-max; 0 is none.
    pub(super) fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.frame_payload_bytes_max = match frame_bytes_max {
            0 => u32::MAX - FRAME_OVERHEAD_BYTES,
            bytes => bytes.max(FRAME_BYTES_MIN) - FRAME_OVERHEAD_BYTES,
        };
    }

    /// Where frames of `channel` are to be appended.
    #[inline]
    pub(super) fn frames(&mut self, channel: u16) -> &mut BytesMut {
        if self.lines.is_empty() {
            return &mut self.tail;
        }
        match self.lines.get_mut(&channel) {
            Some(line) => &mut line.octets,
            None => &mut self.tail,
        }
    }

    /// Whether a body of this length goes in one frame.
    #[inline]
    pub(super) fn takes_whole(&self, body_bytes: u32) -> bool {
        body_bytes <= self.frame_payload_bytes_max
    }

    /// Lets the frames of `channel` from now on wait until the journal is durable up to `lsn`.
    ///
    /// The caller sees to it that there are no more than [`PROMISE_COUNT_MAX`].
    pub(super) fn promise(&mut self, channel: u16, lsn: Lsn) {
        if lsn <= self.durable {
            return;
        }
        let line = self.lines.entry(channel).or_default();
        // What waits for as much already keeps these frames back too.
        if let Some(Stop {
            wait: Wait::Durable(last),
            ..
        }) = line.stops.back()
            && *last >= lsn
        {
            return;
        }
        line.push_stop(Wait::Durable(lsn));
        self.promise_count += 1;
        self.promised = self.promised.max(lsn);
    }

    /// Lets the frames of `channel` from now on wait for all answers that wait for the journal now, on any channel.
    pub(super) fn promise_last(&mut self, channel: u16) {
        if self.has_promise() {
            self.promise(channel, self.promised);
        }
    }

    /// Whether an answer waits for the journal.
    #[inline]
    pub(super) fn has_promise(&self) -> bool {
        self.promise_count > 0
    }

    /// Whether so many answers wait for the journal that no more may be given before it has come on.
    #[inline]
    pub(super) fn is_full_of_promises(&self) -> bool {
        self.promise_count >= PROMISE_COUNT_MAX
    }

    /// The journal is durable up to `durable`: what waited for that waits no more. False if nothing did.
    pub(super) fn keep_promises(&mut self, durable: Lsn) -> bool {
        self.durable = self.durable.max(durable);
        if !self.has_promise() {
            return false;
        }
        let is_kept = |stop: &Stop| matches!(stop.wait, Wait::Durable(lsn) if lsn <= durable);
        let count_before = self.promise_count;
        let mut freed: Vec<(u64, u16)> = Vec::new();
        for (channel, line) in &mut self.lines {
            let stop_count = line.stops.len();
            if let Some(Stop {
                wait: Wait::Durable(lsn),
                ..
            }) = line.stops.front().filter(|stop| is_kept(stop))
            {
                freed.push((lsn.0, *channel));
            }
            line.stops.retain(|stop| !is_kept(stop));
            self.promise_count -= stop_count - line.stops.len();
        }
        // As they were given; the connection's own, which is its end, behind those of channels.
        freed.sort_unstable_by_key(|(lsn, channel)| (*lsn, channel.wrapping_sub(1)));
        for (_, channel) in freed {
            self.advance(channel);
        }
        self.promise_count < count_before
    }

    /// Forgets the answers that wait for the journal, and all that waits behind them: the client is gone, or they will
    /// not come true. Says whether something of the connection's own was among it.
    pub(super) fn drop_promises(&mut self) -> bool {
        let is_promise = |stop: &Stop| matches!(stop.wait, Wait::Durable(_));
        let mut was_of_connection = false;
        self.lines.retain(|channel, line| {
            if let Some(at) = line.stops.iter().position(is_promise) {
                was_of_connection |= *channel == 0;
                let kept = line
                    .stops
                    .get(at)
                    .map_or(0, |stop| line.octets_before(stop));
                line.octets.truncate(kept);
                line.stops.truncate(at);
            }
            !line.stops.is_empty()
        });
        self.promise_count = 0;
        was_of_connection
    }

    /// Appends a content header frame and the body's frames.
    #[inline]
    pub(super) fn put_content(
        &mut self,
        channel: u16,
        header: &[u8],
        body: &[u8],
        shared_body: Option<&Bytes>,
    ) {
        put_header(self.frames(channel), channel, header, body.len() as u64);
        let frame_payload_bytes_max = self.frame_payload_bytes_max as usize;
        match shared_body {
            Some(shared)
                if shared.len() >= SHARED_BODY_BYTES_MIN && !self.lines.contains_key(&channel) =>
            {
                self.put_shared_body(channel, shared, frame_payload_bytes_max);
            }
            Some(_) | None => {
                let output = self.frames(channel);
                for piece in body.chunks(frame_payload_bytes_max) {
                    frame::put_body(output, channel, piece);
                }
            }
        }
    }

    fn put_shared_body(&mut self, channel: u16, body: &Bytes, frame_payload_bytes_max: usize) {
        let mut start = 0;
        while start < body.len() {
            let end = body.len().min(start + frame_payload_bytes_max);
            let length = u32::try_from(end - start).unwrap_or(u32::MAX);
            frame::put_frame_head(&mut self.tail, FrameKind::Body, channel, length);
            self.push_chunk(body.slice(start..end));
            self.tail.put_u8(FRAME_END);
            start = end;
        }
    }

    /// Puts octets behind everything that can go at once.
    fn push_chunk(&mut self, chunk: Bytes) {
        let tail = self.tail.split().freeze();
        self.chunk_bytes += tail.len() + chunk.len();
        self.chunks.push_back(tail);
        self.chunks.push_back(chunk);
    }

    /// Appends a content header frame and streams the body from the payload store behind it.
    pub(super) fn put_payload(&mut self, channel: u16, header: &[u8], body: &PayloadBody) {
        put_header(self.frames(channel), channel, header, body.size_bytes());
        self.put_stream(channel, Content::Body(body.clone()));
    }

    /// Appends the manifest of a payload in the place of its content header and body.
    pub(super) fn put_manifest(&mut self, channel: u16, header: &[u8], payload: &PayloadBody) {
        let header = Bytes::copy_from_slice(header);
        self.put_stream(
            channel,
            Content::Manifest {
                payload: payload.clone(),
                header,
            },
        );
    }

    fn put_stream(&mut self, channel: u16, content: Content) {
        let line = self.lines.entry(channel).or_default();
        if line.stops.is_empty() {
            self.turns.push_back(channel);
        }
        line.push_stop(Wait::Content(Box::new(content)));
    }

    /// Whether nothing is left to send.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty() && self.turns.is_empty()
    }

    /// Octets that wait behind a body or for the journal.
    pub(super) fn held_bytes(&self) -> usize {
        self.lines.values().map(|line| line.octets.len()).sum()
    }

    /// Whether frames of `channel` wait for the journal.
    pub(super) fn is_promised(&self, channel: u16) -> bool {
        let stops = self.lines.get(&channel).map(|line| &line.stops);
        stops.is_some_and(|stops| {
            let mut stops = stops.iter();
            stops.any(|stop| matches!(stop.wait, Wait::Durable(_)))
        })
    }

    /// Octets in memory that were not polled yet; streamed bodies are not in memory.
    #[inline]
    pub(super) fn unsent_bytes(&self) -> usize {
        let ready_bytes = self.chunk_bytes + self.tail.len();
        if self.lines.is_empty() {
            return ready_bytes;
        }
        let lines = self.lines.values();
        let held_bytes = |line: &Line| line.octets.len() + line.stops.len() * size_of::<Stop>();
        ready_bytes + lines.map(held_bytes).sum::<usize>()
    }

    /// The next octets to write: all frames that can go, then one part of a streamed body.
    pub(super) fn poll(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.chunks.pop_front() {
            self.chunk_bytes -= chunk.len();
            return Some(Chunk::Bytes(chunk));
        }
        if !self.tail.is_empty() {
            return Some(Chunk::Bytes(self.tail.split().freeze()));
        }
        let channel = self.turns.pop_front()?;
        let frame_payload_bytes_max = self.frame_payload_bytes_max;
        let line = self.lines.get_mut(&channel)?;
        let Wait::Content(content) = &line.stops.front()?.wait else {
            debug_assert!(false, "a channel has its turn only while it streams");
            return None;
        };
        let (chunk, ends) = match &**content {
            Content::Body(body) => {
                let left_bytes = body.size_bytes() - line.sent_bytes;
                let whole_frames = u64::from(frame_payload_bytes_max);
                let step_bytes = (STREAM_STEP_BYTES / whole_frames).max(1) * whole_frames;
                let part = PayloadPart {
                    channel,
                    body: body.clone(),
                    offset_bytes: line.sent_bytes,
                    length_bytes: left_bytes.min(step_bytes),
                    frame_payload_bytes_max,
                };
                line.sent_bytes += part.length_bytes;
                (Chunk::Payload(part), left_bytes <= step_bytes)
            }
            Content::Manifest { payload, header } => {
                let part = ManifestPart {
                    channel,
                    payload: payload.clone(),
                    header: header.clone(),
                    frame_payload_bytes_max,
                };
                (Chunk::Manifest(part), true)
            }
        };
        if ends {
            line.stops.pop_front();
            line.sent_bytes = 0;
            self.advance(channel);
        } else {
            self.turns.push_back(channel);
        }
        Some(chunk)
    }

    /// A channel's line does not wait any more for what it waited: lets go what stands in front of its next stop.
    fn advance(&mut self, channel: u16) {
        let Some(line) = self.lines.get_mut(&channel) else {
            return;
        };
        self.tail.extend_from_slice(&line.take_front());
        match line.stops.front().map(|stop| &stop.wait) {
            Some(Wait::Content(_)) => self.turns.push_back(channel),
            Some(Wait::Durable(_)) => {}
            None => {
                self.lines.remove(&channel);
            }
        }
    }

    /// Drops everything that is not yet out: the connection ends at once.
    pub(super) fn clear(&mut self) {
        *self = Self {
            frame_payload_bytes_max: self.frame_payload_bytes_max,
            durable: self.durable,
            ..Self::new()
        };
    }
}

/// A content header frame from raw property octets.
#[inline]
pub(super) fn put_header(output: &mut BytesMut, channel: u16, header: &[u8], body_bytes: u64) {
    let payload_bytes = CONTENT_HEADER_BYTES + header.len();
    let payload_size = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
    output.reserve(payload_bytes + FRAME_OVERHEAD_BYTES as usize);
    frame::put_frame_head(output, FrameKind::Header, channel, payload_size);
    output.put_u16(CLASS_ID_BASIC);
    output.put_u16(0);
    output.put_u64(body_bytes);
    output.put_slice(header);
    output.put_u8(FRAME_END);
}

/// Where a content header frame has the body's size, in bytes from its beginning.
pub(super) const BODY_SIZE_AT: usize = FRAME_HEADER_BYTES + 4;

/// Class, weight and body size in front of the properties, in bytes.
const CONTENT_HEADER_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{PayloadId, ScopeId};

    fn put(transmit: &mut Transmit, channel: u16, text: &str) {
        transmit.frames(channel).extend_from_slice(text.as_bytes());
    }

    /// Streams a body of so many steps.
    fn stream(transmit: &mut Transmit, channel: u16, steps: u64) {
        let id = PayloadId::from_bytes([7; 32]);
        let body = PayloadBody::hold(None, ScopeId::new(1), id, steps * STREAM_STEP_BYTES);
        transmit.put_stream(channel, Content::Body(body));
    }

    /// One thing to be sent; a part of a body as the number of its channel.
    fn next(transmit: &mut Transmit) -> Option<String> {
        transmit.poll().map(|chunk| match chunk {
            Chunk::Bytes(octets) => String::from_utf8_lossy(&octets).into_owned(),
            Chunk::Payload(part) => part.channel.to_string(),
            Chunk::Manifest(_) => panic!("nobody asked for it"),
        })
    }

    fn sent(transmit: &mut Transmit) -> String {
        std::iter::from_fn(|| next(transmit)).collect()
    }

    fn transmit() -> Transmit {
        let mut transmit = Transmit::new();
        // So that a step is made of whole frames.
        transmit.set_frame_bytes_max(4_096 + FRAME_OVERHEAD_BYTES);
        transmit
    }

    /// Answers that wait, bodies and the frames between them keep their order on a channel.
    #[test]
    fn a_line_has_bodies_and_answers_in_order() {
        let mut transmit = transmit();
        transmit.promise(1, Lsn(5));
        put(&mut transmit, 1, "a");
        stream(&mut transmit, 1, 1);
        put(&mut transmit, 1, "b");
        transmit.promise(1, Lsn(7));
        put(&mut transmit, 1, "c");
        put(&mut transmit, 2, "x");
        assert_eq!(sent(&mut transmit), "x");
        assert!(!transmit.keep_promises(Lsn(4)));
        assert_eq!(sent(&mut transmit), "");
        assert!(transmit.keep_promises(Lsn(6)));
        assert_eq!(sent(&mut transmit), "a1b");
        assert!(transmit.has_promise());
        assert!(transmit.keep_promises(Lsn(7)));
        assert_eq!(sent(&mut transmit), "c");
        put(&mut transmit, 1, "d");
        assert_eq!(sent(&mut transmit), "d");
    }

    /// An answer behind a body waits for the journal no more once that is durable, and for the body still.
    #[test]
    fn a_promise_is_kept_behind_a_body() {
        let mut transmit = transmit();
        stream(&mut transmit, 1, 2);
        transmit.promise(1, Lsn(5));
        put(&mut transmit, 1, "a");
        transmit.promise(1, Lsn(6));
        put(&mut transmit, 1, "b");
        assert_eq!(next(&mut transmit).as_deref(), Some("1"));
        assert!(transmit.keep_promises(Lsn(5)));
        assert!(transmit.has_promise());
        assert_eq!(sent(&mut transmit), "1a");
        assert!(transmit.keep_promises(Lsn(6)));
        assert_eq!(sent(&mut transmit), "b");
        assert_eq!(transmit.unsent_bytes(), 0);
    }

    /// What is durable needs no promise, and what waits for the same record waits at one stop.
    #[test]
    fn promises_for_one_record_are_one() {
        let mut transmit = transmit();
        transmit.keep_promises(Lsn(3));
        transmit.promise(1, Lsn(3));
        assert!(!transmit.has_promise());
        for _ in 0..PROMISE_COUNT_MAX {
            transmit.promise(1, Lsn(4));
            put(&mut transmit, 1, "a");
        }
        assert!(!transmit.is_full_of_promises());
        assert!(transmit.keep_promises(Lsn(4)));
        assert_eq!(sent(&mut transmit).len(), PROMISE_COUNT_MAX);
    }

    /// Answers that are forgotten take with them what waits behind, and nothing in front.
    #[test]
    fn forgotten_promises_leave_what_stands_before_them() {
        let mut transmit = transmit();
        stream(&mut transmit, 1, 1);
        put(&mut transmit, 1, "a");
        transmit.promise(1, Lsn(5));
        put(&mut transmit, 1, "b");
        transmit.promise_last(0);
        put(&mut transmit, 0, "end");
        assert!(transmit.drop_promises());
        assert_eq!(sent(&mut transmit), "1a");
        put(&mut transmit, 0, "other end");
        assert_eq!(sent(&mut transmit), "other end");
        assert!(!transmit.drop_promises());
    }
}
