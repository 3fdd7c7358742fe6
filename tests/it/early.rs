//! Pieces before the manifest: nodes fetch what is still being published, keep what a manifest confirms, and nothing
//! else.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::Value;
use warren::amqp::field::ShortString;
use warren::amqp::frame;
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::basic;
use warren::client::{AmqpUri, ConnectSettings, Connection, Publish, QueueSettings};
use warren::node::message::FILES_EXCHANGE;

use crate::admin::Managed;
use crate::engines::{run, unique};
use crate::files::{Home, content};
use crate::wire::{Client, PATIENCE};

const SIZE: usize = 12 << 20;
const FRAME_BYTES: u32 = 131_072;

fn uri(broker: &Managed) -> AmqpUri {
    let uri = format!("amqp://guest:guest@{}/%2F", broker.own.address());
    uri.parse().expect("a URI")
}

/// The frames of a message to a group, which a test sends at its own pace.
fn frames(group: &str, name: &str, body: &[u8]) -> BytesMut {
    let publish = basic::Publish {
        exchange: FILES_EXCHANGE,
        routing_key: ShortString::try_from(group).expect("short"),
        ..basic::Publish::default()
    };
    let properties = Properties {
        message_id: Some(ShortString::try_from(name).expect("short")),
        ..Properties::default()
    };
    let header = ContentHeader::new(body.len() as u64, &properties);
    let mut output = BytesMut::new();
    frame::put_method_with_content(&mut output, 1, &publish, &header, body, FRAME_BYTES);
    output
}

fn publisher(broker: &Managed) -> Client {
    let mut client = Client::connect(broker.own.address());
    client.open(1);
    client.confirm_select(1);
    client
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that the broker has sent to peers, over all its swarms.
fn sent_bytes(broker: &Managed) -> u64 {
    let transfers = broker.get("swarm/transfers");
    let transfers = transfers.as_array().expect("a list");
    let bytes = transfers.iter().map(|it| it["up_bytes"].as_u64());
    bytes.map(|bytes| bytes.expect("a number")).sum()
}

/// Files of what was begun and is not known by an id.
fn upload_count(data: &Path) -> usize {
    let folder = data.join("payloads").join("0").join("upload");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A body that comes slowly reaches a node while it comes; when it is whole the node has it, and was sent each piece
/// once.
// req: EARLY-1
// req: EARLY-2
// req: EARLY-6
// req: EARLY-8
// req: STORE-23
#[test]
fn pieces_travel_while_a_body_is_published() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let group = unique("early");
    let home = Home::new(&uri, &[&group]);
    let node = run(home.start());
    let body = content("early.bin", SIZE);
    let output = frames(&group, "early.bin", &body);
    let mut client = publisher(&broker);
    let (most, rest) = output.split_at(output.len() - output.len() / 8);
    let (first, most) = most.split_at(most.len() / 4);
    client.send_bytes(first);
    // Only a body that takes long is announced.
    std::thread::sleep(Duration::from_millis(400));
    client.send_bytes(most);
    let half = SIZE as u64 / 2;
    until("half of it is on its way", || {
        (sent_bytes(&broker) >= half).then_some(())
    });
    assert_eq!(home.file("early.bin"), None, "there is no manifest yet");
    client.send_bytes(rest);
    until("the file is there", || home.file("early.bin"));
    assert!(
        home.file("early.bin").as_deref() == Some(&body[..]),
        "the copy differs"
    );
    // Others may still be fetching where this node did.
    let page = format!("swarm/nodes/%2F/{}", home.name);
    until("it serves in both swarms", || {
        let node = broker.get(&page);
        let transfers = node["transfers"].as_array()?;
        (transfers.len() == 2).then_some(())
    });
    let size = SIZE as u64;
    until("the broker tells of all", || {
        (sent_bytes(&broker) >= size).then_some(())
    });
    let sent = sent_bytes(&broker);
    assert!(sent <= size + size / 20, "sent {sent} of {size}");
    run(node.shutdown()).expect("stops");
}

/// A publisher that goes away in the middle leaves nothing at the node, in the inbox or beside it, and nothing at the
/// broker.
// req: EARLY-3
// req: EARLY-7
#[test]
fn aborted_publish_leaves_nothing() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let group = unique("early");
    let home = Home::new(&uri, &[&group]);
    let node = run(home.start());
    let data = home.data();
    let body = content("gone.bin", SIZE);
    let output = frames(&group, "gone.bin", &body);
    let mut client = publisher(&broker);
    client.send_bytes(&output[..output.len() / 4]);
    std::thread::sleep(Duration::from_millis(400));
    client.send_bytes(&output[output.len() / 4..output.len() / 2]);
    until("pieces are on their way", || {
        (upload_count(&data) == 1 && sent_bytes(&broker) > 0).then_some(())
    });
    drop(client);
    until("the node has let go", || {
        (upload_count(&data) == 0).then_some(())
    });
    until("the broker has let go", || {
        let transfers = broker.get("swarm/transfers");
        transfers
            .as_array()
            .is_some_and(Vec::is_empty)
            .then_some(())
    });
    let inbox = std::fs::read_dir(home.inbox()).expect("an inbox");
    assert_eq!(inbox.count(), 0);
    // The same body later is a file like any other.
    let mut client = publisher(&broker);
    client.send_bytes(&output);
    until("the file is there", || home.file("gone.bin"));
    assert!(
        home.file("gone.bin").as_deref() == Some(&body[..]),
        "the copy differs"
    );
    run(node.shutdown()).expect("stops");
}

/// Announcements that are nonsense, too many, or never followed by a manifest harm nothing: files go on arriving.
// req: EARLY-4
#[test]
fn hostile_announcements_harm_nothing() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let group = unique("early");
    let home = Home::new(&uri, &[&group]);
    let node = run(home.start());
    let queue = format!("warren.early.{}", home.name);
    run(announce(&uri, &queue));
    let data = home.data();
    until("four are begun", || {
        (upload_count(&data) == 4).then_some(())
    });
    let body = content("real.bin", 3 << 20);
    let mut client = publisher(&broker);
    client.send_bytes(&frames(&group, "real.bin", &body));
    until("the file is there", || home.file("real.bin"));
    assert!(
        home.file("real.bin").as_deref() == Some(&body[..]),
        "the copy differs"
    );
    assert_eq!(upload_count(&data), 4, "no more than four at a time");
    run(node.shutdown()).expect("stops");
    assert_eq!(upload_count(&data), 0, "they go with the node");
}

/// Says to a node what a broker would not.
async fn announce(uri: &AmqpUri, queue: &str) {
    let connection = Connection::open(uri, &ConnectSettings::default()).await;
    let connection = connection.expect("connects");
    let channel = connection.channel().await.expect("a channel");
    channel.select_confirms().await.expect("confirms");
    let begin = |swarm: &str, size: u64, piece: u64| {
        format!(
            r#"{{"event":"begin","swarm":"{swarm}","key":"{}","size_bytes":{size},"piece_bytes":{piece},"peers":["127.0.0.1:1"]}}"#,
            "ab".repeat(32)
        )
    };
    let mut words = vec![
        "no JSON".to_owned(),
        r#"{"event":"other"}"#.to_owned(),
        begin("short", 5 << 20, 16 << 10),
        begin(&"00".repeat(32), 5 << 20, 1_000),
        begin(&"01".repeat(32), 1 << 60, 16 << 20),
        format!(
            r#"{{"event":"pieces","swarm":"{}","first":0,"hashes":"AAAA"}}"#,
            "02".repeat(32)
        ),
    ];
    for number in 0x10..0x18_u8 {
        let swarm = format!("{number:02x}").repeat(32);
        words.push(begin(&swarm, 5 << 20, 16 << 10));
        let hashes = "A".repeat(43);
        words.push(format!(
            r#"{{"event":"pieces","swarm":"{swarm}","first":4000000000,"hashes":"{hashes}="}}"#
        ));
    }
    for word in words {
        let publish = Publish {
            exchange: ShortString::EMPTY,
            routing_key: ShortString::try_from(queue).expect("short"),
            mandatory: true,
            properties: Properties {
                message_type: Some(ShortString::from_static("warren.early")),
                ..Properties::default()
            },
        };
        let sent = channel.publish(&publish, word.as_bytes()).await;
        sent.expect("sent")
            .wait()
            .await
            .expect("the node listens there");
    }
    connection.close().await;
}

/// A node whose announcements go to somebody else, as one of an older version hears none, gets the file all the same.
// req: EARLY-4
#[test]
fn node_without_announcements_gets_the_file() {
    let broker = Managed::start();
    let uri = uri(&broker);
    let group = unique("early");
    let home = Home::new(&uri, &[&group]);
    // Held by another connection, so that the node cannot have it.
    let holder = run(async {
        let connection = Connection::open(&uri, &ConnectSettings::default()).await;
        let connection = connection.expect("connects");
        let channel = connection.channel().await.expect("a channel");
        let own = QueueSettings {
            exclusive: true,
            ..QueueSettings::default()
        };
        let queue = format!("warren.early.{}", home.name);
        let queue = ShortString::try_from(queue.as_str()).expect("short");
        channel.declare_queue(&queue, &own).await.expect("declared");
        connection
    });
    let node = run(home.start());
    let body = content("slow.bin", SIZE);
    let output = frames(&group, "slow.bin", &body);
    let mut client = publisher(&broker);
    client.send_bytes(&output[..output.len() / 2]);
    std::thread::sleep(Duration::from_millis(400));
    client.send_bytes(&output[output.len() / 2..]);
    until("the file is there", || home.file("slow.bin"));
    assert!(
        home.file("slow.bin").as_deref() == Some(&body[..]),
        "the copy differs"
    );
    assert_eq!(upload_count(&home.data()), 0);
    let page: Value = broker.get("swarm");
    assert_eq!(page["files"]["failed"], 0);
    run(node.shutdown()).expect("stops");
    run(holder.close());
}
