//! Embedded brokers, driven as a program that contains them drives them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::broker::Access;
use crate::client;

async fn started() -> (Broker, Channel) {
    let broker = Broker::builder().start().await.expect("a broker");
    let channel = broker.channel().expect("a channel");
    (broker, channel)
}

async fn queue(channel: &Channel, name: &str, options: QueueOptions) {
    channel
        .declare_queue(name, &options)
        .await
        .expect("a queue");
}

async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.expect("a delivery")
}

/// Several brokers of one process know nothing of each other, and each ends when it is told to.
#[tokio::test]
async fn brokers_of_one_process_are_apart() {
    let (first, first_channel) = started().await;
    let (second, second_channel) = started().await;
    queue(&first_channel, "q", QueueOptions::durable()).await;
    assert!(second_channel.get("q").is_err(), "no such queue there");
    let message = Message::new("one").persistent();
    first_channel.publish("", "q", message).await.expect("safe");
    second.shutdown().await.expect("a clean end");
    let got = first_channel.get("q").expect("a queue").expect("a message");
    assert_eq!(got.body().await.expect("a body"), "one");
    got.ack().expect("an acknowledgement");
    first.shutdown().await.expect("a clean end");
    assert!(matches!(first_channel.get("q"), Err(EmbedError::Closed)));
}

/// A delivery that is dropped comes again and says so; one that is acknowledged does not.
#[tokio::test]
async fn what_is_dropped_comes_again() {
    let (broker, channel) = started().await;
    queue(&channel, "q", QueueOptions::default()).await;
    for body in ["a", "b"] {
        channel
            .publish("", "q", Message::new(body))
            .await
            .expect("taken");
    }
    let mut consumer = channel
        .consume("q", &ConsumeOptions::prefetch(1))
        .expect("a consumer");
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert!(again.redelivered());
    assert_eq!(again.body().await.expect("a body"), "a");
    assert!(consumer.try_next().is_none(), "one is out, and one may be");
    again.ack().expect("an acknowledgement");
    let second = next(&mut consumer).await;
    assert_eq!(
        (second.exchange().as_str(), second.routing_key().as_str()),
        ("", "q")
    );
    consumer.cancel().expect("an end");
    second.ack().expect("it stays to be settled");
    assert!(channel.get("q").expect("a queue").is_none());
    broker.shutdown().await.expect("a clean end");
}

/// A consumer that takes nothing holds no more in memory than the outbox does, and gets all in the end.
#[tokio::test]
async fn a_slow_consumer_leaves_the_backlog_in_its_queue() {
    let broker = Broker::builder().start().await.expect("a broker");
    let channel = broker.channel().expect("a channel");
    queue(&channel, "q", QueueOptions::durable()).await;
    let mut consumer = channel
        .consume("q", &ConsumeOptions::default())
        .expect("a consumer");
    let body = Bytes::from(vec![7; 100_000]);
    for _ in 0..200 {
        channel
            .publish("", "q", Message::new(body.clone()))
            .await
            .expect("taken");
    }
    let vhost = broker.server().broker().vhost(b"/").expect("the vhost");
    let waiting = vhost.queue(b"q").expect("a queue").depth().ready_count;
    assert!(waiting > 100, "most of 20 MB wait in the queue: {waiting}");
    for _ in 0..200 {
        next(&mut consumer).await.ack().expect("an acknowledgement");
    }
    broker.shutdown().await.expect("a clean end");
}

/// Two consumers of one channel each get their own, whoever looks first.
#[tokio::test]
async fn consumers_of_one_channel_get_their_own() {
    let (broker, channel) = started().await;
    let mut consumers = Vec::new();
    for name in ["left", "right"] {
        queue(&channel, name, QueueOptions::exclusive()).await;
        consumers.push(
            channel
                .consume(name, &ConsumeOptions::prefetch(9).no_ack())
                .expect("a consumer"),
        );
    }
    let mut right = consumers.pop().expect("two");
    let mut left = consumers.pop().expect("two");
    let waits = tokio::spawn(async move { next(&mut right).await.body().await });
    for name in ["right", "left"] {
        channel
            .publish("", name, Message::new(name))
            .await
            .expect("taken");
    }
    assert_eq!(next(&mut left).await.body().await.expect("a body"), "left");
    assert_eq!(waits.await.expect("a task").expect("a body"), "right");
    channel.delete_queue("left").await.expect("deleted");
    assert!(left.next().await.is_none(), "its queue is gone");
    broker.shutdown().await.expect("a clean end");
}

/// What nobody takes, and what a full queue refuses, is told to the publisher.
#[tokio::test]
async fn a_publisher_hears_what_became_of_its_message() {
    let (broker, channel) = started().await;
    let full = QueueOptions::default()
        .argument("x-max-length", 1)
        .argument("x-overflow", "reject-publish");
    queue(&channel, "full", full).await;
    channel
        .publish("", "full", Message::new("a"))
        .await
        .expect("taken");
    let refused = channel.publish("", "full", Message::new("b")).await;
    assert!(matches!(refused, Err(EmbedError::Nacked)), "{refused:?}");
    let nowhere = channel
        .publish("", "nowhere", Message::new("c").mandatory())
        .await;
    assert!(
        matches!(nowhere, Err(EmbedError::Unroutable)),
        "{nowhere:?}"
    );
    channel
        .publish("", "nowhere", Message::new("d"))
        .await
        .expect("dropped, as over AMQP");
    let exchange = channel.publish("missing", "", Message::new("e")).await;
    assert!(
        matches!(exchange, Err(EmbedError::Broker(_))),
        "{exchange:?}"
    );
    let wrong = Message::new("f").expires_after(Duration::from_secs(u64::MAX / 1_000_000));
    let wrong = channel.publish("", "full", wrong).await;
    assert!(matches!(wrong, Err(EmbedError::Invalid(_))), "{wrong:?}");
    broker.shutdown().await.expect("a clean end");
}

/// A large body becomes a payload: it comes back whole, in chunks, and as a manifest that matches it.
#[tokio::test]
async fn large_bodies_are_payloads() {
    let (broker, channel) = started().await;
    queue(&channel, "q", QueueOptions::durable()).await;
    let body = Bytes::from(
        (0..3_000_000_u32)
            .map(|at| (at % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let large = Message::new(body.clone()).persistent();
    channel.publish("", "q", large).await.expect("safe");
    let mut writer = channel.store_body(body.len() as u64).expect("open");
    for part in body.chunks(70_000) {
        writer
            .write(Bytes::copy_from_slice(part))
            .await
            .expect("taken");
    }
    let confirm = writer
        .publish("", "q", Message::default().persistent())
        .await;
    confirm.expect("published").wait().await.expect("safe");
    let short = channel.store_body(10).expect("open");
    let short = short.publish("", "q", Message::default()).await;
    assert!(
        matches!(short, Err(EmbedError::Payload(_))),
        "it is not as long as was said"
    );
    let id: PayloadId = PayloadId::from_bytes(*blake3::hash(&body).as_bytes());
    let first = channel.get("q").expect("a queue").expect("a message");
    let second = channel.get("q").expect("a queue").expect("a message");
    assert_eq!(
        (first.payload_id(), second.payload_id()),
        (Some(id), Some(id))
    );
    let manifest = first
        .manifest()
        .await
        .expect("readable")
        .expect("a manifest");
    assert_eq!(manifest.id(), id);
    assert_eq!(first.body().await.expect("a body"), body);
    let mut chunks = second.chunks();
    second.ack().expect("an acknowledgement");
    let mut hasher = blake3::Hasher::new();
    while let Some(chunk) = chunks.next().await.expect("readable") {
        hasher.update(&chunk);
    }
    assert_eq!(PayloadId::from_bytes(*hasher.finalize().as_bytes()), id);
    broker.shutdown().await.expect("a clean end");
}

/// A body that came through a socket and is in a file is read as any other, also when it becomes a payload meanwhile because
/// somebody wants its manifest.
// req: MEMBODY-6
#[tokio::test]
async fn a_body_in_a_file_is_read_and_becomes_a_payload() {
    let broker = Broker::builder().listen_on_loopback();
    let broker = broker.start().await.expect("a broker");
    let channel = broker.channel().expect("a channel");
    queue(&channel, "q", QueueOptions::default()).await;
    let consumer = channel.consume("q", &ConsumeOptions::prefetch(1));
    let mut consumer = consumer.expect("a consumer");
    let uri = broker.amqp_uri().expect("it listens");
    let uri = uri.parse().expect("a URI");
    let settings = client::ConnectSettings::default();
    let client = client::Connection::open(&uri, &settings).await;
    let client = client.expect("a connection");
    let body: Vec<u8> = (0..(17_u32 << 20) + 1).map(|at| (at % 251) as u8).collect();
    let publish = client::Publish {
        routing_key: "q".try_into().expect("short"),
        ..client::Publish::default()
    };
    let publisher = client.channel().await.expect("a channel");
    let sent = publisher.publish(&publish, &body).await;
    sent.expect("sent").wait().await.expect("taken");
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.payload_id(), None, "it is no payload");
    assert_eq!(delivery.body().await.expect("a body"), body);
    let mut chunks = delivery.chunks();
    let mut read = Vec::new();
    while read.len() < body.len() / 2 {
        let chunk = chunks.next().await.expect("readable");
        read.extend_from_slice(&chunk.expect("there is more"));
    }
    let manifest = delivery.manifest().await.expect("it can be stored");
    let id = PayloadId::from_bytes(*blake3::hash(&body).as_bytes());
    assert_eq!(manifest.expect("a large body").id(), id);
    assert_eq!(delivery.payload_id(), Some(id));
    while let Some(chunk) = chunks.next().await.expect("readable") {
        read.extend_from_slice(&chunk);
    }
    assert!(read == body);
    delivery.ack().expect("an acknowledgement");
    broker.shutdown().await.expect("a clean end");
}

/// Queue TTL, dead letters and delays come with the clock's hands, and not before.
#[tokio::test]
async fn time_passes_when_the_clock_says_so() {
    let clock = TestClock::stopped();
    let broker = Broker::builder()
        .clock(clock.clone())
        .start()
        .await
        .expect("a broker");
    let channel = broker.channel().expect("a channel");
    let day = Duration::from_secs(86_400);
    let short = QueueOptions::durable()
        .argument("x-message-ttl", 86_400_000)
        .argument("x-dead-letter-exchange", "")
        .argument("x-dead-letter-routing-key", "dead");
    queue(&channel, "dead", QueueOptions::durable()).await;
    queue(&channel, "short", short).await;
    let later = ExchangeOptions::durable("x-delayed-message").argument("x-delayed-type", "direct");
    channel
        .declare_exchange("later", &later)
        .await
        .expect("an exchange");
    channel
        .bind_queue("dead", "later", "k")
        .await
        .expect("bound");
    channel
        .publish("", "short", Message::new("dies"))
        .await
        .expect("taken");
    let delayed = Message::new("delayed").header("x-delay", 172_800_000);
    channel.publish("later", "k", delayed).await.expect("taken");
    let mut consumer = channel
        .consume("dead", &ConsumeOptions::prefetch(10))
        .expect("a consumer");
    clock.advance(day - Duration::from_millis(1));
    broker.do_what_is_due().await.expect("done");
    assert!(consumer.try_next().is_none());
    clock.advance(Duration::from_millis(1));
    // Nobody has to ask: the broker's own timer hears of it.
    let dead = next(&mut consumer).await;
    assert_eq!(dead.body().await.expect("a body"), "dies");
    dead.ack().expect("an acknowledgement");
    assert!(consumer.try_next().is_none());
    clock.advance(day);
    assert_eq!(
        next(&mut consumer).await.body().await.expect("a body"),
        "delayed"
    );
    broker.shutdown().await.expect("a clean end");
}

/// While memory is short a publisher waits, and goes on when it is not.
#[tokio::test]
async fn publishers_wait_while_an_alarm_is_on() {
    use crate::broker::Alarm;
    let (broker, channel) = started().await;
    queue(&channel, "q", QueueOptions::default()).await;
    let alarms = Arc::clone(broker.server().broker().alarms());
    // One that nothing here measures.
    alarms.raise(Alarm::JournalSpace);
    let publishing = channel.clone();
    let waits = tokio::spawn(async move { publishing.publish("", "q", Message::new("a")).await });
    tokio::task::yield_now().await;
    assert!(channel.get("q").expect("a queue").is_none());
    assert!(!waits.is_finished());
    alarms.clear(Alarm::JournalSpace);
    waits.await.expect("a task").expect("taken");
    assert!(channel.get("q").expect("a queue").is_some());
    broker.shutdown().await.expect("a clean end");
}

/// A sync that fails is an error of who waits for it and of the end; the process goes on, with another broker too.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn a_failed_sync_is_an_error() {
    use crate::sabotage::disk::{DiskFault, plant_disk_fault};
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    plant_disk_fault(&data_dir, DiskFault::FailSync(40));
    let broker = Broker::builder()
        .data_dir(&data_dir)
        .start()
        .await
        .expect("a broker");
    let channel = broker.channel().expect("a channel");
    queue(&channel, "q", QueueOptions::durable()).await;
    let mut consumer = channel
        .consume("q", &ConsumeOptions::prefetch(10))
        .expect("a consumer");
    let mut safe_count = 0;
    let error = loop {
        match channel
            .publish("", "q", Message::new("m").persistent())
            .await
        {
            Ok(()) => safe_count += 1,
            Err(error) => break error,
        }
        assert!(safe_count < 100, "the fault is planted");
    };
    assert!(matches!(error, EmbedError::Storage(_)), "{error:?}");
    broker.storage_failed().await;
    assert!(
        consumer.next().await.is_none(),
        "nothing more is handed out"
    );
    let ended = broker.shutdown().await;
    assert!(matches!(ended, Err(EmbedError::Storage(_))), "{ended:?}");
    let (other, _channel) = started().await;
    other.shutdown().await.expect("another broker is well");
}

/// Confirmed messages are there again when another broker opens the folder.
#[tokio::test]
async fn a_data_folder_outlives_its_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let broker = Broker::builder()
        .data_dir(&data_dir)
        .start()
        .await
        .expect("a broker");
    let channel = broker.channel().expect("a channel");
    queue(&channel, "q", QueueOptions::durable()).await;
    let confirms = [
        channel
            .publish_ahead("", "q", Message::new("1").persistent())
            .await,
        channel
            .publish_ahead("", "q", Message::new("2").persistent())
            .await,
    ];
    for confirm in confirms {
        confirm.expect("published").wait().await.expect("safe");
    }
    let out = channel.get("q").expect("a queue").expect("a message");
    broker.shutdown().await.expect("a clean end");
    assert!(
        matches!(out.ack(), Err(EmbedError::Closed)),
        "it is back in its queue"
    );
    let broker = Broker::builder()
        .data_dir(&data_dir)
        .start()
        .await
        .expect("the folder is free");
    let channel = broker.channel().expect("a channel");
    for expected in ["1", "2"] {
        let got = channel.get("q").expect("a queue").expect("a message");
        assert_eq!(got.body().await.expect("a body"), expected);
        got.ack().expect("an acknowledgement");
    }
    broker.shutdown().await.expect("a clean end");
}

/// Allows nothing but what belongs to the user by its name, whatever the permissions say.
struct ByName;

impl Authorizer for ByName {
    fn authorize(&self, request: &AccessRequest<'_>) -> Verdict {
        let own = |name: &[u8]| match name.starts_with(request.user.as_bytes()) {
            true => Verdict::Allow,
            false => Verdict::Deny,
        };
        match request.object {
            AccessObject::Vhost => Verdict::Allow,
            AccessObject::Queue { name, .. } => own(name),
            AccessObject::Exchange {
                access: Access::Write,
                ..
            } => Verdict::Allow,
            AccessObject::Exchange { .. } => Verdict::NoOpinion,
            AccessObject::Topic { routing_key, .. } => own(routing_key),
        }
    }
}

/// The authorizer is asked before the permissions, for every kind of right; where it has no opinion, they count.
#[tokio::test]
async fn an_authorizer_decides() {
    let broker = Broker::builder()
        .authorizer(Arc::new(ByName))
        .start()
        .await
        .expect("a broker");
    let none = Rights {
        configure: "^$",
        write: "^$",
        read: "^$",
    };
    broker
        .add_user("ann", "secret", none)
        .await
        .expect("a user");
    assert!(matches!(
        broker.channel_as("bob", "/"),
        Err(EmbedError::UnknownUser(_))
    ));
    let channel = broker.channel_as("ann", "/").expect("a channel");
    queue(&channel, "ann.q", QueueOptions::durable()).await;
    let others = channel
        .declare_queue("bob.q", &QueueOptions::durable())
        .await;
    assert!(matches!(others, Err(EmbedError::Broker(_))), "{others:?}");
    let exchange = channel
        .declare_exchange("e", &ExchangeOptions::durable("topic"))
        .await;
    assert!(exchange.is_err(), "her permissions give her none");
    channel
        .publish("amq.topic", "ann.key", Message::new("m"))
        .await
        .expect("allowed");
    let key = channel
        .publish("amq.topic", "bob.key", Message::new("m"))
        .await;
    assert!(matches!(key, Err(EmbedError::Broker(_))), "{key:?}");
    broker.shutdown().await.expect("a clean end");
}

/// A broker that is dropped ends by itself, and gives its folder back.
#[tokio::test]
async fn a_dropped_broker_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let broker = Broker::builder()
        .data_dir(&data_dir)
        .start()
        .await
        .expect("a broker");
    let channel = broker.channel().expect("a channel");
    queue(&channel, "q", QueueOptions::exclusive()).await;
    drop(broker);
    let again = loop {
        match Broker::builder().data_dir(&data_dir).start().await {
            Ok(broker) => break broker,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(matches!(channel.get("q"), Err(EmbedError::Closed)));
    again.shutdown().await.expect("a clean end");
}

/// Whoever consumes or declares while the channel is closed is refused or ends with it: nothing of it stays.
#[tokio::test]
async fn what_races_the_end_goes_with_it() {
    let (broker, channel) = started().await;
    queue(&channel, "q", QueueOptions::default()).await;
    for _ in 0..50 {
        let channel = broker.channel().expect("a channel");
        let racing = channel.clone();
        let racing = std::thread::spawn(move || racing.consume("q", &ConsumeOptions::prefetch(1)));
        let declaring = channel.clone();
        let declaring = std::thread::spawn(move || {
            use futures_util::FutureExt as _;
            let options = QueueOptions::exclusive();
            drop(declaring.declare_queue("own", &options).now_or_never());
        });
        channel.close();
        drop(racing.join().expect("it ends"));
        declaring.join().expect("it ends");
    }
    let vhost = broker.server().broker().vhost(b"/").expect("the first one");
    let left = vhost.queue(b"q").expect("it stays").depth();
    assert_eq!(left.consumer_count, 0);
    assert!(vhost.queue(b"own").is_none());
    broker.shutdown().await.expect("a clean end");
}
