//! The tutorials' patterns with lapin, unmodified: what its users rely on.
//!
//! The same patterns run with pika, amqplib and Celery in `tests/interop`.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};

use crate::broker;
use crate::wire::{pattern, unique};

/// After this long a pattern has failed, whatever it waits for.
const PATTERN_WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs a pattern with the broker's URI.
fn run<F: Future<Output = lapin::Result<()>>>(pattern: impl FnOnce(String) -> F) {
    let uri = format!("amqp://guest:guest@{}/%2f", broker::shared());
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime
        .block_on(async { tokio::time::timeout(PATTERN_WAIT_MAX, pattern(uri)).await })
        .expect("done in time")
        .expect("no error of the client");
}

async fn connect(uri: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// A name that no other test uses.
fn name(of: &str) -> ShortString {
    unique(of).to_string().into()
}

/// A queue of this connection alone, with a name that the broker chose.
async fn exclusive_queue(channel: &Channel) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions::exclusive();
    let queue = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await?;
    assert!(queue.name().as_str().starts_with("amq.gen-"));
    Ok(queue.name().clone())
}

async fn exchange(channel: &Channel, kind: ExchangeKind) -> lapin::Result<ShortString> {
    let exchange = name("exchange");
    let options = ExchangeDeclareOptions {
        auto_delete: true,
        ..Default::default()
    };
    channel
        .exchange_declare(exchange.clone(), kind, options, FieldTable::default())
        .await?;
    Ok(exchange)
}

async fn bind(
    channel: &Channel,
    queue: &ShortString,
    exchange: &ShortString,
    key: &str,
) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    let (queue, exchange) = (queue.clone(), exchange.clone());
    channel
        .queue_bind(queue, exchange, key.into(), options, FieldTable::default())
        .await
}

async fn publish(
    channel: &Channel,
    exchange: &ShortString,
    key: &str,
    body: &[u8],
) -> lapin::Result<()> {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel
        .basic_publish(exchange.clone(), key.into(), options, body, properties)
        .await?;
    Ok(())
}

/// The next `count` messages of a queue as routing key and body, acknowledged one by one.
async fn take(
    channel: &Channel,
    queue: &ShortString,
    count: usize,
) -> lapin::Result<Vec<(String, Vec<u8>)>> {
    let tag = name("tag");
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(queue.clone(), tag.clone(), options, FieldTable::default())
        .await?;
    let mut taken = Vec::new();
    while taken.len() < count {
        let delivery = consumer.next().await.expect("the consumer goes on")?;
        delivery.ack(BasicAckOptions::default()).await?;
        taken.push((delivery.routing_key.to_string(), delivery.data));
    }
    channel
        .basic_cancel(tag, BasicCancelOptions::default())
        .await?;
    Ok(taken)
}

async fn depth(channel: &Channel, queue: &ShortString) -> lapin::Result<u32> {
    let options = QueueDeclareOptions::default().passive();
    Ok(channel
        .queue_declare(queue.clone(), options, FieldTable::default())
        .await?
        .message_count())
}

/// Two workers share a durable queue of persistent tasks; each task is done exactly once.
#[test]
fn work_queue() {
    run(|uri| async move {
        let (producer, channel) = connect(&uri).await?;
        let queue = name("work");
        let options = QueueDeclareOptions::durable();
        channel
            .queue_declare(queue.clone(), options, FieldTable::default())
            .await?;
        let (sender, mut done) = tokio::sync::mpsc::channel(64);
        let mut workers = Vec::new();
        for worker in 0..2 {
            let (connection, work) = connect(&uri).await?;
            work.basic_qos(1, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let mut consumer = work
                .basic_consume(
                    queue.clone(),
                    "worker".into(),
                    options,
                    FieldTable::default(),
                )
                .await?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Some(Ok(delivery)) = consumer.next().await {
                    assert_eq!(delivery.properties.delivery_mode(), &Some(2));
                    delivery
                        .ack(BasicAckOptions::default())
                        .await
                        .expect("an open channel");
                    if sender.send((worker, delivery.data)).await.is_err() {
                        break;
                    }
                }
            });
            workers.push(connection);
        }
        let expected: Vec<_> = (0..40)
            .map(|task| format!("task {task:02}").into_bytes())
            .collect();
        for body in &expected {
            let (options, persistent) = (
                BasicPublishOptions::default(),
                BasicProperties::default().with_delivery_mode(2),
            );
            channel
                .basic_publish("".into(), queue.clone(), options, body, persistent)
                .await?;
        }
        let (mut bodies, mut by_worker) = (Vec::new(), [0; 2]);
        while bodies.len() < expected.len() {
            let (worker, body): (usize, _) = done.recv().await.expect("two workers");
            by_worker[worker] += 1;
            bodies.push(body);
        }
        bodies.sort();
        assert_eq!(bodies, expected);
        assert!(
            by_worker.iter().all(|count| *count > 0),
            "both had work: {by_worker:?}"
        );
        for connection in workers {
            connection.close(200, "done".into()).await?;
        }
        assert_eq!(depth(&channel, &queue).await?, 0);
        channel
            .queue_delete(queue, QueueDeleteOptions::default())
            .await?;
        producer.close(200, "done".into()).await
    });
}

/// Every subscriber of a fanout exchange gets everything, in order.
#[test]
fn publish_subscribe() {
    run(|uri| async move {
        let (connection, channel) = connect(&uri).await?;
        let logs = exchange(&channel, ExchangeKind::Fanout).await?;
        let mut queues = Vec::new();
        for _ in 0..3 {
            let queue = exclusive_queue(&channel).await?;
            bind(&channel, &queue, &logs, "").await?;
            queues.push(queue);
        }
        let expected: Vec<_> = (0..100)
            .map(|n| (String::new(), format!("line {n}").into_bytes()))
            .collect();
        for (key, body) in &expected {
            publish(&channel, &logs, key, body).await?;
        }
        for queue in &queues {
            assert_eq!(take(&channel, queue, 100).await?, expected);
        }
        connection.close(200, "done".into()).await
    });
}

/// A direct exchange gives a queue the severities that it asked for, and no others.
#[test]
fn routing() {
    run(|uri| async move {
        let (connection, channel) = connect(&uri).await?;
        let severities = exchange(&channel, ExchangeKind::Direct).await?;
        let queue = exclusive_queue(&channel).await?;
        for severity in ["warning", "error"] {
            bind(&channel, &queue, &severities, severity).await?;
        }
        for severity in ["info", "error", "warning", "debug", "error"] {
            publish(&channel, &severities, severity, severity.as_bytes()).await?;
        }
        let keys: Vec<_> = take(&channel, &queue, 3)
            .await?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["error", "warning", "error"]);
        assert_eq!(depth(&channel, &queue).await?, 0);
        connection.close(200, "done".into()).await
    });
}

/// Words, `*` and `#` of a topic exchange, also through a second exchange.
#[test]
fn topics() {
    run(|uri| async move {
        let (connection, channel) = connect(&uri).await?;
        let topics = exchange(&channel, ExchangeKind::Topic).await?;
        let second = exchange(&channel, ExchangeKind::Fanout).await?;
        let options = ExchangeBindOptions::default();
        channel
            .exchange_bind(
                second.clone(),
                topics.clone(),
                "kern.#".into(),
                options,
                FieldTable::default(),
            )
            .await?;
        let sent = [
            "kern.info",
            "kern.critical",
            "mail.critical",
            "kern",
            "kern.disk.info",
            "mail",
        ];
        let mut expected = Vec::new();
        for (key, exchange, keys) in [
            ("kern.*", &topics, &["kern.info", "kern.critical"][..]),
            ("*.critical", &topics, &["kern.critical", "mail.critical"]),
            ("#", &topics, &sent),
            (
                "",
                &second,
                &["kern.info", "kern.critical", "kern", "kern.disk.info"],
            ),
        ] {
            let queue = exclusive_queue(&channel).await?;
            bind(&channel, &queue, exchange, key).await?;
            expected.push((queue, keys));
        }
        for key in sent {
            publish(&channel, &topics, key, key.as_bytes()).await?;
        }
        for (queue, keys) in expected {
            let taken = take(&channel, &queue, keys.len()).await?;
            let taken: Vec<_> = taken.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(taken, keys);
            assert_eq!(depth(&channel, &queue).await?, 0);
        }
        connection.close(200, "done".into()).await
    });
}

/// Requests and replies with an exclusive reply queue and correlation ids.
#[test]
fn rpc() {
    run(|uri| async move {
        let (serving, server) = connect(&uri).await?;
        let queue = exclusive_queue_for_all(&server).await?;
        let options = BasicConsumeOptions::default();
        let mut requests = server
            .basic_consume(
                queue.clone(),
                "server".into(),
                options,
                FieldTable::default(),
            )
            .await?;
        let answering = server.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let question = String::from_utf8(request.data.clone()).expect("digits");
                let number: u64 = question.parse().expect("a number");
                let reply_to = request
                    .properties
                    .reply_to()
                    .clone()
                    .expect("a reply queue");
                let id = request.properties.correlation_id().clone().expect("an id");
                let properties = BasicProperties::default().with_correlation_id(id);
                let (options, answer) = (
                    BasicPublishOptions::default(),
                    (number * number).to_string(),
                );
                answering
                    .basic_publish("".into(), reply_to, options, answer.as_bytes(), properties)
                    .await
                    .expect("an open channel");
                request
                    .ack(BasicAckOptions::default())
                    .await
                    .expect("an open channel");
            }
        });
        let (asking, client) = connect(&uri).await?;
        let replies = exclusive_queue(&client).await?;
        for number in 0..20 {
            let properties = BasicProperties::default()
                .with_reply_to(replies.clone())
                .with_correlation_id(format!("c{number}").into());
            let (options, question) = (BasicPublishOptions::default(), number.to_string());
            client
                .basic_publish(
                    "".into(),
                    queue.clone(),
                    options,
                    question.as_bytes(),
                    properties,
                )
                .await?;
        }
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let mut answers = client
            .basic_consume(replies, "client".into(), options, FieldTable::default())
            .await?;
        for number in 0..20_u64 {
            let answer = answers.next().await.expect("the consumer goes on")?;
            assert_eq!(answer.data, (number * number).to_string().into_bytes());
            let id = answer
                .properties
                .correlation_id()
                .clone()
                .expect("the request's id");
            assert_eq!(id.as_str(), format!("c{number}"));
        }
        asking.close(200, "done".into()).await?;
        serving.close(200, "done".into()).await
    });
}

/// A queue with a chosen name that others may publish to, gone with its consumer.
async fn exclusive_queue_for_all(channel: &Channel) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions::default().auto_delete();
    let queue = channel
        .queue_declare(name("rpc"), options, FieldTable::default())
        .await?;
    Ok(queue.name().clone())
}

/// Each publish has its own confirm; what no queue takes comes back with it.
#[test]
fn confirms() {
    run(|uri| async move {
        let (connection, channel) = connect(&uri).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let queue = name("confirms");
        let options = QueueDeclareOptions::durable();
        channel
            .queue_declare(queue.clone(), options, FieldTable::default())
            .await?;
        let mut outstanding = Vec::new();
        for number in 0..100 {
            let (options, persistent) = (
                BasicPublishOptions::default(),
                BasicProperties::default().with_delivery_mode(2),
            );
            let body = number.to_string();
            let confirm = channel
                .basic_publish(
                    "".into(),
                    queue.clone(),
                    options,
                    body.as_bytes(),
                    persistent,
                )
                .await?;
            outstanding.push(confirm);
        }
        for confirm in outstanding {
            assert_eq!(confirm.await?, Confirmation::Ack(None));
        }
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = BasicProperties::default();
        let confirm = channel
            .basic_publish("".into(), name("nobody"), options, b"lost", properties)
            .await?;
        let returned = confirm.await?.take_message().expect("it came back");
        assert_eq!(
            (returned.reply_code, returned.reply_text.as_str()),
            (312, "NO_ROUTE")
        );
        assert_eq!(returned.delivery.data, b"lost");
        let bodies = take(&channel, &queue, 100).await?;
        let expected: Vec<_> = (0..100)
            .map(|number| number.to_string().into_bytes())
            .collect();
        assert!(bodies.into_iter().map(|(_, body)| body).eq(expected));
        channel
            .queue_delete(queue, QueueDeleteOptions::default())
            .await?;
        connection.close(200, "done".into()).await
    });
}

/// Bodies around every size at which something changes come back octet by octet, also one by one.
#[test]
fn large_bodies() {
    run(|uri| async move {
        let (connection, channel) = connect(&uri).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let queue = exclusive_queue(&channel).await?;
        let sizes = [0, 1, 131_064, 131_065, 1_048_575, 1_048_576, 3_000_000];
        for size in sizes {
            publish(&channel, &"".into(), queue.as_str(), &pattern(size)).await?;
        }
        channel.wait_for_confirms().await?;
        for (size, (_, body)) in sizes.into_iter().zip(take(&channel, &queue, 7).await?) {
            assert!(
                body == pattern(size),
                "{size} bytes delivered, {} came",
                body.len()
            );
        }
        for size in sizes {
            publish(&channel, &"".into(), queue.as_str(), &pattern(size)).await?;
        }
        channel.wait_for_confirms().await?;
        for (index, size) in sizes.into_iter().enumerate() {
            let options = BasicGetOptions { no_ack: true };
            let got = channel
                .basic_get(queue.clone(), options)
                .await?
                .expect("a message");
            assert_eq!(got.message_count as usize, sizes.len() - 1 - index);
            assert!(got.delivery.data == pattern(size), "{size} bytes got");
        }
        connection.close(200, "done".into()).await
    });
}
