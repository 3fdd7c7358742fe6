//! One producer: a connection that publishes, in batches or at its times, and a task that reads its confirms.
//!
//! Owns: pacing, the window of confirms and their times. Runs on a thread of its own, which sleeps to the times that
//! messages are to leave: a runtime's timer is a millisecond coarse. A message that leaves late keeps the time that it
//! was to leave, so that no delay of the generator or of back-pressure is left out of the latencies.
//! Bound: the times of unconfirmed messages, at most the window of confirms, or what the broker owes without one.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::encode::Encoder;
use super::shared::Shared;
use crate::amqp::field::ShortString;
use crate::amqp::frame::{self, FrameKind, put_method};
use crate::amqp::method::{Method, confirm, connection};
use crate::amqp::reply::ReplyCode;
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::wire::{Wire, check_open};
use crate::client::{RawReader, RawWriter};

/// How late the system may wake the thread, in nanoseconds; 50 microseconds otherwise.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;
/// Longest sleep, so that the end of the run is seen.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Longest wait for confirms or the end of the connection behind the last message.
const END_WAIT: Duration = Duration::from_secs(120);

/// How far a run is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Phase {
    Connecting,
    Backlog,
    Measuring,
}

/// What one producer does.
pub(super) struct Job {
    pub(super) producer: usize,
    /// Messages before the others begin, without a window.
    pub(super) backlog: u64,
    /// Messages afterwards; `None` until the run is stopped.
    pub(super) count: Option<u64>,
    /// Time between two messages, in nanoseconds; `None` is as fast as can be.
    pub(super) interval_ns: Option<f64>,
    /// By how much of the interval its first message is later than another producer's, 0 to 1.
    pub(super) offset: f64,
    /// Messages that may wait for their confirms; 0 is without confirms.
    pub(super) confirm_window: u64,
}

/// Publishes; gives the times to the confirms.
pub(super) async fn run(
    job: Job,
    mut wire: Wire,
    encoder: Encoder,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
    ready: mpsc::Sender<()>,
) -> anyhow::Result<Histogram> {
    if job.confirm_window > 0 {
        wire.call(&confirm::Select { no_wait: false }).await?;
    }
    let Wire { reader, writer, .. } = wire;
    let confirms = Arc::new(Confirms::default());
    let reading = read(reader, Arc::clone(&confirms), Arc::clone(&shared));
    let mut reading = tokio::spawn(reading);
    if let Err(error) = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS)) {
        tracing::debug!(%error, "the system's timer stays coarse");
    }
    let over = shared.over.clone();
    let mut publisher = Publisher {
        job,
        encoder,
        shared,
        confirms: Arc::clone(&confirms),
        writer,
        next: 0,
        out: BytesMut::new(),
    };
    let publishing = async {
        let _ = ready.send(()).await;
        phase.wait_for(|phase| *phase >= Phase::Backlog).await?;
        let backlog = publisher.job.backlog;
        publisher.publish(Some(backlog), false).await?;
        let _ = ready.send(()).await;
        phase.wait_for(|phase| *phase >= Phase::Measuring).await?;
        let count = publisher.job.count;
        publisher.publish(count, true).await?;
        publisher.end().await
    };
    tokio::select! {
        ended = publishing => ended?,
        () = over.cancelled() => bail!("the run is over"),
        ended = &mut reading => {
            ended??;
            bail!("the broker ended a producer's connection");
        }
    }
    timeout(END_WAIT, reading)
        .await
        .context("the broker does not let a producer's connection end")???;
    let times = confirms.state.lock().times.clone();
    Ok(times)
}

/// The writing half.
struct Publisher {
    job: Job,
    encoder: Encoder,
    shared: Arc<Shared>,
    confirms: Arc<Confirms>,
    writer: RawWriter,
    /// Sequence number of the next message.
    next: u64,
    out: BytesMut,
}

impl Publisher {
    /// Publishes `count` messages, or until the run is stopped.
    async fn publish(&mut self, count: Option<u64>, is_measured: bool) -> anyhow::Result<()> {
        let interval_ns = self.job.interval_ns.filter(|_| is_measured);
        let offset = self.job.offset;
        let start = self.shared.now();
        let intended =
            |done: u64, interval: f64| start + ((done as f64 + offset) * interval) as u64;
        let mut done = 0;
        while count.is_none_or(|count| done < count) {
            let mut wanted = self.encoder.batch();
            if let Some(count) = count {
                wanted = wanted.min(count - done);
            }
            if let Some(interval) = interval_ns {
                let now = self.shared.now();
                let first = intended(done, interval);
                if now < first {
                    if self.shared.stop.is_cancelled() {
                        break;
                    }
                    std::thread::sleep(Duration::from_nanos(first - now).min(SLEEP_MAX));
                    continue;
                }
                wanted = wanted.min(((now - first) as f64 / interval) as u64 + 1);
            }
            if self.job.confirm_window > 0 {
                wanted = wanted.min(self.confirm_room().await);
            }
            let granted = match wanted {
                0 => 0,
                _ => {
                    let sender = self.job.producer;
                    self.shared.reserve(sender, wanted, is_measured).await
                }
            };
            if granted == 0 {
                break;
            }
            let now = self.shared.now();
            let time = |index: u64| match interval_ns {
                Some(interval) => intended(done + index, interval),
                None => now,
            };
            if self.job.confirm_window > 0 {
                self.confirms.expect((0..granted).map(time));
            }
            self.write(granted, time).await?;
            done += granted;
        }
        Ok(())
    }

    async fn write(&mut self, count: u64, time: impl Fn(u64) -> u64) -> anyhow::Result<()> {
        let Self {
            encoder,
            shared,
            writer,
            next,
            out,
            ..
        } = self;
        out.clear();
        for index in 0..count {
            if encoder.is_streamed() {
                let mut done = 0;
                while done < encoder.body_bytes() {
                    out.clear();
                    done = encoder.put_part(*next, time(index), done, &shared.filling, out);
                    writer.write(out).await?;
                }
                out.clear();
            } else {
                encoder.put(*next, time(index), out);
            }
            *next += 1;
        }
        if !out.is_empty() {
            writer.write(out).await?;
        }
        Ok(())
    }

    /// How many messages the window of confirms has room for; waits for one. 0 when the run ends.
    async fn confirm_room(&self) -> u64 {
        let window = self.job.confirm_window;
        let worthwhile = (window / 4).clamp(1, self.encoder.batch());
        loop {
            let progress = self.confirms.progress.notified();
            let room = window.saturating_sub(self.confirms.open_count());
            if room >= worthwhile {
                return room;
            }
            if self.shared.stop.is_cancelled() {
                return 0;
            }
            tokio::select! {
                () = progress => {}
                () = self.shared.stop.cancelled() => return 0,
            }
        }
    }

    /// Waits for the last confirms and asks the broker to end the connection.
    async fn end(&mut self) -> anyhow::Result<()> {
        let all = async {
            loop {
                let progress = self.confirms.progress.notified();
                if self.confirms.open_count() == 0 {
                    return;
                }
                progress.await;
            }
        };
        timeout(END_WAIT, all).await.with_context(|| {
            format!(
                "{} messages were never confirmed",
                self.confirms.open_count()
            )
        })?;
        self.out.clear();
        let close = connection::Close {
            reply_code: ReplyCode::Success.number(),
            reply_text: ShortString::from_static("Goodbye"),
            class_id: 0,
            method_id: 0,
        };
        put_method(&mut self.out, 0, &close);
        Ok(self.writer.write(&self.out).await?)
    }
}

/// Reads until the broker has agreed to the end.
async fn read(
    mut reader: RawReader,
    confirms: Arc<Confirms>,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    loop {
        let frames = reader.take_frames()?;
        if frames.is_empty() {
            reader.fill().await?;
            continue;
        }
        let mut confirmed = 0;
        let now = shared.now();
        let mut rest: Bytes = frames.clone();
        while let Some(frame) = frame::parse(&rest, reader.frame_bytes_max())? {
            if frame.kind == FrameKind::Method {
                match Method::decode_in(&rest, frame.payload)? {
                    Method::BasicAck(ack) => {
                        confirmed += confirms
                            .state
                            .lock()
                            .settle(ack.delivery_tag, ack.multiple, now, &shared)
                            .context("the broker confirmed what was never published")?;
                    }
                    Method::ConnectionCloseOk(_) => return Ok(()),
                    other => check_open(&other)?,
                }
            }
            rest = rest.slice(frame.frame_bytes..);
        }
        if confirmed > 0 {
            shared.confirmed(confirmed);
            confirms.progress.notify_waiters();
        }
    }
}

/// What waits for its confirm.
#[derive(Default)]
struct Confirms {
    state: Mutex<Unconfirmed>,
    progress: Notify,
}

impl Confirms {
    fn expect(&self, times: impl Iterator<Item = u64>) {
        let mut state = self.state.lock();
        let before = state.waiting.len();
        state.waiting.extend(times.map(Some));
        state.open_count += (state.waiting.len() - before) as u64;
    }

    fn open_count(&self) -> u64 {
        self.state.lock().open_count
    }
}

/// Times at which unconfirmed messages were to leave.
#[derive(Default)]
struct Unconfirmed {
    /// Delivery tag of the last message before `waiting`.
    settled: u64,
    /// `None` is confirmed out of turn.
    waiting: VecDeque<Option<u64>>,
    open_count: u64,
    times: Histogram,
}

impl Unconfirmed {
    /// Takes a confirm; gives how many messages it is for, or `None` if it is for none that wait.
    fn settle(&mut self, tag: u64, multiple: bool, now: u64, shared: &Shared) -> Option<u64> {
        let measured = shared.measured();
        let before = self.open_count;
        let last = match tag {
            // 0 with multiple is all there are.
            0 if multiple => self.waiting.len(),
            tag => usize::try_from(tag.checked_sub(self.settled)?).ok()?,
        };
        if last > self.waiting.len() || last == 0 && before > 0 {
            return None;
        }
        let first = if multiple { 0 } else { last.checked_sub(1)? };
        for time in self.waiting.range_mut(first..last) {
            if let Some(intended) = time.take() {
                self.open_count -= 1;
                if measured.contains(&intended) {
                    self.times.record(now.saturating_sub(intended));
                }
            }
        }
        while self.waiting.front().is_some_and(Option::is_none) {
            self.waiting.pop_front();
            self.settled += 1;
        }
        Some(before - self.open_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Confirms settle alone, together, out of turn and all at once; one for what was never published is seen.
    #[test]
    fn confirms_settle_what_they_say() {
        let shared = Shared::new(1, 1, None);
        shared.measure_from(0);
        let confirms = Confirms::default();
        confirms.expect(100..106);
        let mut state = confirms.state.lock();
        assert_eq!(state.settle(2, false, 110, &shared), Some(1));
        assert_eq!(state.settle(3, true, 110, &shared), Some(2));
        assert_eq!((state.settled, state.open_count), (3, 3));
        assert_eq!(state.settle(5, true, 110, &shared), Some(2));
        assert_eq!(state.settle(3, false, 110, &shared), None);
        assert_eq!(state.settle(7, true, 110, &shared), None);
        assert_eq!(state.settle(0, true, 110, &shared), Some(1));
        assert_eq!((state.settled, state.open_count), (6, 0));
        assert_eq!(state.times.count(), 6);
        assert_eq!(state.times.max(), 10);
    }
}
