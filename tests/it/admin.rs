//! The management API over real sockets: what it says, and what it does to AMQP clients.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use warren::amqp::field::ShortString;
use warren::amqp::method::{basic, queue};
use warren::config::SyncMode;

use crate::broker::Own;
use crate::wire::{Client, Opening};

fn declare(name: &'static str) -> queue::Declare {
    queue::Declare {
        queue: ShortString::from_static(name),
        ..queue::Declare::default()
    }
}

/// A broker with its HTTP interface.
pub(crate) struct Managed {
    pub(crate) own: Own,
    http: SocketAddr,
}

impl Managed {
    pub(crate) fn start() -> Self {
        Self::of(Own::start(|_| {}))
    }

    /// The same with a broker that runs.
    pub(crate) fn of(own: Own) -> Self {
        let http = own.serve_http();
        Self { own, http }
    }

    /// A request as this user; status and body.
    pub(crate) fn ask_as(
        &self,
        login: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        ask(self.http, login, method, path, body)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask_as("guest:guest", method, path, body)
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) fn status(&self, method: &str, path: &str, body: &Value) -> u16 {
        self.ask(method, path, body).0
    }
}

/// A request to the interface at this address; status and body.
pub(crate) fn ask(
    http: SocketAddr,
    login: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let encoded = base64::engine::general_purpose::STANDARD.encode(login);
    let mut stream = TcpStream::connect(http).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    let request = format!(
        "{method} /api/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {encoded}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    let body = match body {
        "" => Value::Null,
        body => serde_json::from_str(body).expect("JSON"),
    };
    (status.parse().expect("a number"), body)
}

/// Declare, bind, publish, get, purge and delete, each with RabbitMQ's code.
// req: MGMT-3
#[test]
fn queues_exchanges_and_bindings_come_and_go() {
    let broker = Managed::start();
    let durable = json!({"durable": true, "arguments": {"x-max-length": 3}});
    assert_eq!(broker.status("PUT", "queues/%2F/q", &durable), 201);
    assert_eq!(broker.status("PUT", "queues/%2F/q", &durable), 204);
    let (status, error) = broker.ask("PUT", "queues/%2F/q", &json!({"durable": true}));
    assert_eq!(
        (status, error["error"].as_str()),
        (400, Some("bad_request"))
    );
    let reason = error["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("inequivalent arg 'x-max-length' for queue 'q'"),
        "{reason}"
    );
    assert_eq!(
        broker.status("PUT", "exchanges/%2F/x", &json!({"type": "topic"})),
        201
    );
    let binding = json!({"routing_key": "a.*", "arguments": {"k": "v"}});
    assert_eq!(broker.status("POST", "bindings/%2F/e/x/q/q", &binding), 201);
    let bindings = broker.get("bindings/%2F/e/x/q/q");
    let key = bindings[0]["properties_key"]
        .as_str()
        .expect("a key")
        .to_owned();
    assert!(key.starts_with("a.%2A~"), "{key}");
    let publish = |key: &str, payload: &str| {
        let message = json!({
            "properties": {"delivery_mode": 2, "headers": {"h": 1}},
            "routing_key": key, "payload": payload, "payload_encoding": "string",
        });
        broker.ask("POST", "exchanges/%2F/x/publish", &message).1
    };
    assert_eq!(publish("a.b", "hello"), json!({"routed": true}));
    assert_eq!(publish("b", "lost"), json!({"routed": false}));
    let get = json!({"count": 5, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 4});
    let (_, got) = broker.ask("POST", "queues/%2F/q/get", &get);
    assert_eq!(got.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&got[0]["payload"], &got[0]["payload_bytes"]),
        (&json!("hell"), &json!(5))
    );
    assert_eq!(
        got[0]["properties"],
        json!({"delivery_mode": 2, "headers": {"h": 1}})
    );
    let peek = json!({"count": 5});
    assert_eq!(
        broker.ask("POST", "queues/%2F/q/peek", &peek).1[0]["payload"],
        "hello"
    );
    let queue = broker.get("queues/%2F/q");
    assert_eq!(
        (&queue["messages"], &queue["messages_ready"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(queue["message_stats"]["publish"], json!(1));
    assert_eq!(
        broker.status("DELETE", "queues/%2F/q/contents", &Value::Null),
        204
    );
    assert_eq!(broker.get("queues/%2F/q")["messages"], json!(0));
    let path = format!("bindings/%2F/e/x/q/q/{}", key.replace('%', "%25"));
    assert_eq!(broker.status("DELETE", &path, &Value::Null), 204);
    for path in ["queues/%2F/q", "exchanges/%2F/x"] {
        assert_eq!(broker.status("DELETE", path, &Value::Null), 204);
        assert_eq!(broker.status("DELETE", path, &Value::Null), 404);
    }
}

/// A user is made, given a right, logs in over AMQP, and is cut off when it is deleted.
#[test]
fn users_and_rights_act_on_connections() {
    let broker = Managed::start();
    assert_eq!(
        broker.status("PUT", "users/u", &json!({"password": "p", "tags": ""})),
        201
    );
    let rights = json!({"configure": "^own$", "write": "", "read": "^own$"});
    assert_eq!(broker.status("PUT", "permissions/%2F/u", &rights), 201);
    let bad = json!({"configure": "(", "write": "", "read": ""});
    assert_eq!(broker.status("PUT", "permissions/%2F/u", &bad), 400);
    let u = Opening {
        user: "u",
        password: "p",
        ..Opening::default()
    };
    let mut client = Client::connect_as(broker.own.address(), &u);
    client.open(1);
    client.declare(1, declare("own"));
    client.send(1, declare("other"));
    client.expect_channel_close(1, 403);
    let connections = broker.get("connections");
    assert_eq!(connections[0]["user"], "u");
    assert_eq!(connections[0]["state"], "running");
    // The hash moves to another user, as an import does it.
    let hash = broker.get("users/u")["password_hash"].clone();
    let copy = json!({"password_hash": hash, "tags": "management"});
    assert_eq!(broker.status("PUT", "users/copy", &copy), 201);
    assert_eq!(
        broker.ask_as("copy:p", "GET", "whoami", &Value::Null).0,
        200
    );
    assert_eq!(
        broker
            .ask_as("copy:p", "GET", "connections", &Value::Null)
            .1,
        json!([])
    );
    assert_eq!(broker.ask_as("u:p", "GET", "whoami", &Value::Null).0, 401);
    assert_eq!(broker.status("DELETE", "users/u", &Value::Null), 204);
    let text = client.expect_connection_close(320);
    assert_eq!(text, "CONNECTION_FORCED - user 'u' is deleted");
}

/// Closing a connection tells its client why.
// req: MGMT-7
#[test]
fn an_operator_closes_a_connection() {
    let broker = Managed::start();
    let mut client = Client::connect(broker.own.address());
    client.open(1);
    let name = broker.get("connections")[0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let channels = broker.get("channels");
    assert_eq!(channels[0]["name"], json!(format!("{name} (1)")));
    let path = format!(
        "connections/{}",
        name.replace(' ', "%20").replace('>', "%3E")
    );
    assert_eq!(broker.status("DELETE", &path, &Value::Null), 204);
    let text = client.expect_connection_close(320);
    assert_eq!(text, "CONNECTION_FORCED - Closed via management plugin");
}

/// What one broker exports another imports, and exports the same.
// req: MGMT-5
#[test]
fn definitions_move_from_one_broker_to_another() {
    let broker = Managed::start();
    let put = |path: &str, body: Value| {
        let status = broker.status("PUT", path, &body);
        assert!(matches!(status, 201 | 204), "{path}: {status}");
    };
    put("vhosts/v", json!({"description": "moved", "tags": "a,b"}));
    put("users/u", json!({"password": "p", "tags": ["monitoring"]}));
    put(
        "permissions/v/u",
        json!({"configure": ".*", "write": "^(?!amq).*", "read": ""}),
    );
    put(
        "topic-permissions/v/u",
        json!({"exchange": "t", "write": "^{username}", "read": ""}),
    );
    put(
        "policies/v/p",
        json!({"pattern": "^q", "definition": {"max-length": 2}, "priority": 4}),
    );
    put(
        "operator-policies/v/o",
        json!({"pattern": "", "definition": {"expires": 100_000}}),
    );
    put("parameters/shovel/v/s", json!({"value": {"src": 1}}));
    put("global-parameters/g", json!({"value": [1, "x"]}));
    put("vhost-limits/v/max-queues", json!({"value": 7}));
    put("user-limits/u/max-channels", json!({"value": 9}));
    put("exchanges/v/t", json!({"type": "topic", "durable": true}));
    put(
        "queues/v/q",
        json!({"durable": true, "arguments": {"x-queue-type": "quorum"}}),
    );
    let binding = json!({"routing_key": "k", "arguments": {"n": 1}});
    assert_eq!(broker.status("POST", "bindings/v/e/t/q/q", &binding), 201);
    let exported = broker.get("definitions");
    let other = Managed::start();
    let (status, error) = other.ask("POST", "definitions", &exported);
    assert_eq!(status, 204, "{error}");
    assert_eq!(other.get("definitions"), exported);
    assert_eq!(other.get("queues/v/q")["policy"], "p");
    assert_eq!(
        other.get("queues/v/q")["effective_policy_definition"]["max-length"],
        2
    );
    // One vhost's into another.
    let of_vhost = broker.get("definitions/v");
    assert_eq!(other.status("PUT", "vhosts/w", &json!({})), 201);
    assert_eq!(other.status("POST", "definitions/w", &of_vhost), 204);
    assert_eq!(other.get("queues/w/q")["type"], "quorum");
    let broken = json!({"queues": [{"name": "x", "vhost": "nowhere"}]});
    let (status, error) = other.ask("POST", "definitions", &broken);
    assert_eq!(status, 400);
    assert_eq!(error["reason"], json!(["no_such_vhost", "nowhere"]));
}

/// Pages, columns, names and sorting, as KEDA and the page of RabbitMQ ask for them.
#[test]
fn lists_come_in_pages() {
    let broker = Managed::start();
    for index in 0..5 {
        let path = format!("queues/%2F/q{index}");
        assert_eq!(broker.status("PUT", &path, &json!({})), 201);
    }
    let page = broker.get("queues/%2F?page=2&page_size=2&sort=name&columns=name,messages");
    assert_eq!(
        page["items"],
        json!([{"name": "q2", "messages": 0}, {"name": "q3", "messages": 0}])
    );
    assert_eq!(
        (&page["page_count"], &page["total_count"]),
        (&json!(3), &json!(5))
    );
    let page = broker.get("queues/%2F?page=1&use_regex=true&name=%5Eq%5B12%5D%24&page_size=100");
    assert_eq!(page["filtered_count"], json!(2));
    let all = broker.get("queues//?name=q3&pagination=false&page=1");
    assert_eq!(
        all["items"].as_array().map(Vec::len),
        Some(1),
        "KEDA asks so"
    );
    let (status, error) = broker.ask("GET", "queues?page=9&page_size=2", &Value::Null);
    assert_eq!(
        (status, error["error"].as_str()),
        (400, Some("page_out_of_range"))
    );
    assert_eq!(
        broker.status("GET", "queues?page=1&page_size=501", &Value::Null),
        400
    );
}

/// The overview counts what is there, the node shows its limits, and alarms turn a health check red.
// req: MGMT-6
#[test]
fn the_broker_says_how_it_is() {
    let broker = Managed::start();
    let mut client = Client::connect(broker.own.address());
    client.open(1);
    client.declare(1, declare("q"));
    client.publish(1, &ShortString::from_static("q"), b"x");
    let overview = broker.get("overview");
    assert_eq!(overview["object_totals"]["connections"], json!(1));
    assert_eq!(overview["object_totals"]["channels"], json!(1));
    assert!(
        overview["node"]
            .as_str()
            .is_some_and(|node| node.starts_with("warren@"))
    );
    let node = overview["node"].as_str().expect("a name");
    assert!(broker.get(&format!("nodes/{node}"))["fd_total"].as_u64() > Some(0));
    assert_eq!(broker.get("health/checks/alarms"), json!({"status": "ok"}));
    assert_eq!(broker.get("aliveness-test/%2F"), json!({"status": "ok"}));
    let set = json!({"absolute": 1000});
    assert_eq!(broker.status("POST", "warren/memory-watermark", &set), 204);
    let (status, failed) = broker.ask("GET", "health/checks/alarms", &Value::Null);
    assert_eq!((status, failed["status"].as_str()), (503, Some("failed")));
    let set = json!({"relative": 0.9});
    assert_eq!(broker.status("POST", "warren/memory-watermark", &set), 204);
    // A body beyond the bound is refused without being read.
    let long = json!({"x": "y".repeat(2 << 20)});
    let (status, _) = broker.ask("PUT", "queues/%2F/q", &long);
    assert_eq!(status, 413);
}

/// A broker that does not wait for the disk says so, and so does one that does.
// req: MGMT-11
#[test]
fn what_confirms_wait_for_is_shown() {
    for (sync, name) in [(SyncMode::Disk, "disk"), (SyncMode::Os, "os")] {
        let own = Own::start(|settings| settings.sync = sync);
        let http = own.serve_http_with(|settings| settings.sync = sync);
        let broker = Managed { own, http };
        assert_eq!(broker.get("overview")["sync"], name);
    }
}

/// What was answered is there after a restart.
// req: MGMT-4
#[test]
fn what_was_answered_outlives_the_process() {
    let broker = Managed::start();
    assert_eq!(
        broker.status("PUT", "vhosts/kept", &json!({"tags": "a"})),
        201
    );
    let policy = json!({"pattern": "^q", "definition": {"max-length": 1}});
    assert_eq!(broker.status("PUT", "policies/kept/p", &policy), 201);
    assert_eq!(
        broker.status("PUT", "queues/kept/q", &json!({"durable": true})),
        201
    );
    let folder = broker.own.stop();
    let own = Own::start_in(folder, |_| {});
    let http = own.serve_http();
    let broker = Managed { own, http };
    assert_eq!(broker.get("vhosts/kept")["tags"], json!(["a"]));
    assert_eq!(broker.get("queues/kept/q")["policy"], "p");
}

/// A message over HTTP is checked as one over AMQP, and refused with the same words.
// req: MGMT-10
#[test]
fn messages_over_http_are_checked_as_over_amqp() {
    let own = Own::start(|settings| settings.connection.message_bytes_max = Some(100));
    let http = own.serve_http();
    let broker = Managed { own, http };
    let durable = json!({"durable": true});
    assert_eq!(broker.status("PUT", "queues/%2F/q", &durable), 201);
    let publish = |properties: Value, payload: &str| {
        let message = json!({
            "properties": properties, "routing_key": "q", "payload": payload, "payload_encoding": "string",
        });
        broker.ask("POST", "exchanges/%2F/amq.default/publish", &message)
    };
    let persistent = json!({"delivery_mode": 2, "expiration": "60000"});
    assert_eq!(publish(persistent, "safe"), (200, json!({"routed": true})));
    for (properties, payload, reason) in [
        (
            json!({}),
            "x".repeat(101),
            "message size 101 is larger than configured max size 100",
        ),
        (
            json!({"expiration": "soon"}),
            String::new(),
            "invalid expiration 'soon': no_integer",
        ),
        (
            json!({"delivery_mode": 3}),
            String::new(),
            "invalid message: {delivery_mode_unknown,3}",
        ),
        (
            json!({"user_id": "eve"}),
            String::new(),
            "user_id property set to 'eve' but authenticated user was 'guest'",
        ),
    ] {
        let (status, error) = publish(properties, &payload);
        let expected = format!("406 PRECONDITION_FAILED - {reason}");
        assert_eq!((status, error["reason"].as_str()), (400, Some(&*expected)));
    }
    let watermark = |share: f64| {
        let body = json!({ "relative": share });
        broker.status("POST", "warren/memory-watermark", &body)
    };
    assert_eq!(watermark(0.0), 204);
    let (status, error) = publish(json!({}), "x");
    assert_eq!((status, &error["reason"]), (503, &json!("low on memory")));
    assert_eq!(watermark(0.9), 204);
    assert_eq!(publish(json!({}), "x").0, 200);
}

/// A protected vhost cannot be deleted, also after a change of what is said of it, until it is not protected any more.
// req: VHOST-1
#[test]
fn a_protected_vhost_stays() {
    let broker = Managed::start();
    assert_eq!(broker.status("PUT", "vhosts/v", &json!({})), 201);
    let protection = "vhosts/v/deletion/protection";
    assert_eq!(broker.status("POST", protection, &Value::Null), 204);
    let details = json!({"description": "words", "metadata": {"tags": ["one"]}});
    assert_eq!(broker.status("PUT", "vhosts/v", &details), 204);
    let (status, error) = broker.ask("DELETE", "vhosts/v", &Value::Null);
    assert_eq!(
        (status, error["error"].as_str()),
        (412, Some("precondition_failed"))
    );
    let vhost = broker.get("vhosts/v");
    assert_eq!(vhost["metadata"]["protected_from_deletion"], json!(true));
    assert_eq!(broker.status("DELETE", protection, &Value::Null), 204);
    assert_eq!(broker.status("DELETE", "vhosts/v", &Value::Null), 204);
}

/// What a channel's client published, got and acknowledged is told of the channel; what was confirmed and what went
/// over its socket, of its vhost too, and still when it is gone.
// req: MGMT-13
#[test]
fn channels_and_vhosts_tell_what_their_clients_did() {
    let broker = Managed::start();
    let mut client = Client::connect(broker.own.address());
    client.open(1);
    client.confirm_select(1);
    let queue = client.declare(1, declare("counted"));
    for _ in 0..3 {
        client.publish(1, &queue, b"x");
        client.expect_method(1, "basic.ack");
    }
    client.publish(1, &ShortString::from_static("nowhere"), b"x");
    client.expect_method(1, "basic.ack");
    assert!(client.get(1, &queue, true).is_some());
    assert!(client.get(1, &queue, false).is_some());
    client.call(1, basic::Recover { requeue: true });
    client.open(2);
    client.consume(2, &queue, "both", false);
    let (first, second) = (client.expect_message(2), client.expect_message(2));
    assert!(first.redelivered() && !second.redelivered());
    client.ack(2, second.delivery_tag(), true);
    assert!(client.get(1, &queue, true).is_none());
    let expected = [
        json!({
            "publish": 4, "confirm": 4, "drop_unroutable": 1, "return_unroutable": 0, "get": 1, "get_no_ack": 1,
            "get_empty": 1, "deliver": 0, "deliver_no_ack": 0, "deliver_get": 2, "redeliver": 0, "ack": 0,
        }),
        json!({
            "publish": 0, "confirm": 0, "drop_unroutable": 0, "return_unroutable": 0, "get": 0, "get_no_ack": 0,
            "get_empty": 0, "deliver": 2, "deliver_no_ack": 0, "deliver_get": 2, "redeliver": 1, "ack": 2,
        }),
    ];
    let channels = broker.get("channels?sort=number");
    for (channel, expected) in channels.as_array().expect("a list").iter().zip(&expected) {
        let stats = &channel["message_stats"];
        for (name, count) in expected.as_object().expect("an object") {
            assert_eq!(&stats[name], count, "{name} of {stats}");
            assert!(
                stats[format!("{name}_details")]["rate"].is_number(),
                "{name}"
            );
        }
    }
    let told = |vhost: &Value| {
        let of = |name: &str| vhost[name].as_u64().expect("a number");
        (
            vhost["message_stats"]["confirm"].clone(),
            of("recv_oct"),
            of("send_oct"),
        )
    };
    let (confirmed, received, sent) = told(&broker.get("vhosts/%2F"));
    assert_eq!(confirmed, json!(4));
    assert!(received > 400 && sent > 400, "{received} and {sent}");
    drop(client);
    while !broker.own.connection_names().is_empty() {
        std::thread::yield_now();
    }
    let (confirmed, received_then, sent_then) = told(&broker.get("vhosts/%2F"));
    assert_eq!(confirmed, json!(4));
    assert!(received_then >= received && sent_then >= sent);
}

/// The length at each priority, and the time of the message that goes next.
// req: MGMT-13
#[test]
fn queues_tell_their_priorities_and_the_time_of_their_head() {
    let broker = Managed::start();
    let priorities = json!({"arguments": {"x-max-priority": 2}});
    assert_eq!(broker.status("PUT", "queues/%2F/p", &priorities), 201);
    let publish = |priority: u8, timestamp: Option<u64>| {
        let mut properties = json!({ "priority": priority });
        if let Some(timestamp) = timestamp {
            properties["timestamp"] = timestamp.into();
        }
        let message = json!({
            "properties": properties, "routing_key": "p", "payload": "x", "payload_encoding": "string",
        });
        let path = "exchanges/%2F/amq.default/publish";
        assert_eq!(broker.ask("POST", path, &message).1["routed"], true);
    };
    let lengths = || broker.get("queues/%2F/p")["backing_queue_status"]["priority_lengths"].clone();
    let head = || broker.get("queues/%2F/p")["head_message_timestamp"].clone();
    assert_eq!(lengths(), json!({"0": 0, "1": 0, "2": 0}));
    assert_eq!(head(), Value::Null);
    publish(0, Some(1_700_000_000));
    publish(2, Some(1_800_000_000));
    publish(9, None);
    assert_eq!(lengths(), json!({"0": 1, "1": 0, "2": 2}));
    assert_eq!(head(), json!(1_800_000_000));
    let get = json!({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"});
    broker.ask("POST", "queues/%2F/p/get", &get);
    assert_eq!(head(), Value::Null, "the next one has no time");
}
