//! Rights of topics, and policies that change under queues and exchanges, in a whole broker.

use std::sync::Arc;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue};
use crate::amqp::header::Properties;
use crate::amqp::reply::ReplyCode;

use super::super::policy::{Definition, Policy, PolicyKind, PolicyValue};
use super::super::*;
use super::kit::{Client, broker, inline};

const NONE: FieldTable = FieldTable::EMPTY;

fn put(
    client: &mut Client,
    kind: PolicyKind,
    name: &str,
    to: &str,
    key: (&str, PolicyValue),
) -> Put {
    let definition = Definition::from([(key.0.to_owned(), key.1)]);
    let policy = Policy::new(kind, &Name::from(name), "^p", to, 0, definition).expect(name);
    let vhost = client.vhost();
    vhost
        .put_policy(policy, client.now, &mut client.wakes)
        .expect("in memory")
}

fn delete(client: &mut Client, kind: PolicyKind, name: &str) -> bool {
    let vhost = client.vhost();
    vhost
        .delete_policy(kind, name.as_bytes(), client.now, &mut client.wakes)
        .expect("in memory")
}

fn publish_all(client: &mut Client, queue: &str, bodies: &[&str]) {
    for body in bodies {
        client.publish("", queue, body);
    }
}

/// A policy changes queues that are there and queues that come, and what it did goes with it.
// req: POLICY-3
#[test]
fn a_policy_is_applied_live() {
    let mut client = Client::new(&broker());
    client.declare("p1", &[]).unwrap();
    client.declare("other", &[]).unwrap();
    for queue in ["p1", "other"] {
        publish_all(&mut client, queue, &["a", "b", "c"]);
    }
    let limit = ("max-length", PolicyValue::Integer(2));
    let created = put(
        &mut client,
        PolicyKind::User,
        "limit",
        "queues",
        limit.clone(),
    );
    assert_eq!(created, Put::Created);
    assert_eq!(client.queue("p1").depth().ready_count, 2);
    assert_eq!(client.queue("other").depth().ready_count, 3);
    client.declare("p2", &[]).unwrap();
    publish_all(&mut client, "p2", &["a", "b", "c"]);
    assert_eq!(client.take_all("p2"), ["b", "c"]);
    // Of the policy and the operator's the lower counts.
    let lower = ("max-length", PolicyValue::Integer(1));
    put(&mut client, PolicyKind::Operator, "op", "queues", lower);
    assert_eq!(client.take_all("p1"), ["c"]);
    let effective = client.vhost().queue_policy(&client.queue("p1"));
    assert_eq!(
        effective.definition().get("max-length"),
        Some(&PolicyValue::Integer(1))
    );
    assert!(delete(&mut client, PolicyKind::Operator, "op"));
    assert!(!delete(&mut client, PolicyKind::Operator, "op"));
    let replaced = put(&mut client, PolicyKind::User, "limit", "exchanges", limit);
    assert_eq!(replaced, Put::Replaced);
    publish_all(&mut client, "p2", &["a", "b", "c"]);
    assert_eq!(client.take_all("p2"), ["a", "b", "c"]);
}

/// Routes that channels remember do not outlive a policy that changes them.
#[test]
fn an_alternate_exchange_comes_and_goes_with_its_policy() {
    let mut client = Client::new(&broker());
    client.exchange("p", "direct", &[], NONE).unwrap();
    client.declare("q", &[]).unwrap();
    client.bind("amq.fanout", "q", "").unwrap();
    assert_eq!(client.publish("p", "k", "lost"), PublishOutcome::Unroutable);
    let alternate = (
        "alternate-exchange",
        PolicyValue::Text("amq.fanout".to_owned()),
    );
    put(&mut client, PolicyKind::User, "ae", "exchanges", alternate);
    client.publish("p", "k", "saved");
    client.exchange("p2", "direct", &[], NONE).unwrap();
    client.publish("p2", "k", "too");
    delete(&mut client, PolicyKind::User, "ae");
    assert_eq!(client.publish("p", "k", "lost"), PublishOutcome::Unroutable);
    assert_eq!(client.take_all("q"), ["saved", "too"]);
    // What the arguments say, no policy changes.
    let arguments = FieldTable::from([("alternate-exchange", FieldValue::from("nowhere"))]);
    client.exchange("p3", "direct", &[], arguments).unwrap();
    let alternate = (
        "alternate-exchange",
        PolicyValue::Text("amq.fanout".to_owned()),
    );
    put(&mut client, PolicyKind::User, "ae", "exchanges", alternate);
    assert_eq!(
        client.publish("p3", "k", "lost"),
        PublishOutcome::Unroutable
    );
}

/// Topic rights limit routing keys at their exchange only, for publishing and binding, and are asked again
/// when they change.
// req: RIGHT-2
#[test]
fn topic_rights_are_about_routing_keys() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q", &[]).unwrap();
    client.bind("amq.topic", "q", "#").unwrap();
    let (user, vhost) = (Name::from("guest"), Name::from("/"));
    let topic = Name::from("amq.topic");
    let publish = |client: &mut Client, key: &str, properties: Properties| {
        let published = client.publish_with("amq.topic", key, properties, inline("m"));
        published.map(|published| published.outcome)
    };
    publish(&mut client, "bad.a", Properties::default()).expect("no entry allows everything");
    let rights = TopicPermissions::new("^{username}\\.", "^ok", "guest", "/").expect("patterns");
    let users = broker.users();
    users
        .put_topic_permissions(&user, &vhost, &topic, rights)
        .expect("in memory");
    publish(&mut client, "guest.a", Properties::default()).expect("its own");
    let headers = FieldTable::from([(
        "CC",
        FieldValue::Array(FieldArray::from_iter([FieldValue::from("x")])),
    )]);
    let with_cc = Properties {
        headers: Some(headers),
        ..Properties::default()
    };
    for properties in [Properties::default(), with_cc] {
        let refused = publish(&mut client, "bad.a", properties).expect_err("not its own");
        assert_eq!(refused.reply_code(), ReplyCode::AccessRefused);
        assert_eq!(
            refused.to_string(),
            "access to topic 'bad.a' in exchange 'amq.topic' in vhost '/' refused for user 'guest'"
        );
    }
    client.bind("amq.topic", "q", "ok.#").unwrap();
    assert!(client.bind("amq.topic", "q", "bad").is_err());
    client.bind("amq.direct", "q", "bad").unwrap();
    let deleted = users.delete_topic_permissions(&user, &vhost, Some(&topic));
    assert!(deleted.expect("in memory"));
    publish(&mut client, "bad.a", Properties::default()).expect("allowed again");
}

/// Users and vhosts take along what is about them.
#[test]
fn rights_policies_and_parameters_go_with_their_vhost() {
    let broker = broker();
    let name = Name::from("v");
    let vhost = broker.create_vhost(&name).expect("in memory");
    let guest = Name::from("guest");
    let rights = TopicPermissions::new(".*", ".*", "guest", "v").expect("patterns");
    let users = broker.users();
    users
        .put_topic_permissions(&guest, &name, &Name::from("x"), rights)
        .expect("in memory");
    let parameter = Parameter {
        vhost: Some(name.clone()),
        component: "shovel".to_owned(),
        name: "s".to_owned(),
        value: "{}".to_owned(),
    };
    broker.parameters().put(parameter).expect("in memory");
    vhost
        .change_details(|details| details.description = "for tests".to_owned())
        .expect("in memory");
    assert_eq!(vhost.details().description, "for tests");
    let mut wakes = Wakes::new();
    assert!(broker.delete_vhost(b"v", &mut wakes).expect("in memory"));
    assert!(users.topic_permissions().is_empty());
    assert!(broker.parameters().all().is_empty());
    let again = broker.create_vhost(&name).expect("in memory");
    assert!(again.details().description.is_empty());
    let gone = Arc::downgrade(&vhost);
    drop(vhost);
    assert!(gone.upgrade().is_none());
}

/// Connections, channels and queues beyond a limit are refused with RabbitMQ's texts, and what goes makes room.
// req: RIGHT-3
#[test]
fn limits_of_users_and_vhosts_hold() {
    let broker = broker();
    let first = Client::new(&broker);
    let vhost = first.vhost();
    let set = |limits: Limits| {
        vhost
            .change_details(|details| details.limits = limits)
            .expect("in memory");
    };
    set(Limits {
        queue_count_max: Some(1),
        connection_count_max: Some(1),
        ..Limits::default()
    });
    first.declare("q", &[]).unwrap();
    let refused = first.declare("r", &[]).expect_err("one is enough");
    assert_eq!(
        refused.to_string(),
        "cannot declare queue 'r': queue limit in vhost '/' (1) is reached"
    );
    let user = broker.users().user(b"guest").expect("the default user");
    let connect = || broker.connect_client(&user, b"/", Arc::new(super::kit::NoWaker));
    let counted = connect().expect("the first that counts");
    let refused = connect().expect_err("one is enough");
    assert_eq!(refused.reply_code(), ReplyCode::NotAllowed);
    assert_eq!(
        refused.to_string(),
        "access to vhost '/' refused for user 'guest': connection limit (1) is reached"
    );
    drop(counted);
    let counted = connect().expect("there is room again");
    set(Limits::default());
    let limits = Limits {
        connection_count_max: Some(1),
        channel_count_max: Some(1),
        ..Limits::default()
    };
    broker
        .users()
        .put_user_limits(b"guest", limits)
        .expect("in memory");
    assert_eq!(
        connect().expect_err("one is enough").to_string(),
        "Connection refused for user 'guest': user connection limit (1) is reached"
    );
    let channel = counted.open_channel().expect("the first");
    assert_eq!(
        counted
            .open_channel()
            .expect_err("one is enough")
            .to_string(),
        "number of channels opened for user 'guest' has reached the maximum allowed user limit of (1)"
    );
    drop(channel);
    counted.open_channel().expect("there is room again");
}
