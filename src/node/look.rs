//! Looking on at a broker's nodes from outside, over AMQP: the same account as the broker's own pages.
//!
//! Owns: a queue that hears the control exchange, and asking machines to report. Works with any AMQP 0-9-1 broker.
//! Bound: that of the account (`view`).
//! Spec: `spec/control-plane.md` CONTROL-15, CONTROL-17, CONTROL-22.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::{
    CONTROL_BYTES_MAX, CONTROL_EXCHANGE, PRESENCE_KEY, Presence, REQUEST_KEY, Receipt, decode,
    request_properties,
};
use super::report::{RECEIPT_KEY, REPORT_KEY, Report, SENT_KEY, Sent, WATCH_KEY, Watch};
use super::tune::{LIMIT_KEY, Tune};
use super::view::View;
use super::{registry, reporting, unix_ms, upstream};
use crate::amqp::field::ShortString;
use crate::client::{
    AmqpUri, Channel, ClientError, ConnectSettings, Connection, ConsumeSettings, Consumer,
    Delivery, Publish, QueueSettings,
};

/// Messages that the broker may send ahead.
const PREFETCH_COUNT: u16 = 256;

/// Somebody who looks on.
pub struct Look {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// By vhost, of which there is one: as the pages' accounts are.
    views: BTreeMap<String, View>,
    vhost: String,
}

impl Look {
    /// Connects, listens, and asks everybody for presence.
    ///
    /// # Errors
    /// What the broker refuses, or why it is not reached.
    // req: CONTROL-15
    pub async fn connect(broker: &AmqpUri) -> Result<Self, ClientError> {
        let settings = ConnectSettings {
            name: "warren looks on".to_owned(),
            ..ConnectSettings::default()
        };
        let connection = Connection::open(broker, &settings).await?;
        let channel = connection.channel().await?;
        upstream::declare_exchanges(&channel).await?;
        let own = QueueSettings {
            exclusive: true,
            ..QueueSettings::default()
        };
        let queue = channel.declare_queue(&ShortString::EMPTY, &own).await?;
        let queue = queue.queue;
        for key in [PRESENCE_KEY, RECEIPT_KEY, SENT_KEY, REPORT_KEY] {
            channel.bind_queue(&queue, &CONTROL_EXCHANGE, &key).await?;
        }
        let consume = ConsumeSettings {
            prefetch_count: PREFETCH_COUNT,
            ..ConsumeSettings::default()
        };
        let consumer = channel.clone().consume(&queue, &consume).await?;
        let mut view = View::default();
        view.take_registry(registry::read(&connection).await?);
        let request = Publish {
            exchange: CONTROL_EXCHANGE,
            routing_key: REQUEST_KEY,
            mandatory: false,
            properties: request_properties(&queue),
        };
        drop(channel.publish(&request, b"").await?);
        let vhost = "/".to_owned();
        Ok(Self {
            connection,
            channel,
            consumer,
            views: BTreeMap::from([(vhost.clone(), view)]),
            vhost,
        })
    }

    /// Asks machines to report at this interval; to be called at least every 30 s.
    ///
    /// # Errors
    /// Why the connection ended.
    // req: CONTROL-22
    pub async fn watch(&self, interval: Duration) -> Result<(), ClientError> {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        reporting::tell(&self.channel, WATCH_KEY, &Watch { interval_ms }).await
    }

    /// Has machines move a payload at other rates from now on, or with another priority.
    ///
    /// # Errors
    /// Why the connection ended.
    // req: CONTROL-28
    pub async fn tune(&self, tune: &Tune) -> Result<(), ClientError> {
        reporting::tell(&self.channel, LIMIT_KEY, tune).await
    }

    /// Waits for one word more and takes it into the account.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn listen(&mut self) -> Result<(), ClientError> {
        let delivery = self.consumer.next().await?;
        let tag = delivery.delivery_tag;
        self.take(delivery).await;
        self.consumer.channel().ack(tag).await
    }

    // req: CONTROL-17
    async fn take(&mut self, delivery: Delivery) {
        let Some(properties) = delivery.properties() else {
            return;
        };
        let Ok(body) = delivery.body.whole(CONTROL_BYTES_MAX).await else {
            return;
        };
        let (now, unix_ms) = (Instant::now(), unix_ms());
        let view = self.views.entry(self.vhost.clone()).or_default();
        if let Some(report) = decode::<Report>(&properties, &body) {
            view.take_report(report, now, unix_ms);
        } else if let Some(presence) = decode::<Presence>(&properties, &body) {
            view.take_presence(presence, now, unix_ms);
        } else if let Some(receipt) = decode::<Receipt>(&properties, &body) {
            let id = properties.correlation_id.map(|id| id.to_string());
            view.take_receipt(id, receipt, now, unix_ms);
        } else if let Some(sent) = decode::<Sent>(&properties, &body) {
            view.take_sent(sent, unix_ms);
        }
    }

    /// What is known so far.
    #[must_use]
    pub fn views(&self) -> &BTreeMap<String, View> {
        &self.views
    }

    /// Ends the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}
