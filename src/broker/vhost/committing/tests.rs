//! Commits, whole or not at all, whenever the power fails.

use std::path::Path;

use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::broker::tests::kit::{Client, Flag, inline, settings};
use crate::broker::{AckMode, Body, Broker};
use crate::journal::{Journal, JournalSettings};
use crate::testing::disk::{CrashVariant, SimDisk};

use super::*;

fn open(disk: &SimDisk) -> (Journal, Arc<Broker>) {
    let journal_settings = JournalSettings {
        segment_bytes: 64 << 10,
        free_bytes_min: 0,
        ..JournalSettings::default()
    };
    let disk = Arc::new(disk.clone());
    let opened = Journal::open(disk, Path::new("/journal"), journal_settings);
    let (journal, recovered) = opened.expect("a whole journal");
    let state = Some((journal.clone(), recovered));
    let broker = Broker::open(settings(), state, None).expect("records that were written");
    (journal, broker)
}

fn prepare(client: &mut Client, queue: &str, body: Body) -> Prepared {
    let properties = Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    };
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: properties.encode(),
    };
    let publish = Publish {
        exchange: b"",
        routing_key: queue.as_bytes(),
        header: &content.raw,
        properties: &content.properties_ref().expect("just written"),
        body,
    };
    let vhost = client.vhost();
    let prepared = vhost.prepare(
        &client.connection,
        1,
        publish,
        client.now,
        &mut client.wakes,
    );
    prepared.expect("the default exchange takes it")
}

fn ready_counts(broker: &Broker) -> [usize; 2] {
    let vhost = broker.vhost(b"/").expect("never deleted");
    ["one", "two"].map(|name| {
        let queue = vhost.queue(name.as_bytes()).expect("declared before");
        queue.depth().ready_count
    })
}

/// Three messages are acknowledged and four published in one commit, whose records span more than one
/// write. Wherever the power fails, and whatever of the unsynced writes is left, a restart finds all of it
/// or nothing; and all of it once the journal said so.
// req: TX-2
#[test]
fn a_commit_is_there_as_a_whole_or_not_at_all() {
    let disk = SimDisk::new();
    let (journal, broker) = open(&disk);
    let mut client = Client::new(&broker);
    for queue in ["one", "two"] {
        client
            .declare(queue, &[Flag::Durable])
            .expect("a new queue");
    }
    for body in ["a", "b", "c"] {
        client.publish_persistent("", "one", body);
    }
    let last = journal.put_definition(b"none", None).expect("open");
    journal.wait_durable(last).expect("a disk that works");
    let seqs = (0..3).map(|_| client.get("one", AckMode::Manual).expect("a message").seq);
    let settlements = [Settlements {
        seqs: seqs.collect(),
        queue: client.queue("one"),
        how: Settle::Ack,
    }];
    disk.record();
    let prepared: Vec<_> = ["one", "two", "two", "two"]
        .into_iter()
        .map(|queue| prepare(&mut client, queue, inline(&"x".repeat(20_000))))
        .collect();
    let (vhost, now) = (client.vhost(), client.now);
    let committed = vhost.commit(prepared, &settlements, now, &mut client.wakes);
    let committed = committed.expect("the journal is open");
    assert!(is_whole(&committed.published));
    assert_eq!(ready_counts(&broker), [1, 3]);
    let wait_for = committed.wait_for.expect("it is in the journal");
    journal.wait_durable(wait_for).expect("a disk that works");
    let durable_at = disk.recorded_len();
    let history = disk.history();
    let (mut before_count, mut after_count) = (0, 0);
    let mut points = history.crash_points();
    loop {
        for (seed, variant) in CrashVariant::ALL.into_iter().enumerate() {
            let left = points.crash(variant, seed as u64);
            let (_journal, broker) = open(&left);
            match ready_counts(&broker) {
                [3, 0] => before_count += 1,
                [1, 3] => after_count += 1,
                other => panic!("{other:?} after {} changes, {variant:?}", points.index()),
            }
            if points.index() >= durable_at {
                assert_eq!(ready_counts(&broker), [1, 3], "{variant:?}");
            }
        }
        if !points.advance() {
            break;
        }
    }
    assert!(
        before_count > 0 && after_count > 0,
        "{before_count} {after_count}"
    );
}

/// A route is found when a message is published: what is bound later changes nothing, and a queue that is
/// gone by the commit takes nothing.
// req: TX-1
#[test]
fn a_message_goes_where_its_publish_went() {
    let broker = crate::broker::tests::kit::broker();
    let mut client = Client::new(&broker);
    client.declare("one", &[]).expect("a new queue");
    client.declare("two", &[]).expect("a new queue");
    let prepared = vec![
        prepare(&mut client, "one", inline("stays")),
        prepare(&mut client, "later", inline("nowhere")),
        prepare(&mut client, "two", inline("gone")),
    ];
    client.declare("later", &[]).expect("a new queue");
    client.delete_queue("two").expect("it exists");
    let vhost = client.vhost();
    let committed = vhost.commit(prepared, &[], client.now, &mut client.wakes);
    let committed = committed.expect("nothing to write");
    assert_eq!(committed.wait_for, None);
    let outcomes: Vec<_> = committed
        .published
        .iter()
        .map(|published| published.outcome)
        .collect();
    let routed = PublishOutcome::Routed { wait_for: None };
    let expected = [
        routed,
        PublishOutcome::Unroutable,
        PublishOutcome::Unroutable,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(client.queue("later").depth().ready_count, 0);
}
