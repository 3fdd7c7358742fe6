//! What an operator may see of a connection, and the order to end it.
//!
//! Owns: the picture of a session at one moment, made when it is asked for; keeping it costs nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::amqp::field::FieldTable;
use crate::amqp::reply::ReplyCode;
use crate::broker::{ClientStatistics, Consumer, DeliveryCounts, Name, PublishCounts, QueueShare};

use super::TlsFacts;
use super::channel::{DeliveryShare, ExchangeShare};
use super::failure::{Failure, MethodId};
use super::{Session, Slot, State};

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Where it is in its life, in RabbitMQ's words: `starting`, `running`, `blocked`, `closing`, `closed`.
    pub state: &'static str,
    /// Who logged in, once somebody has.
    pub user: Option<Name>,
    /// The vhost, once it is open.
    pub vhost: Option<Name>,
    /// What the client says of itself.
    pub client_properties: FieldTable,
    /// How it logged in.
    pub mechanism: String,
    /// Its TLS, if it came over it.
    pub tls: Option<Arc<TlsFacts>>,
    /// Largest frame, in bytes.
    pub frame_bytes_max: u32,
    /// Highest channel number that the client asked for.
    pub channel_count_max: u16,
    /// The interval of heartbeats; zero is none.
    pub heartbeat: Duration,
    /// Its open channels, by number.
    pub channels: Vec<ChannelView>,
}

/// A channel at one moment.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// Its number.
    pub number: u16,
    /// Whether it is in confirm mode.
    pub confirm: bool,
    /// Whether it is transactional.
    pub transactional: bool,
    /// For consumers that start; 0 is no limit.
    pub prefetch_count_max: u16,
    /// For the whole channel; 0 is no limit.
    pub global_prefetch_count_max: u32,
    /// Deliveries that are not settled.
    pub unsettled_count: usize,
    /// Publishes whose confirm is not out.
    pub unconfirmed_count: usize,
    /// Publishes that wait for the commit of a transaction.
    pub uncommitted_count: usize,
    /// Settlements that do.
    pub uncommitted_ack_count: usize,
    /// What was published on it.
    pub published: PublishCounts,
    /// What its client got and acknowledged.
    pub delivered: DeliveryCounts,
    /// What was published on it, by exchange.
    pub by_exchange: Vec<ExchangeShare>,
    /// What its client got and acknowledged, by queue.
    pub by_queue: Vec<DeliveryShare>,
    /// What was published on it, by exchange and queue that it went to.
    pub into_queues: Vec<QueueShare>,
    /// Its consumers, in no order.
    pub consumers: Vec<Arc<Consumer>>,
}

/// What the client said when it logged in.
#[derive(Debug, Default)]
pub(super) struct Introduction {
    pub(super) properties: FieldTable,
    pub(super) mechanism: String,
    pub(super) channel_count_max: u16,
}

impl Session {
    /// The counters of its vhost, once that is open.
    #[must_use]
    pub fn client_statistics(&self) -> Option<&Arc<ClientStatistics>> {
        match &self.state {
            State::Running(connection) => Some(connection.vhost().client_statistics()),
            State::Opening(_) | State::Closing { .. } | State::Closed => None,
        }
    }

    /// What an operator may see.
    #[must_use]
    pub fn view(&self) -> SessionView {
        let (state, user, vhost) = match &self.state {
            State::Opening(_) => ("starting", None, None),
            State::Running(connection) => (
                if self.blocked.is_some() {
                    "blocked"
                } else {
                    "running"
                },
                Some(connection.user().name().clone()),
                Some(connection.vhost().name().clone()),
            ),
            State::Closing { .. } => ("closing", None, None),
            State::Closed => ("closed", None, None),
        };
        let open = self.channels.values().filter_map(|slot| match slot {
            Slot::Open(channel) => Some(channel.view()),
            Slot::Closing => None,
        });
        let mut channels: Vec<_> = open.collect();
        channels.sort_unstable_by_key(|channel| channel.number);
        SessionView {
            state,
            user,
            vhost,
            client_properties: self.introduction.properties.clone(),
            mechanism: self.introduction.mechanism.clone(),
            tls: self.tls.clone(),
            frame_bytes_max: self.frame_bytes_max(),
            channel_count_max: self.introduction.channel_count_max,
            heartbeat: self.heartbeat.interval(),
            channels,
        }
    }

    /// An operator ends the connection: the client is told so (320).
    // req: MGMT-7
    pub fn handle_forced_close(&mut self, reason: &str, now: Instant) {
        let code = ReplyCode::ConnectionForced;
        let failure = Failure::connection(code, reason, MethodId::default());
        self.fail(0, failure, now);
    }
}
