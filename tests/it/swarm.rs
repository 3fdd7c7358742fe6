//! Swarms over loopback: nodes fetch from an origin and from each other, keep what verifies, refuse who lacks
//! the key, and go on where they stopped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warren::disk::OsDisk;
use warren::payload::store::{Store, StoreSettings};
use warren::payload::{AccessKey, Bitfield, Manifest, PayloadId, ScopeId};
use warren::server::peer::{Swarm, SwarmHandle, SwarmSettings, SwarmTransfer};
use warren::swarm::wire::{self, Hello, Message, NodeId, Reason, Slot};
use warren::swarm::{Limits, Order};

const KEY: [u8; 32] = [42; 32];
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that differ everywhere, made from a counter.
fn content(size_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    let mut state = 1_u64;
    for place in bytes.chunks_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        place.copy_from_slice(&state.to_be_bytes()[..place.len()]);
    }
    bytes
}

struct Node {
    store: Store,
    swarm: SwarmHandle,
}

async fn node(folder: &Path) -> Node {
    node_at(folder, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await
}

async fn node_at(folder: &Path, listen: Option<SocketAddr>) -> Node {
    let settings = StoreSettings {
        free_bytes_min: 0,
        ..StoreSettings::default()
    };
    let store = Store::open(Arc::new(OsDisk), folder, settings).expect("a store");
    let settings = SwarmSettings {
        listen,
        ..SwarmSettings::default()
    };
    let swarm = Swarm::start(settings, store.clone())
        .await
        .expect("a swarm");
    Node { store, swarm }
}

/// Stores `bytes` at a node and serves them; the manifest names the node as first peer.
async fn origin(node: &Node, bytes: &[u8]) -> (Manifest, SwarmTransfer) {
    let key = AccessKey::from_bytes(KEY);
    let size = bytes.len() as u64;
    let mut upload = node
        .store
        .begin_upload(ScopeId::NODE, size, key)
        .expect("room");
    upload.write(bytes).expect("written");
    let stored = upload.finish().expect("stored");
    let transfer = node
        .swarm
        .seed(ScopeId::NODE, stored.id)
        .await
        .expect("served");
    let address = node.swarm.local_addr().expect("listening").to_string();
    let manifest = node
        .store
        .manifest(ScopeId::NODE, stored.id)
        .expect("a manifest");
    (manifest.with_peers(vec![address]).expect("valid"), transfer)
}

async fn finish(transfer: &SwarmTransfer) {
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    let finished = finished.unwrap_or_else(|_| panic!("not complete: {:?}", transfer.stats()));
    assert!(finished.expect("fetched").is_some());
}

fn assert_holds(node: &Node, id: PayloadId, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    node.store
        .read_at(ScopeId::NODE, id, &mut read, 0)
        .expect("readable");
    assert!(read == bytes, "the copy differs");
}

/// Five nodes fetch 64 MiB from one origin and from each other; the origin sends little more than once what
/// is there.
// req: SWARM-1
// req: SWARM-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_fetch_from_one_origin_and_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(64 * 1024 * 1024);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, served) = origin(&source, &bytes).await;
    let mut nodes = Vec::new();
    for number in 0..5 {
        let node = node(&folder.path().join(number.to_string())).await;
        let transfer = node
            .swarm
            .fetch(ScopeId::NODE, &manifest)
            .await
            .expect("begun");
        nodes.push((node, transfer));
    }
    for (node, transfer) in &nodes {
        finish(transfer).await;
        assert_holds(node, manifest.id(), &bytes);
        let progress = *transfer.progress().borrow();
        assert_eq!(progress.held_bytes, bytes.len() as u64);
    }
    let sent = served.stats().expect("running").counts.up_bytes;
    let copies = sent as f64 / bytes.len() as f64;
    assert!(
        copies < 3.0,
        "the origin sent {copies} copies to five nodes"
    );
    for (node, _) in &nodes {
        node.swarm.shutdown().await;
    }
    source.swarm.shutdown().await;
}

/// A node without a listener fetches, and then serves one that it dials, when nobody else has the payload.
// req: SWARM-34
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_listener_fetches_and_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(3_000_000);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, served) = origin(&source, &bytes).await;
    let quiet = node_at(&folder.path().join("quiet"), None).await;
    assert_eq!(quiet.swarm.local_addr(), None);
    let fetched = quiet
        .swarm
        .fetch(ScopeId::NODE, &manifest)
        .await
        .expect("begun");
    finish(&fetched).await;
    drop(served);
    source.swarm.shutdown().await;
    let other = node(&folder.path().join("other")).await;
    let transfer = other
        .swarm
        .fetch(ScopeId::NODE, &manifest)
        .await
        .expect("begun");
    fetched.add_peer(other.swarm.local_addr().expect("listening"));
    finish(&transfer).await;
    assert_holds(&other, manifest.id(), &bytes);
    other.swarm.shutdown().await;
    quiet.swarm.shutdown().await;
}

/// A limit that is set while a payload is fetched slows it down, and lifting it lets it go on.
// req: SWARM-30
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_counts_at_once_and_can_be_lifted() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(24 * 1024 * 1024);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, served) = origin(&source, &bytes).await;
    let slow = Limits {
        up: std::num::NonZeroU64::new(1024 * 1024),
        down: None,
    };
    source.swarm.set_limits(slow);
    let node = node(&folder.path().join("node")).await;
    let transfer = node
        .swarm
        .fetch(ScopeId::NODE, &manifest)
        .await
        .expect("begun");
    let began = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sent = served.stats().expect("running").counts.up_bytes;
    let most = (began.elapsed().as_secs_f64() + 0.5) * 1024.0 * 1024.0;
    assert!((sent as f64) < most, "{sent} bytes");
    assert!(sent > 0, "it is slow, not stopped");
    source.swarm.set_limits(Limits::default());
    finish(&transfer).await;
    assert_holds(&node, manifest.id(), &bytes);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A payload is read in order while it is being fetched, from the start and from the middle.
// req: SWARM-35
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_is_read_while_it_is_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(5_000_001);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, _served) = origin(&source, &bytes).await;
    let node = node(&folder.path().join("node")).await;
    let transfer = node
        .swarm
        .fetch_in(ScopeId::NODE, &manifest, Order::InOrder)
        .await
        .expect("begun");
    let mut middle = [0; 1000];
    let count = transfer.read_at(2_500_000, &mut middle).await;
    let count = count.expect("read");
    assert!(count > 0 && middle[..count] == bytes[2_500_000..2_500_000 + count]);
    let mut read = Vec::new();
    let mut buffer = vec![0; 100_000];
    loop {
        let count = transfer.read_at(read.len() as u64, &mut buffer).await;
        match count.expect("read") {
            0 => break,
            count => read.extend_from_slice(&buffer[..count]),
        }
    }
    assert!(read == bytes, "what was read differs");
    finish(&transfer).await;
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// `warren fetch --stream` writes the payload to standard output, every byte and no other.
// req: SWARM-35
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_streams_a_payload() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(3_000_001);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, _served) = origin(&source, &bytes).await;
    let file = folder.path().join("a.manifest.json");
    let text = warren::node::manifest_file::to_json(&manifest);
    std::fs::write(&file, text).expect("written");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_warren"))
        .arg("fetch")
        .arg(&file)
        .arg("--stream")
        .env("TMPDIR", folder.path())
        .output()
        .await
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == bytes, "{} bytes came", output.stdout.len());
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 2, "the origin's folder and the manifest");
    source.swarm.shutdown().await;
}

/// Reads the next message that is not a Ping.
async fn receive(stream: &mut TcpStream, input: &mut BytesMut) -> Option<Message> {
    loop {
        if let Some(message) = wire::decode(input).expect("well-formed") {
            if message != Message::Ping {
                return Some(message);
            }
            continue;
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(input))
            .await
            .expect("in time");
        if read.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn send(stream: &mut TcpStream, message: &Message) {
    let mut output = BytesMut::new();
    wire::encode(message, &mut output);
    stream.write_all(&output).await.expect("sent");
}

fn hello(node: u8) -> Message {
    Message::Hello(Hello {
        takes_tls: false,
        node: NodeId::from_bytes([node; 32]),
        nonce: [9; 32],
        listen_port: 0,
        requests_max: 16,
        zone: None,
    })
}

/// Who cannot prove the key learns nothing: wrong proofs and unknown payloads are refused alike, until the
/// connection is closed.
// req: PEER-6
// req: PEER-7
#[tokio::test]
async fn wrong_key_is_refused_without_a_word_about_the_payload() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = node(&folder.path().join("origin")).await;
    let (manifest, _served) = origin(&source, &content(200_000)).await;
    let address = source.swarm.local_addr().expect("listening");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let mut input = BytesMut::new();
    send(&mut stream, &hello(1)).await;
    assert!(matches!(
        receive(&mut stream, &mut input).await,
        Some(Message::Hello(_))
    ));
    for (number, payload) in [manifest.id(), PayloadId::from_bytes([1; 32])]
        .into_iter()
        .cycle()
        .take(8)
        .enumerate()
    {
        let join = Message::Join {
            slot: Slot(number as u16),
            payload,
            proof: [number as u8; 32],
        };
        send(&mut stream, &join).await;
        let answer = receive(&mut stream, &mut input).await;
        let refused = Message::Refuse {
            payload,
            reason: Reason::Unknown,
        };
        let expected = (number < 7).then_some(refused);
        assert_eq!(answer, expected, "join {number}");
    }
    source.swarm.shutdown().await;
}

/// A message before Hello, or bytes that are none, end the connection and nothing else.
// req: PEER-1
// req: PEER-2
#[tokio::test]
async fn garbage_ends_only_its_own_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = node(&folder.path().join("origin")).await;
    let bytes = content(300_000);
    let (manifest, _served) = origin(&source, &bytes).await;
    let address = source.swarm.local_addr().expect("listening");
    let mut ping = BytesMut::new();
    wire::encode(&Message::Ping, &mut ping);
    let garbage: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &ping];
    for bytes in garbage {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let mut input = BytesMut::new();
        let first = receive(&mut stream, &mut input).await;
        assert!(matches!(first, None | Some(Message::Hello(_))));
        assert!(first.is_none() || receive(&mut stream, &mut input).await.is_none());
    }
    let node = node(&folder.path().join("node")).await;
    let transfer = node
        .swarm
        .fetch(ScopeId::NODE, &manifest)
        .await
        .expect("begun");
    finish(&transfer).await;
    assert_holds(&node, manifest.id(), &bytes);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// Sits between a node and the origin and changes a byte of every block that passes.
async fn corrupting_proxy(origin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("listening");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(origin).await.expect("connected");
            let (mut near_read, mut near_write) = near.into_split();
            let (mut far_read, mut far_write) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
            tokio::spawn(async move {
                let mut input = BytesMut::new();
                while far_read.read_buf(&mut input).await.unwrap_or(0) > 0 {
                    let mut output = BytesMut::new();
                    while let Ok(Some(message)) = wire::decode(&mut input) {
                        wire::encode(&corrupted(message), &mut output);
                    }
                    if near_write.write_all(&output).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn corrupted(message: Message) -> Message {
    match message {
        Message::Block {
            slot,
            piece,
            offset_bytes,
            bytes,
        } => {
            let mut changed = BytesMut::from(&bytes[..]);
            changed[0] ^= 1;
            Message::Block {
                slot,
                piece,
                offset_bytes,
                bytes: changed.freeze(),
            }
        }
        other => other,
    }
}

/// A peer whose pieces do not verify is dropped at the first, and the payload comes from another.
// req: SWARM-12
// req: SWARM-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupting_peer_is_dropped_and_the_payload_completes() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(5_000_000);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, _served) = origin(&source, &bytes).await;
    let proxy = corrupting_proxy(source.swarm.local_addr().expect("listening")).await;
    let only_bad = manifest.with_peers(vec![proxy.to_string()]).expect("valid");
    let victim = node(&folder.path().join("victim")).await;
    let transfer = victim
        .swarm
        .fetch(ScopeId::NODE, &only_bad)
        .await
        .expect("begun");
    let bad = async {
        while transfer.stats().expect("running").counts.bad_pieces == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, bad)
        .await
        .expect("a bad piece came");
    // Only now, or the victim would hear of it and have no need of the bad one.
    let honest = node(&folder.path().join("honest")).await;
    let first = honest
        .swarm
        .fetch(ScopeId::NODE, &manifest)
        .await
        .expect("begun");
    finish(&first).await;
    transfer.add_peer(honest.swarm.local_addr().expect("listening"));
    finish(&transfer).await;
    assert_holds(&victim, manifest.id(), &bytes);
    for node in [&victim, &honest, &source] {
        node.swarm.shutdown().await;
    }
}

/// A node that stops half way has verified pieces in its store; started again it fetches only the others.
// req: SWARM-14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verified_pieces_are_not_fetched_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = content(32 * 1024 * 1024);
    let source = node(&folder.path().join("origin")).await;
    let (manifest, _served) = origin(&source, &bytes).await;
    let home = folder.path().join("node");
    let held = {
        let node = node(&home).await;
        let transfer = node
            .swarm
            .fetch(ScopeId::NODE, &manifest)
            .await
            .expect("begun");
        let mut progress = transfer.progress();
        let some = progress.wait_for(|progress| progress.pieces_held > 20);
        tokio::time::timeout(PATIENCE, some)
            .await
            .expect("pieces come")
            .expect("running");
        node.swarm.shutdown().await;
        drop(transfer);
        drop(node.swarm);
        drop(node.store);
        let settings = StoreSettings {
            free_bytes_min: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(Arc::new(OsDisk), &home, settings).expect("a store");
        match store
            .begin_partial(ScopeId::NODE, &manifest)
            .expect("there")
        {
            warren::payload::store::BegunPartial::Partial(partial) => partial.held(),
            warren::payload::store::BegunPartial::Complete(_) => {
                Bitfield::full(manifest.geometry())
            }
        }
    };
    assert!(held.held_count() > 20);
    let node = node(&home).await;
    let transfer = node
        .swarm
        .fetch(ScopeId::NODE, &manifest)
        .await
        .expect("begun");
    finish(&transfer).await;
    let fetched = transfer.stats().expect("running").counts.pieces_fetched;
    assert_eq!(
        fetched + held.held_count(),
        manifest.geometry().piece_count()
    );
    assert_holds(&node, manifest.id(), &bytes);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A block's bytes may come in any portions.
// req: PEER-5
#[tokio::test]
async fn messages_in_single_bytes_are_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&folder.path().join("node")).await;
    let address = node.swarm.local_addr().expect("listening");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let mut output = BytesMut::new();
    wire::encode(&hello(3), &mut output);
    let join = Message::Join {
        slot: Slot(1),
        payload: PayloadId::from_bytes([5; 32]),
        proof: [0; 32],
    };
    wire::encode(&join, &mut output);
    let mut input = BytesMut::new();
    for byte in output.split() {
        stream.write_all(&[byte]).await.expect("sent");
    }
    assert!(matches!(
        receive(&mut stream, &mut input).await,
        Some(Message::Hello(_))
    ));
    assert!(matches!(
        receive(&mut stream, &mut input).await,
        Some(Message::Refuse { .. })
    ));
    // A block for a slot that never was ends the connection, once it is whole.
    output.put_slice(&wire::encode_block_header(wire::BlockHeader {
        slot: Slot(7),
        piece: 0,
        offset_bytes: 0,
        len_bytes: 10,
    }));
    output.put_slice(b"0123456789");
    for byte in output {
        stream.write_all(&[byte]).await.expect("sent");
    }
    assert_eq!(receive(&mut stream, &mut input).await, None);
    node.swarm.shutdown().await;
}
