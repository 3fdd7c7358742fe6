//! Long queues in a real server process: their memory is bounded, their order kept, and a kill loses
//! nothing of them that was confirmed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything may take before the test counts it as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages in each of two queues.
const COUNT: u64 = 150_000;
/// Bytes of a body.
const BODY_BYTES: usize = 100;
/// Publishes under way at once.
const WINDOW: u64 = 1_000;
/// `queue.memory` and `queue.memory_total` of the server.
const SETTINGS: &str = "[queue]\nmemory = \"256KiB\"\nmemory_total = \"4MiB\"\n";
/// What the server may grow by while both queues are filled and emptied, in KiB. In memory the messages
/// would take 63,000; the journal's buffers and the connections are in it too.
const GROWTH_KIB_MAX: u64 = 32 << 10;

/// A server process of the test's own, killed when dropped.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let config = folder.join("warren.toml");
        fs::write(&config, SETTINGS).expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_warren"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--sync", "os"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server's program");
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
        let address = address.expect("the server starts");
        Self { child, address }
    }

    async fn channel(&self) -> Channel {
        let uri = format!("amqp://{}/%2f", self.address);
        let connecting = Connection::connect(&uri, ConnectionProperties::default());
        let connection = timeout(PATIENCE, connecting).await.expect("in time");
        let connection = connection.expect("a connection");
        connection.create_channel().await.expect("a channel")
    }

    /// A line of `/proc/PID/status`, in KiB.
    fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process that runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        value.and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(BODY_BYTES, number as u8);
    body
}

/// Publishes `range` with confirms; returns when the last is confirmed.
async fn fill(channel: &Channel, queue: &str, persistent: bool, range: std::ops::Range<u64>) {
    let properties = BasicProperties::default().with_delivery_mode(if persistent { 2 } else { 1 });
    let mut waiting = std::collections::VecDeque::new();
    for number in range {
        let confirm = channel
            .basic_publish(
                "".into(),
                queue.into(),
                BasicPublishOptions::default(),
                &body(number),
                properties.clone(),
            )
            .await
            .expect("it is sent");
        waiting.push_back(confirm);
        if waiting.len() as u64 >= WINDOW {
            let confirm = waiting.pop_front().expect("just added");
            let confirmed = timeout(PATIENCE, confirm).await.expect("in time");
            assert!(confirmed.expect("confirmed").is_ack());
        }
    }
    for confirm in waiting {
        let confirmed = timeout(PATIENCE, confirm).await.expect("in time");
        assert!(confirmed.expect("confirmed").is_ack());
    }
}

/// Takes all of `range`, which must be what waits, in this order.
async fn empty(channel: &Channel, queue: &str, range: std::ops::Range<u64>) {
    channel
        .basic_qos(1_000, BasicQosOptions::default())
        .await
        .expect("a limit");
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(queue.into(), queue.into(), options, FieldTable::default())
        .await
        .expect("a consumer");
    let last = range.end - 1;
    for number in range {
        let delivery = timeout(PATIENCE, consumer.next()).await.expect("in time");
        let delivery = delivery.expect("open").expect("a delivery");
        assert_eq!(delivery.data, body(number), "message {number} is next");
        if number % 500 == 0 || number == last {
            let options = BasicAckOptions { multiple: true };
            delivery.acker.ack(options).await.expect("acknowledged");
        }
    }
}

async fn declare(channel: &Channel, queue: &str, durable: bool) -> u32 {
    let options = QueueDeclareOptions {
        durable,
        ..QueueDeclareOptions::default()
    };
    let declared = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await;
    declared.expect("a queue").message_count()
}

async fn confirming(process: &Process) -> Channel {
    let channel = process.channel().await;
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await.expect("confirms");
    channel
}

/// Two queues, far longer than what they may keep, are filled and emptied: everything comes once and in
/// order, and the server grows by little.
// req: SPILL-8
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_costs_disk_and_not_memory() {
    let folder = TempDir::new().expect("a folder");
    let process = Process::start(folder.path());
    let channel = confirming(&process).await;
    declare(&channel, "durable", true).await;
    declare(&channel, "transient", false).await;
    fill(&channel, "durable", true, 0..1_000).await;
    let before_kib = process.memory_kib("VmRSS");
    fill(&channel, "durable", true, 1_000..COUNT).await;
    fill(&channel, "transient", false, 0..COUNT).await;
    for queue in ["durable", "transient"] {
        empty(&process.channel().await, queue, 0..COUNT).await;
    }
    let growth_kib = process.memory_kib("VmHWM") - before_kib;
    assert!(growth_kib < GROWTH_KIB_MAX, "grew by {growth_kib} KiB");
}

/// A kill in the middle of filling and emptying: after it the durable queue has all that was confirmed and
/// not taken, in order.
// req: SPILL-7
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_of_a_long_queue() {
    const KILLED_AT: u64 = 30_000;
    let folder = TempDir::new().expect("a folder");
    let process = Process::start(folder.path());
    let channel = confirming(&process).await;
    declare(&channel, "durable", true).await;
    fill(&channel, "durable", true, 0..KILLED_AT).await;
    drop(process);
    let process = Process::start(folder.path());
    let channel = confirming(&process).await;
    assert_eq!(
        u64::from(declare(&channel, "durable", true).await),
        KILLED_AT
    );
    fill(&channel, "durable", true, KILLED_AT..KILLED_AT + 10_000).await;
    empty(&process.channel().await, "durable", 0..KILLED_AT + 10_000).await;
    assert_eq!(declare(&channel, "durable", true).await, 0);
}
