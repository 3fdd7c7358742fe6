//! The log of a broker: its audit trail, its form, and how what is logged changes while it runs.

use std::process::Command;

use serde_json::{Value, json};
use warren::amqp::field::ShortString;
use warren::amqp::method::queue;

use crate::admin::ask;
use crate::process::{Process, serve};
use crate::wire::{Client, Opening};

/// Every login, refusal and act leaves one line that says who, from where, what and how it went; no line has a secret.
// req: AUDIT-1
// req: LOG-2
#[test]
fn what_is_done_leaves_a_trail_without_secrets() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = serve(&dir.path().join("data"));
    command.args(["--log-format", "json", "--log", "warren::audit=info"]);
    let broker = Process::start(command).expect("it starts");
    let http = broker.http();
    let status = |login: &str, method: &str, path: &str, body: &Value| {
        let (status, _) = ask(http, login, method, path, body);
        status
    };
    let user = json!({ "password": "hush-1", "tags": "" });
    assert_eq!(status("guest:guest", "PUT", "users/eve", &user), 201);
    let rights = json!({ "configure": "^$", "write": "^$", "read": "^$" });
    let path = "permissions/%2F/eve";
    assert_eq!(status("guest:guest", "PUT", path, &rights), 201);
    assert_eq!(status("eve:hush-2", "GET", "whoami", &Value::Null), 401);
    assert_eq!(
        status("eve:hush-1", "DELETE", "users/guest", &Value::Null),
        401
    );
    let mut client = Client::raw(broker.address());
    client.greet();
    client.log_in("eve", "hush-3");
    client.expect_connection_close(403);
    let mut client = Client::connect_as(
        broker.address(),
        &Opening {
            user: "eve",
            password: "hush-1",
            ..Opening::default()
        },
    );
    client.open(1);
    client.send(
        1,
        queue::Declare {
            queue: ShortString::from_static("q"),
            ..queue::Declare::default()
        },
    );
    client.expect_channel_close(1, 403);
    let errors = broker.errors_until(|errors| errors.contains("queue 'q'"));
    assert!(!errors.contains("hush"), "{errors}");
    let lines: Vec<Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let has = |wanted: &[(&str, &str)]| {
        let fits = |line: &Value| wanted.iter().all(|(key, value)| line[*key] == *value);
        assert!(lines.iter().any(fits), "{wanted:?} is not in {errors}");
    };
    let audit = ("target", "warren::audit");
    has(&[
        audit,
        ("message", "administrative act"),
        ("user", "guest"),
        ("method", "PUT"),
        ("path", "/api/users/eve"),
        ("result", "done"),
    ]);
    has(&[
        audit,
        ("message", "HTTP login refused"),
        ("user", "eve"),
        ("level", "WARN"),
    ]);
    has(&[
        audit,
        ("message", "access refused"),
        ("user", "eve"),
        ("method", "DELETE"),
    ]);
    has(&[
        audit,
        ("message", "login refused"),
        ("user", "eve"),
        ("mechanism", "PLAIN"),
    ]);
    has(&[
        audit,
        ("message", "login"),
        ("user", "eve"),
        ("level", "INFO"),
    ]);
    has(&[
        audit,
        ("message", "access refused"),
        ("user", "eve"),
        ("access", "Configure"),
        ("resource", "queue 'q' in vhost '/'"),
    ]);
    let from = lines.iter().find(|line| line["message"] == "login");
    let from = from
        .and_then(|line| line["from"].as_str())
        .expect("an address");
    assert!(from.starts_with("127.0.0.1:"), "{from}");
}

/// What is logged changes while the broker runs, by the API and by the command line; nonsense changes nothing.
// req: LOG-1
#[test]
fn what_is_logged_changes_while_it_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = serve(&dir.path().join("data"));
    command.args(["--log", "error"]);
    let broker = Process::start(command).expect("it starts");
    let http = broker.http();
    let set = |filter: &str| {
        let body = json!({ "filter": filter });
        ask(http, "guest:guest", "PUT", "warren/log-filter", &body).0
    };
    assert_eq!(set("warren::audit=loud"), 400);
    drop(Client::connect(broker.address()));
    assert_eq!(set("off,warren::audit=info"), 204);
    drop(Client::connect(broker.address()));
    let errors = broker.errors_until(|errors| errors.contains("login"));
    assert_eq!(errors.matches("login").count(), 1, "{errors}");
    let ctl = |level: &str| {
        Command::new(env!("CARGO_BIN_EXE_warren"))
            .args([
                "ctl",
                "--url",
                &format!("http://{http}"),
                "set_log_level",
                level,
            ])
            .output()
            .expect("it runs")
    };
    let output = ctl("warning");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "Setting log level to \"warning\" ...\n");
    assert_eq!(ctl("loud").status.code(), Some(64));
    drop(Client::connect(broker.address()));
    let mut client = Client::raw(broker.address());
    client.greet();
    client.log_in("guest", "wrong");
    client.expect_connection_close(403);
    let errors = broker.errors_until(|errors| errors.contains("login refused"));
    assert_eq!(
        errors.matches(" INFO ").count(),
        2,
        "one act and one login; the second act hid its own line: {errors}"
    );
}
