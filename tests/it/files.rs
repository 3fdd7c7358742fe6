//! The control plane on both brokers: files to nodes, receipts, presence, absence and bad input.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::header::Properties;
use warren::client::{AmqpUri, ConnectSettings, Connection, Publish};
use warren::config::{PeerTls, TrafficSettings};
use warren::node::distributor::{DistributorSettings, SendError};
use warren::node::message::{FILES_EXCHANGE, FileState, Group, NodeName, REGISTRY_QUEUE};
use warren::node::send::{SendReport, SendSettings, send};
use warren::node::status::status;
use warren::node::{Node, NodeHandle, NodeSettings};
use warren::payload::{AccessKey, Hints, Manifest, ManifestParts, Priority};
use warren::testing::manifest::manifest_parts;

use crate::engines::{on_both_engines, unique};

/// One node's folders, name and groups; it can be started again and again.
pub(crate) struct Home {
    folder: TempDir,
    pub(crate) name: NodeName,
    groups: Vec<Group>,
    broker: AmqpUri,
}

fn group(text: &str) -> Group {
    text.parse().expect("a group")
}

impl Home {
    pub(crate) fn new(broker: &AmqpUri, groups: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            name: unique("node").parse().expect("a name"),
            groups: groups.iter().map(|text| group(text)).collect(),
            broker: broker.clone(),
        }
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.folder.path().join("inbox")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn settings(&self) -> NodeSettings {
        NodeSettings {
            broker: self.broker.clone(),
            name: self.name.clone(),
            data_dir: self.data(),
            inbox: self.inbox(),
            groups: self.groups.clone(),
            peer_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            traffic: TrafficSettings::default(),
            peer_tls: PeerTls::default(),
        }
    }

    pub(crate) async fn start(&self) -> NodeHandle {
        let mut node = Node::start(self.settings()).await.expect("starts");
        assert!(node.ready().await, "the node ended before it was ready");
        node
    }

    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.inbox().join(name)).ok()
    }
}

fn distributor(broker: &AmqpUri, folder: &TempDir) -> DistributorSettings {
    DistributorSettings {
        broker: broker.clone(),
        payload_threshold_bytes: 1 << 20,
        peer_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        traffic: TrafficSettings::default(),
        hints: Hints::default(),
        peer_tls: PeerTls::default(),
        data_dir: folder.path().join("sender"),
        reply_queue: None,
    }
}

/// Makes files of these names and sizes and sends them with `--wait`.
pub(crate) async fn send_files(
    broker: &AmqpUri,
    to: &str,
    files: &[(&str, usize)],
    node_count: Option<usize>,
) -> Result<SendReport, SendError> {
    let folder = tempfile::tempdir().expect("a folder");
    let paths: Vec<_> = files
        .iter()
        .map(|(name, size)| {
            let path = folder.path().join(name);
            fs::write(&path, content(name, *size)).expect("written");
            path
        })
        .collect();
    let settings = SendSettings {
        distributor: distributor(broker, &folder),
        group: group(to),
        wait: true,
        node_count,
        timeout: Some(Duration::from_secs(60)),
        seed_for: None,
        manifest_folder: None,
    };
    send(settings, &paths, |_| {}).await
}

pub(crate) fn content(name: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Publishes what a stranger could, to a group.
pub(crate) async fn publish_raw(broker: &AmqpUri, to: &str, properties: Properties, body: &[u8]) {
    let connection = Connection::open(broker, &ConnectSettings::default())
        .await
        .expect("connects");
    let channel = connection.channel().await.expect("a channel");
    channel.select_confirms().await.expect("confirms");
    let publish = Publish {
        exchange: FILES_EXCHANGE,
        routing_key: group(to).key(),
        mandatory: true,
        properties,
    };
    channel
        .publish(&publish, body)
        .await
        .expect("sent")
        .wait()
        .await
        .expect("confirmed");
    connection.close().await;
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never so: {what}");
}

/// Small and large files reach every node of the group, and no other, and the sender knows.
// req: CONTROL-2
// req: CONTROL-4
// req: CONTROL-11
// req: CONTROL-19
async fn files_reach_the_nodes_of_their_group(broker: AmqpUri) {
    let sites = unique("sites");
    let (berlin, all) = (format!("{sites}.7.berlin"), format!("{sites}.#"));
    let members = [Home::new(&broker, &[&berlin]), Home::new(&broker, &[&all])];
    let stranger = Home::new(&broker, &[&unique("other")]);
    let mut nodes = Vec::new();
    for home in members.iter().chain([&stranger]) {
        nodes.push(home.start().await);
    }
    let files = [
        ("small.txt", 20_000),
        ("empty", 0),
        ("large.bin", 3_000_000),
    ];
    let report = send_files(&broker, &berlin, &files, None)
        .await
        .expect("sent");
    assert!(report.complete, "{report:?}");
    for (file, (name, size)) in report.files.iter().zip(files) {
        assert_eq!(file.nodes.len(), 2, "{file:?}");
        assert_eq!(file.payload_id.is_some(), size >= 1 << 20);
        for home in &members {
            assert_eq!(home.file(name), Some(content(name, size)), "{name}");
        }
        assert_eq!(stranger.file(name), None);
    }
    for node in nodes {
        node.shutdown().await.expect("stops");
    }
}

/// A sender without a listener brings a large file to the nodes, one of which has none either, and its priority
/// travels with the manifest.
// req: SWARM-34
// req: MANIFEST-9
async fn sender_without_listener_reaches_nodes(broker: AmqpUri) {
    let sites = unique("sites");
    let open = Home::new(&broker, &[&sites]);
    let hidden = Home::new(&broker, &[&sites]);
    let node = open.start().await;
    let settings = NodeSettings {
        peer_listen: None,
        ..hidden.settings()
    };
    let mut other = Node::start(settings).await.expect("starts");
    assert_eq!(other.peer_addr(), None);
    assert!(other.ready().await);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.bin");
    fs::write(&path, content("a.bin", 2_500_000)).expect("written");
    let hints = Hints {
        priority: Priority::new(30).expect("valid"),
        ..Hints::default()
    };
    let sender = DistributorSettings {
        peer_listen: None,
        hints,
        ..distributor(&broker, &folder)
    };
    let settings = SendSettings {
        distributor: sender,
        group: group(&sites),
        wait: true,
        node_count: Some(2),
        timeout: Some(Duration::from_secs(60)),
        seed_for: None,
        manifest_folder: None,
    };
    let report = send(settings, &[path], |_| {}).await.expect("sent");
    assert!(report.complete, "{report:?}");
    for home in [&open, &hidden] {
        assert_eq!(home.file("a.bin"), Some(content("a.bin", 2_500_000)));
    }
    node.shutdown().await.expect("stops");
    other.shutdown().await.expect("stops");
}

/// What was sent while a node was off line is there when it comes back; a group left is not heard of.
// req: CONTROL-2
async fn offline_node_catches_up(broker: AmqpUri) {
    let (sites, old) = (unique("sites"), unique("old"));
    let mut home = Home::new(&broker, &[&sites, &old]);
    home.start().await.shutdown().await.expect("stops");
    let report = send_files(&broker, &sites, &[("late.txt", 500)], None)
        .await
        .expect("sent");
    assert!(!report.complete, "nobody was on line: {report:?}");
    home.groups = vec![group(&sites)];
    let node = home.start().await;
    until("the file is there", || {
        home.file("late.txt") == Some(content("late.txt", 500))
    })
    .await;
    let refused = send_files(&broker, &old, &[("old.txt", 10)], None).await;
    assert!(
        matches!(refused, Err(SendError::NobodyInGroup { .. })),
        "{refused:?}"
    );
    node.shutdown().await.expect("stops");
}

/// A group that nobody ever joined is an error that says so.
// req: CONTROL-18
async fn group_without_nodes_is_an_error(broker: AmqpUri) {
    let keeper = Home::new(&broker, &[&unique("other")]);
    let node = keeper.start().await;
    let nobody = unique("nobody");
    let error = send_files(&broker, &nobody, &[("a", 1)], None)
        .await
        .expect_err("nobody is there");
    assert!(error.to_string().contains(&nobody), "{error}");
    node.shutdown().await.expect("stops");
}

/// Names that could leave the inbox, wrong ids and broken manifests are answered, and the next file is
/// placed all the same.
// req: CONTROL-6
// req: CONTROL-9
async fn bad_messages_are_answered_and_harm_nothing(broker: AmqpUri) {
    let sites = unique("sites");
    let home = Home::new(&broker, &[&sites]);
    let node = home.start().await;
    let named = |name: &str| {
        let headers = FieldTable::from([("x-payload-name", FieldValue::from(name))]);
        Properties {
            headers: Some(headers),
            ..Properties::default()
        }
    };
    for name in [
        "../up.txt",
        "/etc/x",
        "a\\b",
        "",
        "nul.txt",
        "c:x",
        "a\0b",
        ".warren-x",
    ] {
        publish_raw(&broker, &sites, named(name), b"bad name").await;
    }
    let wrong_id = FieldTable::from([
        ("x-payload-name", FieldValue::from("wrong.txt")),
        ("x-payload-id", FieldValue::from("0".repeat(64))),
    ]);
    let wrong_id = Properties {
        headers: Some(wrong_id),
        ..Properties::default()
    };
    publish_raw(&broker, &sites, wrong_id, b"not that").await;
    let no_manifest = Properties {
        content_type: Some(ShortString::from_static("application/vnd.warren.manifest")),
        ..named("manifest.bin")
    };
    publish_raw(&broker, &sites, no_manifest, &[7; 33]).await;
    let report = send_files(&broker, &sites, &[("good.txt", 100)], None)
        .await
        .expect("sent");
    assert!(report.complete, "{report:?}");
    let mut found: Vec<_> = fs::read_dir(home.inbox())
        .expect("the inbox")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    found.sort();
    assert_eq!(found, ["good.txt"]);
    assert!(!home.folder.path().join("up.txt").exists());
    node.shutdown().await.expect("stops");
}

/// An ordinary client's message is a file too, and the same name with other bytes gets a number.
// req: CONTROL-5
// req: CONTROL-9
async fn ordinary_messages_are_files(broker: AmqpUri) {
    let sites = unique("sites");
    let home = Home::new(&broker, &[&sites]);
    let node = home.start().await;
    let message_id = Some(ShortString::from_static("report.txt"));
    let properties = Properties {
        message_id,
        ..Properties::default()
    };
    for body in [&b"one"[..], b"two", b"one"] {
        publish_raw(&broker, &sites, properties.clone(), body).await;
    }
    publish_raw(&broker, &sites, Properties::default(), b"nameless").await;
    let digits = blake3::hash(b"nameless").to_hex()[..16].to_owned();
    until("the last is there", || home.file(&digits).is_some()).await;
    assert_eq!(home.file("report.txt").as_deref(), Some(&b"one"[..]));
    assert_eq!(home.file("report-2.txt").as_deref(), Some(&b"two"[..]));
    assert_eq!(home.file("report-3.txt"), None);
    node.shutdown().await.expect("stops");
}

/// Status tells who is on line, who is not and since when, and how files fare.
// req: CONTROL-14
// req: CONTROL-15
// req: CONTROL-16
async fn status_tells_nodes_and_files(broker: AmqpUri) {
    let sites = unique("sites");
    let (here, away) = (Home::new(&broker, &[&sites]), Home::new(&broker, &[&sites]));
    away.start().await.shutdown().await.expect("stops");
    let node = here.start().await;
    send_files(&broker, &sites, &[("a.txt", 10)], Some(1))
        .await
        .expect("sent");
    let folder = tempfile::tempdir().expect("a folder");
    let mut found = None;
    // A node enters the registry a moment after it is ready.
    for _ in 0..20 {
        let told = status(distributor(&broker, &folder), Duration::from_secs(1))
            .await
            .expect("asked");
        if told
            .nodes
            .iter()
            .any(|node| node.name == here.name && node.seen_unix_ms.is_some())
        {
            found = Some(told);
            break;
        }
    }
    let told = found.expect("the node is in the registry");
    let node_named = |name: &NodeName| {
        told.nodes
            .iter()
            .find(|node| node.name == *name)
            .expect("told")
    };
    assert!(node_named(&here.name).online);
    let files = &node_named(&here.name).files;
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(
        (files[0].name.as_str(), files[0].state),
        ("a.txt", FileState::Complete)
    );
    assert!(!node_named(&away.name).online);
    assert_eq!(node_named(&away.name).waiting, Some(1));
    assert_eq!(node_named(&away.name).groups, away.groups);
    node.shutdown().await.expect("stops");
}

/// Garbage in the registry is dropped and the registry is whole afterwards.
// req: CONTROL-16
// req: CONTROL-17
async fn garbage_in_the_registry_is_dropped(broker: AmqpUri) {
    let home = Home::new(&broker, &[&unique("sites")]);
    home.start().await.shutdown().await.expect("stops");
    let connection = Connection::open(&broker, &ConnectSettings::default())
        .await
        .expect("connects");
    let channel = connection.channel().await.expect("a channel");
    let publish = Publish {
        routing_key: REGISTRY_QUEUE,
        ..Publish::default()
    };
    drop(channel.publish(&publish, b"{garbage").await.expect("sent"));
    connection.close().await;
    let folder = tempfile::tempdir().expect("a folder");
    let told = status(distributor(&broker, &folder), Duration::from_millis(200))
        .await
        .expect("asked");
    assert!(told.nodes.iter().any(|node| node.name == home.name));
}

/// A payload whose origin died is fetched from the next one, although its access key is another.
// req: CONTROL-19
async fn payload_sent_again_after_its_origin_died_arrives(broker: AmqpUri) {
    let sites = unique("sites");
    let home = Home::new(&broker, &[&sites]);
    let node = home.start().await;
    let bytes = content("again.bin", 2_000_000);
    let dead = Manifest::new(ManifestParts {
        peers: vec!["127.0.0.1:1".to_owned()],
        key: AccessKey::from_bytes([3; 32]),
        name: Some("again.bin".to_owned()),
        ..manifest_parts(&bytes)
    })
    .expect("valid");
    let (properties, body) = dead.to_message(&Properties::default());
    publish_raw(&broker, &sites, properties, &body).await;
    let report = send_files(&broker, &sites, &[("again.bin", 2_000_000)], None)
        .await
        .expect("sent");
    assert!(report.complete, "{report:?}");
    assert_eq!(home.file("again.bin"), Some(bytes));
    node.shutdown().await.expect("stops");
}

/// A file in the inbox shares its bytes with the store; when its owner has written to it and it is sent
/// again, the node fetches it anew and leaves the owner's file alone.
// req: STORE-22
async fn file_changed_in_the_inbox_is_fetched_again(broker: AmqpUri) {
    let sites = unique("sites");
    let home = Home::new(&broker, &[&sites]);
    let node = home.start().await;
    let files = [("edited.bin", 2_000_000)];
    let report = send_files(&broker, &sites, &files, None)
        .await
        .expect("sent");
    assert!(report.complete, "{report:?}");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(home.inbox().join("edited.bin"))
        .expect("in the inbox");
    std::os::unix::fs::FileExt::write_all_at(&file, b"the owner's", 1_000_000).expect("written");
    let report = send_files(&broker, &sites, &files, None)
        .await
        .expect("sent");
    assert!(report.complete, "{report:?}");
    assert_eq!(
        home.file("edited-2.bin"),
        Some(content("edited.bin", 2_000_000))
    );
    let edited = home.file("edited.bin").expect("left alone");
    assert_eq!(edited.get(1_000_000..1_000_011), Some(&b"the owner's"[..]));
    node.shutdown().await.expect("stops");
}

/// Of two nodes with one name the second gets nothing while the first is there, and takes over then.
// req: CONTROL-21
async fn second_node_of_a_name_waits(broker: AmqpUri) {
    let sites = unique("sites");
    let (first, mut second) = (Home::new(&broker, &[&sites]), Home::new(&broker, &[&sites]));
    second.name = first.name.clone();
    let node = first.start().await;
    let mut waiting = Node::start(second.settings()).await.expect("starts");
    let not_ready = tokio::time::timeout(Duration::from_secs(1), waiting.ready()).await;
    assert!(not_ready.is_err(), "both nodes are ready");
    send_files(&broker, &sites, &[("a", 10), ("b", 10)], Some(1))
        .await
        .expect("sent");
    assert!(first.file("a").is_some() && first.file("b").is_some());
    node.shutdown().await.expect("stops");
    assert!(waiting.ready().await, "the second does not take over");
    waiting.shutdown().await.expect("stops");
}

/// An inbox that is a symlink is refused when the node starts.
// req: CONTROL-9
async fn symlink_inbox_is_refused(broker: AmqpUri) {
    let home = Home::new(&broker, &["sites"]);
    let real = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(real.path(), home.inbox()).expect("linked");
    match Node::start(home.settings()).await {
        Ok(_) => panic!("the node follows a symlink"),
        Err(error) => assert!(error.to_string().contains("symlink"), "{error}"),
    }
}

on_both_engines! {
    files_reach_the_nodes_of_their_group,
    sender_without_listener_reaches_nodes,
    offline_node_catches_up,
    group_without_nodes_is_an_error,
    bad_messages_are_answered_and_harm_nothing,
    ordinary_messages_are_files,
    status_tells_nodes_and_files,
    garbage_in_the_registry_is_dropped,
    payload_sent_again_after_its_origin_died_arrives,
    file_changed_in_the_inbox_is_fetched_again,
    second_node_of_a_name_waits,
    symlink_inbox_is_refused,
}
