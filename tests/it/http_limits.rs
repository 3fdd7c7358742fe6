//! What connections may cost before anybody has logged in.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::broker::Own;
use crate::wire::Client;

fn connect(http: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(http).expect("it listens");
    let wait = Some(Duration::from_secs(20));
    stream.set_read_timeout(wait).expect("a socket");
    stream
}

/// All that comes until the other side ends.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // What was sent and not read makes an end of this kind.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it does not end: {error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whoever does not finish a head, or is idle, goes; a head that is too long is refused, and too many are turned away.
// req: LIMIT-2
#[test]
fn heads_of_requests_are_limited() {
    let own = Own::start(|_| {});
    let http = own.serve_http_with(|settings| {
        settings.http.head_wait = Duration::from_millis(300);
        settings.http.head_bytes_max = 16 * 1024;
        settings.http.connections_per_address_max = 2;
    });
    let mut slow = connect(http);
    slow.write_all(b"GET /health HTTP/1.1\r\nHost:")
        .expect("sent");
    let silent = connect(http);
    let third = connect(http);
    assert_eq!(rest(third), "", "two are there");
    let answer = rest(slow);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    assert_eq!(rest(silent), "");
    let mut idle = connect(http);
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert!(
        rest(idle).starts_with("HTTP/1.1 200"),
        "answered, then ended"
    );
    let mut long = connect(http);
    let head = format!(
        "GET /health HTTP/1.1\r\nX: {}\r\n\r\n",
        "a".repeat(32 * 1024)
    );
    // It may end before all is written.
    let _ = long.write_all(head.as_bytes());
    assert!(!rest(long).starts_with("HTTP/1.1 200"));
}

/// When too many have not logged in, the one that came first goes, and whoever comes is served.
// req: LIMIT-1
#[test]
fn the_oldest_that_has_not_logged_in_makes_room() {
    let own = Own::start(|settings| {
        settings.admission.unauthenticated_max = 2;
        settings.admission.protocol_header_wait = Duration::from_secs(600);
    });
    let honest = Client::connect(own.address());
    let mut first = Client::raw(own.address());
    let _second = Client::raw(own.address());
    let mut third = Client::connect(own.address());
    first.expect_eof();
    third.open(1);
    drop(honest);
}
