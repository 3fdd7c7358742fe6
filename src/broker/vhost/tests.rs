//! What clients may do in a vhost, driven without frames. Texts are held against RabbitMQ's recorded ones.

use std::sync::Arc;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue};
use crate::amqp::header::Properties;
use crate::amqp::reply::ReplyCode;

use super::super::tests::kit::{Client, Flag, broker, inline, owed, texts_of};
use super::super::{
    AckMode, Broker, BrokerLimits, Error, Name, Permissions, PublishOutcome, Settle,
};

const NONE: FieldTable = FieldTable::EMPTY;
const ROUTED: PublishOutcome = PublishOutcome::Routed { wait_for: None };

fn check_refused<T: std::fmt::Debug>(result: Result<T, Error>, code: ReplyCode, text: &str) {
    let error = result.expect_err(text);
    assert_eq!(
        (error.reply_code(), error.to_string().as_str()),
        (code, text)
    );
}

fn argument(name: &'static str, value: impl Into<FieldValue>) -> FieldTable {
    FieldTable::from([(name, value.into())])
}

#[test]
fn a_redeclared_queue_must_be_the_same() {
    let client = Client::new(&broker());
    let arguments = argument("x-message-ttl", 60_000);
    client
        .declare_with("q", &[Flag::Durable], arguments)
        .unwrap();
    client
        .declare_with("q", &[Flag::Durable], argument("x-message-ttl", 60_000_i64))
        .unwrap();
    client.declare("q", &[Flag::Passive]).unwrap();
    check_refused(
        client.declare_with("q", &[Flag::AutoDelete], NONE),
        ReplyCode::PreconditionFailed,
        "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'",
    );
    check_refused(
        client.declare("q", &[Flag::Durable]),
        ReplyCode::PreconditionFailed,
        "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is \
         the value '60000' of type 'signedint'",
    );
    check_refused(
        client.declare_with("q", &[Flag::Durable], argument("x-message-ttl", 60_001)),
        ReplyCode::PreconditionFailed,
        "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '60001' but current \
         is '60000'",
    );
    check_refused(
        client.declare("nope", &[Flag::Passive]),
        ReplyCode::NotFound,
        "no queue 'nope' in vhost '/'",
    );
}

#[test]
fn arguments_that_cannot_be_are_refused_in_rabbitmqs_words() {
    let client = Client::new(&broker());
    for (arguments, problem) in [
        (argument("x-message-ttl", -1), "{value_negative,-1}"),
        (
            argument("x-message-ttl", "1"),
            "\"expected integer, got longstr\"",
        ),
        (argument("x-expires", 0), "{value_zero,0}"),
        (argument("x-max-priority", 256), "{max_value_exceeded,256}"),
        (argument("x-overflow", "spill"), "invalid_overflow"),
        (
            argument("x-dead-letter-routing-key", "k"),
            "routing_key_but_no_dlx_defined",
        ),
        (
            argument("x-single-active-consumer", "yes"),
            "{unacceptable_type,longstr}",
        ),
        (
            argument("x-queue-type", "no-such"),
            "\"unsupported queue type 'no-such'\"",
        ),
        (
            argument("x-delivery-limit", 3),
            "of queue type rabbit_classic_queue",
        ),
    ] {
        let error = client.declare_with("q", &[], arguments).expect_err(problem);
        assert_eq!(error.reply_code(), ReplyCode::PreconditionFailed);
        let error = error.to_string();
        assert!(error.starts_with("invalid arg 'x-"), "{error}");
        assert!(error.contains(" for queue 'q' in vhost '/'"), "{error}");
        assert!(error.ends_with(problem), "{error}");
    }
    client
        .declare_with("q", &[], argument("x-message-ttl", 0))
        .unwrap();
    client
        .declare_with("other", &[], argument("x-unknown", "anything"))
        .unwrap();
}

#[test]
fn names_that_begin_with_amq_are_the_brokers() {
    let client = Client::new(&broker());
    check_refused(
        client.declare("amq.q", &[]),
        ReplyCode::AccessRefused,
        "queue name 'amq.q' contains reserved prefix 'amq.*'",
    );
    check_refused(
        client.exchange("amq.x", "direct", &[], NONE),
        ReplyCode::AccessRefused,
        "exchange name 'amq.x' contains reserved prefix 'amq.*'",
    );
    client
        .exchange("amq.direct", "direct", &[Flag::Durable], NONE)
        .unwrap();
    check_refused(
        client.delete_exchange("amq.fanout"),
        ReplyCode::AccessRefused,
        "deletion of system exchange 'amq.fanout' in vhost '/' not allowed",
    );
    let made = client.declare("", &[]).unwrap();
    assert!(made.name.as_bytes().starts_with(b"amq.gen-"));
    assert_eq!(made.name.as_bytes().len(), 30);
}

#[test]
fn the_default_exchange_is_not_for_touching() {
    let client = Client::new(&broker());
    client.declare("q", &[]).unwrap();
    for refused in [
        client.exchange("", "direct", &[], NONE),
        client.exchange("", "direct", &[Flag::Passive], NONE),
        client.delete_exchange(""),
        client.bind("", "q", "k"),
        client.unbind("", "q", "k"),
        client.bind_exchange("amq.direct", "", "k"),
    ] {
        check_refused(
            refused,
            ReplyCode::AccessRefused,
            "operation not permitted on the default exchange",
        );
    }
}

#[test]
fn exclusive_queues_are_their_connections_and_go_with_it() {
    let broker = broker();
    let mut owner = Client::new(&broker);
    let mut other = Client::new(&broker);
    owner.declare("q", &[Flag::Exclusive]).unwrap();
    let locked = "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
                  originally declared on another connection or the exclusive property value does not \
                  match that of the original declaration.";
    check_refused(
        other.declare("q", &[Flag::Passive]),
        ReplyCode::ResourceLocked,
        locked,
    );
    check_refused(
        other.consume("q", "tag", 0),
        ReplyCode::ResourceLocked,
        locked,
    );
    check_refused(
        other.bind("amq.fanout", "q", ""),
        ReplyCode::ResourceLocked,
        locked,
    );
    check_refused(other.delete_queue("q"), ReplyCode::ResourceLocked, locked);
    check_refused(owner.declare("q", &[]), ReplyCode::ResourceLocked, locked);
    assert_eq!(other.publish("", "q", "from elsewhere"), ROUTED);
    owner
        .vhost()
        .disconnect(&owner.connection, owner.now, &mut owner.wakes)
        .unwrap();
    assert!(other.vhost().queue(b"q").is_none());
    assert_eq!(other.publish("", "q", "x"), PublishOutcome::Unroutable);
}

#[test]
fn nothing_is_added_to_a_vhost_that_is_deleted() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q", &[]).unwrap();
    client.consume("q", "tag", 0).unwrap();
    assert!(broker.delete_vhost(b"/", &mut client.wakes).unwrap());
    assert_eq!(client.drain_texts(), ["tag cancelled"]);
    // Even to somebody who still has rights.
    let (guest, vhost) = (Name::from("guest"), Name::from("/"));
    broker
        .users()
        .put_permissions(&guest, &vhost, Permissions::all())
        .unwrap();
    for refused in [
        client.declare("late", &[]).map(|_| ()),
        client.exchange("late", "direct", &[], NONE),
    ] {
        check_refused(refused, ReplyCode::NotAllowed, "vhost / not found");
    }
    assert!(client.vhost().queues().is_empty());
    assert!(!broker.delete_vhost(b"/", &mut client.wakes).unwrap());
}

#[test]
fn limits_are_told_as_rabbitmq_does() {
    let mut settings = super::super::tests::kit::settings();
    settings.limits = BrokerLimits {
        queues_per_vhost_max: 1,
        bindings_per_vhost_max: 1,
        consumers_per_queue_max: 1,
        vhosts_max: 1,
        ..BrokerLimits::default()
    };
    let broker = Broker::open(settings, None, None).unwrap();
    let mut client = Client::new(&broker);
    client.declare("q", &[]).unwrap();
    let code = ReplyCode::PreconditionFailed;
    check_refused(
        client.declare("r", &[]),
        code,
        "cannot declare queue 'r': queue limit in vhost '/' (1) is reached",
    );
    client.declare("q", &[]).unwrap();
    client.bind("amq.fanout", "q", "").unwrap();
    check_refused(
        client.bind("amq.fanout", "q", "k"),
        code,
        "cannot declare queue 'q': binding limit in vhost '/' (1) is reached",
    );
    client.consume("q", "one", 0).unwrap();
    check_refused(
        client.consume("q", "two", 0),
        code,
        "cannot declare queue 'q': consumer limit in vhost '/' (1) is reached",
    );
    check_refused(
        broker.create_vhost(&Name::from("other")),
        ReplyCode::NotAllowed,
        "cannot create vhost 'other': vhost limit of 1 is reached",
    );
}

#[test]
fn queues_that_are_gone_still_count_and_are_not_kept() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("stays", &[]).unwrap();
    for _ in 0..100 {
        client.declare("q", &[Flag::Exclusive]).unwrap();
        client.publish("", "q", "x");
        client.delete_queue("q").unwrap();
    }
    client.publish("", "q", "for nobody");
    client.publish("", "stays", "x");
    let vhost = client.vhost();
    assert_eq!(vhost.counts().published, 101);
    assert_eq!(vhost.unroutable_count(), 1);
    assert!(client.connection.exclusive_queues.lock().len() < 10);
}

#[test]
fn a_message_reaches_each_queue_once_whatever_leads_there() {
    let mut client = Client::new(&broker());
    for queue in ["q", "other"] {
        client.declare(queue, &[]).unwrap();
    }
    for exchange in ["a", "b", "c"] {
        client.exchange(exchange, "fanout", &[], NONE).unwrap();
        client.bind(exchange, "q", "").unwrap();
        client.bind(exchange, "q", "another key").unwrap();
    }
    // A circle, and a way across it.
    for (source, target) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")] {
        client.bind_exchange(source, target, "").unwrap();
    }
    client.bind("c", "other", "").unwrap();
    client.publish("a", "k", "x");
    assert_eq!(client.take_all("q"), ["x"]);
    assert_eq!(client.take_all("other"), ["x"]);
}

/// What a channel remembers must not outlive what it is about.
#[test]
fn a_remembered_route_follows_every_change() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q", &[]).unwrap();
    client.declare("r", &[]).unwrap();
    client.exchange("x", "topic", &[], NONE).unwrap();
    client.exchange("behind", "direct", &[], NONE).unwrap();
    let publish = |client: &mut Client| {
        let outcome = client.publish("x", "a.b", "m");
        (
            client.take_all("q").len(),
            client.take_all("r").len(),
            outcome,
        )
    };
    assert_eq!(publish(&mut client), (0, 0, PublishOutcome::Unroutable));
    client.bind("x", "q", "a.*").unwrap();
    assert_eq!(publish(&mut client), (1, 0, ROUTED));
    assert_eq!(publish(&mut client), (1, 0, ROUTED));
    client.bind_exchange("x", "behind", "#").unwrap();
    client.bind("behind", "r", "a.b").unwrap();
    assert_eq!(publish(&mut client), (1, 1, ROUTED));
    client.unbind("x", "q", "a.*").unwrap();
    assert_eq!(publish(&mut client), (0, 1, ROUTED));
    client.delete_queue("r").unwrap();
    client.declare("r", &[]).unwrap();
    assert_eq!(publish(&mut client), (0, 0, PublishOutcome::Unroutable));
    // The default exchange goes by queue names alone.
    assert_eq!(client.publish("", "later", "m"), PublishOutcome::Unroutable);
    client.declare("later", &[]).unwrap();
    assert_eq!(client.publish("", "later", "m"), ROUTED);
    // And rights are asked again when they change.
    let rights = Permissions::new(".*", "^$", ".*").unwrap();
    let guest = Name::from("guest");
    broker
        .users()
        .put_permissions(&guest, &Name::from("/"), rights)
        .unwrap();
    let refused = client.publish_with("", "later", Properties::default(), inline("m"));
    check_refused(
        refused,
        ReplyCode::AccessRefused,
        "access to exchange 'amq.default' in vhost '/' refused for user 'guest'",
    );
    client.delete_exchange("x").expect("configuring is allowed");
}

#[test]
fn channels_remember_many_routes_at_once() {
    let mut client = Client::new(&broker());
    let names: Vec<_> = (0..100).map(|number| format!("q{number}")).collect();
    for name in &names {
        client.declare(name, &[]).unwrap();
    }
    for _ in 0..3 {
        for name in &names {
            client.publish("", name, name);
        }
    }
    for name in &names {
        assert_eq!(client.take_all(name), [name.as_str(); 3]);
    }
}

#[test]
fn auto_delete_exchanges_go_with_the_last_binding_from_them_and_so_on() {
    let mut client = Client::new(&broker());
    client.declare("q", &[]).unwrap();
    for exchange in ["first", "second", "never bound"] {
        client
            .exchange(exchange, "fanout", &[Flag::AutoDelete], NONE)
            .unwrap();
    }
    client.bind_exchange("first", "second", "").unwrap();
    client.bind("second", "q", "").unwrap();
    client.bind("second", "q", "twice").unwrap();
    client.unbind("second", "q", "twice").unwrap();
    assert!(client.vhost().exchange(b"second").is_some());
    client.delete_queue("q").unwrap();
    assert!(client.vhost().exchange(b"second").is_none());
    assert!(client.vhost().exchange(b"first").is_none());
    assert!(client.vhost().exchange(b"never bound").is_some());
    assert!(client.vhost().bindings().is_empty());
}

#[test]
fn what_no_binding_wants_goes_to_the_alternate_exchange() {
    let mut client = Client::new(&broker());
    client.declare("q", &[]).unwrap();
    client.declare("rest", &[]).unwrap();
    let alternate = argument("alternate-exchange", "amq.fanout");
    client.exchange("x", "direct", &[], alternate).unwrap();
    client.bind("x", "q", "k").unwrap();
    client.bind("amq.fanout", "rest", "").unwrap();
    client.publish("x", "k", "wanted");
    client.publish("x", "other", "not wanted");
    assert_eq!(client.take_all("q"), ["wanted"]);
    assert_eq!(client.take_all("rest"), ["not wanted"]);
}

#[test]
fn internal_exchanges_take_messages_from_exchanges_only() {
    let mut client = Client::new(&broker());
    client.declare("q", &[]).unwrap();
    client
        .exchange("inner", "fanout", &[Flag::Internal], NONE)
        .unwrap();
    client.bind("inner", "q", "").unwrap();
    client.bind_exchange("amq.fanout", "inner", "").unwrap();
    let refused = client.publish_with("inner", "", Properties::default(), inline("x"));
    check_refused(
        refused,
        ReplyCode::AccessRefused,
        "cannot publish to internal exchange 'inner' in vhost '/'",
    );
    client.publish("amq.fanout", "", "through");
    assert_eq!(client.take_all("q"), ["through"]);
}

#[test]
fn copies_go_where_cc_and_bcc_say_and_bcc_does_not_show() {
    let mut client = Client::new(&broker());
    for queue in ["to", "cc", "bcc"] {
        client.declare(queue, &[]).unwrap();
    }
    let list = |name: &str| FieldArray::from_iter([FieldValue::from(name)]);
    let headers = FieldTable::from([
        ("CC", FieldValue::from(list("cc"))),
        ("BCC", FieldValue::from(list("bcc"))),
        ("kept", FieldValue::from(1)),
    ]);
    let properties = Properties {
        headers: Some(headers),
        ..Properties::default()
    };
    let published = client
        .publish_with("", "to", properties, inline("x"))
        .unwrap();
    let expected = Properties {
        headers: Some(FieldTable::from([
            ("CC", FieldValue::from(list("cc"))),
            ("kept", FieldValue::from(1)),
        ])),
        ..Properties::default()
    };
    assert_eq!(published.message.header(), expected.encode());
    for queue in ["to", "cc", "bcc"] {
        let got = client.get(queue, AckMode::Automatic).expect("a copy");
        assert_eq!(got.message.routing_key(), b"to");
        assert_eq!(got.message.header(), expected.encode());
    }
    let wrong = Properties {
        headers: Some(argument("CC", "cc")),
        ..Properties::default()
    };
    check_refused(
        client.publish_with("", "to", wrong, inline("x")),
        ReplyCode::PreconditionFailed,
        "invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
    );
}

#[test]
fn conditions_of_a_delete_look_at_waiting_messages_first() {
    let mut client = Client::new(&broker());
    client.declare("q", &[]).unwrap();
    client.consume("q", "tag", 1).unwrap();
    client.publish("", "q", "out");
    client.publish("", "q", "waits");
    let delete = |client: &mut Client, if_unused, if_empty| {
        let delete = super::QueueDelete {
            name: b"q",
            if_unused,
            if_empty,
        };
        let vhost = client.vhost();
        vhost.queue_delete(&client.connection, &delete, &mut client.wakes)
    };
    let code = ReplyCode::PreconditionFailed;
    check_refused(
        delete(&mut client, true, true),
        code,
        "queue 'q' in vhost '/' not empty",
    );
    check_refused(
        delete(&mut client, true, false),
        code,
        "queue 'q' in vhost '/' in use",
    );
    assert_eq!(delete(&mut client, false, false).unwrap(), 1);
    assert_eq!(client.drain_texts(), ["tag:out", "tag cancelled"]);
    assert_eq!(
        delete(&mut client, true, true).unwrap(),
        0,
        "it is gone already"
    );
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut client = Client::new(&broker());
    client.declare("q", &[Flag::AutoDelete]).unwrap();
    client.publish("", "q", "x");
    assert_eq!(client.take_all("q"), ["x"], "fetching is not consuming");
    let one = client.consume("q", "one", 0).unwrap();
    let two = client.consume("q", "two", 0).unwrap();
    let vhost = client.vhost();
    vhost.cancel(&one, client.now, &mut client.wakes).unwrap();
    assert!(vhost.queue(b"q").is_some());
    vhost.cancel(&two, client.now, &mut client.wakes).unwrap();
    assert!(vhost.queue(b"q").is_none());
    vhost.cancel(&two, client.now, &mut client.wakes).unwrap();
}

#[test]
fn consumers_take_turns_within_their_prefetch() {
    let mut client = Client::new(&broker());
    client.declare("q", &[]).unwrap();
    client.consume("q", "one", 2).unwrap();
    client.consume("q", "two", 2).unwrap();
    for body in ["a", "b", "c", "d", "e"] {
        client.publish("", "q", body);
    }
    let items = client.drain();
    let texts: Vec<_> = items.iter().flat_map(texts_of).collect();
    assert_eq!(texts, ["one:a", "two:b", "one:c", "two:d"]);
    let (_, second) = owed(&items)[1];
    client
        .queue("q")
        .settle(&[second], Settle::Requeue, client.now, &mut client.wakes);
    // It goes back before what waited all the time.
    assert_eq!(client.drain_texts(), ["two:b"]);
    assert_eq!(client.queue("q").depth().ready_count, 1);
}

#[test]
fn a_closed_channel_gives_back_what_it_had_to_the_others() {
    let broker = broker();
    let mut leaving = Client::new(&broker);
    let mut staying = Client::new(&broker);
    leaving.declare("q", &[]).unwrap();
    let consumer = leaving.consume("q", "leaving", 0).unwrap();
    for body in ["a", "b"] {
        leaving.publish("", "q", body);
    }
    let items = leaving.drain();
    let unsettled = owed(&items);
    leaving.publish("", "q", "never taken from the outbox");
    staying.consume("q", "staying", 0).unwrap();
    let vhost = leaving.vhost();
    vhost
        .close_channel(
            &leaving.connection,
            1,
            &[consumer],
            &unsettled,
            leaving.now,
            &mut leaving.wakes,
        )
        .unwrap();
    assert_eq!(leaving.drain_texts(), [""; 0]);
    let expected = [
        "staying:a",
        "staying:b",
        "staying:never taken from the outbox",
    ];
    assert_eq!(staying.drain_texts(), expected);
}

#[test]
fn a_vhost_has_the_predeclared_exchanges() {
    let client = Client::new(&broker());
    let mut names: Vec<_> = client
        .vhost()
        .exchanges()
        .iter()
        .map(|exchange| format!("{}:{}", exchange.name(), exchange.kind()))
        .collect();
    names.sort();
    let expected = [
        ":direct",
        "amq.direct:direct",
        "amq.fanout:fanout",
        "amq.headers:headers",
        "amq.match:headers",
        "amq.rabbitmq.event:topic",
        "amq.rabbitmq.trace:topic",
        "amq.topic:topic",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_vhost_is_opened_by_who_has_rights_in_it() {
    let broker = broker();
    broker.create_vhost(&Name::from("closed")).unwrap();
    let client = Client::new(&broker);
    let waker = || Arc::new(super::super::tests::kit::NoWaker);
    let user = client.connection.user();
    check_refused(
        broker.connect(user, b"no-such-vhost", waker()),
        ReplyCode::NotAllowed,
        "vhost no-such-vhost not found",
    );
    check_refused(
        broker.connect(user, b"closed", waker()),
        ReplyCode::NotAllowed,
        "access to vhost 'closed' refused for user 'guest'",
    );
}
