//! A RabbitMQ of the tests' own, from Debian's package, on its own port and node name.
//!
//! Owns: starting it once for the test binary. It ends with this process, also when that is killed: its
//! watchdog reads a pipe whose other end only this process holds.
//! Without the package a test says `not run`, and fails if `WARREN_TEST_RABBITMQ=required`.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

/// Where Debian puts it; the wrapper in `/usr/sbin` changes the user and loses the environment.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Tries, one each half second, until it listens.
const START_TRIES: u32 = 240;

/// A running RabbitMQ with its folder.
struct Running {
    uri: String,
    _watchdog: Child,
    _folder: TempDir,
}

/// The URI of the RabbitMQ that all tests share; `None`, with a line that says so, if there is none.
pub(crate) fn shared(test: &str) -> Option<&'static str> {
    static SHARED: OnceLock<Option<Running>> = OnceLock::new();
    let running = SHARED.get_or_init(|| Path::new(SERVER).exists().then(start));
    match running {
        Some(running) => Some(&running.uri),
        None => {
            let required =
                std::env::var("WARREN_TEST_RABBITMQ").is_ok_and(|value| value == "required");
            assert!(
                !required,
                "{SERVER} is missing and WARREN_TEST_RABBITMQ=required"
            );
            eprintln!("not run: {test} needs RabbitMQ (Debian package rabbitmq-server)");
            None
        }
    }
}

/// A port that was free a moment ago, below those that the system hands out by itself, so that no other
/// test's connection takes it before RabbitMQ has it.
fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id();
    for _ in 0..10_000 {
        let step = first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let port = u16::try_from(20_000 + step).expect("below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port from 20,000 to 29,999 is free");
}

fn start() -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    for name in ["mnesia", "log", "home"] {
        fs::create_dir(root.join(name)).expect("a folder");
    }
    fs::write(root.join("plugins"), "[].").expect("written");
    fs::write(root.join("rabbitmq.conf"), "").expect("written");
    let cookie = root.join("home/.erlang.cookie");
    fs::write(&cookie, "WARRENTESTCOOKIE").expect("written");
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).expect("changed");
    let (port, dist_port) = (free_port(), free_port());
    // The server runs in a session of its own (a shell without a terminal makes no process groups), which goes when this
    // process's pipe closes.
    let script = format!("setsid {SERVER} > out.txt 2>&1 & read _; kill -s KILL -- -$!; wait");
    let watchdog = Command::new("sh")
        .args(["-c", &script])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env("HOME", root.join("home"))
        .env(
            "RABBITMQ_NODENAME",
            format!("warren-it-{}@localhost", std::process::id()),
        )
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", dist_port.to_string())
        .env("RABBITMQ_MNESIA_BASE", root.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", root.join("log"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", root.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", root.join("rabbitmq"))
        .env("RABBITMQ_CONF_ENV_FILE", root.join("none"))
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}",
        )
        .spawn()
        .expect("sh starts");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_up = (0..START_TRIES).any(|_| {
        std::thread::sleep(Duration::from_millis(500));
        speaks_amqp(address)
    });
    assert!(
        is_up,
        "RabbitMQ does not start: {}",
        fs::read_to_string(root.join("out.txt")).unwrap_or_default()
    );
    Running {
        uri: format!("amqp://guest:guest@127.0.0.1:{port}/%2F"),
        _watchdog: watchdog,
        _folder: folder,
    }
}

/// Whether it greets a client: its port is open a little before it does.
fn speaks_amqp(address: SocketAddr) -> bool {
    use std::io::Write as _;
    let Ok(mut socket) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let mut greeting = [0; 7];
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    socket.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
        && socket.read_exact(&mut greeting).is_ok()
        && greeting[0] == 1
}
