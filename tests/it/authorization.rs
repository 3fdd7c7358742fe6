//! RELIABILITY T17 for AMQP: every method with every right that it needs, and without each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::header::Properties;
use warren::amqp::method::{Method, basic, channel, confirm, connection, exchange, queue, tx};
use warren::broker::{
    Name, PasswordHash, Permissions, Token, TokenAuthority, TokenError, TopicPermissions,
};

use crate::broker::Own;
use crate::wire::{Client, Event, Opening};

/// A right, as a permission's pattern gives it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Right {
    Configure,
    Write,
    Read,
}
use Right::{Configure, Read, Write};

/// One use of a method, and all rights without any of which it must be refused.
struct Case {
    what: &'static str,
    method: Method,
    rights: &'static [(Right, &'static str)],
}

fn name(text: &'static str) -> ShortString {
    ShortString::from_static(text)
}

fn case(
    what: &'static str,
    method: impl Into<Method>,
    rights: &'static [(Right, &'static str)],
) -> Case {
    Case {
        what,
        method: method.into(),
        rights,
    }
}

/// Every method that touches a queue or an exchange, in each way that asks for other rights.
fn cases() -> Vec<Case> {
    let argument = |key, value: &'static str| FieldTable::from([(key, FieldValue::from(value))]);
    let new_exchange = || exchange::Declare {
        exchange: name("new-exchange"),
        kind: name("fanout"),
        ..exchange::Declare::default()
    };
    let new_queue = || queue::Declare {
        queue: name("new-queue"),
        ..queue::Declare::default()
    };
    let publish = |exchange| basic::Publish {
        exchange: name(exchange),
        routing_key: name("queue"),
        ..basic::Publish::default()
    };
    vec![
        case(
            "exchange.declare",
            new_exchange(),
            &[(Configure, "new-exchange")],
        ),
        case(
            "exchange.declare, with an alternate",
            exchange::Declare {
                arguments: argument("alternate-exchange", "source"),
                ..new_exchange()
            },
            &[
                (Configure, "new-exchange"),
                (Read, "new-exchange"),
                (Write, "source"),
            ],
        ),
        case(
            "exchange.declare, passive",
            exchange::Declare {
                exchange: name("source"),
                passive: true,
                ..exchange::Declare::default()
            },
            &[],
        ),
        case(
            "exchange.delete",
            exchange::Delete {
                exchange: name("source"),
                ..exchange::Delete::default()
            },
            &[(Configure, "source")],
        ),
        case(
            "exchange.bind",
            exchange::Bind {
                destination: name("destination"),
                source: name("source"),
                ..exchange::Bind::default()
            },
            &[(Write, "destination"), (Read, "source")],
        ),
        case(
            "exchange.unbind",
            exchange::Unbind {
                destination: name("destination"),
                source: name("source"),
                ..exchange::Unbind::default()
            },
            &[(Write, "destination"), (Read, "source")],
        ),
        case("queue.declare", new_queue(), &[(Configure, "new-queue")]),
        case(
            "queue.declare, with dead letters",
            queue::Declare {
                arguments: argument("x-dead-letter-exchange", "source"),
                ..new_queue()
            },
            &[
                (Configure, "new-queue"),
                (Read, "new-queue"),
                (Write, "source"),
            ],
        ),
        case(
            "queue.declare, passive",
            queue::Declare {
                queue: name("queue"),
                passive: true,
                ..queue::Declare::default()
            },
            &[],
        ),
        case(
            "queue.bind",
            queue::Bind {
                queue: name("queue"),
                exchange: name("source"),
                ..queue::Bind::default()
            },
            &[(Write, "queue"), (Read, "source")],
        ),
        case(
            "queue.unbind",
            queue::Unbind {
                queue: name("queue"),
                exchange: name("source"),
                ..queue::Unbind::default()
            },
            &[(Write, "queue"), (Read, "source")],
        ),
        case(
            "queue.purge",
            queue::Purge {
                queue: name("queue"),
                ..queue::Purge::default()
            },
            &[(Read, "queue")],
        ),
        case(
            "queue.delete",
            queue::Delete {
                queue: name("queue"),
                ..queue::Delete::default()
            },
            &[(Configure, "queue")],
        ),
        case("basic.publish", publish("source"), &[(Write, "source")]),
        case(
            "basic.publish, to the default exchange",
            publish(""),
            &[(Write, "amq.default")],
        ),
        case(
            "basic.consume",
            basic::Consume {
                queue: name("queue"),
                ..basic::Consume::default()
            },
            &[(Read, "queue")],
        ),
        case(
            "basic.get",
            basic::Get {
                queue: name("queue"),
                no_ack: true,
            },
            &[(Read, "queue")],
        ),
        // These touch the channel alone.
        case("basic.qos", basic::Qos::default(), &[]),
        case(
            "basic.cancel",
            basic::Cancel {
                consumer_tag: name("none"),
                no_wait: false,
            },
            &[],
        ),
        case("basic.recover", basic::Recover { requeue: true }, &[]),
        case(
            "basic.recover-async",
            basic::RecoverAsync { requeue: true },
            &[],
        ),
        case("channel.flow", channel::Flow { active: true }, &[]),
        case("confirm.select", confirm::Select { no_wait: false }, &[]),
        case("tx.select", tx::Select {}, &[]),
    ]
}

/// Methods that no permission is asked for, with the reason; each has its tests elsewhere.
const WITHOUT_RIGHTS: [(&str, &str); 16] = [
    (
        "access.request",
        "an old protocol's; grants a ticket that nobody looks at",
    ),
    (
        "basic.ack",
        "names a delivery, which came by the right to read",
    ),
    (
        "basic.nack",
        "names a delivery, which came by the right to read",
    ),
    (
        "basic.reject",
        "names a delivery, which came by the right to read",
    ),
    ("channel.close", "ends the channel"),
    ("channel.close-ok", "an answer"),
    ("channel.flow-ok", "an answer"),
    ("channel.open", "a vhost that is open has channels"),
    ("connection.close", "ends the connection"),
    ("connection.close-ok", "an answer"),
    ("connection.open", "asks for any right in the vhost"),
    ("connection.secure-ok", "an answer that is never asked for"),
    ("connection.start-ok", "is the login"),
    ("connection.tune-ok", "an answer"),
    ("connection.update-secret", "the login again"),
    ("tx.commit", "what it commits was allowed before"),
];
/// Refused as any method behind `tx.select` alone.
const OF_TRANSACTIONS: [&str; 1] = ["tx.rollback"];

/// A pattern that matches these names alone.
fn pattern<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| name.replace('.', "\\.")).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("^({})$", names.join("|")),
    }
}

fn permissions(rights: &BTreeSet<(Right, &str)>) -> Permissions {
    let of = |wanted| {
        let names = rights.iter().filter(move |(right, _)| *right == wanted);
        pattern(names.map(|(_, name)| *name))
    };
    Permissions::new(&of(Configure), &of(Write), &of(Read)).expect("plain patterns")
}

/// The broker, and somebody whose rights change.
struct Trial {
    own: Own,
    keeper: Client,
    login: Login,
}

/// Where somebody's rights come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Login {
    Account,
    Token,
}

/// Takes somebody's password for a token with these scopes.
#[derive(Debug)]
struct Scopes(Vec<String>);

impl TokenAuthority for Scopes {
    fn verify(&self, token: &[u8]) -> Option<Result<Token, TokenError>> {
        (token == b"secret").then(|| {
            Ok(Token {
                user: NAME.to_owned(),
                scopes: self.0.clone(),
                expires_unix_s: None,
            })
        })
    }
}

/// The scopes that give these rights, and one that only opens the vhost.
fn scopes(rights: &BTreeSet<(Right, &str)>) -> Vec<String> {
    let scope = |(right, name): &(Right, &str)| {
        let access = match right {
            Configure => "configure",
            Write => "write",
            Read => "read",
        };
        format!("{access}:%2F/{name}")
    };
    let open = std::iter::once("read:%2F/nothing-at-all".to_owned());
    rights.iter().map(scope).chain(open).collect()
}

const NAME: &str = "somebody";

/// How somebody logs in.
fn opening() -> Opening {
    Opening {
        user: NAME,
        password: "secret",
        ..Opening::default()
    }
}

impl Trial {
    fn new() -> Self {
        let own = Own::start(|_| {});
        let hash = PasswordHash::new(b"secret", [1, 2, 3, 4]);
        let users = own.broker().users();
        users
            .put_user(&Name::from(NAME), Some(hash), Vec::new())
            .expect("stored");
        let mut keeper = Client::connect(own.address());
        keeper.open(1);
        let login = Login::Account;
        Self { own, keeper, login }
    }

    /// Gives somebody these rights and no others.
    fn give(&self, rights: &BTreeSet<(Right, &str)>) {
        match self.login {
            Login::Account => self.allow(permissions(rights)),
            Login::Token => {
                // What the account may do gives a token nothing.
                self.allow(Permissions::all());
                let scopes = Arc::new(Scopes(scopes(rights)));
                let users = self.own.broker().users();
                users.set_token_authority(Some(scopes));
            }
        }
    }

    fn allow(&self, permissions: Permissions) {
        let users = self.own.broker().users();
        users
            .put_permissions(&Name::from(NAME), &Name::from("/"), permissions)
            .expect("stored");
    }

    /// What the methods touch is there, and what they make is not.
    fn prepare(&mut self) {
        for (exchange, kind) in [("source", "topic"), ("destination", "fanout")] {
            self.keeper.call(
                1,
                exchange::Declare {
                    exchange: name(exchange),
                    kind: name(kind),
                    ..exchange::Declare::default()
                },
            );
        }
        self.keeper.declare(
            1,
            queue::Declare {
                queue: name("queue"),
                ..queue::Declare::default()
            },
        );
        self.keeper.call(
            1,
            queue::Delete {
                queue: name("new-queue"),
                ..queue::Delete::default()
            },
        );
        self.keeper.call(
            1,
            exchange::Delete {
                exchange: name("new-exchange"),
                ..exchange::Delete::default()
            },
        );
    }

    /// Whether somebody with these rights may; a refusal has RabbitMQ's code and words.
    fn may(&mut self, method: &Method, rights: &BTreeSet<(Right, &str)>) -> bool {
        self.prepare();
        self.give(rights);
        let mut client = Client::connect_as(self.own.address(), &opening());
        client.open(1);
        match method {
            Method::BasicPublish(publish) => {
                client.publish_with(1, publish, &Properties::default(), b"body");
            }
            method => client.send(1, method.clone()),
        }
        // Its answer shows that what was before it went well.
        client.send(1, basic::Qos::default());
        let is_qos = matches!(method, Method::BasicQos(_));
        let mut answers_left = if is_qos { 2 } else { 1 };
        loop {
            match client.next_on(1) {
                Event::Method(1, Method::BasicQosOk(_)) => {
                    answers_left -= 1;
                    if answers_left == 0 {
                        return true;
                    }
                }
                Event::Method(1, Method::ChannelClose(close)) => {
                    assert_eq!(close.reply_code, 403, "{}", close.reply_text);
                    let text = close.reply_text.to_string();
                    assert!(text.starts_with("ACCESS_REFUSED - access to "), "{text}");
                    assert!(text.contains("refused for user 'somebody'"), "{text}");
                    return false;
                }
                Event::Method(1, _) | Event::Content(1, _) | Event::Heartbeat => {}
                other => panic!("{} is answered with {other:?}", method.name()),
            }
        }
    }
}

/// A method goes with exactly the rights of its row, and with none of them missing; nothing goes without any.
#[test]
fn every_method_asks_for_its_rights() {
    try_every_method(Login::Account);
}

/// The same with the scopes of a token, whatever the account of that name may do.
// req: OAUTH-1
// req: OAUTH-2
#[test]
fn every_method_asks_for_its_scopes() {
    try_every_method(Login::Token);
}

fn try_every_method(login: Login) {
    let mut trial = Trial::new();
    trial.login = login;
    for case in cases() {
        let all: BTreeSet<_> = case.rights.iter().copied().collect();
        assert!(
            trial.may(&case.method, &all),
            "{} with its rights",
            case.what
        );
        for missing in case.rights {
            let mut rest = all.clone();
            rest.remove(missing);
            let may = trial.may(&case.method, &rest);
            assert!(!may, "{} without {missing:?}", case.what);
        }
        let may = trial.may(&case.method, &BTreeSet::new());
        assert_eq!(may, case.rights.is_empty(), "{} without rights", case.what);
    }
}

/// No method of a client is missing from the table: a new one must say what it asks for.
#[test]
fn the_table_of_rights_has_every_method() {
    let in_table: BTreeSet<_> = cases().iter().map(|case| case.method.name()).collect();
    let excepted: BTreeMap<_, _> = WITHOUT_RIGHTS.into_iter().collect();
    let from_server = |name: &str| {
        let answers = name.ends_with("-ok") || name.ends_with("-empty");
        let others = [
            "basic.deliver",
            "basic.return",
            "connection.start",
            "connection.secure",
            "connection.tune",
            "connection.blocked",
            "connection.unblocked",
        ];
        answers || others.contains(&name)
    };
    for (_, _, name) in Method::ALL {
        let is_known = in_table.contains(name)
            || excepted.contains_key(name)
            || OF_TRANSACTIONS.contains(name)
            || from_server(name);
        assert!(is_known, "{name} is in no table of rights");
    }
}

/// Without any right in a vhost it does not open, wherever else there are rights.
#[test]
fn a_vhost_without_a_right_does_not_open() {
    let trial = Trial::new();
    let other = Name::from("other");
    trial.own.broker().create_vhost(&other).expect("made");
    let users = trial.own.broker().users();
    for _ in 0..2 {
        let mut client = Client::raw(trial.own.address());
        client.greet();
        client.log_in(NAME, "secret");
        client.expect_method(0, "connection.tune");
        client.tune(&opening());
        let open = connection::Open {
            virtual_host: name("/"),
        };
        client.send(0, open);
        let text = client.expect_connection_close(530);
        assert_eq!(
            text,
            "NOT_ALLOWED - access to vhost '/' refused for user 'somebody'"
        );
        users
            .put_permissions(&Name::from(NAME), &other, Permissions::all())
            .expect("stored");
    }
}

/// Topic permissions are asked for on top, for publishing and for binding, at topic exchanges that have one.
#[test]
fn routing_keys_ask_for_their_rights() {
    let mut trial = Trial::new();
    let rights: BTreeSet<_> = [(Write, "source"), (Write, "queue"), (Read, "source")].into();
    let (user, vhost) = (Name::from(NAME), Name::from("/"));
    let topics = TopicPermissions::new("^w\\.", "^r\\.", NAME, "/").expect("patterns");
    let users = trial.own.broker().users();
    users
        .put_topic_permissions(&user, &vhost, &Name::from("source"), topics)
        .expect("stored");
    for (routing_key, may_write, may_read) in [("w.x", true, false), ("r.x", false, true)] {
        let publish = Method::from(basic::Publish {
            exchange: name("source"),
            routing_key: name(routing_key),
            ..basic::Publish::default()
        });
        assert_eq!(trial.may(&publish, &rights), may_write, "{routing_key}");
        let bind = Method::from(queue::Bind {
            queue: name("queue"),
            exchange: name("source"),
            routing_key: name(routing_key),
            ..queue::Bind::default()
        });
        assert_eq!(trial.may(&bind, &rights), may_read, "{routing_key}");
    }
}
