//! Where clients come in, besides TCP as it is.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use warren::amqp::method::Method;

use crate::broker::Own;
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
