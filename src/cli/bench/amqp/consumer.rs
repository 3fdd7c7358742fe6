//! One consumer: a connection that takes deliveries of one or more queues, checks them and acknowledges.
//!
//! Owns: reading deliveries out of the frames in place, times from leaving to arrival, acknowledgements written once
//! for all that came in one read. No body is kept: its parts are looked at where they lie.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::check::{Faults, STAMP_BYTES, Seen, Stamp};
use super::plan::Plan;
use super::shared::Shared;
use crate::amqp::field::{FieldTable, ShortString};
use crate::amqp::frame::{self, FrameKind, put_method};
use crate::amqp::method::{Method, basic};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::wire::{self, CHANNEL, Wire, check_open};

/// Of small bodies one in so many is compared byte for byte.
const COMPARED_EVERY: u64 = 1_024;
/// Of larger ones so many that one is compared for each of these bytes.
const COMPARED_BYTES: u64 = 1 << 20;

/// How deliveries are acknowledged, as the flag names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum AckMode {
    /// Not at all: delivered is consumed
    Auto,
    /// Each by itself
    Each,
    /// Many at once
    Multiple,
}

/// How deliveries are acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ack {
    Auto,
    Each,
    Multiple { every: u64 },
}

/// What a consumer found.
pub(super) struct Found {
    pub(super) latencies: Histogram,
    pub(super) seen: Vec<Seen>,
    pub(super) faults: Faults,
}

/// Consumes until all has come.
pub(super) async fn run(
    mut wire: Wire,
    queues: Vec<usize>,
    plan: Arc<Plan>,
    prefetch: u16,
    mut intake: Intake,
    shared: Arc<Shared>,
    ready: mpsc::Sender<()>,
) -> anyhow::Result<Found> {
    let is_auto = intake.ack == Ack::Auto;
    wire.call(&basic::Qos {
        prefetch_size: 0,
        prefetch_count: prefetch,
        global: false,
    })
    .await?;
    let Wire {
        mut reader,
        mut writer,
        ..
    } = wire;
    let mut out = BytesMut::new();
    for (place, queue) in queues.iter().enumerate() {
        let consume = basic::Consume {
            queue: plan.queue(*queue),
            consumer_tag: ShortString::truncated(place.to_string()),
            no_local: false,
            no_ack: is_auto,
            exclusive: false,
            no_wait: false,
            arguments: FieldTable::default(),
        };
        put_method(&mut out, CHANNEL, &consume);
    }
    writer.write(&out).await?;
    let mut is_ready = false;
    loop {
        let frames = reader.take_frames()?;
        if frames.is_empty() {
            tokio::select! {
                filled = reader.fill() => filled?,
                () = shared.drained.cancelled() => break,
            }
            continue;
        }
        out.clear();
        intake.handle(&frames, &mut out)?;
        drop(frames);
        if !out.is_empty() {
            writer.write(&out).await?;
        }
        if !is_ready && intake.consumer_count == queues.len() {
            is_ready = true;
            let _ = ready.send(()).await;
        }
    }
    out.clear();
    intake.put_last_ack(&mut out);
    if !out.is_empty() {
        writer.write(&out).await?;
    }
    // What still comes now was delivered twice.
    let mut ignored = BytesMut::new();
    wire::close(&mut reader, &mut writer, |frames| {
        intake.handle(frames, &mut ignored)
    })
    .await?;
    Ok(intake.finish())
}

/// Where a delivery is: method ──> header ──> body, again and again.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Method,
    Header { place: usize, tag: u64 },
    Body { place: usize, tag: u64, offset: u64 },
}

/// Deliveries out of frames.
pub(super) struct Intake {
    shared: Arc<Shared>,
    ack: Ack,
    body_bytes: u64,
    compared_every: u64,
    frame_bytes_max: u32,
    expected: Expected,
    /// The stamp of the body that is coming, as far as it is there.
    stamp: [u8; STAMP_BYTES],
    is_compared: bool,
    is_damaged: bool,
    /// By place of the consumer tag, then by sender; `None` where nothing is sent.
    lanes: Vec<Vec<Option<Seen>>>,
    consumer_count: usize,
    last_tag: u64,
    unacknowledged: u64,
    latencies: Histogram,
    faults: Faults,
}

impl Intake {
    pub(super) fn new(
        plan: &Plan,
        queues: &[usize],
        body_bytes: u64,
        ack: Ack,
        frame_bytes_max: u32,
        shared: Arc<Shared>,
    ) -> Self {
        let lane = |queue: usize, sender: usize| {
            let lane = plan.lane(sender, queue)?;
            Some(Seen::new(queue, sender, lane))
        };
        let lanes = queues
            .iter()
            .map(|queue| {
                (0..plan.producers)
                    .map(|sender| lane(*queue, sender))
                    .collect()
            })
            .collect();
        Self {
            shared,
            ack,
            body_bytes,
            compared_every: (COMPARED_BYTES / body_bytes.max(1)).clamp(1, COMPARED_EVERY),
            frame_bytes_max,
            expected: Expected::Method,
            stamp: [0; STAMP_BYTES],
            is_compared: false,
            is_damaged: false,
            lanes,
            consumer_count: 0,
            last_tag: 0,
            unacknowledged: 0,
            latencies: Histogram::default(),
            faults: Faults::default(),
        }
    }

    /// Takes whole frames; appends the acknowledgements to `out`.
    fn handle(&mut self, frames: &Bytes, out: &mut BytesMut) -> anyhow::Result<()> {
        let now = self.shared.now();
        let measured = self.shared.measured();
        let mut fresh = 0;
        let mut rest: &[u8] = frames;
        while let Some(frame) = frame::parse(rest, self.frame_bytes_max)? {
            rest = rest.get(frame.frame_bytes..).unwrap_or_default();
            let payload = frame.payload;
            match (frame.kind, self.expected) {
                (FrameKind::Method, Expected::Method) => match Delivery::parse(payload) {
                    Some(Delivery { place, tag }) => {
                        self.expected = Expected::Header { place, tag }
                    }
                    None => self.handle_method(frames, payload)?,
                },
                (FrameKind::Header, Expected::Header { place, tag }) => {
                    let size = payload.get(4..12).and_then(|size| size.first_chunk::<8>());
                    let got = size.map_or(0, |size| u64::from_be_bytes(*size));
                    // Nothing of the stream can be understood behind it.
                    ensure!(
                        got == self.body_bytes,
                        "a message of {got} bytes came where all have {}; is the queue another's?",
                        self.body_bytes
                    );
                    self.is_damaged = false;
                    self.expected = Expected::Body {
                        place,
                        tag,
                        offset: 0,
                    };
                }
                (FrameKind::Body, Expected::Body { place, tag, offset }) => {
                    let offset = self.handle_body(offset, payload);
                    self.expected = if offset < self.body_bytes {
                        Expected::Body { place, tag, offset }
                    } else {
                        fresh += self.handle_message(place, now, &measured);
                        self.acknowledge(tag, out);
                        Expected::Method
                    };
                }
                (FrameKind::Heartbeat, _) => {}
                (FrameKind::Method, Expected::Header { .. } | Expected::Body { .. }) => {
                    self.handle_method(frames, payload)?;
                }
                (kind, expected) => {
                    anyhow::bail!("a frame {kind:?} came where {expected:?} was due")
                }
            }
        }
        if fresh > 0 {
            self.shared.consumed(fresh);
        }
        Ok(())
    }

    /// A method that is no delivery; it may stand between the frames of one, on another channel.
    fn handle_method(&mut self, frames: &Bytes, payload: &[u8]) -> anyhow::Result<()> {
        let method = Method::decode_in(frames, payload)?;
        check_open(&method)?;
        if matches!(method, Method::BasicConsumeOk(_)) {
            self.consumer_count += 1;
        }
        Ok(())
    }

    /// Looks at a part of a body; gives where the next one begins.
    fn handle_body(&mut self, offset: u64, part: &[u8]) -> u64 {
        if let Some(place) = usize::try_from(offset).ok().filter(|at| *at < STAMP_BYTES) {
            let wanted = self.stamp.iter_mut().skip(place);
            for (byte, got) in wanted.zip(part) {
                *byte = *got;
            }
            let sequence = Stamp::decode(self.stamp).sequence;
            self.is_compared = sequence.is_multiple_of(self.compared_every);
        }
        if self.is_compared && !self.shared.filling.matches(offset, part) {
            self.is_damaged = true;
        }
        offset + part.len() as u64
    }

    /// The message is whole: 1 if it was not there before.
    fn handle_message(&mut self, place: usize, now: u64, measured: &std::ops::Range<u64>) -> u64 {
        let stamp = Stamp::decode(self.stamp);
        let sender = usize::from(stamp.sender);
        if self.is_damaged {
            self.faults.damage(format_args!(
                "message {} of sender {sender} is not as it was sent",
                stamp.sequence
            ));
        }
        let lane = self.lanes.get_mut(place);
        let Some(Some(seen)) = lane.and_then(|senders| senders.get_mut(sender)) else {
            self.faults.damage(format_args!(
                "a message of sender {sender}, who does not send to this queue"
            ));
            return 0;
        };
        if measured.contains(&stamp.intended_ns) {
            self.latencies.record(now.saturating_sub(stamp.intended_ns));
        }
        let sent = self.shared.sent(sender);
        u64::from(seen.accept(stamp.sequence, sent, &mut self.faults))
    }

    fn acknowledge(&mut self, tag: u64, out: &mut BytesMut) {
        self.last_tag = tag;
        let multiple = match self.ack {
            Ack::Auto => return,
            Ack::Each => false,
            Ack::Multiple { every } => {
                self.unacknowledged += 1;
                if self.unacknowledged < every {
                    return;
                }
                self.unacknowledged = 0;
                true
            }
        };
        let delivery_tag = tag;
        put_method(
            out,
            CHANNEL,
            &basic::Ack {
                delivery_tag,
                multiple,
            },
        );
    }

    /// Acknowledges what waits for others to be acknowledged with it.
    fn put_last_ack(&mut self, out: &mut BytesMut) {
        if self.unacknowledged > 0 {
            let ack = basic::Ack {
                delivery_tag: self.last_tag,
                multiple: true,
            };
            put_method(out, CHANNEL, &ack);
            self.unacknowledged = 0;
        }
    }

    fn finish(self) -> Found {
        Found {
            latencies: self.latencies,
            seen: self.lanes.into_iter().flatten().flatten().collect(),
            faults: self.faults,
        }
    }
}

/// What is needed of a `basic.deliver`.
struct Delivery {
    /// The consumer tag, which is a number here.
    place: usize,
    tag: u64,
}

impl Delivery {
    /// `60 | 60 | consumer-tag shortstr | delivery-tag u64 …`; `None` for any other method.
    #[inline]
    fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&[0, 60, 0, 60])?;
        let (length, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let digit = |number: Option<usize>, digit: &u8| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
            number?.checked_mul(10)?.checked_add(usize::from(digit))
        };
        Some(Self {
            place: name.iter().fold(Some(0), digit)?,
            tag: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// The consumer's connection, with what it needs of the plan.
pub(super) async fn open(
    settings: &super::Settings,
    plan: &Arc<Plan>,
    consumer: usize,
    shared: &Arc<Shared>,
) -> anyhow::Result<(Wire, Vec<usize>, Intake)> {
    let wire = Wire::open(
        &settings.broker,
        &super::run::connect_settings("consumer", consumer),
    )
    .await
    .with_context(|| format!("consumer {consumer}"))?;
    let queues = plan.consumed_by(consumer);
    let intake = Intake::new(
        plan,
        &queues,
        settings.body_bytes,
        settings.ack,
        wire.reader.frame_bytes_max(),
        Arc::clone(shared),
    );
    Ok((wire, queues, intake))
}
