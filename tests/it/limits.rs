//! What a connection may cost before it has logged in, and how the server says goodbye.

use std::time::Duration;

use warren::amqp::field::ShortString;
use warren::amqp::frame::ProtocolHeader;
use warren::amqp::header::Properties;
use warren::amqp::method::{Method, basic, connection};

use crate::broker::Own;
use crate::wire::{Client, Event, Opening, pattern, published};

/// Who sends nothing, or half a protocol header, is cut off.
#[test]
fn a_client_without_a_protocol_header_is_cut_off() {
    let own = Own::start(|settings| {
        settings.admission.protocol_header_wait = Duration::from_millis(200);
    });
    for beginning in [&b""[..], b"AMQP"] {
        let mut client = Client::raw(own.address());
        client.send_bytes(beginning);
        client.expect_eof();
    }
}

/// Who stops half way through the opening is cut off, however far it came.
#[test]
fn a_client_that_never_logs_in_is_cut_off() {
    let own = Own::start(|settings| {
        settings.admission.handshake_wait = Duration::from_millis(300);
    });
    let mut greeted = Client::raw(own.address());
    greeted.greet();
    let mut tuned = Client::raw(own.address());
    tuned.greet();
    tuned.log_in("guest", "guest");
    tuned.expect_method(0, "connection.tune");
    greeted.expect_eof();
    tuned.expect_eof();
    Client::connect(own.address()).open(1);
}

/// Connections from one address that have not logged in are limited; a login makes room.
#[test]
fn connections_without_a_login_are_limited() {
    let own = Own::start(|settings| {
        settings.admission.unauthenticated_per_address_max = 2;
    });
    let mut first = Client::raw(own.address());
    first.greet();
    let mut second = Client::raw(own.address());
    second.greet();
    Client::raw(own.address()).expect_eof();
    first.log_in("guest", "guest");
    first.expect_method(0, "connection.tune");
    first.tune(&Opening::default());
    let virtual_host = "/".try_into().expect("short");
    first.call(0, connection::Open { virtual_host });
    let mut third = Client::raw(own.address());
    third.greet();
}

/// A client that never reads what it makes the broker say loses its connection once it is silent, and with
/// it the place that it took; the broker keeps no more of its answers than a bound.
#[test]
fn a_client_that_never_reads_is_cut_off() {
    let own = Own::start(|settings| settings.admission.connection_count_max = 1);
    let opening = Opening {
        heartbeat: 1,
        ..Opening::default()
    };
    let mut client = Client::connect_as(own.address(), &opening);
    client.open(1);
    let nowhere = basic::Publish {
        routing_key: ShortString::from_static("nowhere"),
        mandatory: true,
        ..basic::Publish::default()
    };
    let octets = published(
        1,
        &nowhere,
        &Properties::default(),
        &pattern(100_000),
        131_072,
    );
    // Far more than sockets and bounds hold: sooner or later the broker reads no more.
    let sent_all = (0..2_000).all(|_| client.try_send_bytes(&octets));
    assert!(!sent_all, "200 MB of returns were kept somewhere");
    loop {
        let mut next = Client::raw(own.address());
        next.try_send_bytes(&ProtocolHeader::ANSWER);
        match next.next() {
            Event::Method(0, Method::ConnectionStart(_)) => break,
            Event::Eof => std::thread::sleep(Duration::from_millis(50)),
            other => panic!("expected connection.start, got {other:?}"),
        }
    }
}

/// A server that stops tells its clients so (320), and waits for their answers.
#[test]
fn a_stopping_server_says_goodbye() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let stopping = std::thread::spawn(move || drop(own.stop()));
    match client.next() {
        Event::Method(0, Method::ConnectionClose(close)) => {
            assert_eq!(close.reply_code, 320);
            assert!(
                close
                    .reply_text
                    .to_string()
                    .starts_with("CONNECTION_FORCED - "),
                "{}",
                close.reply_text
            );
        }
        other => panic!("expected connection.close, got {other:?}"),
    }
    client.send(0, connection::CloseOk {});
    client.expect_eof();
    stopping.join().expect("a clean stop");
}
