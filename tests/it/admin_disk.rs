//! The management API on a disk that fails or is full: every request has an answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warren::sabotage::disk::{DiskFault, plant_disk_fault, set_disk_full};

use crate::admin::Managed;
use crate::broker::Own;

/// More requests than a disk that fails soon lets pass.
const REQUESTS_MAX: u32 = 200;
/// More than a broker takes to notice that there is room again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for something that is to be kept; different with each number.
type Request = fn(&Managed, u32) -> (u16, Value);

fn message() -> Value {
    json!({
        "properties": {"delivery_mode": 2}, "routing_key": "q",
        "payload": "kept", "payload_encoding": "string",
    })
}

/// The status and reason of the first request that is not done; `ask` sends one after the other.
fn first_refusal(mut ask: impl FnMut(u32) -> (u16, Value)) -> (u16, String) {
    let refused = (0..REQUESTS_MAX)
        .map(&mut ask)
        .find(|(status, _)| *status >= 300);
    let (status, body) = refused.expect("the disk fails");
    let reason = body["reason"].as_str().unwrap_or_default();
    (status, reason.to_owned())
}

/// The sync under a message, a definition and a move fails: the request that waits for it and all that come behind it
/// are answered.
// req: MGMT-12
#[test]
fn a_failed_disk_is_an_answer() {
    let requests: [Request; 3] = [
        |broker, _| broker.ask("POST", "exchanges/%2F/amq.default/publish", &message()),
        |broker, number| {
            let path = format!("queues/%2F/q{number}");
            broker.ask("PUT", &path, &json!({"durable": true}))
        },
        |broker, number| {
            let queues = ["q", "other"];
            let (from, to) = (
                queues[number as usize % 2],
                queues[(number as usize + 1) % 2],
            );
            let to = json!({ "destination": to });
            broker.ask("POST", &format!("queues/%2F/{from}/move"), &to)
        },
    ];
    for request in requests {
        let folder = tempfile::tempdir().expect("a folder");
        plant_disk_fault(&folder.path().join("data"), DiskFault::FailSync(60));
        let broker = Managed::of(Own::start_in(folder, |_| {}));
        for queue in ["q", "other"] {
            let path = format!("queues/%2F/{queue}");
            let declared = broker.status("PUT", &path, &json!({"durable": true}));
            assert_eq!(declared, 201);
        }
        let path = "exchanges/%2F/amq.default/publish";
        assert_eq!(broker.ask("POST", path, &message()).1["routed"], true);
        let (status, reason) = first_refusal(|number| request(&broker, number));
        // 503 for who waited, 500 for what cannot even be written any more.
        let expected = [
            (
                503,
                "the disk failed; what was asked for may not be there after a restart",
            ),
            (500, "the journal failed and confirms nothing more: sync"),
        ];
        let is_expected = |(code, text): &(u16, &str)| status == *code && reason.starts_with(text);
        assert!(expected.iter().any(is_expected), "{status}: {reason}");
        let (status, _) = broker.ask("PUT", "queues/%2F/last", &json!({"durable": true}));
        assert_eq!(status, 500);
        assert!(broker.own.stop_failed().is_err(), "no clean stop is noted");
    }
}

/// While the journal finds no room, a publish over HTTP is refused with the alarm's reason and a change of definitions
/// is answered as one that is not kept yet; when there is room again, it is there.
// req: MGMT-10
// req: MGMT-12
#[test]
fn a_full_disk_is_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    plant_disk_fault(&data_dir, DiskFault::Fillable);
    let broker = Managed::of(Own::start_in(folder, |_| {}));
    let http = |method: &str, path: &str, body: &Value| broker.ask(method, path, body);
    let declared = json!({"durable": true});
    assert_eq!(http("PUT", "queues/%2F/q", &declared).0, 201);
    set_disk_full(&data_dir, true);
    // What the journal has room for is kept; the first change beyond it is not.
    let (status, reason) = first_refusal(|number| {
        // Six megabytes.
        let large = (0..100).map(|name| {
            let value = format!("{number}{}", "x".repeat(60_000));
            json!({ "name": format!("large.{name}"), "value": value })
        });
        let large = json!({ "global_parameters": large.collect::<Value>() });
        http("POST", "definitions", &large)
    });
    assert_eq!(status, 503, "{reason}");
    assert!(reason.starts_with("low on disk: "), "{reason}");
    let (status, refused) = http("POST", "exchanges/%2F/amq.default/publish", &message());
    assert_eq!(status, 503, "{refused}");
    assert_eq!(refused["reason"], "low on disk");
    set_disk_full(&data_dir, false);
    let begin = Instant::now();
    while http("POST", "exchanges/%2F/amq.default/publish", &message()).0 != 200 {
        assert!(begin.elapsed() < PATIENCE, "no room comes");
        std::thread::sleep(Duration::from_millis(100));
    }
}
