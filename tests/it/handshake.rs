//! Opening, keeping and closing a connection.

use bytes::{BufMut, Bytes, BytesMut};
use warren::amqp::field::{FieldTable, Secret, ShortString};
use warren::amqp::frame::{self, FrameKind, ProtocolHeader};
use warren::amqp::limits::FRAME_BYTES_BEFORE_TUNE;
use warren::amqp::method::{Method, basic, channel, connection};

use crate::broker::{self, Own};
use crate::wire::{Client, Event, Opening};

/// A client with another protocol is told which one is spoken here, and hung up on.
#[test]
fn another_protocol_is_answered_with_ours() {
    for header in [
        *b"GET / HT",
        *b"AMQP\x00\x01\x00\x00",
        *b"AMQP\x03\x01\x00\x00",
    ] {
        let mut client = Client::raw(broker::shared());
        client.send_bytes(&header);
        match client.next() {
            Event::ProtocolHeader(octets) => assert_eq!(octets, ProtocolHeader::ANSWER),
            other => panic!("expected a protocol header, got {other:?}"),
        }
        client.expect_eof();
    }
}

/// The octets of the opening may come one by one.
#[test]
fn an_opening_octet_by_octet_is_understood() {
    let mut client = Client::raw(broker::shared());
    for octet in ProtocolHeader::ANSWER {
        client.send_bytes(&[octet]);
    }
    client.expect_method(0, "connection.start");
    client.log_in("guest", "guest");
    client.expect_method(0, "connection.tune");
    client.tune(&Opening::default());
    let mut octets = BytesMut::new();
    let virtual_host = "/".try_into().expect("short");
    frame::put_method(&mut octets, 0, &connection::Open { virtual_host });
    for octet in octets {
        client.send_bytes(&[octet]);
    }
    client.expect_method(0, "connection.open-ok");
}

/// A wrong password is refused with 403 at once, to a client that says it understands that.
#[test]
fn a_wrong_password_is_refused() {
    let mut client = Client::raw(broker::shared());
    client.greet();
    client.log_in("guest", "wrong");
    let text = client.expect_connection_close(403);
    assert!(
        text.starts_with("ACCESS_REFUSED - Login was refused"),
        "{text}"
    );
}

/// Before the login no frame may pass 8 KiB: nothing is kept of it, and the socket is closed.
#[test]
fn a_long_frame_before_the_login_ends_the_connection() {
    let mut client = Client::raw(broker::shared());
    client.greet();
    let mut head = BytesMut::new();
    frame::put_frame_head(&mut head, FrameKind::Method, 0, 2 * FRAME_BYTES_BEFORE_TUNE);
    client.send_bytes(&head);
    loop {
        match client.next() {
            Event::Eof => break,
            Event::Method(0, Method::ConnectionClose(_)) => {}
            other => panic!("expected the end of the connection, got {other:?}"),
        }
    }
}

/// Both sides close in order, and the connection is gone behind it.
#[test]
fn a_close_is_answered() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.call(
        0,
        connection::Close {
            reply_code: 200,
            ..connection::Close::default()
        },
    );
}

/// A silent client with a heartbeat is cut off; the broker's own heartbeats come meanwhile.
#[test]
fn a_silent_client_is_cut_off() {
    let opening = Opening {
        heartbeat: 1,
        ..Opening::default()
    };
    let mut client = Client::connect_as(broker::shared(), &opening);
    match client.next() {
        Event::Heartbeat => client.expect_eof(),
        other => panic!("expected a heartbeat, got {other:?}"),
    }
}

/// What the client sends keeps its connection, be it heartbeats or anything else.
#[test]
fn traffic_keeps_a_connection_with_heartbeats() {
    let opening = Opening {
        heartbeat: 1,
        ..Opening::default()
    };
    let mut client = Client::connect_as(broker::shared(), &opening);
    client.open(1);
    let mut heartbeat = BytesMut::new();
    frame::put_heartbeat(&mut heartbeat);
    for _ in 0..6 {
        match client.next() {
            Event::Heartbeat => client.send_bytes(&heartbeat),
            other => panic!("expected a heartbeat, got {other:?}"),
        }
    }
    client.qos(1, 10);
}

/// A method on a channel that is not open ends the connection with 504.
#[test]
fn a_channel_must_be_opened() {
    let mut client = Client::connect(broker::shared());
    client.send(3, basic::Qos::default());
    let text = client.expect_connection_close(504);
    assert_eq!(text, "CHANNEL_ERROR - expected 'channel.open'");
}

/// An error ends its channel alone: others of the connection go on, and its number can be used again.
#[test]
fn a_channel_error_spares_the_others() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.open(2);
    client.ack(1, 7, false);
    // Falls into the closing and is dropped.
    client.send(1, basic::Qos::default());
    let text = client.expect_channel_close(1, 406);
    assert_eq!(text, "PRECONDITION_FAILED - unknown delivery tag 7");
    client.qos(2, 10);
    client.open(1);
    client.qos(1, 10);
    client.call(1, channel::Close::default());
}

/// A frame with a wrong end octet is refused with 501 and what it was.
#[test]
fn a_broken_frame_ends_the_connection() {
    let mut client = Client::connect(broker::shared());
    let mut octets = BytesMut::new();
    frame::put_frame_head(&mut octets, FrameKind::Heartbeat, 0, 0);
    octets.put_u8(0xCD);
    client.send_bytes(&octets);
    let text = client.expect_connection_close(501);
    assert!(text.contains("invalid_frame_end_marker"), "{text}");
}

/// ANONYMOUS is offered and taken where it is set, as the user that is named there, and nowhere else.
// req: LOGIN-1
#[test]
fn anonymous_logs_in_where_it_is_set() {
    let anonymous = connection::StartOk {
        client_properties: FieldTable::default(),
        mechanism: ShortString::from_static("ANONYMOUS"),
        response: Secret::from(Bytes::new()),
        locale: ShortString::from_static("en_US"),
    };
    let own = Own::start(|settings| {
        settings.connection.anonymous_user = Some("guest".to_owned());
    });
    let mut client = Client::raw(own.address());
    client.send_bytes(&ProtocolHeader::ANSWER);
    match client.expect_method(0, "connection.start") {
        Method::ConnectionStart(start) => {
            assert_eq!(&start.mechanisms[..], b"PLAIN AMQPLAIN ANONYMOUS");
        }
        other => panic!("{} is not connection.start", other.name()),
    }
    client.send(0, anonymous.clone());
    client.expect_method(0, "connection.tune");
    client.tune(&Opening::default());
    let virtual_host = ShortString::from_static("/");
    client.call(0, connection::Open { virtual_host });
    client.open(1);
    let queue = client.exclusive_queue(1);
    client.publish(1, &queue, b"from nobody");
    assert!(client.get(1, &queue, true).is_some());

    let other = Own::start(|_| {});
    let mut client = Client::raw(other.address());
    client.greet();
    client.send(0, anonymous);
    client.expect_eof();
}
