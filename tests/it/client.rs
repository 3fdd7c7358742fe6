//! The client layer against both brokers: publishing, confirming, consuming, streaming, failing.

use bytes::Bytes;
use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::client::{
    AmqpUri, Body, ClientError, ConnectSettings, Connection, ConsumeSettings, Publish,
    QueueSettings,
};

use crate::engines::{on_both_engines, unique};

async fn connect(broker: &AmqpUri) -> Connection {
    Connection::open(broker, &ConnectSettings::default())
        .await
        .expect("connects")
}

fn to_queue(queue: &ShortString) -> Publish {
    Publish {
        routing_key: queue.clone(),
        mandatory: true,
        properties: Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        },
        ..Publish::default()
    }
}

fn pattern(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Messages come back in order with their bodies, by consuming and by getting, and acks empty the queue.
async fn messages_round_trip(broker: AmqpUri) {
    let connection = connect(&broker).await;
    let channel = connection.channel().await.expect("a channel");
    let own = QueueSettings {
        exclusive: true,
        ..QueueSettings::default()
    };
    let queue = channel
        .declare_queue(&ShortString::EMPTY, &own)
        .await
        .expect("a queue")
        .queue;
    channel.select_confirms().await.expect("confirms");
    let mut confirms = Vec::new();
    for size in [0, 1, 70_000, 400_000] {
        confirms.push(
            channel
                .publish(&to_queue(&queue), &pattern(size))
                .await
                .expect("sent"),
        );
    }
    for confirm in confirms {
        confirm.wait().await.expect("confirmed");
    }
    let got = channel
        .get(&queue)
        .await
        .expect("an answer")
        .expect("a message");
    assert_eq!(got.header.body_bytes, 0);
    channel.ack(got.delivery_tag).await.expect("sent");
    let mut consumer = channel
        .consume(&queue, &ConsumeSettings::default())
        .await
        .expect("a consumer");
    for size in [1, 70_000, 400_000] {
        let delivery = consumer.next().await.expect("a message");
        let body = delivery.body.whole(1 << 20).await.expect("whole");
        assert_eq!(body, Bytes::from(pattern(size)));
        channel.ack(delivery.delivery_tag).await.expect("sent");
    }
    consumer.cancel().await.expect("cancelled");
    assert!(channel.get(&queue).await.expect("an answer").is_none());
    connection.close().await;
    assert!(matches!(connection.closed(), Some(ClientError::Ended)));
}

/// A long body is published from a reader and arrives as a stream; one that nobody reads is read over.
async fn long_body_streams(broker: AmqpUri) {
    let connection = connect(&broker).await;
    let channel = connection.channel().await.expect("a channel");
    let own = QueueSettings {
        exclusive: true,
        ..QueueSettings::default()
    };
    let queue = channel
        .declare_queue(&ShortString::EMPTY, &own)
        .await
        .expect("a queue")
        .queue;
    channel.select_confirms().await.expect("confirms");
    // Below the threshold of a payload, so that this is about frames alone; above the bound asked for.
    let long = pattern(1_000_000);
    for _ in 0..2 {
        let publish = to_queue(&queue);
        let confirm = channel
            .publish_from(&publish, long.len() as u64, &mut &long[..])
            .await;
        confirm.expect("sent").wait().await.expect("confirmed");
    }
    channel
        .publish(&to_queue(&queue), b"short")
        .await
        .expect("sent")
        .wait()
        .await
        .expect("confirmed");
    let settings = ConsumeSettings {
        whole_bytes_max: 1_000,
        ..ConsumeSettings::default()
    };
    let mut consumer = channel
        .consume(&queue, &settings)
        .await
        .expect("a consumer");
    let first = consumer.next().await.expect("a message");
    let Body::Stream(mut stream) = first.body else {
        panic!("a long body streams")
    };
    let mut got = Vec::new();
    while let Some(chunk) = stream.next().await.expect("a chunk") {
        got.extend_from_slice(&chunk);
    }
    assert_eq!(got, long);
    drop(consumer.next().await.expect("a message that is not read"));
    let last = consumer.next().await.expect("a message");
    assert_eq!(last.body.whole(10).await.expect("whole"), "short");
    connection.close().await;
}

/// What the broker refuses comes with its code and words, and a channel error leaves the connection.
async fn refusals_carry_code_and_text(broker: AmqpUri) {
    let connection = connect(&broker).await;
    let channel = connection.channel().await.expect("a channel");
    let missing = ShortString::truncated(unique("missing"));
    match channel.queue_depth(&missing).await {
        Err(ClientError::ChannelClosed { code: 404, text }) => {
            assert!(text.starts_with("NOT_FOUND - no queue"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        channel.closed().and_then(|error| error.reply_code()),
        Some(404)
    );
    let channel = connection.channel().await.expect("another channel");
    channel.select_confirms().await.expect("confirms");
    let returned = channel
        .publish(&to_queue(&missing), b"x")
        .await
        .expect("sent")
        .wait()
        .await;
    assert!(
        matches!(returned, Err(ClientError::Returned { code: 312, .. })),
        "{returned:?}"
    );
    connection.close().await;
}

/// A wrong password and a missing vhost are refused with the broker's word for it.
async fn login_is_refused_with_a_reason(broker: AmqpUri) {
    let with = |credentials: &str, vhost: &str| -> AmqpUri {
        format!("amqp://{credentials}@{}/{vhost}", broker.authority())
            .parse()
            .expect("a URI")
    };
    for (uri, code) in [
        (with("guest:wrong", "%2F"), 403),
        (with("guest:guest", "missing"), 530),
    ] {
        match Connection::open(&uri, &ConnectSettings::default()).await {
            Ok(_) => panic!("{uri} lets anybody in"),
            Err(error) => assert_eq!(error.reply_code(), Some(code), "{error}"),
        }
    }
}

/// Heartbeats go both ways: a connection with nothing to say lives on, at the shortest interval.
async fn idle_connection_lives(broker: AmqpUri) {
    let uri: AmqpUri = format!("amqp://guest:guest@{}/%2F?heartbeat=1", broker.authority())
        .parse()
        .expect("a URI");
    let connection = connect(&uri).await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert!(connection.closed().is_none(), "{:?}", connection.closed());
    connection.channel().await.expect("it still answers");
    connection.close().await;
}

on_both_engines! {
    messages_round_trip,
    long_body_streams,
    refusals_carry_code_and_text,
    login_is_refused_with_a_reason,
    idle_connection_lives,
}
