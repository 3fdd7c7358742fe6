//! Routing by topic, in nanoseconds per publish of an empty message that nobody keeps.
//!
//! Each publish takes another key, so that what channels remember does not help. Of the bindings, three
//! match. Read against: 2 µs per publish with 10,000 wildcard bindings (issue "AMQP 0-9-1 whole").
#![allow(missing_docs, clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use warren::amqp::field::{FieldTable, FieldValue};
use warren::amqp::header::PropertiesRef;
use warren::broker::{
    BindingRequest, Body, Broker, BrokerSettings, Connection, Origin, Publish, Publisher,
    QueueDeclare, Waker, Wakes,
};

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

fn connection(now: Instant) -> Connection {
    let broker = Broker::open(BrokerSettings::new([1; 32], now, 0), None, None);
    let broker = broker.expect("nothing to recover");
    let user = broker
        .users()
        .authenticate(b"guest", b"guest", Origin::Loopback);
    broker
        .connect(&user.expect("the default user"), b"/", Arc::new(NoWaker))
        .expect("the default vhost")
}

/// A queue that keeps nothing, bound by `pattern`.
fn bind(connection: &Connection, name: &str, pattern: &str) {
    let declare = QueueDeclare {
        name: name.as_bytes(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: &FieldTable::from([("x-max-length", FieldValue::from(0))]),
    };
    let vhost = connection.vhost();
    vhost
        .queue_declare(connection, &declare, Instant::now())
        .expect("a plain queue");
    let request = BindingRequest {
        source: b"amq.topic",
        destination: name.as_bytes(),
        routing_key: pattern.as_bytes(),
        arguments: &FieldTable::EMPTY,
    };
    vhost
        .queue_bind(connection, &request, Instant::now(), &mut Wakes::new())
        .expect("both are there");
}

fn topic(c: &mut Criterion) {
    let mut group = c.benchmark_group("topic_publish");
    for binding_count in [100, 10_000, 100_000] {
        let now = Instant::now();
        let connection = connection(now);
        for number in 0..binding_count / 2 {
            bind(
                &connection,
                &format!("q{}", number % 100),
                &format!("region-{number}.*.temperature"),
            );
            bind(
                &connection,
                &format!("q{}", number % 100),
                &format!("region-{number}.#"),
            );
        }
        bind(&connection, "all", "#.temperature");
        let keys: Vec<_> = (0..binding_count / 2)
            .map(|number| format!("region-{number}.sensor-{}.temperature", number % 977))
            .collect();
        let mut publisher = Publisher::new();
        let mut wakes = Wakes::new();
        let header = Bytes::from_static(&[0, 0]);
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(binding_count), |b| {
            b.iter(|| {
                let key = next.next().expect("a circle has no end");
                let publish = Publish {
                    exchange: b"amq.topic",
                    routing_key: key.as_bytes(),
                    header: &header,
                    properties: &PropertiesRef::default(),
                    body: Body::Inline(Bytes::new()),
                };
                let vhost = connection.vhost();
                let published =
                    vhost.publish(&connection, &mut publisher, publish, now, &mut wakes);
                black_box(published.expect("the exchange is there"));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, topic);
criterion_main!(benches);
