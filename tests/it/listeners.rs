//! Where clients come in, besides TCP as it is.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use warren::amqp::method::Method;

use crate::admin::ask;
use crate::broker::Own;
use crate::process::{Process, serve_after};
use crate::wire::Client;

/// A socket in the file system is AMQP like any other; its file is for owner and group, replaces what a killed
/// server left, and goes with the server.
#[test]
fn a_socket_in_the_file_system_is_listened_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("amqp.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("left behind"));
    let own = Own::start(|settings| settings.unix_listen = Some(path.clone()));
    let mode = std::fs::metadata(&path).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket");
    stream.write_all(b"AMQP\x00\x00\x09\x01").expect("sent");
    let mut head = [0; 7];
    stream.read_exact(&mut head).expect("connection.start");
    assert_eq!(head[..3], [1, 0, 0]);
    drop(stream);
    drop(own);
    assert!(!path.exists());
}

/// Behind a trusted proxy a client comes from where the header says: guest from elsewhere is refused though the
/// proxy is on this machine, and who sends no header is hung up on.
// req: PROXY-1
#[test]
fn a_proxy_says_where_a_client_is() {
    let own = Own::start(|settings| {
        settings.proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    });
    let log_in = |header: &[u8]| {
        let mut client = Client::raw(own.address());
        client.send_bytes(header);
        client.greet();
        client.log_in("guest", "guest");
        client
    };
    let mut near = log_in(b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 5672\r\n");
    near.expect_method(0, "connection.tune");
    let mut far = log_in(b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 5672\r\n");
    let text = far.expect_connection_close(403);
    assert!(
        text.starts_with("ACCESS_REFUSED - Login was refused"),
        "{text}"
    );
    let names: Vec<_> = own.connection_names();
    assert!(
        names
            .iter()
            .any(|name| name == "127.0.0.1:4000 -> 127.0.0.1:5672"),
        "{names:?}"
    );
    let mut none = Client::raw(own.address());
    none.try_send_bytes(b"AMQP\x00\x00\x09\x01AMQP");
    none.expect_eof();
}

/// A password that is set in the usual way is hashed slowly, logs in, and a wrong one does not.
#[test]
fn a_slow_hash_logs_in() {
    let own = Own::start(|settings| {
        settings.access.default_user = "boss".to_owned();
        settings.access.default_password = "hush".to_owned();
    });
    let users = own.broker().users();
    let boss = users.user(b"boss").expect("the first account");
    let algorithm = boss.password().map(|hash| hash.algorithm());
    assert_eq!(algorithm, Some(warren::broker::HashAlgorithm::Argon2id));
    for _ in 0..2 {
        let mut client = Client::raw(own.address());
        client.greet();
        client.log_in("boss", "hush");
        let answer = client.expect_method(0, "connection.tune");
        assert!(matches!(answer, Method::ConnectionTune(_)));
    }
    let mut wrong = Client::raw(own.address());
    wrong.greet();
    wrong.log_in("boss", "hush!");
    wrong.expect_connection_close(403);
}

/// As systemd starts a service for a socket: the broker listens with what it was handed over, on the address of whoever
/// made it, and clients that came before it ran are served. A socket that no setting names the port of is said.
// req: SOCKET-1
#[test]
fn a_socket_that_was_handed_over_is_listened_on() {
    let start = |setting: &str, socket: &TcpListener| {
        let folder = tempfile::tempdir().expect("a folder");
        // The shell is the process that becomes the broker, as systemd's own is.
        let first = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";
        let mut command = serve_after(first, &folder.path().join("data"));
        command.args(["--set", setting]);
        let handed_over = OwnedFd::from(socket.try_clone().expect("a socket"));
        let process = Process::start_with(command, Stdio::from(handed_over));
        (process.expect("it starts"), folder)
    };
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    let early = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        client.open(1);
        client.exclusive_queue(1);
    });
    let (process, _folder) = start(&format!("listen=0.0.0.0:{}", address.port()), &socket);
    assert_eq!(process.address(), address);
    early.join().expect("it is served");

    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    let (process, _folder) = start(&format!("http_listen=0.0.0.0:{}", address.port()), &socket);
    assert_eq!(process.http(), address);
    let (status, _) = ask(address, "guest:guest", "GET", "whoami", &Value::Null);
    assert_eq!(status, 200);

    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (process, _folder) = start("sync=os", &socket);
    process.errors_until(|errors| errors.contains("handed over that is not listened on"));
}
