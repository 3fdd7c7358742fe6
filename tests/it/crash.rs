//! Kill -9 of a real server process: what was confirmed is there after the restart.
//!
//! Publishers with confirms and a consumer with acks work while the process is killed at random times,
//! some of them during its recovery. Spec: RELIABILITY, T5; `spec/journal.md`.
//! `WARREN_KILLS` (8) and `WARREN_SEED` set how long and what is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use tokio::time::{sleep, timeout};

/// How long anything may take before the test counts it as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Publishes under way at once, per publisher.
const WINDOW: usize = 50;

/// A small generator of numbers (SplitMix64), so that a seed repeats the times of the kills.
struct SeededNumbers(u64);

impl SeededNumbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A server process of the test's own.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts the server; gives back when it accepts connections.
    fn start(data_dir: &Path) -> Self {
        let mut child = spawn(data_dir);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut address = None;
        for line in &mut lines {
            let line = line.expect("text");
            if let Some(listening) = line.strip_prefix("AMQP listening on ") {
                address = Some(listening.to_owned());
            }
            if line.starts_with("Server startup complete") {
                break;
            }
        }
        // The pipe must stay open and empty, or a later line would end the server.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.unwrap_or_else(|| {
            let status = child.wait();
            panic!("the server did not start: {status:?}")
        });
        Self { child, address }
    }

    /// SIGKILL, as when it is dropped.
    fn kill(self) {}

    async fn connect(&self) -> Result<Connection, lapin::Error> {
        let uri = format!("amqp://{}/%2f", self.address);
        timeout(
            PATIENCE,
            Connection::connect(&uri, ConnectionProperties::default()),
        )
        .await
        .expect("an answer in time")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child
            .kill()
            .expect("a process that was not waited for");
        self.child.wait().expect("a killed process");
    }
}

fn spawn(data_dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_warren"))
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"])
        .args(["--http-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server's program")
}

/// A message's publisher and number; goes into its body.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Id {
    publisher: u32,
    sequence: u64,
}

impl Id {
    fn body(self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.publisher.to_le_bytes());
        body.extend_from_slice(&self.sequence.to_le_bytes());
        let len = SeededNumbers(self.sequence).below(3_000);
        let fill = self.sequence.to_le_bytes();
        body.extend((0..len).zip(fill.iter().cycle()).map(|(_, byte)| *byte));
        body
    }

    /// The id in a body, which must be whole.
    fn of(body: &[u8]) -> Self {
        let (publisher, rest) = body.split_first_chunk().expect("a body of this test");
        let (sequence, _) = rest.split_first_chunk().expect("a body of this test");
        let id = Self {
            publisher: u32::from_le_bytes(*publisher),
            sequence: u64::from_le_bytes(*sequence),
        };
        assert!(id.body() == body, "the body of {id:?} came back changed");
        id
    }
}

/// What happened, as the clients know it.
#[derive(Debug, Default)]
struct History {
    attempted: BTreeSet<Id>,
    confirmed: BTreeSet<Id>,
    /// Ids delivered by the consumed queue, and how often.
    delivered: BTreeMap<Id, u32>,
    acked: BTreeSet<Id>,
    declared: BTreeSet<String>,
    next: BTreeMap<u32, u64>,
}

type Shared = Arc<Mutex<History>>;

/// To the queue "alone" through the default exchange.
const ALONE: u32 = 1;
/// To the queues "kept" and "consumed" through a fanout exchange.
const FANOUT: u32 = 2;

async fn declare(channel: &Channel, name: &str) -> Result<(), lapin::Error> {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await
        .map(|_| ())
}

async fn set_up(process: &Process) {
    let connection = process.connect().await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = ExchangeKind::Fanout;
    channel
        .exchange_declare("all".into(), kind, options, FieldTable::default())
        .await
        .expect("an exchange");
    for queue in ["alone", "kept", "consumed"] {
        declare(&channel, queue).await.expect("a queue");
    }
    for queue in ["kept", "consumed"] {
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                queue.into(),
                "all".into(),
                "".into(),
                options,
                FieldTable::default(),
            )
            .await
            .expect("a binding");
    }
}

/// Publishes until the connection is gone.
async fn publish(
    connection: Connection,
    publisher: u32,
    history: Shared,
) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let (exchange, key) = if publisher == ALONE {
        ("", "alone")
    } else {
        ("all", "")
    };
    let mut open = FuturesUnordered::new();
    loop {
        while open.len() < WINDOW {
            let id = {
                let mut history = history.lock().unwrap();
                let next = history.next.entry(publisher).or_default();
                *next += 1;
                let id = Id {
                    publisher,
                    sequence: *next,
                };
                history.attempted.insert(id);
                id
            };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let confirm = channel
                .basic_publish(exchange.into(), key.into(), options, &id.body(), properties)
                .await?;
            open.push(async move { (id, confirm.await) });
        }
        if let Some((id, confirmation)) = open.next().await {
            match confirmation? {
                Confirmation::Ack(_) => {
                    history.lock().unwrap().confirmed.insert(id);
                }
                other => panic!("{id:?} was answered with {other:?}"),
            }
        }
    }
}

/// Consumes and acks until the connection is gone.
async fn consume(connection: Connection, history: Shared) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(20, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut deliveries = channel
        .basic_consume(
            "consumed".into(),
            "tag".into(),
            options,
            FieldTable::default(),
        )
        .await?;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        note_delivery(&history, Id::of(&delivery.data), delivery.redelivered);
        // Some are kept unsettled until the crash.
        if Id::of(&delivery.data).sequence.is_multiple_of(10) {
            sleep(Duration::from_millis(3)).await;
        }
        history.lock().unwrap().acked.insert(Id::of(&delivery.data));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

fn note_delivery(history: &Shared, id: Id, redelivered: bool) {
    let mut history = history.lock().unwrap();
    let count = history.delivered.entry(id).or_default();
    *count += 1;
    assert!(
        *count == 1 || redelivered,
        "{id:?} came again and was not marked"
    );
}

/// Declares a new queue now and then until the connection is gone.
async fn change_topology(
    connection: Connection,
    cycle: u64,
    history: Shared,
) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    for number in 0.. {
        let name = format!("declared-{cycle}-{number}");
        declare(&channel, &name).await?;
        history.lock().unwrap().declared.insert(name);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Takes all that a queue holds, in order.
async fn drain(channel: &Channel, queue: &str, history: &Shared) -> Vec<Id> {
    let mut ids = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(message) = timeout(PATIENCE, channel.basic_get(queue.into(), options))
        .await
        .expect("in time")
        .expect("open")
    {
        let id = Id::of(&message.delivery.data);
        if queue == "consumed" {
            note_delivery(history, id, message.delivery.redelivered);
        }
        ids.push(id);
    }
    ids
}

/// A time between 20 ms and 1.5 s, short ones as likely as long ones on a logarithmic scale.
fn random_time(random: &mut SeededNumbers) -> Duration {
    let octave = random.below(6);
    Duration::from_millis((20 << octave) + random.below(20 << octave))
}

/// After any number of kills every confirmed message is there, in order and whole; nothing else is;
/// and so is every queue that was declared.
#[test]
fn confirmed_messages_survive_kills() {
    let number = |name, default| {
        env::var(name)
            .ok()
            .and_then(|value: String| value.parse().ok())
            .unwrap_or(default)
    };
    let (kills, seed) = (number("WARREN_KILLS", 8), number("WARREN_SEED", 1));
    println!("seed {seed}");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(kill_and_check(kills, seed));
}

async fn kill_and_check(kills: u64, seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let mut random = SeededNumbers(seed);
    let history = Shared::default();
    let mut process = Process::start(&data_dir);
    set_up(&process).await;
    for cycle in 0..kills {
        let connect = || process.connect();
        let publishers = [
            tokio::spawn(publish(
                connect().await.expect("one"),
                ALONE,
                Arc::clone(&history),
            )),
            tokio::spawn(publish(
                connect().await.expect("one"),
                FANOUT,
                Arc::clone(&history),
            )),
        ];
        let consumer = tokio::spawn(consume(connect().await.expect("one"), Arc::clone(&history)));
        let topology = connect().await.expect("one");
        let topology = tokio::spawn(change_topology(topology, cycle, Arc::clone(&history)));
        sleep(random_time(&mut random)).await;
        process.kill();
        // What the server had sent before is still taken in.
        sleep(Duration::from_millis(200)).await;
        for task in publishers.into_iter().chain([consumer, topology]) {
            task.abort();
            match task.await {
                // Each ends by its broken connection, or waits for ever for an answer.
                Ok(_) => {}
                Err(error) if error.is_cancelled() => {}
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        if random.below(4) == 0 {
            // Killed during recovery.
            let mut child = spawn(&data_dir);
            sleep(Duration::from_millis(random.below(15))).await;
            child.kill().expect("a process");
            child.wait().expect("a killed process");
        }
        process = Process::start(&data_dir);
    }

    let connection = process.connect().await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let alone = drain(&channel, "alone", &history).await;
    let kept = drain(&channel, "kept", &history).await;
    let consumed = drain(&channel, "consumed", &history).await;
    let declared = history.lock().unwrap().declared.clone();
    for name in declared {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.as_str().into(), options, FieldTable::default())
            .await
            .unwrap_or_else(|error| panic!("the declared queue {name} is gone: {error}"));
    }
    process.kill();
    let verified = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(["journal", "verify", "--data-dir"])
        .arg(&data_dir)
        .output()
        .expect("the program");
    let verified_text = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success(), "{verified_text}");
    assert!(
        verified_text.contains("The journal is whole."),
        "{verified_text}"
    );

    let history = history.lock().unwrap();
    println!(
        "{} attempted, {} confirmed, {} acked, {} queues declared",
        history.attempted.len(),
        history.confirmed.len(),
        history.acked.len(),
        history.declared.len()
    );
    assert!(history.confirmed.len() > 100, "there was work to lose");
    for (queue, publisher, found) in [("alone", ALONE, &alone), ("kept", FANOUT, &kept)] {
        assert!(
            found.is_sorted_by(|a, b| a < b),
            "{queue} is in order, nothing twice"
        );
        let found: BTreeSet<Id> = found.iter().copied().collect();
        let of = |id: &&Id| id.publisher == publisher;
        let lost: Vec<_> = history
            .confirmed
            .iter()
            .filter(of)
            .filter(|id| !found.contains(id))
            .collect();
        assert!(lost.is_empty(), "{queue} lost {lost:?}");
        let unexpected: Vec<_> = found.difference(&history.attempted).collect();
        assert!(unexpected.is_empty(), "{queue} has {unexpected:?}");
    }
    assert!(
        consumed.is_sorted_by(|a, b| a < b),
        "what is left is in order, nothing twice"
    );
    let lost: Vec<_> = history
        .confirmed
        .iter()
        .filter(|id| id.publisher == FANOUT && !history.delivered.contains_key(id))
        .collect();
    assert!(lost.is_empty(), "\"consumed\" lost {lost:?}");
    // An ack that was on its way when the process died may come too late, but only so many are.
    let again = consumed
        .iter()
        .filter(|id| history.acked.contains(id))
        .count() as u64;
    println!("{again} acked messages came back");
    assert!(again <= kills * 200, "{again} acked messages came back");
}
