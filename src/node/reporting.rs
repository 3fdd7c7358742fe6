//! When a machine reports, and a sender's task that does.
//!
//! Owns: the memory that somebody looks on. A node has its own loop (`presence`).
//! Spec: `spec/control-plane.md` CONTROL-22, CONTROL-23.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::message::{
    CONTROL_BYTES_MAX, CONTROL_EXCHANGE, ControlMessage, NodeName, decode, encode,
};
use super::report::{
    Machine, MachineRole, REPORT_KEY, Report, Reporter, WATCH_KEY, WATCH_TIME, Watch,
};
use super::tune::{LIMIT_KEY, Tune};
use crate::amqp::field::ShortString;
use crate::client::{
    Channel, ClientError, Connection, ConsumeSettings, Consumer, Publish, QueueSettings,
};
use crate::server::peer::SwarmHandle;
use crate::swarm::TransferStats;

/// Not watched ──watch──> Watched, a report each interval ──30 s without another──> not watched
#[derive(Debug, Default)]
pub(super) struct Reporting {
    reporter: Reporter,
    watched: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    until: Instant,
    next: Instant,
    interval: Duration,
}

impl Reporting {
    /// Somebody looks on from now on.
    // req: CONTROL-22
    pub(super) fn watch(&mut self, watch: Watch, now: Instant) {
        let interval = watch.interval();
        let next = match &self.watched {
            Some(watched) => watched.next.min(now + interval),
            None => now,
        };
        self.watched = Some(Watched {
            until: now + WATCH_TIME,
            next,
            interval,
        });
    }

    /// Waits until the next report is due: for ever while nobody looks on.
    pub(super) async fn due(&self) {
        match &self.watched {
            Some(watched) => sleep_until(watched.next.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The report that is due.
    // req: CONTROL-23
    pub(super) fn report(
        &mut self,
        machine: &Machine,
        stats: &[TransferStats],
        now: Instant,
    ) -> Report {
        let report = self.reporter.report(machine, stats, now);
        match &mut self.watched {
            Some(watched) if now < watched.until => watched.next = now + watched.interval,
            Some(_) | None => *self = Self::default(),
        }
        report
    }
}

/// Publishes a message of the control plane that may be lost.
pub(super) async fn tell<M: ControlMessage>(
    channel: &Channel,
    key: ShortString,
    message: &M,
) -> Result<(), ClientError> {
    let (properties, body) = encode(message);
    let publish = Publish {
        exchange: CONTROL_EXCHANGE,
        routing_key: key,
        mandatory: false,
        properties,
    };
    channel.publish(&publish, &body).await.map(drop)
}

/// Has a sender report on its swarm until the task is aborted or the connection ends.
pub(super) async fn start_for_sender(
    connection: &Connection,
    swarm: SwarmHandle,
    name: NodeName,
    address: Option<String>,
) -> Result<tokio::task::JoinHandle<()>, ClientError> {
    let channel = connection.channel().await?;
    let own = QueueSettings {
        exclusive: true,
        auto_delete: true,
        ..QueueSettings::default()
    };
    let queue = channel.declare_queue(&ShortString::EMPTY, &own).await?;
    let queue = queue.queue;
    for key in [WATCH_KEY, LIMIT_KEY] {
        channel.bind_queue(&queue, &CONTROL_EXCHANGE, &key).await?;
    }
    let consumer = channel.consume(&queue, &ConsumeSettings::default()).await?;
    let machine = Machine {
        name,
        role: MachineRole::Sender,
        swarm_id: swarm.node(),
        address,
    };
    Ok(tokio::spawn(async move {
        if let Err(error) = run(consumer, &swarm, &machine).await {
            tracing::debug!(%error, "the sender reports no longer");
        }
    }))
}

async fn run(
    mut consumer: Consumer,
    swarm: &SwarmHandle,
    machine: &Machine,
) -> Result<(), ClientError> {
    let mut reporting = Reporting::default();
    loop {
        tokio::select! {
            () = reporting.due() => {
                let report = reporting.report(machine, &swarm.stats(), Instant::now());
                tell(consumer.channel(), REPORT_KEY, &report).await?;
            }
            request = consumer.next() => {
                let request = request?;
                let tag = request.delivery_tag;
                let properties = request.properties().unwrap_or_default();
                let body = request.body.whole(CONTROL_BYTES_MAX).await.unwrap_or_default();
                if let Some(watch) = decode::<Watch>(&properties, &body) {
                    reporting.watch(watch, Instant::now());
                } else if let Some(tune) = decode::<Tune>(&properties, &body) {
                    tune.apply(machine.name.as_str(), swarm, None);
                }
                consumer.channel().ack(tag).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports begin at once, come at the interval, and end when nobody has looked on for a while.
    // req: CONTROL-22
    #[test]
    fn reports_end_when_nobody_looks_on() {
        let start = Instant::now();
        let machine = Machine {
            name: "edge1".parse().expect("a name"),
            role: MachineRole::Node,
            swarm_id: crate::swarm::NodeId::from_bytes([1; 32]),
            address: None,
        };
        let mut reporting = Reporting::default();
        let next = |reporting: &Reporting| reporting.watched.as_ref().map(|it| it.next);
        assert_eq!(next(&reporting), None);
        reporting.watch(Watch { interval_ms: 1_000 }, start);
        assert_eq!(next(&reporting), Some(start));
        reporting.report(&machine, &[], start);
        let second = start + Duration::from_secs(1);
        assert_eq!(next(&reporting), Some(second));
        reporting.watch(Watch { interval_ms: 0 }, start);
        assert_eq!(
            next(&reporting),
            Some(start + Duration::from_millis(500)),
            "faster"
        );
        reporting.report(&machine, &[], start + WATCH_TIME);
        assert_eq!(next(&reporting), None);
    }
}
