//! Brokers that stop, cleanly or not, and start again from what their journal kept.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::amqp::header::Properties;
use crate::journal::JournalSettings;
use crate::payload::{PayloadId, ScopeId};
use crate::testing::disk::{CrashVariant, SimDisk};

use super::super::tests::kit::{Client, Flag, inline, settings, start, text};
use super::super::*;
use super::*;

mod exchange_logs;
mod queue_keys;
mod streams;

/// Counts references, as the payload store does.
#[derive(Debug, Default)]
struct Counter(Mutex<HashMap<PayloadId, u32>>);

impl PayloadReferences for Counter {
    fn acquire(&self, _: ScopeId, id: &PayloadId) {
        *self.0.lock().entry(*id).or_insert(0) += 1;
    }

    fn acquire_known(&self, scope: ScopeId, id: &PayloadId) -> Option<u64> {
        let known = self.count(*id) > 0;
        known.then(|| {
            self.acquire(scope, id);
            0
        })
    }

    fn release(&self, _: ScopeId, id: &PayloadId) {
        let mut counts = self.0.lock();
        let count = counts.get_mut(id).expect("released after acquired");
        *count -= 1;
    }

    fn store(&self, scope: ScopeId, _: u64, octets: &BodyOctets) -> Result<PayloadId, String> {
        let BodyOctets::Memory(octets) = octets else {
            return Err("there are no files here".to_owned());
        };
        let mut hasher = blake3::Hasher::new();
        octets.iter().for_each(|piece| _ = hasher.update(piece));
        let id = PayloadId::from_bytes(*hasher.finalize().as_bytes());
        self.acquire(scope, &id);
        Ok(id)
    }
}

impl Counter {
    fn count(&self, id: PayloadId) -> u32 {
        self.0.lock().get(&id).copied().unwrap_or(0)
    }
}

/// The calendar at the first start, in milliseconds since 1970.
pub(super) const STARTED_UNIX_MS: u64 = 1_700_000_000_000;

/// A broker on a simulated disk.
pub(super) struct Durable {
    disk: SimDisk,
    pub(super) journal: Journal,
    pub(super) broker: Arc<Broker>,
    counter: Arc<Counter>,
}

impl Durable {
    fn on(disk: SimDisk) -> Self {
        Self::on_at(disk, STARTED_UNIX_MS)
    }

    /// Starts at some time of the calendar.
    fn on_at(disk: SimDisk, started_unix_ms: u64) -> Self {
        let journal_settings = JournalSettings {
            segment_bytes: 64 << 10,
            free_bytes_min: 0,
            ..JournalSettings::default()
        };
        let opened = Journal::open(
            Arc::new(disk.clone()),
            Path::new("/journal"),
            journal_settings,
        );
        let (journal, recovered) = opened.expect("a whole journal");
        let counter = Arc::<Counter>::default();
        let references = Arc::clone(&counter) as Arc<dyn PayloadReferences>;
        let settings = BrokerSettings::new([7; 32], start(), started_unix_ms);
        let opened = Broker::open(
            settings,
            Some((journal.clone(), recovered)),
            Some(references),
        );
        Self {
            disk,
            journal,
            broker: opened.expect("records that were written"),
            counter,
        }
    }

    pub(super) fn new() -> Self {
        Self::on(SimDisk::new())
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.broker)
    }

    /// Stops as a server does, and starts again.
    fn restart(self) -> Self {
        self.restart_at(STARTED_UNIX_MS)
    }

    /// As [`Self::restart`], at another time of the calendar.
    pub(super) fn restart_at(self, started_unix_ms: u64) -> Self {
        self.broker.note_for_stop().expect("the journal is open");
        self.journal.close().expect("a disk that works");
        Self::on_at(self.disk, started_unix_ms)
    }

    /// Loses the power at once, with what is not synced torn somewhere, and starts again.
    pub(super) fn cut(self, seed: u64) -> Self {
        Self::on(self.disk.crash(CrashVariant::TornPrefix, seed))
    }

    /// Waits for what was written so far, then stops as a kill does, and starts again.
    pub(super) fn crash(self) -> Self {
        let last = self
            .journal
            .put_definition(b"none", None)
            .expect("the journal is open");
        self.journal.wait_durable(last).expect("a disk that works");
        Self::on(self.disk.crash(CrashVariant::LoseAll, 1))
    }
}

fn is_journalled(outcome: PublishOutcome) -> bool {
    match outcome {
        PublishOutcome::Routed { wait_for } => wait_for.is_some(),
        PublishOutcome::Rejected | PublishOutcome::Unroutable => panic!("it was routed"),
    }
}

/// The table of RELIABILITY section 1: what a confirm waits for, by kind of message and of queue.
#[test]
fn only_persistent_messages_in_durable_queues_wait_for_the_disk() {
    let durable = Durable::new();
    let mut client = durable.client();
    client.declare("durable", &[Flag::Durable]).unwrap();
    client.declare("transient", &[]).unwrap();
    client
        .declare("own", &[Flag::Durable, Flag::Exclusive])
        .unwrap();
    client
        .exchange("all", "fanout", &[], FieldTable::EMPTY)
        .unwrap();
    client.bind("all", "durable", "").unwrap();
    client.bind("all", "transient", "").unwrap();
    assert!(is_journalled(client.publish_persistent("", "durable", "x")));
    assert!(is_journalled(client.publish_persistent("all", "", "x")));
    assert!(!is_journalled(client.publish("", "durable", "x")));
    assert!(!is_journalled(client.publish("all", "", "x")));
    assert!(!is_journalled(client.publish_persistent(
        "",
        "transient",
        "x"
    )));
    // It ends with its connection, and so before any restart.
    assert!(!is_journalled(client.publish_persistent("", "own", "x")));
    assert_eq!(
        client.publish("", "nobody", "x"),
        PublishOutcome::Unroutable
    );
}

#[test]
fn persistent_messages_come_back_in_order_after_a_clean_stop() {
    let durable = Durable::new();
    let mut client = durable.client();
    client.declare("q", &[Flag::Durable]).unwrap();
    for body in ["a", "b", "c", "d"] {
        client.publish_persistent("", "q", body);
        client.publish("", "q", "transient");
    }
    // The first is settled for good, the second was seen and comes back.
    assert_eq!(client.take("q"), Some(("a".to_owned(), false)));
    assert_eq!(client.take("q"), Some(("transient".to_owned(), false)));
    let seen = client.get("q", AckMode::Manual).expect("b waits");
    assert_eq!(text(&seen.message), "b");
    drop(client);
    let client = durable.restart().client();
    let expected = [("b", true), ("c", false), ("d", false)];
    for (body, redelivered) in expected {
        assert_eq!(client.take("q"), Some((body.to_owned(), redelivered)));
    }
    assert_eq!(client.take("q"), None);
}

/// RELIABILITY section 1: `redelivered = false` means never handed to anybody, and a kill leaves no
/// note of who was.
#[test]
fn after_a_crash_every_message_counts_as_redelivered() {
    let durable = Durable::new();
    let mut client = durable.client();
    client.declare("q", &[Flag::Durable]).unwrap();
    for body in ["a", "b", "c"] {
        client.publish_persistent("", "q", body);
    }
    assert_eq!(client.take("q"), Some(("a".to_owned(), false)));
    let durable = durable.crash();
    let client = durable.client();
    assert_eq!(client.take("q"), Some(("b".to_owned(), true)));
    assert_eq!(client.take("q"), Some(("c".to_owned(), true)));
    assert_eq!(client.take("q"), None);
}

#[test]
fn each_queue_keeps_its_own_account_of_a_shared_message() {
    let durable = Durable::new();
    let mut client = durable.client();
    for queue in ["one", "two", "three"] {
        client.declare(queue, &[Flag::Durable]).unwrap();
        client.bind("amq.fanout", queue, "").unwrap();
    }
    client.publish_persistent("amq.fanout", "", "x");
    client.take("two");
    client
        .vhost()
        .queue_purge(&client.connection, b"three")
        .unwrap();
    let durable = durable.crash();
    let client = durable.client();
    let left = ["one", "two", "three"].map(|queue| client.take_all(queue).len());
    assert_eq!(left, [1, 0, 0]);
}

#[test]
fn what_was_rejected_dropped_or_sent_without_acknowledgement_does_not_come_back() {
    let durable = Durable::new();
    let mut client = durable.client();
    let bounded = |overflow: &str| {
        FieldTable::from([
            ("x-max-length", FieldValue::from(1)),
            ("x-overflow", FieldValue::from(overflow)),
        ])
    };
    client
        .declare_with("drops", &[Flag::Durable], bounded("drop-head"))
        .unwrap();
    client
        .declare_with("refuses", &[Flag::Durable], bounded("reject-publish"))
        .unwrap();
    client.declare("q", &[Flag::Durable]).unwrap();
    for body in ["a", "b"] {
        client.publish_persistent("", "drops", body);
        client.publish_persistent("", "refuses", body);
        client.publish_persistent("", "q", body);
    }
    let got = client.get("q", AckMode::Manual).expect("a waits");
    client
        .queue("q")
        .settle(&[got.seq], Settle::Discard, client.now, &mut client.wakes);
    let durable = durable.crash();
    let client = durable.client();
    assert_eq!(client.take_all("drops"), ["b"]);
    assert_eq!(client.take_all("refuses"), ["a"]);
    assert_eq!(client.take_all("q"), ["b"]);
}

#[test]
fn durable_topology_comes_back_and_nothing_else_does() {
    let durable = Durable::new();
    let mut client = durable.client();
    let arguments = FieldTable::from([("alternate-exchange", FieldValue::from("amq.fanout"))]);
    client
        .exchange("kept", "topic", &[Flag::Durable], arguments)
        .unwrap();
    client
        .exchange("lost", "topic", &[], FieldTable::EMPTY)
        .unwrap();
    client
        .exchange("deleted", "direct", &[Flag::Durable], FieldTable::EMPTY)
        .unwrap();
    client.declare("q", &[Flag::Durable]).unwrap();
    client.declare("passing", &[]).unwrap();
    client.declare("deleted", &[Flag::Durable]).unwrap();
    let headers = FieldTable::from([
        ("x-match", FieldValue::from("any")),
        ("k", FieldValue::from(1)),
    ]);
    client.bind("kept", "q", "a.#").unwrap();
    client.bind("kept", "q", "undone").unwrap();
    client.unbind("kept", "q", "undone").unwrap();
    client.bind("kept", "deleted", "a.#").unwrap();
    client.bind("lost", "q", "a.#").unwrap();
    client.bind("kept", "passing", "a.#").unwrap();
    client.bind_with("amq.headers", "q", "", &headers).unwrap();
    client.bind_exchange("amq.topic", "kept", "b.#").unwrap();
    client.bind("deleted", "q", "k").unwrap();
    client.delete_exchange("deleted").unwrap();
    client.publish_persistent("", "deleted", "gone");
    client.delete_queue("deleted").unwrap();

    let durable = durable.crash();
    let mut client = durable.client();
    let mut bindings: Vec<_> = client
        .vhost()
        .bindings()
        .iter()
        .map(|binding| format!("{}-{}", binding.source(), binding.destination().name))
        .collect();
    bindings.sort();
    assert_eq!(bindings, ["amq.headers-q", "amq.topic-kept", "kept-q"]);
    for gone in ["lost", "deleted"] {
        assert!(client.vhost().exchange(gone.as_bytes()).is_none(), "{gone}");
    }
    for gone in ["passing", "deleted"] {
        assert!(client.vhost().queue(gone.as_bytes()).is_none(), "{gone}");
    }
    let kept = client.vhost().exchange(b"kept").expect("it is durable");
    assert_eq!(kept.alternate(), Some(Name::from("amq.fanout")));
    client.publish("amq.topic", "b.c", "lost in kept");
    client.publish("kept", "a.b", "over kept");
    let properties = Properties {
        headers: Some(FieldTable::from([("k", FieldValue::from(1))])),
        ..Properties::default()
    };
    client
        .publish_with("amq.headers", "", properties, inline("over headers"))
        .unwrap();
    assert_eq!(client.take_all("q"), ["over kept", "over headers"]);
    // A queue of an old name is a new queue.
    client.declare("deleted", &[Flag::Durable]).unwrap();
    assert_eq!(client.take("deleted"), None);
    let second = durable.crash().client();
    assert_eq!(second.take("deleted"), None);
}

#[test]
fn accounts_and_vhosts_come_back() {
    let durable = Durable::new();
    let users = durable.broker.users();
    let vhost = durable.broker.create_vhost(&Name::from("other")).unwrap();
    let scope = vhost.scope();
    durable.broker.create_vhost(&Name::from("gone")).unwrap();
    let alice = Name::from("alice");
    let hash = PasswordHash::new(b"secret", [1, 2, 3, 4]);
    users
        .put_user(&alice, Some(hash), vec!["monitoring".to_owned()])
        .unwrap();
    for vhost in ["other", "gone"] {
        users
            .put_permissions(&alice, &Name::from(vhost), Permissions::all())
            .unwrap();
    }
    assert!(
        durable
            .broker
            .delete_vhost(b"gone", &mut Wakes::new())
            .unwrap()
    );
    users.delete_user(b"guest").unwrap();

    let durable = durable.crash();
    let users = durable.broker.users();
    let user = users
        .authenticate(b"alice", b"secret", Origin::Remote)
        .expect("she is kept");
    assert!(user.has_tag("monitoring"));
    assert!(users.user(b"guest").is_none(), "defaults are made once");
    assert_eq!(
        durable.broker.vhost(b"other").map(|vhost| vhost.scope()),
        Some(scope)
    );
    assert!(durable.broker.vhost(b"gone").is_none());
    assert_eq!(users.permissions(&alice, &Name::from("gone")), None);
    assert!(users.permissions(&alice, &Name::from("other")).is_some());
    let new = durable.broker.create_vhost(&Name::from("new")).unwrap();
    assert!(new.scope().get() > 3, "scopes are never used again");
}

#[test]
fn payloads_are_referred_to_as_long_as_a_message_names_them() {
    let durable = Durable::new();
    let mut client = durable.client();
    let id = PayloadId::from_bytes([9; 32]);
    for queue in ["one", "two"] {
        client.declare(queue, &[Flag::Durable]).unwrap();
        client.bind("amq.fanout", queue, "").unwrap();
    }
    let properties = || Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    };
    let body = Body::Payload(client.vhost().hold_payload(id, 10_000_000));
    drop(
        client
            .publish_with("amq.fanout", "", properties(), body)
            .unwrap(),
    );
    assert_eq!(
        durable.counter.count(id),
        1,
        "one message, whatever the number of queues"
    );
    let unroutable = Body::Payload(client.vhost().hold_payload(id, 10_000_000));
    drop(
        client
            .publish_with("amq.direct", "", properties(), unroutable)
            .unwrap(),
    );
    assert_eq!(durable.counter.count(id), 1);
    assert_eq!(client.queue("one").depth().ready_bytes, 10_000_000);

    let durable = durable.crash();
    let client = durable.client();
    assert!(durable.counter.count(id) > 0, "taken again");
    let got = client
        .get("one", AckMode::Automatic)
        .expect("it is durable");
    assert_eq!(text(&got.message), "payload of 10000000 bytes");
    assert!(
        durable.counter.count(id) > 0,
        "still queued, and on its way"
    );
    drop(got);
    client.take("two");
    assert_eq!(durable.counter.count(id), 0);
}

/// Whatever part of the first start's records a crash leaves, the next start completes them.
#[test]
fn first_start_that_was_cut_short_is_completed() {
    let open = |definitions: Vec<(Vec<u8>, Vec<u8>)>| {
        let settings_of_journal = JournalSettings {
            free_bytes_min: 0,
            ..JournalSettings::default()
        };
        let disk = Arc::new(SimDisk::new());
        let (journal, _) = Journal::open(disk, Path::new("/journal"), settings_of_journal).unwrap();
        let recovered = Recovered {
            definitions,
            ..Recovered::default()
        };
        Broker::open(settings(), Some((journal, recovered)), None).unwrap()
    };
    let vhost = |name: &str| {
        let record = VhostRecord {
            name: name.as_bytes().to_vec(),
            scope: 1,
        };
        let key = [&[b'1', 0, 1][..], name.as_bytes()].concat();
        (key, postcard::to_allocvec(&record).unwrap())
    };
    // The account is written last: as long as it is missing, the others may be there or not.
    for definitions in [vec![], vec![vhost("/")]] {
        let broker = open(definitions);
        let guest = broker
            .users()
            .authenticate(b"guest", b"guest", Origin::Loopback);
        assert!(guest.is_ok());
        let vhost = broker.vhost(b"/").expect("it is made, or was there");
        let rights = broker
            .users()
            .permissions(&Name::from("guest"), vhost.name());
        assert!(rights.is_some());
    }
}

/// Topic rights, limits, policies, parameters and what is said of vhosts are there again, and policies act
/// on the queues that were restored.
#[test]
fn rules_survive_a_crash() {
    use super::super::policy::{Definition, PolicyKind, PolicyValue};
    let durable = Durable::new();
    let mut client = durable.client();
    let (guest, vhost) = (Name::from("guest"), Name::from("/"));
    let users = durable.broker.users();
    let rights = TopicPermissions::new("^ok", ".*", "guest", "/").expect("patterns");
    users
        .put_topic_permissions(&guest, &vhost, &Name::from("amq.topic"), rights)
        .unwrap();
    let limits = Limits {
        channel_count_max: Some(3),
        ..Limits::default()
    };
    assert!(users.put_user_limits(b"guest", limits.clone()).unwrap());
    let definition = Definition::from([("max-length".to_owned(), PolicyValue::Integer(2))]);
    for (kind, name) in [(PolicyKind::User, "kept"), (PolicyKind::Operator, "gone")] {
        let policy = Policy::new(
            kind,
            &Name::from(name),
            "^q",
            "queues",
            -1,
            definition.clone(),
        );
        client
            .vhost()
            .put_policy(policy.unwrap(), client.now, &mut client.wakes)
            .unwrap();
    }
    client
        .vhost()
        .delete_policy(PolicyKind::Operator, b"gone", client.now, &mut client.wakes)
        .unwrap();
    let parameter = Parameter {
        vhost: None,
        component: String::new(),
        name: "cluster_name".to_owned(),
        value: "\"here\"".to_owned(),
    };
    durable.broker.parameters().put(parameter).unwrap();
    let described = client
        .vhost()
        .change_details(|details| details.tracing = true);
    described.unwrap();
    client.declare("q", &[Flag::Durable]).unwrap();
    drop(client);
    let durable = durable.crash();
    let mut client = durable.client();
    for body in ["a", "b", "c"] {
        client.publish("", "q", body);
    }
    assert_eq!(client.take_all("q"), ["b", "c"]);
    let kept = client.vhost().policies(PolicyKind::User);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].priority(), kept[0].pattern()), (-1, "^q"));
    assert!(client.vhost().policies(PolicyKind::Operator).is_empty());
    let users = durable.broker.users();
    assert_eq!(users.topic_permissions().len(), 1);
    assert_eq!(users.user(b"guest").unwrap().limits(), &limits);
    let value = durable.broker.parameters().get(None, "", "cluster_name");
    assert_eq!(value.as_deref(), Some("\"here\""));
    assert!(client.vhost().details().tracing);
}
