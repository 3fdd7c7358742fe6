//! Where clients come in, besides TCP as it is.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::broker::Own;

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
