//! `warren bench amqp` and `warren bench topology` against real brokers: each mode counts right, and what a
//! broker loses, doubles, swaps or changes is noticed.
//!
//! For the second a relay stands between them that spoils one delivery.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

use serde_json::Value;

use crate::{broker, rabbitmq};

/// A run of `count` messages, with more flags; gives what it printed and how it ended.
fn bench(uri: &str, count: u64, flags: &str) -> (Value, Output) {
    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(["--log", "warn", "bench", "amqp", "--json", "--broker", uri])
        .args(["--count", &count.to_string()])
        .args(flags.split_whitespace())
        .output()
        .expect("the program");
    let text = String::from_utf8_lossy(&output.stdout);
    (serde_json::from_str(&text).unwrap_or_default(), output)
}

fn uri_of(address: SocketAddr) -> String {
    format!("amqp://guest:guest@{address}/%2F")
}

/// Runs it and holds its counts against what the flags make them.
fn check(uri: &str, count: u64, fan_out: u64, flags: &str) -> Value {
    let (report, output) = bench(uri, count, flags);
    assert!(output.status.success(), "{flags}: {output:?}");
    let counts = &report["check"];
    assert_eq!(counts["published"], count, "{flags}: {report}");
    assert_eq!(counts["expected"], count * fan_out, "{flags}");
    for fault in ["lost", "duplicated", "out_of_order", "damaged"] {
        assert_eq!(counts[fault], 0, "{flags}: {fault}");
    }
    report
}

/// The modes, with how many messages and how many deliveries each.
const MODES: [(&str, u64, u64); 12] = [
    ("--size 16", 5_000, 1),
    ("--size 1KiB --ack each --prefetch 100", 3_000, 1),
    (
        "--ack multiple --ack-every 30 --prefetch 100 --window 500",
        3_000,
        1,
    ),
    ("--durable --persistent --confirm 100", 1_500, 1),
    ("--confirm 1 --window 1", 100, 1),
    ("--rate 20000 --producers 3", 1_000, 1),
    ("--exchange fanout --queues 5 --consumers 5", 500, 5),
    (
        "--exchange fanout --queues 4 --consumers 2 --producers 2",
        500,
        4,
    ),
    (
        "--exchange topic --queues 3 --bindings 7 --consumers 2",
        2_000,
        1,
    ),
    (
        "--exchange direct --producers 4 --queues 9 --consumers 3",
        3_000,
        1,
    ),
    (
        "--producers 3 --queues 1 --consumers 4 --ack each",
        3_000,
        1,
    ),
    ("--size 400KiB --ack each --producers 2 --queues 2", 30, 1),
];

/// Each mode publishes all, consumes all, and finds no fault.
#[test]
fn each_mode_counts_every_message() {
    let uri = uri_of(broker::shared());
    for (flags, count, fan_out) in MODES {
        let report = check(&uri, count, fan_out, flags);
        assert_eq!(report["consumed"], count * fan_out, "{flags}");
        assert_eq!(report["latency_us"]["count"], count * fan_out, "{flags}");
        if flags.contains("--confirm") {
            assert_eq!(report["confirmed"], count, "{flags}");
            assert_eq!(report["confirm_us"]["count"], count, "{flags}");
        }
    }
}

/// The same generator drives RabbitMQ.
#[test]
fn rabbitmq_can_be_driven_too() {
    let Some(uri) = rabbitmq::shared("rabbitmq_can_be_driven_too") else {
        return;
    };
    for (flags, count, fan_out) in MODES {
        check(uri, count.min(1_000), fan_out, flags);
    }
}

/// Without consumers the queues are asked what they hold; a timed run, a backlog, idle connections and the figures of
/// a process work, and nothing is left behind.
#[test]
fn other_runs_count_too() {
    let own = broker::Own::start(|_| {});
    let uri = uri_of(own.address());
    let report = check(&uri, 2_000, 1, "--consumers 0 --queues 3 --confirm 50");
    assert_eq!(report["consumed"], 0);
    let report = check(&uri, 1_000, 1, "--consumers 0 --name left --keep");
    assert_eq!(report["published"], 1_000);
    // Those that were kept are found: another run's messages are not its own.
    let (_, output) = bench(&uri, 10, "--name left --size 100");
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("is the queue another's?"), "{words}");

    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args([
            "bench",
            "amqp",
            "--json",
            "--broker",
            &uri,
            "--seconds",
            "1",
        ])
        .args([
            "--warmup",
            "100ms",
            "--backlog",
            "2000",
            "--idle-connections",
            "20",
        ])
        .args(["--window", "300", "--pid", &std::process::id().to_string()])
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["check"]["consumed"], report["check"]["published"]);
    assert!(report["check"]["published"].as_u64() > Some(2_000));
    assert!(report["broker"]["rss_bytes_peak"].as_u64() > Some(1 << 20));

    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(["bench", "topology", "--json", "--broker", &uri])
        .args(["--queues", "2500", "--bindings", "2"])
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let steps: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let found: Vec<_> = steps
        .iter()
        .map(|step| (step["step"].as_str(), step["count"].as_u64()))
        .collect();
    assert_eq!(
        found,
        [
            (Some("declare"), Some(2_500)),
            (Some("bind"), Some(5_000)),
            (Some("delete"), Some(2_500)),
        ]
    );
}

/// What goes wrong on the way, once.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    Lose,
    Double,
    Swap,
    Change,
}

/// Which delivery of a connection it befalls.
const SPOILED: usize = 40;

/// A lost, doubled, swapped or changed message ends the run with code 1 and a sentence that says which.
#[test]
fn each_fault_of_a_broker_is_noticed() {
    let cases = [
        (
            Spoil::Lose,
            "lost",
            "1 lost; first: message 40 of sender 0 never came",
        ),
        (
            Spoil::Double,
            "duplicated",
            "1 duplicated; first: queue 0 delivered message 40",
        ),
        (
            Spoil::Swap,
            "out_of_order",
            "1 out of order; first: queue 0 delivered message 40",
        ),
        (
            Spoil::Change,
            "damaged",
            "damaged; first: message 40 of sender 0 is not as it was sent",
        ),
    ];
    for (spoil, fault, words) in cases {
        let uri = uri_of(relay(broker::shared(), spoil));
        // Of bodies as large as these one in ten is compared.
        let (report, output) = bench(&uri, 100, "--size 100KiB --window 50 --drain 1s");
        assert_eq!(output.status.code(), Some(1), "{spoil:?}: {output:?}");
        assert!(
            report["check"][fault].as_u64() >= Some(1),
            "{spoil:?}: {report}"
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{spoil:?}: {said}");
    }
}

/// Relays connections to a broker; of what it delivers on each, one is spoiled.
fn relay(broker: SocketAddr, spoil: Spoil) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(broker).expect("the broker");
            let (mut from_client, mut to_server) = (
                client.try_clone().expect("a handle"),
                server.try_clone().expect("a handle"),
            );
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || relay_deliveries(server, client, spoil));
        }
    });
    address
}

/// Copies frames until one side ends; method, header and bodies of a delivery go as one.
fn relay_deliveries(mut from: TcpStream, mut to: TcpStream, spoil: Spoil) -> Option<()> {
    let mut deliveries = 0;
    let mut held = Vec::new();
    loop {
        let mut message = read_frame(&mut from)?;
        if message[0] == 1 && message[7..11] == [0, 60, 0, 60] {
            let header = read_frame(&mut from)?;
            let mut body_bytes = u64::from_be_bytes(header[11..19].try_into().ok()?);
            message.extend(header);
            while body_bytes > 0 {
                let body = read_frame(&mut from)?;
                body_bytes -= body.len() as u64 - 8;
                message.extend(body);
            }
            match (spoil, deliveries) {
                (Spoil::Lose, SPOILED) => message.clear(),
                (Spoil::Double, SPOILED) => message.extend(message.clone()),
                (Spoil::Swap, SPOILED) => held = std::mem::take(&mut message),
                (Spoil::Change, SPOILED) => {
                    let last = message.len() - 2;
                    message[last] ^= 1;
                }
                _ => message.append(&mut held),
            }
            deliveries += 1;
        }
        to.write_all(&message).ok()?;
    }
}

fn read_frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame).ok()?;
    let payload_bytes = u32::from_be_bytes(frame[3..7].try_into().ok()?);
    frame.resize(8 + payload_bytes as usize, 0);
    from.read_exact(&mut frame[7..]).ok()?;
    Some(frame)
}
