//! A run from the first declaration to the last check.
//!
//! Owns: the topology while it is there, the order of the phases, when the measured time begins and ends.
//!
//! declare ──> connect ──> backlog ──> consume ──> warm up ──> measure ──> drain ──> check ──> delete

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use super::check::{Faults, Seen};
use super::consumer::{self, Found};
use super::encode::Encoder;
use super::plan::Plan;
use super::producer::{self, Job, Phase};
use super::report::{Moment, Report};
use super::shared::Shared;
use super::{Extent, Settings};
use crate::amqp::field::FieldTable;
use crate::amqp::frame::put_method;
use crate::amqp::header::Properties;
use crate::amqp::method::{Method, exchange, queue};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::process::Process;
use crate::cli::bench::wire::{CHANNEL, PIPELINED_COUNT, Wire};
use crate::client::ConnectSettings;

/// How often the counters are looked at.
const TICK: Duration = Duration::from_millis(2);
/// How long a message that comes twice is waited for behind the last one.
const SURPLUS_WAIT: Duration = Duration::from_millis(50);
/// Idle connections that are opened at a time.
const CONNECTING_MAX: u64 = 64;

/// Name of a connection of this program.
pub(super) fn connect_settings(what: &str, number: usize) -> ConnectSettings {
    ConnectSettings {
        timeout: Duration::from_secs(60),
        name: format!("warren bench {what} {number}"),
        ..ConnectSettings::default()
    }
}

/// Does it all; the topology is deleted whether it works or not.
pub(super) async fn run(settings: Settings) -> anyhow::Result<Report> {
    let settings = Arc::new(settings);
    let mut wire = Wire::open(&settings.broker, &connect_settings("setup", 0)).await?;
    declare(&mut wire, &settings).await?;
    let measured = measure(&mut wire, &settings).await;
    if !settings.is_kept {
        delete(&mut wire, &settings.plan)
            .await
            .context("cannot delete the queues of the run")?;
    }
    wire.close().await?;
    measured
}

async fn declare(wire: &mut Wire, settings: &Settings) -> anyhow::Result<()> {
    let plan = &settings.plan;
    if let Some(kind) = plan.exchange.declared() {
        wire.call(&exchange::Declare {
            exchange: plan.exchange(),
            kind,
            passive: false,
            durable: settings.is_durable,
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: FieldTable::default(),
        })
        .await?;
    }
    let durable = settings.is_durable;
    wire.pipeline(plan.queues as u64, PIPELINED_COUNT, |index, out| {
        put_method(out, CHANNEL, &declare_queue(plan, index as usize, durable));
    })
    .await?;
    if plan.exchange.declared().is_some() {
        let count = plan.queues * plan.bindings;
        wire.pipeline(count as u64, PIPELINED_COUNT, |index, out| {
            let (queue, binding) = (index as usize % plan.queues, index as usize / plan.queues);
            let bind = queue::Bind {
                queue: plan.queue(queue),
                exchange: plan.exchange(),
                routing_key: plan.binding_key(queue, binding),
                no_wait: false,
                arguments: FieldTable::default(),
            };
            put_method(out, CHANNEL, &bind);
        })
        .await?;
    }
    Ok(())
}

fn declare_queue(plan: &Plan, queue: usize, durable: bool) -> queue::Declare {
    queue::Declare {
        queue: plan.queue(queue),
        passive: false,
        durable,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: FieldTable::default(),
    }
}

async fn delete(wire: &mut Wire, plan: &Plan) -> anyhow::Result<()> {
    wire.pipeline(plan.queues as u64, PIPELINED_COUNT, |index, out| {
        let delete = queue::Delete {
            queue: plan.queue(index as usize),
            if_unused: false,
            if_empty: false,
            no_wait: false,
        };
        put_method(out, CHANNEL, &delete);
    })
    .await?;
    if plan.exchange.declared().is_some() {
        wire.call(&exchange::Delete {
            exchange: plan.exchange(),
            if_unused: false,
            no_wait: false,
        })
        .await?;
    }
    Ok(())
}

/// All tasks of a run, and what those that ended found.
struct Crew {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    producers: JoinSet<anyhow::Result<Histogram>>,
    consumers: JoinSet<anyhow::Result<Found>>,
    confirm_times: Histogram,
    found: Vec<Found>,
    ready: mpsc::Receiver<()>,
    is_interrupted: bool,
}

async fn measure(wire: &mut Wire, settings: &Arc<Settings>) -> anyhow::Result<Report> {
    let plan = Arc::new(settings.plan.clone());
    let fan_out = plan.fan_out();
    let in_flight_max = settings.window.map(|window| {
        window
            .saturating_add(settings.backlog)
            .saturating_mul(fan_out)
    });
    let shared = Arc::new(Shared::new(plan.producers, fan_out, in_flight_max));
    // However this ends, no producer goes on: the program waits for their threads.
    let _over = shared.over.clone().drop_guard();
    let broker = settings.pid.map(Process::open).transpose()?;
    let idle = open_idle(settings).await?;
    let (phase, phases) = watch::channel(Phase::Connecting);
    let (is_ready, ready) = mpsc::channel(plan.producers + plan.consumers);
    let mut crew = Crew {
        settings: Arc::clone(settings),
        shared: Arc::clone(&shared),
        producers: JoinSet::new(),
        consumers: JoinSet::new(),
        confirm_times: Histogram::default(),
        found: Vec::new(),
        ready,
        is_interrupted: false,
    };
    for producer in 0..plan.producers {
        crew.start_producer(producer, &plan, &phases, &is_ready)
            .await?;
    }
    crew.wait_ready(plan.producers).await?;
    let _ = phase.send(Phase::Backlog);
    crew.wait_ready(plan.producers).await?;
    for consumer in 0..plan.consumers {
        let (wire, queues, intake) = consumer::open(settings, &plan, consumer, &shared).await?;
        let (plan, shared, is_ready) = (Arc::clone(&plan), Arc::clone(&shared), is_ready.clone());
        let prefetch = settings.prefetch;
        crew.consumers.spawn(consumer::run(
            wire, queues, plan, prefetch, intake, shared, is_ready,
        ));
    }
    crew.wait_ready(plan.consumers).await?;
    let (from, to) = crew.measure(broker, &phase).await?;
    crew.drain().await?;
    let faults = crew.check(wire).await?;
    drop(idle);
    Ok(Report {
        body_bytes: settings.body_bytes,
        fan_out,
        is_consumed: plan.consumers > 0,
        from,
        to,
        total: shared.counts(),
        latencies: crew.latencies(),
        confirm_times: crew.confirm_times,
        pid: settings.pid,
        is_interrupted: crew.is_interrupted,
        faults,
    })
}

async fn open_idle(settings: &Settings) -> anyhow::Result<Vec<Wire>> {
    let mut idle = Vec::new();
    let mut opening = JoinSet::new();
    let count = usize::try_from(settings.idle_connections)?;
    let mut next = 0;
    while idle.len() < count {
        while next < count && opening.len() < CONNECTING_MAX as usize {
            let broker = settings.broker.clone();
            let connect = connect_settings("idle", next);
            opening.spawn(async move { Wire::open(&broker, &connect).await });
            next += 1;
        }
        let opened = opening.join_next().await.context("one is being opened")?;
        idle.push(opened?.context("an idle connection; are enough files allowed (ulimit -n)?")?);
    }
    Ok(idle)
}

/// A part of `count`, so that all parts make the whole.
fn share(count: u64, producer: usize, producers: usize) -> u64 {
    let (producer, producers) = (producer as u64, producers.max(1) as u64);
    count / producers + u64::from(producer < count % producers)
}

impl Crew {
    async fn start_producer(
        &mut self,
        producer: usize,
        plan: &Plan,
        phases: &watch::Receiver<Phase>,
        ready: &mpsc::Sender<()>,
    ) -> anyhow::Result<()> {
        let settings = &self.settings;
        let wire = Wire::open(&settings.broker, &connect_settings("producer", producer))
            .await
            .with_context(|| format!("producer {producer}"))?;
        let properties = Properties {
            delivery_mode: Some(if settings.is_persistent { 2 } else { 1 }),
            ..Properties::default()
        };
        let encoder = Encoder::new(
            u16::try_from(producer)?,
            &plan.exchange(),
            &plan.keys(producer),
            &properties,
            settings.body_bytes,
            wire.writer.frame_bytes_max(),
            &self.shared.filling,
        );
        let producers = plan.producers;
        let interval_ns = settings
            .rate
            .map(|rate| 1e9 * producers as f64 / rate as f64);
        let job = Job {
            producer,
            backlog: share(settings.backlog, producer, producers),
            count: match settings.extent {
                Extent::Count(count) => Some(share(count, producer, producers)),
                Extent::Time { .. } => None,
            },
            interval_ns,
            offset: producer as f64 / producers as f64,
            confirm_window: settings.confirm_window,
        };
        let (shared, phases, ready) = (Arc::clone(&self.shared), phases.clone(), ready.clone());
        let runtime = tokio::runtime::Handle::current();
        // A thread of its own, since it sleeps.
        self.producers.spawn_blocking(move || {
            runtime.block_on(producer::run(job, wire, encoder, shared, phases, ready))
        });
        Ok(())
    }

    /// Waits for so many tasks to say that they are ready.
    async fn wait_ready(&mut self, mut count: usize) -> anyhow::Result<()> {
        while count > 0 {
            tokio::select! {
                Some(()) = self.ready.recv() => count -= 1,
                Some(ended) = self.producers.join_next() => {
                    let _ = ended??;
                    bail!("a producer ended before it began");
                }
                Some(ended) = self.consumers.join_next() => {
                    let _ = ended??;
                    bail!("a consumer ended before it began");
                }
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
        Ok(())
    }

    /// Lets a moment pass; an error if a task failed meanwhile.
    async fn tick(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            () = sleep(TICK) => Ok(()),
            Some(ended) = self.producers.join_next() => self.take_producer(ended),
            Some(ended) = self.consumers.join_next() => self.take_consumer(ended),
            _ = tokio::signal::ctrl_c() => {
                if std::mem::replace(&mut self.is_interrupted, true) {
                    bail!("interrupted twice");
                }
                self.shared.stop.cancel();
                Ok(())
            }
        }
    }

    fn take_producer(
        &mut self,
        ended: Result<anyhow::Result<Histogram>, JoinError>,
    ) -> anyhow::Result<()> {
        self.confirm_times.merge(&ended??);
        Ok(())
    }

    fn take_consumer(
        &mut self,
        ended: Result<anyhow::Result<Found>, JoinError>,
    ) -> anyhow::Result<()> {
        self.found.push(ended??);
        Ok(())
    }

    /// Lets producers begin; gives the first and the last moment of what is measured.
    async fn measure(
        &mut self,
        broker: Option<Process>,
        phase: &watch::Sender<Phase>,
    ) -> anyhow::Result<(Moment, Moment)> {
        let shared = Arc::clone(&self.shared);
        let begin = || {
            if let Some(broker) = broker {
                broker.reset_peak();
            }
            let from = Moment::now(&shared, broker)?;
            shared.measure_from(from.at_ns);
            anyhow::Ok(from)
        };
        match self.settings.extent {
            Extent::Time { warmup, measured } => {
                let _ = phase.send(Phase::Measuring);
                self.tick_until(shared.now() + nanoseconds(warmup)).await?;
                let from = begin()?;
                self.tick_until(from.at_ns + nanoseconds(measured)).await?;
                let to = Moment::now(&shared, broker)?;
                shared.measure_to(to.at_ns);
                shared.stop.cancel();
                Ok((from, to))
            }
            Extent::Count(_) => {
                let from = begin()?;
                let _ = phase.send(Phase::Measuring);
                // Ends also if nothing comes any more; what is missing is found later.
                self.drain().await?;
                Ok((from, Moment::now(&shared, broker)?))
            }
        }
    }

    async fn tick_until(&mut self, at_ns: u64) -> anyhow::Result<()> {
        while self.shared.now() < at_ns && !self.is_interrupted {
            self.tick().await?;
        }
        Ok(())
    }

    /// Waits until producers have ended and all that they sent has come, or nothing comes for too long.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let limit = nanoseconds(self.settings.drain);
        let is_consumed = self.settings.plan.consumers > 0;
        let mut before = self.shared.counts();
        let mut progress_at = self.shared.now();
        loop {
            let counts = self.shared.counts();
            let has_all = !is_consumed || counts.consumed >= self.shared.expected();
            if self.producers.is_empty() && has_all {
                return Ok(());
            }
            let now = self.shared.now();
            if counts != before {
                (before, progress_at) = (counts, now);
            } else if now - progress_at > limit {
                // Producers that wait for room in the window are let go.
                self.shared.stop.cancel();
                if self.producers.is_empty() || now - progress_at > limit.saturating_mul(2) {
                    return Ok(());
                }
            }
            self.tick().await?;
        }
    }

    /// Ends the consumers and adds up what they saw; without any, asks the queues what they hold.
    async fn check(&mut self, wire: &mut Wire) -> anyhow::Result<Faults> {
        let mut faults = Faults::default();
        if self.settings.plan.consumers == 0 {
            let held = self.held(wire).await?;
            faults.compare_held(held, self.shared.expected());
            return Ok(faults);
        }
        sleep(SURPLUS_WAIT).await;
        self.shared.drained.cancel();
        while let Some(ended) = self.consumers.join_next().await {
            self.take_consumer(ended)?;
        }
        let mut seen: Vec<Seen> = Vec::new();
        for found in &mut self.found {
            faults.merge(std::mem::take(&mut found.faults));
            seen.append(&mut found.seen);
        }
        seen.sort_by_key(|seen| (seen.queue, seen.sender));
        for of_one_lane in
            seen.chunk_by_mut(|one, other| (one.queue, one.sender) == (other.queue, other.sender))
        {
            if let Some((first, others)) = of_one_lane.split_first_mut() {
                for other in others {
                    first.merge(other, &mut faults);
                }
                first.finish(self.shared.sent(first.sender), &mut faults);
            }
        }
        Ok(faults)
    }

    /// What the queues say they hold; asked until it is all, or no more is said.
    async fn held(&mut self, wire: &mut Wire) -> anyhow::Result<u64> {
        let plan = &self.settings.plan;
        let limit = nanoseconds(self.settings.drain);
        let (mut before, mut progress_at) = (0, self.shared.now());
        loop {
            let mut held = 0;
            for queue in 0..plan.queues {
                let passive = queue::Declare {
                    passive: true,
                    ..declare_queue(plan, queue, self.settings.is_durable)
                };
                if let Method::QueueDeclareOk(found) = wire.call(&passive).await? {
                    held += u64::from(found.message_count);
                }
            }
            let now = self.shared.now();
            if held != before {
                (before, progress_at) = (held, now);
            }
            if held >= self.shared.expected() || now - progress_at > limit {
                return Ok(held);
            }
            sleep(SURPLUS_WAIT).await;
        }
    }

    fn latencies(&self) -> Histogram {
        let mut all = Histogram::default();
        for found in &self.found {
            all.merge(&found.latencies);
        }
        all
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of all producers make the whole.
    #[test]
    fn shares_add_up() {
        for (count, producers) in [(0, 1), (10, 3), (2, 5), (1_000_003, 7)] {
            let sum: u64 = (0..producers).map(|one| share(count, one, producers)).sum();
            assert_eq!(sum, count);
        }
    }
}
