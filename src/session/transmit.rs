//! What a connection has to send: frames of many channels, large bodies in turn.
//!
//! Owns: encoded frames until the server writes them, and the bodies that are streamed from the
//! payload store. While one streams on a channel, that channel's later frames wait behind it; other
//! channels' frames go between its parts. An answer that must not go out before the journal is durable
//! waits here too, and its channel's later frames behind it.
//! Bound: deliveries are bounded by the outbox, whose room comes back when they have left.
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

/// What waits behind a streamed body on its channel.
#[derive(Debug)]
enum Held {
    Frames(BytesMut),
    Content(Content),
}

/// Content that the server must fetch from the payload store.
#[derive(Debug)]
enum Content {
    /// All of the body, behind a content header that has been written.
    Body(PayloadBody),
    /// The manifest in the place of header and body.
    Manifest { payload: PayloadBody, header: Bytes },
}

/// A body that is being streamed.
#[derive(Debug)]
struct Stream {
    content: Content,
    sent_bytes: u64,
    behind: VecDeque<Held>,
}

/// An answer that waits for the journal.
#[derive(Debug)]
struct Promise {
    lsn: Lsn,
    channel: u16,
    /// The answer, and what came after it on its channel.
    behind: VecDeque<Held>,
}

/// The outgoing side of one connection.
#[derive(Debug)]
pub(super) struct Transmit {
    /// Octets that can go at once, in order; `tail` is behind them.
    chunks: VecDeque<Bytes>,
    /// Sum of `chunks`.
    chunk_bytes: usize,
    tail: BytesMut,
    streams: HashMap<u16, Stream>,
    /// Channels with a stream, in the order of their turns.
    turns: VecDeque<u16>,
    promise: Option<Promise>,
    frame_payload_bytes_max: u32,
}

impl Transmit {
    pub(super) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            tail: BytesMut::new(),
            streams: HashMap::new(),
            turns: VecDeque::new(),
            promise: None,
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
        if self.streams.is_empty() && self.promise.is_none() {
            return &mut self.tail;
        }
        let Some(behind) = behind(&mut self.promise, &mut self.streams, channel) else {
            return &mut self.tail;
        };
        if !matches!(behind.back(), Some(Held::Frames(_))) {
            behind.push_back(Held::Frames(BytesMut::new()));
        }
        match behind.back_mut() {
            Some(Held::Frames(frames)) => frames,
            Some(Held::Content(_)) | None => &mut self.tail,
        }
    }

    /// Whether a body of this length goes in one frame.
    #[inline]
    pub(super) fn takes_whole(&self, body_bytes: u32) -> bool {
        body_bytes <= self.frame_payload_bytes_max
    }

    /// Lets the frames of `channel` from now on wait until the journal is durable up to `lsn`.
    ///
    /// One at a time: the session handles nothing more until [`Self::keep_promise`].
    pub(super) fn promise(&mut self, channel: u16, lsn: Lsn) {
        debug_assert!(self.promise.is_none(), "the session waits for the last one");
        self.promise = Some(Promise {
            lsn,
            channel,
            behind: VecDeque::new(),
        });
    }

    /// Whether an answer waits for the journal.
    pub(super) fn has_promise(&self) -> bool {
        self.promise.is_some()
    }

    /// The journal is durable up to `durable`: lets go what waited for that. False if nothing did.
    pub(super) fn keep_promise(&mut self, durable: Lsn) -> bool {
        let Some(promise) = self.promise.take_if(|promise| promise.lsn <= durable) else {
            return false;
        };
        match self.streams.get_mut(&promise.channel) {
            Some(stream) => stream.behind.extend(promise.behind),
            None => self.release(promise.channel, promise.behind),
        }
        true
    }

    /// Forgets an answer that waits: its client is gone.
    pub(super) fn drop_promise(&mut self) {
        self.promise = None;
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
                if shared.len() >= SHARED_BODY_BYTES_MIN
                    && behind(&mut self.promise, &mut self.streams, channel).is_none() =>
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
        match behind(&mut self.promise, &mut self.streams, channel) {
            Some(behind) => behind.push_back(Held::Content(content)),
            None => self.start(channel, content, VecDeque::new()),
        }
    }

    fn start(&mut self, channel: u16, content: Content, behind: VecDeque<Held>) {
        let stream = Stream {
            content,
            sent_bytes: 0,
            behind,
        };
        self.streams.insert(channel, stream);
        self.turns.push_back(channel);
    }

    /// Whether nothing is left to send.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty() && self.turns.is_empty()
    }

    /// Octets in memory that were not polled yet; streamed bodies are not in memory.
    #[inline]
    pub(super) fn unsent_bytes(&self) -> usize {
        let ready_bytes = self.chunk_bytes + self.tail.len();
        if self.streams.is_empty() && self.promise.is_none() {
            return ready_bytes;
        }
        let behind_streams = self.streams.values().map(|stream| &stream.behind);
        let behind_promise = self.promise.iter().map(|promise| &promise.behind);
        let held_bytes: usize = behind_streams
            .chain(behind_promise)
            .flatten()
            .map(|held| match held {
                Held::Frames(frames) => frames.len(),
                Held::Content(_) => size_of::<Held>(),
            })
            .sum();
        ready_bytes + held_bytes
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
        let stream = self.streams.get_mut(&channel)?;
        let (chunk, ends) = match &stream.content {
            Content::Body(body) => {
                let left_bytes = body.size_bytes() - stream.sent_bytes;
                let whole_frames = u64::from(frame_payload_bytes_max);
                let step_bytes = (STREAM_STEP_BYTES / whole_frames).max(1) * whole_frames;
                let part = PayloadPart {
                    channel,
                    body: body.clone(),
                    offset_bytes: stream.sent_bytes,
                    length_bytes: left_bytes.min(step_bytes),
                    frame_payload_bytes_max,
                };
                stream.sent_bytes += part.length_bytes;
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
        if !ends {
            self.turns.push_back(channel);
        } else if let Some(stream) = self.streams.remove(&channel) {
            self.release(channel, stream.behind);
        }
        Some(chunk)
    }

    /// Lets go what waited behind a body that has been sent.
    fn release(&mut self, channel: u16, mut behind: VecDeque<Held>) {
        while let Some(held) = behind.pop_front() {
            match held {
                Held::Frames(frames) => self.tail.extend_from_slice(&frames),
                Held::Content(content) => return self.start(channel, content, behind),
            }
        }
    }

    /// Drops everything that is not yet out: the connection ends at once.
    pub(super) fn clear(&mut self) {
        *self = Self {
            frame_payload_bytes_max: self.frame_payload_bytes_max,
            ..Self::new()
        };
    }
}

/// What the next frames of `channel` wait behind, if anything.
fn behind<'a>(
    promise: &'a mut Option<Promise>,
    streams: &'a mut HashMap<u16, Stream>,
    channel: u16,
) -> Option<&'a mut VecDeque<Held>> {
    match promise {
        Some(promise) if promise.channel == channel => Some(&mut promise.behind),
        Some(_) | None => streams.get_mut(&channel).map(|stream| &mut stream.behind),
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
