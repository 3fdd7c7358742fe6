//! The broker's part of a small message's way, in nanoseconds per message: from `Vhost::publish` to the
//! consumer's outbox and to the settled acknowledgement, without frames, sockets and journal.
//!
//! Read against: the whole broker may take 0.2 µs per small message, codec and sockets included.
#![allow(missing_docs, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren::amqp::field::FieldTable;
use warren::amqp::header::PropertiesRef;
use warren::broker::{
    AckMode, BindingRequest, Body, Broker, BrokerSettings, ChannelLimiter, Connection, Consume,
    MessageSeq, Origin, OutboxItem, Prefetch, Publish, Publisher, QueueDeclare, Settle, Waker,
    Wakes,
};

/// Messages between two looks into the outbox, as one read from a socket brings them.
const MESSAGE_COUNT: u64 = 256;

/// Body lengths, in bytes.
const BODY_BYTES: [usize; 3] = [16, 1_024, 16_384];

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

/// One connection that publishes and consumes.
struct Client {
    connection: Connection,
    publisher: Publisher,
    wakes: Wakes,
    now: Instant,
    body: Bytes,
    header: Bytes,
    items: VecDeque<OutboxItem>,
    seqs: Vec<MessageSeq>,
}

impl Client {
    fn new(body_bytes: usize) -> Self {
        let now = Instant::now();
        let broker = Broker::open(BrokerSettings::new([1; 32], now, 0), None, None);
        let broker = broker.expect("nothing to recover");
        let user = broker
            .users()
            .authenticate(b"guest", b"guest", Origin::Loopback);
        let user = user.expect("the default user");
        let connection = broker
            .connect(&user, b"/", Arc::new(NoWaker))
            .expect("the default vhost");
        Self {
            connection,
            publisher: Publisher::new(),
            wakes: Wakes::new(),
            now,
            body: Bytes::from(vec![b'x'; body_bytes]),
            header: Bytes::from_static(&[0, 0]),
            items: VecDeque::new(),
            seqs: Vec::new(),
        }
    }

    fn declare(&self, name: &str) {
        let declare = QueueDeclare {
            name: name.as_bytes(),
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: &FieldTable::EMPTY,
        };
        let vhost = self.connection.vhost();
        vhost
            .queue_declare(&self.connection, &declare, self.now)
            .expect("a plain queue");
        let request = BindingRequest {
            source: b"amq.fanout",
            destination: name.as_bytes(),
            routing_key: b"",
            arguments: &FieldTable::EMPTY,
        };
        vhost
            .queue_bind(&self.connection, &request, self.now, &mut Wakes::new())
            .expect("both are there");
    }

    fn consume(&mut self, queue: &str, ack_mode: AckMode) {
        let consume = Consume {
            queue: queue.as_bytes(),
            channel: 1,
            tag: queue.as_bytes(),
            ack_mode,
            exclusive: false,
            arguments: &FieldTable::EMPTY,
            prefetch: Prefetch::of(0),
            limiter: &Arc::new(ChannelLimiter::new()),
        };
        let vhost = self.connection.vhost();
        vhost
            .consume(&self.connection, &consume, self.now, &mut self.wakes)
            .expect("a plain consumer");
    }

    fn publish(&mut self, exchange: &str, key: &str) {
        let publish = Publish {
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            header: &self.header,
            properties: &PropertiesRef::default(),
            body: Body::Inline(self.body.clone()),
        };
        let vhost = self.connection.vhost();
        let published = vhost.publish(
            &self.connection,
            &mut self.publisher,
            publish,
            self.now,
            &mut self.wakes,
        );
        black_box(published.expect("the exchange is there"));
    }

    /// Takes all deliveries as sent, and acknowledges those that want it.
    fn drain(&mut self) {
        let outbox = Arc::clone(self.connection.outbox());
        outbox.take(&mut self.items);
        let mut sent_bytes = 0;
        let mut queue = None;
        for item in self.items.drain(..) {
            if let OutboxItem::Deliver(deliveries) = item {
                sent_bytes += deliveries.cost_bytes();
                if deliveries.consumer.ack_mode() == AckMode::Manual {
                    let messages = deliveries.messages.iter();
                    self.seqs.extend(messages.map(|delivery| delivery.seq));
                    queue.get_or_insert_with(|| Arc::clone(deliveries.queue()));
                }
            }
        }
        outbox.released(sent_bytes, self.now, &mut self.wakes);
        if let Some(queue) = queue {
            queue.settle(&self.seqs, Settle::Ack, self.now, &mut self.wakes);
            self.seqs.clear();
        }
        self.wakes.wake_all();
    }
}

fn one_queue(c: &mut Criterion) {
    for (name, ack_mode) in [
        ("publish_to_consumer_auto_ack", Some(AckMode::Automatic)),
        ("publish_to_consumer_manual_ack", Some(AckMode::Manual)),
        ("publish_into_queue", None),
    ] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(MESSAGE_COUNT));
        for body_bytes in BODY_BYTES {
            let mut client = Client::new(body_bytes);
            client.declare("queue-01");
            if let Some(ack_mode) = ack_mode {
                client.consume("queue-01", ack_mode);
            }
            group.bench_function(BenchmarkId::from_parameter(body_bytes), |b| {
                b.iter(|| {
                    for _ in 0..MESSAGE_COUNT {
                        client.publish("", "queue-01");
                    }
                    match ack_mode {
                        Some(_) => client.drain(),
                        None => {
                            let vhost = client.connection.vhost();
                            let purged = vhost.queue_purge(&client.connection, b"queue-01");
                            black_box(purged.expect("the queue is there"));
                        }
                    }
                });
            });
        }
        group.finish();
    }
}

/// Per delivery: one message to many queues with a consumer each.
fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out_per_delivery");
    for queue_count in [10_u64, 60] {
        let mut client = Client::new(1_024);
        for number in 0..queue_count {
            let name = format!("queue-{number}");
            client.declare(&name);
            client.consume(&name, AckMode::Automatic);
        }
        group.throughput(Throughput::Elements(queue_count));
        group.bench_function(BenchmarkId::from_parameter(queue_count), |b| {
            b.iter(|| {
                client.publish("amq.fanout", "");
                client.drain();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, one_queue, fan_out);
criterion_main!(benches);
