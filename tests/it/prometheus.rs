//! Figures for Prometheus over the HTTP interface: who sees them, and what they name.
//!
//! That every family of RabbitMQ's is there, with its kind, help text and labels, `tests/prometheus/run` checks.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use warren::amqp::field::ShortString;
use warren::amqp::method::queue;

use crate::broker::Own;
use crate::wire::Client;

fn get(http: SocketAddr, path: &str, login: Option<&str>) -> (u16, String) {
    let authorization = login.map_or(String::new(), |login| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(login);
        format!("Authorization: Basic {encoded}\r\n")
    });
    let mut stream = TcpStream::connect(http).expect("it listens");
    let wait = Some(Duration::from_secs(20));
    stream.set_read_timeout(wait).expect("a socket");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// Sums for who asks for all, names for who asks for each, and nothing of other vhosts for who names one.
// req: PROM-2
// req: PROM-3
// req: PROM-4
#[test]
fn pages_show_sums_names_or_what_is_chosen() {
    let own = Own::start(|_| {});
    let http = own.serve_http();
    let mut client = Client::connect(own.address());
    client.open(1);
    client.declare(
        1,
        queue::Declare {
            queue: ShortString::from_static("a\"b"),
            ..queue::Declare::default()
        },
    );
    let (status, page) = get(http, "/metrics", None);
    assert_eq!(status, 200);
    for line in [
        "# TYPE rabbitmq_queues gauge",
        "rabbitmq_queues 1",
        "rabbitmq_channels 1",
        "rabbitmq_queue_messages_ready 0",
        "rabbitmq_global_messages_received_total{protocol=\"amqp091\"} 0",
        "# TYPE warren_disk_sync_seconds histogram",
        "warren_journal_waits_for_disk 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
    assert!(!page.contains("queue=\"a"));
    let (_, page) = get(http, "/metrics/per-object", None);
    let line = "rabbitmq_queue_messages_ready{vhost=\"/\",queue=\"a\\\"b\"} 0";
    assert!(page.lines().any(|found| found == line));
    let chosen = "/metrics/detailed?family=queue_coarse_metrics&family=vhost_status&vhost=";
    let (_, page) = get(http, &format!("{chosen}%2F"), None);
    let line = "rabbitmq_detailed_queue_messages{vhost=\"/\",queue=\"a\\\"b\"} 0";
    assert!(page.lines().any(|found| found == line));
    assert!(page.contains("rabbitmq_cluster_vhost_status{vhost=\"/\"} 1"));
    assert!(!page.contains("queue_consumers"), "not chosen");
    let (_, page) = get(http, &format!("{chosen}other"), None);
    assert!(!page.contains("vhost=\"/\""), "{page}");
}

/// Nobody is asked who they are, unless a setting says so; then only who may watch gets an answer.
// req: PROM-1
#[test]
fn a_setting_asks_for_a_login() {
    let own = Own::start(|_| {});
    let http = own.serve_http_with(|settings| settings.prometheus.authentication = true);
    assert_eq!(get(http, "/metrics", None).0, 401);
    assert_eq!(get(http, "/metrics", Some("guest:wrong")).0, 401);
    assert_eq!(get(http, "/metrics/detailed", Some("guest:guest")).0, 200);
    let (_, page) = get(http, "/metrics/per-object", Some("guest:guest"));
    let line = "rabbitmq_auth_attempts_failed_total{protocol=\"http\"} 1";
    assert!(page.lines().any(|found| found == line));
}

/// Without Prometheus there are no pages, on no listener.
// req: PROM-5
#[test]
fn a_setting_closes_the_pages() {
    let own = Own::start(|_| {});
    let http = own.serve_http_with(|settings| settings.prometheus.enabled = false);
    for path in ["/metrics", "/metrics/per-object", "/metrics/detailed"] {
        let (status, page) = get(http, path, Some("guest:guest"));
        assert!(!page.contains("rabbitmq_queues"), "{path}: {status}");
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(get(http, "/health", None).0, 200);
}

/// What a client does stands at its channel with the exchange and the queue, and with the queue alone when it is gone.
// req: PROM-3
#[test]
fn channels_are_told_by_exchange_and_queue() {
    let own = Own::start(|_| {});
    let http = own.serve_http();
    let mut client = Client::connect(own.address());
    client.open(1);
    let queue = ShortString::from_static("q");
    let declare = queue::Declare {
        queue: queue.clone(),
        ..queue::Declare::default()
    };
    client.declare(1, declare);
    for _ in 0..3 {
        client.publish(1, &queue, b"x");
    }
    assert!(client.get(1, &queue, true).is_some());
    let lines = || {
        let (_, page) = get(http, "/metrics/per-object", None);
        let lines = page.lines().map(str::to_owned);
        lines
            .filter(|line| line.contains("queue=\"q\"") || line.contains("exchange="))
            .collect::<Vec<_>>()
    };
    let seen = lines();
    let has = |name: &str, labels: &str, value: u64| {
        let begin = format!("rabbitmq_{name}{{channel=\"127.0.0.1:");
        let end = format!(" (1)\",{labels}}} {value}");
        let fits = |line: &&String| line.starts_with(&begin) && line.ends_with(&end);
        assert_eq!(
            seen.iter().filter(fits).count(),
            1,
            "{name} {end} in {seen:#?}"
        );
    };
    has(
        "channel_messages_published_total",
        "vhost=\"/\",exchange=\"\"",
        3,
    );
    has("channel_get_total", "vhost=\"/\",queue=\"q\"", 1);
    let pair = "queue_vhost=\"/\",queue=\"q\",exchange_vhost=\"/\",exchange=\"\"";
    has("queue_messages_published_total", pair, 3);
    drop(client);
    let rest = format!("rabbitmq_queue_messages_published_total{{channel=\"\",{pair}}} 3");
    let begun = std::time::Instant::now();
    while !lines().contains(&rest) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:#?}", lines());
    }
    assert!(!lines().iter().any(|line| line.contains("channel=\"127")));
}
