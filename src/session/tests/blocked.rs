//! Publishers while memory or disk is short.

use super::*;
use crate::amqp::field::FieldValue;
use crate::broker::Alarm;

/// A session whose client wants to hear that it is blocked.
fn told(heartbeat: u16) -> Driven {
    let capabilities = FieldTable::from([("connection.blocked", FieldValue::Boolean(true))]);
    let properties = FieldTable::from([("capabilities", FieldValue::Table(capabilities))]);
    Driven::opened_as(heartbeat, properties)
}

fn blocked() -> Vec<Method> {
    let reason = short("low on memory");
    vec![connection::Blocked { reason }.into()]
}

/// The first publish is told of and waits, with all that is behind it; it goes on when the alarm is over.
// req: ALARM-1
// req: ALARM-2
// req: ALARM-3
#[test]
fn a_publish_waits_for_the_end_of_the_alarm() {
    let mut driven = told(0);
    driven.broker.alarms().raise(Alarm::Memory);
    driven.method(1, confirm::Select::default());
    assert!(driven.session.wants_bytes(), "nothing was published yet");
    driven.sent();
    let mut octets = published(1, 10);
    octets.extend_from_slice(&published(1, 10));
    octets.extend_from_slice(&framed(1, &consume(true)));
    driven.bytes(&octets);
    assert_eq!(driven.methods(), blocked());
    assert!(!driven.session.wants_bytes());
    driven.session.handle_wake(driven.now);
    assert_eq!((driven.ready_count(), driven.methods()), (0, vec![]));
    driven.broker.alarms().clear(Alarm::Memory);
    driven.session.handle_wake(driven.now);
    let methods = driven.methods();
    assert_eq!(methods[0], connection::Unblocked {}.into());
    assert!(methods.contains(&ack(2, true)), "{methods:?}");
    assert!(driven.session.wants_bytes());
    let delivered = methods
        .iter()
        .filter(|method| matches!(method, Method::BasicDeliver(_)));
    assert_eq!(delivered.count(), 2);
}

/// A message without a body is whole with its header, and so is published before its connection is
/// blocked, as in RabbitMQ; one that is under way stops at its next frame.
// req: ALARM-1
#[test]
fn what_is_whole_with_its_frame_is_published() {
    let mut driven = told(0);
    driven.broker.alarms().raise(Alarm::Memory);
    driven.publish(1, 0);
    assert_eq!(driven.methods(), blocked());
    assert_eq!(driven.ready_count(), 1);
    driven.broker.alarms().clear(Alarm::Memory);
    driven.session.handle_wake(driven.now);
    driven.sent();
    // Two body frames: the alarm comes between them.
    let octets = published(1, 5_000);
    let (first, second) = octets.split_at(octets.len() - 900);
    driven.bytes(first);
    driven.broker.alarms().raise(Alarm::Memory);
    driven.bytes(second);
    driven.bytes(&published(1, 1));
    assert_eq!(driven.methods(), blocked());
    assert_eq!(driven.ready_count(), 2);
}

/// A client without the capability hears nothing, and waits all the same.
// req: ALARM-2
#[test]
fn a_client_that_did_not_ask_hears_nothing() {
    let mut driven = Driven::opened(0);
    driven.broker.alarms().raise(Alarm::Disk);
    driven.publish(1, 1);
    assert_eq!((driven.methods(), driven.ready_count()), (vec![], 0));
    driven.broker.alarms().clear(Alarm::Disk);
    driven.session.handle_wake(driven.now);
    assert_eq!((driven.methods(), driven.ready_count()), (vec![], 1));
}

/// While it is blocked, its silence means nothing and heartbeats to it go on; afterwards silence counts.
// req: ALARM-1
#[test]
fn a_blocked_client_is_not_cut_off_for_silence() {
    let mut driven = told(1);
    driven.broker.alarms().raise(Alarm::Memory);
    driven.publish(1, 1);
    driven.sent();
    for _ in 0..20 {
        driven.pass(Duration::from_secs(1));
        assert_eq!(driven.sent(), [Sent::Heartbeat]);
    }
    driven.broker.alarms().clear(Alarm::Memory);
    driven.session.handle_wake(driven.now);
    assert!(driven.session.is_open());
    driven.pass(Duration::from_secs(3));
    assert!(driven.session.is_closed());
}

/// A connection that only consumes works on: it is delivered to, acknowledges, and is answered.
#[test]
fn who_does_not_publish_notices_nothing() {
    let mut driven = told(0);
    driven.publish(1, 3);
    driven.broker.alarms().raise(Alarm::Memory);
    driven.method(2, consume(false));
    assert_eq!(driven.methods().len(), 2, "consume-ok and the delivery");
    driven.method(2, ack(1, false));
    driven.method(2, basic::Qos::default());
    assert_eq!(driven.methods(), [basic::QosOk {}.into()]);
}

/// A server that stops can still say goodbye to a blocked client, and hears its answer.
#[test]
fn a_blocked_connection_can_be_closed() {
    let mut driven = told(0);
    driven.broker.alarms().raise(Alarm::Memory);
    driven.publish(1, 1);
    driven.sent();
    driven.session.handle_shutdown(driven.now);
    assert_eq!(driven.connection_close().0, 320);
    assert!(driven.session.wants_bytes());
    driven.method(0, connection::CloseOk {});
    assert!(driven.session.is_closed());
    assert_eq!(driven.ready_count(), 0, "what waited is dropped");
}
