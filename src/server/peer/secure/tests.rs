//! The handshake over sockets: who speaks TLS with whom, and what somebody in between can do.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::disk::OsDisk;
use crate::payload::{AccessKey, Manifest, ScopeId, Store, StoreSettings};
use crate::server::peer::{Swarm, SwarmHandle, SwarmSettings, SwarmTransfer};
use crate::swarm::Message;
use crate::swarm::wire;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the payload consists of, so that it can be found on the wire.
const MARK: &[u8; 16] = b"sixteen octets..";

struct Node {
    store: Store,
    swarm: SwarmHandle,
    _folder: tempfile::TempDir,
}

async fn node(tls: PeerTls) -> Node {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = StoreSettings {
        free_bytes_min: 0,
        ..StoreSettings::default()
    };
    let store = Store::open(Arc::new(OsDisk), folder.path(), settings).expect("a store");
    let settings = SwarmSettings {
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        tls,
        ..SwarmSettings::default()
    };
    let swarm = Swarm::start(settings, store.clone()).await.expect("starts");
    Node {
        store,
        swarm,
        _folder: folder,
    }
}

/// A payload at a node that serves it.
async fn origin(tls: PeerTls) -> (Node, Manifest, SwarmTransfer) {
    let node = node(tls).await;
    let bytes = MARK.repeat(20_000);
    let key = AccessKey::from_bytes([5; 32]);
    let upload = node
        .store
        .begin_upload(ScopeId::NODE, bytes.len() as u64, key);
    let mut upload = upload.expect("room");
    upload.write(&bytes).expect("written");
    let stored = upload.finish().expect("stored");
    let manifest = node
        .store
        .manifest(ScopeId::NODE, stored.id)
        .expect("whole");
    let served = node
        .swarm
        .seed(ScopeId::NODE, stored.id)
        .await
        .expect("served");
    (node, manifest, served)
}

async fn fetch(node: &Node, manifest: &Manifest, from: SocketAddr) -> SwarmTransfer {
    let manifest = manifest.with_peers(vec![from.to_string()]).expect("a peer");
    let fetched = node.swarm.fetch(ScopeId::NODE, &manifest).await;
    fetched.expect("begun")
}

fn address(node: &Node) -> SocketAddr {
    node.swarm.local_addr().expect("it listens")
}

/// What went through a relay from the side that was dialled to the side that dialled, connection by connection.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// What a relay does with what comes from the dialled side (true) or the dialling one.
type Change = fn(&mut Vec<u8>, bool);

/// Passes on what comes, changed, and notes what the dialled side said.
async fn relay(to: SocketAddr, takes_tls: bool, change: Change) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let heard = Heard::default();
    let notes = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            if !takes_tls && begins_with_tls(&near).await.unwrap_or(true) {
                // What a peer without TLS would answer: something else.
                let _ = near.write_all(b"no TLS here").await;
                let _ = near.shutdown().await;
                let _ = near.read_to_end(&mut Vec::new()).await;
                continue;
            }
            let far = TcpStream::connect(to)
                .await
                .expect("the dialled side listens");
            let place = {
                let mut notes = notes.lock();
                notes.push(Vec::new());
                notes.len() - 1
            };
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::spawn(pass(near_in, far_out, move |bytes| change(bytes, false)));
            let notes = Arc::clone(&notes);
            tokio::spawn(pass(far_in, near_out, move |bytes| {
                change(bytes, true);
                notes.lock()[place].extend_from_slice(bytes);
            }));
        }
    });
    (address, heard)
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut each: impl FnMut(&mut Vec<u8>),
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let mut part = bytes[..count].to_vec();
        each(&mut part);
        if to.write_all(&part).await.is_err() {
            return;
        }
    }
}

/// The messages that the dialled side sent in the clear.
fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut input = BytesMut::from(bytes);
    let mut messages = Vec::new();
    while let Ok(Some(message)) = wire::decode(&mut input) {
        messages.push(message);
    }
    messages
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "never so: {what}");
}

/// Two sides speak TLS if both can, and plainly if one cannot and the other need not; on TLS no octet of the
/// payload is seen on the way.
// req: PEER-16
// req: PEER-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sides_agree_on_the_transport() {
    use PeerTls::{Off, Prefer, Require};
    for (dialler, listener, is_encrypted) in [
        (Off, Off, false),
        (Off, Prefer, false),
        (Prefer, Off, false),
        (Prefer, Prefer, true),
        (Prefer, Require, true),
        (Require, Prefer, true),
        (Require, Require, true),
    ] {
        let (source, manifest, served) = origin(listener).await;
        let (between, heard) = relay(address(&source), true, |_, _| {}).await;
        let node = node(dialler).await;
        let transfer = fetch(&node, &manifest, between).await;
        let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
        let case = format!("{dialler} to {listener}");
        assert!(finished.is_ok_and(|it| it.is_ok()), "{case}");
        let seen = heard.lock().concat();
        assert!(seen.len() > 300_000, "{case}: it came this way");
        let is_seen = seen.windows(MARK.len()).any(|window| window == MARK);
        assert_eq!(is_seen, !is_encrypted, "{case}");
        let ids: Vec<NodeId> = served
            .stats()
            .expect("served")
            .past
            .iter()
            .map(|(id, _)| *id)
            .chain(
                served
                    .stats()
                    .expect("served")
                    .peers
                    .iter()
                    .map(|peer| peer.node),
            )
            .collect();
        assert!(ids.contains(&node.swarm.node()), "{case}: known by its key");
        node.swarm.shutdown().await;
        source.swarm.shutdown().await;
    }
}

/// Who requires TLS serves and asks nobody without it.
// req: PEER-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_requires_tls_has_no_plain_connection() {
    let (strict, manifest, _served) = origin(PeerTls::Require).await;
    let plain = node(PeerTls::Off).await;
    let (between, heard) = relay(address(&strict), true, |_, _| {}).await;
    let transfer = fetch(&plain, &manifest, between).await;
    until("a connection", || !heard.lock().is_empty()).await;
    until("its end", || plain.swarm.connection_count() == 0).await;
    assert!(heard.lock().concat().is_empty(), "not a word without TLS");
    assert_eq!(transfer.progress().borrow().pieces_held, 0);
    plain.swarm.shutdown().await;
    strict.swarm.shutdown().await;
}

/// Somebody on the way who lets no TLS through gets no more than two greetings out of sides that speak it.
// req: PEER-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downgrade_ends_at_hello() {
    let (source, manifest, _served) = origin(PeerTls::Prefer).await;
    let node = node(PeerTls::Prefer).await;
    let (between, heard) = relay(address(&source), false, |_, _| {}).await;
    let transfer = fetch(&node, &manifest, between).await;
    until("a plain connection", || !heard.lock().concat().is_empty()).await;
    until("its end", || {
        source.swarm.connection_count() == 0 && node.swarm.connection_count() == 0
    })
    .await;
    for connection in heard.lock().iter() {
        let said = messages(connection);
        assert!(
            said.iter().all(|it| matches!(it, Message::Hello(_))),
            "{said:?}"
        );
    }
    assert_eq!(transfer.progress().borrow().pieces_held, 0);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A full node closes before a word is said: it is not asked at once again without TLS.
// req: PEER-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_just_closes_is_dialled_with_tls_alone() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let full = listener.local_addr().expect("bound");
    let (source, manifest, _served) = origin(PeerTls::Prefer).await;
    let node = node(PeerTls::Prefer).await;
    let _transfer = fetch(&node, &manifest, full).await;
    for dial in 1..=3 {
        let (near, _) = listener.accept().await.expect("dialled");
        assert!(
            begins_with_tls(&near).await.expect("it speaks"),
            "dial {dial}"
        );
    }
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// Where the flags of a `Hello` stand on the wire: behind head, magic and version.
const FLAGS_PLACE: usize = wire::HEADER_BYTES + 8 + 2 + 1;

/// Takes the word for TLS out of a `Hello`.
#[allow(clippy::ptr_arg)] // it stands where others change the length
fn silence(bytes: &mut Vec<u8>, _from_dialled: bool) {
    let is_hello = bytes.get(wire::HEADER_BYTES..wire::HEADER_BYTES + 8) == Some(&wire::MAGIC);
    if let Some(flags) = bytes.get_mut(FLAGS_PLACE).filter(|_| is_hello) {
        *flags = 0;
    }
}

/// If he makes each believe that the other speaks plainly only, their proofs do not hold: not a bit is shown.
// req: PEER-17
// req: PEER-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_hello_breaks_the_proofs() {
    let (source, manifest, _served) = origin(PeerTls::Prefer).await;
    let node = node(PeerTls::Prefer).await;
    let (between, heard) = relay(address(&source), false, silence).await;
    let transfer = fetch(&node, &manifest, between).await;
    let refused = |heard: &Heard| {
        let heard = heard.lock();
        heard.iter().any(|it| {
            messages(it)
                .iter()
                .any(|it| matches!(it, Message::Refuse { .. }))
        })
    };
    until("a refusal", || refused(&heard)).await;
    for connection in heard.lock().iter() {
        let said = messages(connection);
        let is_nothing = |message: &Message| {
            matches!(
                message,
                Message::Hello(_) | Message::Refuse { .. } | Message::Join { .. } | Message::Ping
            )
        };
        assert!(said.iter().all(is_nothing), "{said:?}");
    }
    assert_eq!(transfer.progress().borrow().pieces_held, 0);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// One direction through somebody who ends TLS on both sides: messages in, changed, out.
async fn carry(from: Arc<SecureSocket>, to: Arc<SecureSocket>, own: NodeId, heard: Heard) {
    let (mut received, mut place) = (Received::default(), vec![0; 64 * 1024]);
    let mut input = BytesMut::new();
    while let Ok(count @ 1..) = from.read(&mut received, &mut place).await {
        input.extend_from_slice(&place[..count]);
        while let Ok(Some(message)) = wire::decode(&mut input) {
            let message = match message {
                Message::Hello(hello) => Message::Hello(wire::Hello { node: own, ..hello }),
                other => other,
            };
            let mut output = BytesMut::new();
            wire::encode(&message, &mut output);
            heard.lock().push(output.to_vec());
            if to.write_all(&output).await.is_err() {
                return;
            }
        }
    }
}

/// Somebody who ends TLS on both sides with a key of his own, and says the ids that fit it, carries proofs that
/// do not hold: they are bound to the other connection.
// req: PEER-8
// req: PEER-16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carried_proofs_do_not_hold_on_another_connection() {
    let (source, manifest, _served) = origin(PeerTls::Require).await;
    let node = node(PeerTls::Require).await;
    let key = PeerKey::random().expect("random");
    let own = key.node().expect("an id");
    let handshaker = Handshaker::new(&key).expect("a key");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let between = listener.local_addr().expect("bound");
    let (heard, target) = (Heard::default(), address(&source));
    let notes = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(near) = handshaker.accept(near).await else {
                continue;
            };
            let far = TcpStream::connect(target).await.expect("it listens");
            let Ok(far) = handshaker.connect(far).await else {
                continue;
            };
            let (near, far) = (Arc::new(near), Arc::new(far));
            tokio::spawn(carry(
                Arc::clone(&near),
                Arc::clone(&far),
                own,
                Arc::clone(&notes),
            ));
            tokio::spawn(carry(far, near, own, Arc::clone(&notes)));
        }
    });
    let transfer = fetch(&node, &manifest, between).await;
    let all = |heard: &Heard| messages(&heard.lock().concat());
    until("a refusal", || {
        all(&heard)
            .iter()
            .any(|it| matches!(it, Message::Refuse { .. }))
    })
    .await;
    let is_more = |message: &Message| {
        !matches!(
            message,
            Message::Hello(_) | Message::Join { .. } | Message::Refuse { .. } | Message::Ping
        )
    };
    assert!(!all(&heard).iter().any(is_more), "{:?}", all(&heard));
    assert_eq!(transfer.progress().borrow().pieces_held, 0);
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A proof that was heard on one connection is worth nothing on the next: what is said is not said again.
// req: PEER-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_proof_is_refused() {
    let (source, manifest, _served) = origin(PeerTls::Off).await;
    let node = node(PeerTls::Off).await;
    static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    let listen = |bytes: &mut Vec<u8>, from_dialled: bool| {
        if !from_dialled {
            SAID.lock().extend_from_slice(bytes);
        }
    };
    let (between, _heard) = relay(address(&source), true, listen).await;
    let transfer = fetch(&node, &manifest, between).await;
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    assert!(finished.is_ok_and(|it| it.is_ok()));
    node.swarm.shutdown().await;
    let said: Vec<Message> = messages(&SAID.lock()).into_iter().take(2).collect();
    assert!(
        matches!(said.as_slice(), [Message::Hello(_), Message::Join { .. }]),
        "{said:?}"
    );
    let mut again = BytesMut::new();
    said.iter()
        .for_each(|message| wire::encode(message, &mut again));
    let mut stream = TcpStream::connect(address(&source))
        .await
        .expect("it listens");
    stream.write_all(&again).await.expect("sent");
    let mut answer = Vec::new();
    let mut place = vec![0; 4096];
    let answered = async {
        while !messages(&answer)
            .iter()
            .any(|it| matches!(it, Message::Refuse { .. }))
        {
            match stream.read(&mut place).await {
                Ok(count @ 1..) => answer.extend_from_slice(&place[..count]),
                _ => break,
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, answered).await.is_ok());
    let answer = messages(&answer);
    assert!(
        matches!(
            answer.as_slice(),
            [Message::Hello(_), Message::Refuse { .. }]
        ),
        "{answer:?}"
    );
    source.swarm.shutdown().await;
}

/// A setting that is changed counts for connections that come.
// req: PEER-18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_setting_counts_for_new_connections() {
    let (source, manifest, _served) = origin(PeerTls::Off).await;
    source.swarm.set_tls(PeerTls::Require);
    let (between, heard) = relay(address(&source), true, |_, _| {}).await;
    let node = node(PeerTls::Prefer).await;
    let transfer = fetch(&node, &manifest, between).await;
    let finished = tokio::time::timeout(PATIENCE, transfer.finished()).await;
    assert!(finished.is_ok_and(|it| it.is_ok()));
    let seen = heard.lock().concat();
    assert!(!seen.windows(MARK.len()).any(|window| window == MARK));
    node.swarm.shutdown().await;
    source.swarm.shutdown().await;
}

/// A node keeps its key, and so its id; what is no key is not taken for one, and no output shows it.
// req: PEER-18
#[test]
fn a_key_is_kept_and_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("peer.key");
    assert_eq!(PeerKey::lasting(PeerTls::Off, &path).expect("none"), None);
    assert!(!path.exists(), "no key without TLS");
    let made = PeerKey::lasting(PeerTls::Prefer, &path).expect("made");
    let made = made.expect("TLS is on");
    let read = PeerKey::load_or_create(&path).expect("read");
    assert_eq!(made, read);
    assert_eq!(made.node().expect("an id"), read.node().expect("an id"));
    let other = PeerKey::random().expect("random");
    assert_ne!(other.node().expect("an id"), made.node().expect("an id"));
    assert_eq!(format!("{made:?}"), "PeerKey");
    let rights = std::os::unix::fs::MetadataExt::mode(&path.metadata().expect("it is there"));
    assert_eq!(rights & 0o777, 0o600);
    std::fs::write(&path, "short").expect("written");
    let refused = PeerKey::load_or_create(&path);
    assert!(matches!(refused, Err(PeerKeyError::Content(_))));
}
