//! Messages that an operator moves from one queue to another, and what may come in between.

use serde_json::{Value, json};

use crate::admin::Managed;

/// A broker with these queues and `count` messages in the first.
fn broker(queues: &[(&str, Value)], count: usize) -> Managed {
    let broker = Managed::start();
    for (name, arguments) in queues {
        let queue = json!({"durable": true, "arguments": arguments});
        let path = format!("queues/%2F/{name}");
        assert_eq!(broker.status("PUT", &path, &queue), 201);
    }
    for number in 0..count {
        let message = json!({
            "routing_key": queues[0].0, "payload": number.to_string(), "payload_encoding": "string",
            "properties": {"delivery_mode": 2, "headers": {"number": number}},
        });
        let path = "exchanges/%2F/amq.default/publish";
        assert_eq!(broker.status("POST", path, &message), 200);
    }
    broker
}

/// The bodies that wait in a queue, in their order.
fn bodies(broker: &Managed, queue: &str) -> Vec<String> {
    let path = format!("queues/%2F/{queue}/peek");
    let (status, messages) = broker.ask("POST", &path, &json!({"count": 1000}));
    assert_eq!(status, 200, "{messages}");
    let messages = messages.as_array().expect("a list");
    let body = |message: &Value| message["payload"].as_str().expect("text").to_owned();
    messages.iter().map(body).collect()
}

fn counted(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// The first ones go, in their order and with their properties; the others stay.
// req: MGMT-3
#[test]
fn messages_are_moved_in_their_order() {
    let broker = broker(&[("from", json!({})), ("to", json!({}))], 5);
    let ask = |count: u64| {
        let body = json!({"destination": "to", "count": count});
        broker.ask("POST", "queues/%2F/from/move", &body)
    };
    assert_eq!(ask(3), (200, json!({"moved": 3})));
    assert_eq!(bodies(&broker, "to"), counted(0..3));
    assert_eq!(bodies(&broker, "from"), counted(3..5));
    assert_eq!(ask(100), (200, json!({"moved": 2})));
    assert_eq!(ask(100), (200, json!({"moved": 0})));
    let peek = json!({"count": 1, "offset": 4});
    let (_, last) = broker.ask("POST", "queues/%2F/to/peek", &peek);
    assert_eq!(
        last[0]["properties"],
        json!({"delivery_mode": 2, "headers": {"number": 4}})
    );
    let depth = broker.get("queues/%2F/from");
    assert_eq!(depth["messages"], json!(0), "nothing is held back");
}

/// A queue that refuses messages gets as many as it takes; the others stay where they were.
#[test]
fn what_a_full_queue_refuses_stays() {
    let full = json!({"x-max-length": 2, "x-overflow": "reject-publish"});
    let broker = broker(&[("from", json!({})), ("to", full)], 4);
    let body = json!({"destination": "to"});
    let ask = || broker.ask("POST", "queues/%2F/from/move", &body);
    assert_eq!(ask(), (200, json!({"moved": 2})));
    let (status, error) = ask();
    assert_eq!(status, 400);
    assert_eq!(error["reason"], "queue 'to' is full and refuses messages");
    assert_eq!(bodies(&broker, "from"), counted(2..4));
    assert_eq!(bodies(&broker, "to"), counted(0..2));
}

/// Moving needs the right to read the one queue and to write to the default exchange, and two queues.
// req: MGMT-3
#[test]
fn moving_needs_rights_and_a_destination() {
    let broker = broker(&[("from", json!({})), ("to", json!({}))], 1);
    let user = json!({"password": "p", "tags": "management"});
    assert_eq!(broker.status("PUT", "users/u", &user), 201);
    let body = json!({"destination": "to"});
    let ask = |configure: &str, write: &str, read: &str| {
        let rights = json!({"configure": configure, "write": write, "read": read});
        assert!([201, 204].contains(&broker.status("PUT", "permissions/%2F/u", &rights)));
        broker
            .ask_as("u:p", "POST", "queues/%2F/from/move", &body)
            .0
    };
    let cannot_read = ask("", ".*", "^to$");
    let cannot_write = ask("", "^to$", ".*");
    assert!(cannot_read >= 400 && cannot_write >= 400);
    assert_eq!(bodies(&broker, "from"), counted(0..1));
    assert_eq!(ask("", "^amq\\.default$", "^from$"), 200);
    for (destination, status) in [("nowhere", 404), ("from", 400)] {
        let body = json!({"destination": destination});
        assert_eq!(broker.status("POST", "queues/%2F/from/move", &body), status);
    }
    assert_eq!(
        broker.status("POST", "queues/%2F/from/move", &json!({})),
        400
    );
    assert_eq!(broker.status("POST", "queues/%2F/none/move", &body), 404);
}

/// A message of a quorum queue that a full queue refuses has not come back: asked for ever so often, it stays.
#[test]
fn what_is_refused_does_not_count_as_come_back() {
    let source = json!({"x-queue-type": "quorum", "x-delivery-limit": 2});
    let full = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
    let broker = broker(&[("from", source), ("to", full)], 3);
    let body = json!({"destination": "to"});
    let ask = || broker.ask("POST", "queues/%2F/from/move", &body);
    assert_eq!(ask(), (200, json!({"moved": 1})));
    for _ in 0..5 {
        assert_eq!(ask().0, 400);
    }
    assert_eq!(bodies(&broker, "from"), counted(1..3));
    assert_eq!(bodies(&broker, "to"), counted(0..1));
}

/// A message goes to the queue that is named, whatever keys it was once published with besides.
#[test]
fn a_copy_goes_nowhere_else() {
    let queues = ["from", "to", "other"].map(|name| (name, json!({})));
    let broker = broker(&queues, 0);
    let message = json!({
        "routing_key": "from", "payload": "0", "payload_encoding": "string",
        "properties": {"headers": {"CC": ["other"]}},
    });
    let path = "exchanges/%2F/amq.default/publish";
    assert_eq!(broker.status("POST", path, &message), 200);
    let body = json!({"destination": "to"});
    let moved = broker.ask("POST", "queues/%2F/from/move", &body);
    assert_eq!(moved, (200, json!({"moved": 1})));
    assert_eq!(bodies(&broker, "to"), counted(0..1));
    assert_eq!(bodies(&broker, "other"), counted(0..1));
}
