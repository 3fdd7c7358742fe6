//! Messages and queues that expire, on a made-up clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::Properties;

use super::super::*;
use super::kit::{Client, Flag, broker, inline};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A client and its broker, whose time passes when the test says so.
struct Clocked {
    broker: Arc<Broker>,
    client: Client,
}

impl Clocked {
    fn new() -> Self {
        let broker = broker();
        let client = Client::new(&broker);
        Self { broker, client }
    }

    fn declare(&self, name: &str, arguments: &[(&'static str, i64)]) {
        let arguments: FieldTable = arguments
            .iter()
            .map(|(name, value)| (ShortString::from_static(name), FieldValue::from(*value)))
            .collect();
        self.client.declare_with(name, &[], arguments).unwrap();
    }

    fn publish(&mut self, queue: &str, body: &str, expiration: Option<&'static str>) {
        let properties = Properties {
            expiration: expiration.map(ShortString::from_static),
            ..Properties::default()
        };
        let published = self
            .client
            .publish_with("", queue, properties, inline(body))
            .unwrap();
        let routed = PublishOutcome::Routed { wait_for: None };
        assert_eq!(published.outcome, routed);
    }

    /// Lets time pass, and the broker do what is due.
    fn pass(&mut self, time: Duration) {
        self.client.now += time;
        self.run_timers();
    }

    fn run_timers(&mut self) {
        let now = self.client.now;
        while self.broker.poll_timeout().is_some_and(|next| next <= now) {
            self.broker.handle_timeout(now, &mut self.client.wakes);
        }
    }

    fn ready_count(&self, queue: &str) -> usize {
        self.client.queue(queue).depth().ready_count
    }

    fn exists(&self, queue: &str) -> bool {
        self.client.vhost().queue(queue.as_bytes()).is_some()
    }
}

/// The lower of the queue's time and the message's counts, and neither comes early.
// req: TTL-1
#[test]
fn the_lower_time_counts() {
    for (queue_ms, expiration, lives_ms) in [
        (Some(100), None, 100),
        (None, Some("70"), 70),
        (Some(100), Some("70"), 70),
        (Some(100), Some("60000"), 100),
    ] {
        let mut clocked = Clocked::new();
        let arguments: Vec<_> = queue_ms
            .map(|queue_ms| ("x-message-ttl", queue_ms))
            .into_iter()
            .collect();
        clocked.declare("q", &arguments);
        clocked.client.now += Duration::from_micros(300);
        clocked.publish("q", "x", expiration);
        clocked.pass(ms(lives_ms - 1));
        assert_eq!(clocked.ready_count("q"), 1, "{queue_ms:?} {expiration:?}");
        clocked.pass(ms(2));
        assert_eq!(clocked.ready_count("q"), 0, "{queue_ms:?} {expiration:?}");
        assert_eq!(clocked.client.queue("q").counts().expired, 1);
        assert_eq!(clocked.broker.poll_timeout(), None, "no timer is left");
    }
}

/// An expired message behind a live one still waits, is counted, and goes when it stands first.
// req: TTL-2
#[test]
fn only_the_front_expires() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[]);
    clocked.publish("q", "long", Some("1000"));
    clocked.publish("q", "short", Some("10"));
    clocked.publish("q", "lasting", None);
    clocked.pass(ms(500));
    assert_eq!(clocked.ready_count("q"), 3);
    let got = clocked.client.get("q", AckMode::Automatic).unwrap();
    assert_eq!(got.remaining_count, 1, "what stands behind it is gone too");
    assert_eq!(clocked.client.take("q").unwrap().0, "lasting");
}

/// Time 0: to a consumer that is ready, or nowhere; also by the message's own expiration.
// req: TTL-3
#[test]
fn what_may_not_wait_goes_to_a_ready_consumer_or_nowhere() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[("x-message-ttl", 0)]);
    clocked.declare("plain", &[]);
    clocked.client.now += Duration::from_nanos(1_700);
    for (queue, expiration) in [("q", None), ("plain", Some("0"))] {
        clocked.publish(queue, "gone", expiration);
        assert_eq!(clocked.ready_count(queue), 0);
        clocked.client.consume(queue, queue, 1).unwrap();
        clocked.publish(queue, "caught", expiration);
        clocked.publish(queue, "gone too", expiration);
        let expected = [format!("{queue}:caught")];
        assert_eq!(clocked.client.drain_texts(), expected);
        assert_eq!(clocked.ready_count(queue), 0);
    }
}

/// What is out does not expire; what comes back has the deadline that it had.
// req: TTL-4
#[test]
fn a_message_that_comes_back_keeps_its_deadline() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[("x-message-ttl", 100)]);
    clocked.publish("q", "x", None);
    let got = clocked.client.get("q", AckMode::Manual).unwrap();
    clocked.pass(ms(60));
    let (queue, now) = (clocked.client.queue("q"), clocked.client.now);
    queue.settle(&[got.seq], Settle::Requeue, now, &mut clocked.client.wakes);
    clocked.pass(ms(39));
    assert_eq!(clocked.ready_count("q"), 1);
    let got = clocked.client.get("q", AckMode::Manual).unwrap();
    clocked.pass(ms(1_000));
    assert_eq!(queue.depth().unacked_count, 1);
    let now = clocked.client.now;
    queue.settle(&[got.seq], Settle::Requeue, now, &mut clocked.client.wakes);
    assert_eq!(clocked.ready_count("q"), 0, "it had expired meanwhile");
}

/// Far more than one call does expire in order, and a get that finds them does not stop half way.
#[test]
fn many_expire() {
    for by_get in [false, true] {
        let mut clocked = Clocked::new();
        clocked.declare("q", &[]);
        for _ in 0..5_000 {
            clocked.publish("q", "x", Some("10"));
        }
        clocked.publish("q", "last", None);
        match by_get {
            true => clocked.client.now += ms(10),
            false => clocked.pass(ms(10)),
        }
        assert_eq!(clocked.client.take("q").unwrap().0, "last");
        assert_eq!(clocked.client.queue("q").counts().expired, 5_000);
    }
}

/// A consumer that comes to a queue of expired messages gets the first that lives.
#[test]
fn a_consumer_never_gets_what_has_expired() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[]);
    for _ in 0..3_000 {
        clocked.publish("q", "x", Some("10"));
    }
    clocked.publish("q", "alive", None);
    clocked.client.now += ms(10);
    clocked.client.consume("q", "tag", 0).unwrap();
    clocked.run_timers();
    assert_eq!(clocked.client.drain_texts(), ["tag:alive"]);
}

/// One timer for each queue, moved only when something earlier stands first.
#[test]
fn a_queue_has_one_timer() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[("x-message-ttl", 1_000)]);
    let first = clocked.client.now + ms(1_000);
    for _ in 0..10 {
        clocked.publish("q", "x", None);
        assert_eq!(clocked.broker.poll_timeout(), Some(first));
        clocked.client.now += ms(10);
        clocked.client.take("q").unwrap();
    }
    clocked.publish("q", "x", None);
    clocked.pass(ms(950));
    assert_eq!(clocked.ready_count("q"), 1, "it was another's deadline");
    clocked.pass(ms(50));
    assert_eq!(clocked.ready_count("q"), 0);
    clocked.publish("q", "x", None);
    clocked.client.delete_queue("q").unwrap();
    assert_eq!(
        clocked.broker.poll_timeout(),
        None,
        "it went with its queue"
    );
}

/// Who waits for the next deadline hears of an earlier one, and of no other.
#[test]
fn an_earlier_deadline_wakes() {
    #[derive(Debug, Default)]
    struct Flagged(AtomicBool);
    impl Waker for Flagged {
        fn wake(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let mut clocked = Clocked::new();
    let flag = Arc::<Flagged>::default();
    clocked
        .broker
        .set_timeout_waker(Arc::clone(&flag) as Arc<dyn Waker>);
    for queue in ["one", "two"] {
        clocked.declare(queue, &[]);
    }
    for (queue, expiration, wakes) in [
        ("one", None, false),
        ("one", Some("500"), false),
        ("two", Some("500"), true),
        ("two", Some("1"), false),
    ] {
        clocked.publish(queue, "x", expiration);
        let found = flag.0.swap(false, Ordering::SeqCst);
        assert_eq!(found, wakes, "{queue} {expiration:?}");
    }
    // What stood behind a live one stands first now.
    clocked.client.take("two").unwrap();
    assert!(flag.0.load(Ordering::SeqCst));
}

/// A queue that nobody consumes, declares or fetches from goes after its time, and not before.
// req: TTL-6
#[test]
fn an_unused_queue_expires() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[("x-expires", 100)]);
    clocked.pass(ms(99));
    assert!(clocked.exists("q"));
    clocked.pass(ms(1));
    assert!(!clocked.exists("q"));
    assert_eq!(clocked.broker.poll_timeout(), None);
}

/// What counts as use: declaring it again, also passively, and a fetch, also from an empty queue. A publish
/// does not.
#[test]
fn use_renews_the_time_of_a_queue() {
    let renew: [fn(&mut Clocked); 3] = [
        |clocked| clocked.declare("q", &[("x-expires", 100)]),
        |clocked| drop(clocked.client.declare("q", &[Flag::Passive])),
        |clocked| drop(clocked.client.get("q", AckMode::Automatic)),
    ];
    for renew in renew {
        let mut clocked = Clocked::new();
        clocked.declare("q", &[("x-expires", 100)]);
        for _ in 0..3 {
            clocked.pass(ms(80));
            renew(&mut clocked);
        }
        clocked.pass(ms(80));
        clocked.publish("q", "x", None);
        assert!(clocked.exists("q"));
        clocked.pass(ms(20));
        assert!(!clocked.exists("q"));
    }
}

/// A consumer keeps it; the time begins again when the last one goes.
#[test]
fn a_consumed_queue_does_not_expire() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[("x-expires", 100)]);
    let consumers = ["one", "two"].map(|tag| clocked.client.consume("q", tag, 0).unwrap());
    clocked.pass(ms(1_000));
    assert!(clocked.exists("q"));
    for consumer in &consumers {
        clocked.pass(ms(1_000));
        let (vhost, now) = (clocked.client.vhost(), clocked.client.now);
        vhost
            .cancel(consumer, now, &mut clocked.client.wakes)
            .unwrap();
    }
    clocked.pass(ms(99));
    assert!(clocked.exists("q"));
    clocked.pass(ms(1));
    assert!(!clocked.exists("q"));
}

/// A TTL that a policy brings, changes or takes away acts on what comes from then on; lengths act at once.
// req: TTL-7
#[test]
fn settings_change_while_the_queue_lives() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[]);
    let queue = clocked.client.queue("q");
    let apply = |clocked: &mut Clocked, settings: QueueSettings| {
        let now = clocked.client.now;
        queue.apply_settings(Arc::new(settings), 1, now, &mut clocked.client.wakes);
    };
    let with_ttl = |ttl: u64| QueueSettings {
        message_ttl: Some(ms(ttl)),
        ..QueueSettings::default()
    };
    clocked.publish("q", "old", None);
    apply(&mut clocked, with_ttl(10));
    clocked.pass(ms(1_000));
    assert_eq!(clocked.ready_count("q"), 1, "it came before");
    clocked.client.take("q").unwrap();
    clocked.publish("q", "new", None);
    apply(&mut clocked, with_ttl(60_000));
    clocked.pass(ms(10));
    assert_eq!(clocked.ready_count("q"), 0, "its deadline was set");

    apply(&mut clocked, QueueSettings::default());
    for body in ["a", "b", "c", "d"] {
        clocked.publish("q", body, None);
    }
    let short = QueueSettings {
        length_count_max: Some(2),
        ..QueueSettings::default()
    };
    apply(&mut clocked, short);
    assert_eq!(clocked.client.take_all("q"), ["c", "d"]);

    let expiring = QueueSettings {
        expires: Some(ms(100)),
        ..QueueSettings::default()
    };
    clocked.pass(ms(1_000));
    apply(&mut clocked, expiring);
    clocked.pass(ms(99));
    assert!(clocked.exists("q"), "its time begins with the policy");
    clocked.pass(ms(1));
    assert!(!clocked.exists("q"));
}

/// With a TTL of 0 and no dead-letter exchange, what nobody takes at once is not kept, also behind what
/// came before the policy.
// req: TTL-8
#[test]
fn a_ttl_of_nothing_keeps_nothing_that_waits() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[]);
    clocked.publish("q", "before", None);
    let queue = clocked.client.queue("q");
    let settings = QueueSettings {
        message_ttl: Some(Duration::ZERO),
        ..QueueSettings::default()
    };
    let now = clocked.client.now;
    queue.apply_settings(
        Arc::new(settings.clone()),
        1,
        now,
        &mut clocked.client.wakes,
    );
    clocked.publish("q", "nobody", None);
    assert_eq!(queue.depth().ready_count, 1);
    assert_eq!(queue.counts().expired, 1);
    clocked.client.consume("q", "tag", 0).unwrap();
    clocked.publish("q", "somebody", None);
    assert_eq!(clocked.client.drain_texts(), ["tag:before", "tag:somebody"]);
    let letters = QueueSettings {
        dead_letter_exchange: Some(Name::from("")),
        dead_letter_routing_key: Some(Name::from("dead")),
        ..settings
    };
    clocked.declare("other", &[]);
    clocked.declare("dead", &[]);
    clocked.publish("other", "before", None);
    let other = clocked.client.queue("other");
    other.apply_settings(Arc::new(letters), 1, now, &mut clocked.client.wakes);
    clocked.publish("other", "waits for its turn", None);
    assert_eq!(other.depth().ready_count, 2, "only the front expires");
    clocked.client.take("other").unwrap();
    assert_eq!(clocked.client.take_all("dead"), ["waits for its turn"]);
}

/// Settings that were made out earlier and come later do not win.
// req: POLICY-5
#[test]
fn older_settings_come_too_late() {
    let mut clocked = Clocked::new();
    clocked.declare("q", &[]);
    let queue = clocked.client.queue("q");
    let now = clocked.client.now;
    let with_length = |length: u64| {
        Arc::new(QueueSettings {
            length_count_max: Some(length),
            ..QueueSettings::default()
        })
    };
    let mut apply = |settings, version| {
        queue.apply_settings(settings, version, now, &mut clocked.client.wakes);
        queue.settings().length_count_max
    };
    assert_eq!(apply(with_length(2), 2), Some(2));
    assert_eq!(apply(with_length(1), 1), Some(2));
    // Also where the newer ones were what held already.
    assert_eq!(apply(with_length(2), 4), Some(2));
    assert_eq!(apply(with_length(3), 3), Some(2));
    assert_eq!(apply(with_length(5), 5), Some(5));
}
