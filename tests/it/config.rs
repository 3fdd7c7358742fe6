//! Settings from file, environment and flags; looking at them, and changing them under a running broker.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use warren::amqp::method::Method;

use serde_json::{Value, json};

use crate::admin::ask;
use crate::process::{Process, serve};
use crate::wire::Client;

/// `warren config WORD` with nothing of this process's own environment that would be a setting.
fn config(word: &str, file: &Path, environment: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for (name, _) in std::env::vars() {
        if name.starts_with("WARREN_") || name.starts_with("RABBITMQ_") {
            command.env_remove(name);
        }
    }
    command
        .args(["config", word, "--config"])
        .arg(file)
        .args(flags)
        .envs(environment.iter().copied());
    command.output().expect("it runs")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// A flag goes before the environment, which goes before the file, which goes before the default.
#[test]
fn flags_go_before_the_environment_before_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("warren.toml");
    let written = "listen = '127.0.0.1:1'\npeer_listen = '127.0.0.1:1'\nhttp_listen = '127.0.0.1:1'\n\
                   [connection]\nheartbeat = '1s'\nchannel_max = 1\nframe_max = 5000\n";
    std::fs::write(&file, written).expect("a file");
    let environment = [
        ("WARREN_PEER_LISTEN", "127.0.0.1:2"),
        ("WARREN_HTTP_LISTEN", "127.0.0.1:2"),
        ("WARREN_CONNECTION_CHANNEL_MAX", "2"),
        ("WARREN_CONNECTION_FRAME_MAX", "6000"),
        ("RABBITMQ_DEFAULT_USER", "boss"),
    ];
    let flags = [
        "--http-listen",
        "127.0.0.1:3",
        "--set",
        "connection.frame_max=7000",
    ];
    let output = config("show", &file, &environment, &flags);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stdout);
    for line in [
        "listen = \"127.0.0.1:1\"",
        "peer_listen = \"127.0.0.1:2\"",
        "http_listen = \"127.0.0.1:3\"",
        "heartbeat = \"1s\"",
        "channel_max = 2",
        "frame_max = 7000",
        "default_user = \"boss\"",
        "sync = \"disk\"",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} in {shown}"
        );
    }
}

/// What cannot be used is said with its file, its key and what was meant, and nothing is started.
#[test]
fn what_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |name: &str, written: &str, environment: &[(&str, &str)], flags: &[&str]| {
        let file = folder.path().join(name);
        std::fs::write(&file, written).expect("a file");
        let output = config("check", &file, environment, flags);
        assert_eq!(output.status.code(), Some(1), "{written}: {output:?}");
        text(&output.stderr)
    };
    let unknown = refused("a.toml", "[connection]\nheartbeet = '1s'\n", &[], &[]);
    assert!(
        unknown.contains("did you mean 'connection.heartbeat'?"),
        "{unknown}"
    );
    assert!(unknown.contains("a.toml"), "{unknown}");
    let unknown = refused("a.conf", "frame_mx = 5000\n", &[], &[]);
    assert!(unknown.contains("did you mean 'frame_max'?"), "{unknown}");
    let variable = refused(
        "b.toml",
        "",
        &[("WARREN_CONNECTION_HEARTBEAT", "never")],
        &[],
    );
    assert!(variable.contains("never"), "{variable}");
    let flag = refused("b.toml", "", &[], &["--set", "snyc=os"]);
    assert!(flag.contains("did you mean 'sync'?"), "{flag}");
    let nothing = refused("b.toml", "listen_plain = false\n", &[], &[]);
    assert!(
        nothing.contains("nothing would be listened on"),
        "{nothing}"
    );
    let tls = refused("b.toml", "[tls]\nlisten = '127.0.0.1:0'\n", &[], &[]);
    assert!(tls.contains("tls.certificate"), "{tls}");
    let missing = config("check", &folder.path().join("missing.toml"), &[], &[]);
    assert_eq!(missing.status.code(), Some(1));
    let file = folder.path().join("good.toml");
    std::fs::write(&file, "sync = 'os'\n").expect("a file");
    let good = config("check", &file, &[], &[]);
    assert!(good.status.success(), "{good:?}");
}

/// RabbitMQ's own file starts a broker, and its keys without a counterpart are told and left out.
#[test]
fn rabbitmqs_file_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rabbitmq.conf");
    let written = "# as packaged\nchannel_max = 77\nheartbeat = 9\ncluster_formation.peer_discovery_backend = dns\n";
    std::fs::write(&file, written).expect("a file");
    let data = tempfile::tempdir().expect("a folder");
    let mut command = serve(data.path());
    command.arg("--config").arg(&file);
    let process = Process::start(command).expect("it starts");
    let tune = tune_of(&process);
    assert_eq!(tune, (77, 9));
    let shown = config("show", &file, &[], &[]);
    let notes = text(&shown.stderr);
    assert!(
        notes.contains("'cluster_formation.peer_discovery_backend'"),
        "{notes}"
    );
}

/// SIGHUP brings new limits to connections that come then; a file that cannot be read changes nothing.
#[test]
fn a_hangup_brings_new_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("warren.toml");
    // At once, since the broker may be reading.
    let write = |text: &str| {
        let beside = folder.path().join("new");
        std::fs::write(&beside, text).expect("a file");
        std::fs::rename(&beside, &file).expect("renamed");
    };
    write("[connection]\nheartbeat = '9s'\nchannel_max = 10\n");
    let data = tempfile::tempdir().expect("a folder");
    let mut command = serve(data.path());
    command.arg("--config").arg(&file);
    let process = Process::start(command).expect("it starts");
    assert_eq!(tune_of(&process), (10, 9));
    write("[connection]\nheartbeet = '5s'\n");
    process.signal("HUP");
    write("[connection]\nheartbeat = '7s'\nchannel_max = 20\n");
    let mut tune = (0, 0);
    for _ in 0..400 {
        process.signal("HUP");
        tune = tune_of(&process);
        if tune == (20, 7) {
            break;
        }
        assert_eq!(
            tune,
            (10, 9),
            "a file that cannot be read changed something"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(tune, (20, 7));
}

/// Channels and heartbeat that a new connection is offered.
fn tune_of(process: &Process) -> (u16, u16) {
    let mut client = Client::raw(process.address());
    client.greet();
    client.log_in("guest", "guest");
    match client.expect_method(0, "connection.tune") {
        Method::ConnectionTune(tune) => (tune.channel_max, tune.heartbeat),
        other => panic!("expected tune, got {}", other.name()),
    }
}

/// Definitions are there before anybody is served, from each file of a folder, with their users in the place of guest; a
/// start with wrong ones says which, and one that finds them there already changes nothing.
// req: MGMT-14
#[test]
fn definitions_are_brought_in_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, document: &Value| {
        let file = folder.path().join("definitions").join(name);
        std::fs::write(file, document.to_string()).expect("a file");
    };
    std::fs::create_dir(folder.path().join("definitions")).expect("a folder");
    // The first by name has what the second needs.
    let queues = json!({
        "queues": [{ "name": "q", "vhost": "v", "durable": true, "arguments": { "x-max-length": 5 } }],
        "bindings": [{ "source": "amq.topic", "vhost": "v", "destination": "q", "destination_type": "queue",
                       "routing_key": "a.#", "arguments": {} }],
    });
    write("2.json", &queues);
    let rights = json!({
        "vhosts": [{ "name": "v" }],
        "users": [{ "name": "boss", "password": "hush", "tags": ["administrator"] }],
        "permissions": [{ "user": "boss", "vhost": "v", "configure": ".*", "write": ".*", "read": ".*" }],
    });
    write("1.json", &rights);
    write("3.txt", &json!("no definitions"));
    let start = || {
        let mut command = serve(&folder.path().join("data"));
        let definitions = folder.path().join("definitions").display().to_string();
        command.args(["--set", &format!("load_definitions={definitions}")]);
        Process::start(command)
    };
    for _ in 0..2 {
        let broker = start().expect("it starts");
        let get = |login: &str, path: &str| ask(broker.http(), login, "GET", path, &Value::Null);
        let (status, queue) = get("boss:hush", "queues/v/q");
        assert_eq!(
            (status, &queue["arguments"]["x-max-length"]),
            (200, &json!(5))
        );
        let (_, bindings) = get("boss:hush", "queues/v/q/bindings");
        assert_eq!(bindings[1]["routing_key"], "a.#");
        assert_eq!(get("guest:guest", "whoami").0, 401);
    }
    write(
        "2.json",
        &json!({ "queues": [{ "name": "r", "vhost": "nowhere" }] }),
    );
    let Err(ended) = start() else {
        panic!("a vhost is missing");
    };
    assert_eq!(ended.status.code(), Some(1));
    for word in ["load_definitions", "2.json", "nowhere"] {
        assert!(ended.errors.contains(word), "{}", ended.errors);
    }
}
