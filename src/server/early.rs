//! Tells nodes of a body while it is still being published, and gives its pieces out.
//!
//! Owns: the forms of an announcement, and what is told of one upload. Where the body will go was found out by the session.
//! Bounds: bodies of [`SIZE_BYTES_MIN`] and more that are not whole after [`PATIENCE`]; a message to each node at
//! most every `TELL_INTERVAL`, with at most `HASHES_AT_ONCE` hashes.
//! Spec: `spec/early.md` EARLY-1 to EARLY-3.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::inside::publish_from_inside;
use super::peer::{EarlySwarm, SwarmHandle, SwarmTransfer};
use crate::amqp::field::ShortString;
use crate::amqp::header::Properties;
use crate::broker::{Access, Broker, Connection, Name, ResourceKind, Vhost};
use crate::payload::id::HASH_BYTES;
use crate::payload::store::Upload;
use crate::payload::{AccessKey, Geometry, PayloadId, PieceBytes, PieceHash, PieceIndex, ScopeId};
use crate::session::NODE_QUEUE;

/// Smaller bodies are announced by their manifests alone.
pub const SIZE_BYTES_MIN: u64 = 4 << 20;
/// A body that is whole after this long is not announced: what that costs would be for little.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Hashes are gathered for so long.
const TELL_INTERVAL: Duration = Duration::from_millis(40);
/// Hashes of one message, at most: 256 KiB of them.
const HASHES_AT_ONCE: usize = 8_192;
/// What the names of the queues begin with that nodes hear announcements in.
const EARLY_QUEUE: &str = "warren.early.";
/// The AMQP `type` of an announcement.
pub const MESSAGE_TYPE: ShortString = ShortString::from_static("warren.early");
const JSON: ShortString = ShortString::from_static("application/json");

/// One message about a payload that is being published.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Word {
    /// It begins.
    Begin(Begin),
    /// Pieces became known.
    Pieces {
        /// Of which swarm, 64 hexadecimal digits.
        swarm: String,
        /// Number of the first.
        first: u32,
        /// Their hashes, in order, as base64.
        hashes: String,
    },
    /// It is over.
    End {
        /// Which swarm, 64 hexadecimal digits.
        swarm: String,
        /// Whether the payload is stored, so that a manifest may come.
        stored: bool,
    },
}

/// How to take part.
#[derive(Clone, Deserialize, Serialize)]
pub struct Begin {
    /// The swarm's name, 64 hexadecimal digits.
    pub swarm: String,
    /// Its access key, 64 hexadecimal digits.
    key: String,
    size_bytes: u64,
    piece_bytes: u64,
    /// Who gives pieces, as `host:port`.
    pub peers: Vec<String>,
}

impl std::fmt::Debug for Begin {
    /// Leaves out the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Begin")
            .field("swarm", &self.swarm)
            .field("size_bytes", &self.size_bytes)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl Begin {
    /// The swarm that it announces, if it is one.
    #[must_use]
    pub fn swarm(&self) -> Option<EarlySwarm> {
        let piece_bytes = PieceBytes::new(self.piece_bytes).ok()?;
        Some(EarlySwarm {
            id: self.swarm.parse().ok()?,
            key: self.key.parse().ok()?,
            geometry: Geometry::new(self.size_bytes, piece_bytes).ok()?,
        })
    }
}

/// The hashes of a [`Word::Pieces`]; `None` if they are not whole.
#[must_use]
pub fn decode_hashes(text: &str) -> Option<Vec<PieceHash>> {
    let bytes = BASE64.decode(text).ok()?;
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    let hashes = hashes.iter().map(|hash| PieceHash::from_bytes(*hash));
    rest.is_empty().then(|| hashes.collect())
}

fn encode_hashes(hashes: &[PieceHash]) -> String {
    let mut bytes = Vec::with_capacity(hashes.len() * HASH_BYTES);
    for hash in hashes {
        bytes.extend_from_slice(hash.as_bytes());
    }
    BASE64.encode(bytes)
}

/// The queue in which a node hears announcements, by the name of the node's own queue.
#[must_use]
pub fn early_queue(node_queue: &[u8]) -> Option<ShortString> {
    let node = node_queue.strip_prefix(NODE_QUEUE.as_bytes())?;
    let node = std::str::from_utf8(node).ok()?;
    ShortString::try_from(format!("{EARLY_QUEUE}{node}").as_str()).ok()
}

/// The queue in which a node hears announcements, by its own queue: if who has it to himself may read the node's
/// manifests too, since an announcement bears a key.
fn hearing(broker: &Broker, vhost: &Vhost, node_queue: &Name) -> Option<ShortString> {
    // req: EARLY-2
    let queue = early_queue(node_queue.as_bytes())?;
    let there = vhost.queue(queue.as_bytes())?;
    let (kind, node) = (ResourceKind::Queue, node_queue.as_bytes());
    let users = broker.users();
    let may_read = users.authorize(there.owner_user()?, vhost.name(), kind, node, Access::Read);
    may_read.then_some(queue)
}

/// Who is told of one body.
#[derive(Debug, Default)]
pub(super) struct Audience {
    node_queues: Vec<Name>,
}

impl Audience {
    /// The nodes whose queues these are.
    pub(super) fn of(node_queues: Vec<Name>) -> Self {
        Self { node_queues }
    }
}

/// What is told of one upload. Dropped before its end, it tells that nothing comes of it.
pub(super) struct Announcement {
    broker: Arc<Broker>,
    scope: ScopeId,
    audience: Audience,
    began: Instant,
    begun: Option<Begun>,
}

/// An announcement that was made.
struct Begun {
    id: PayloadId,
    vhost: Arc<Vhost>,
    connection: Connection,
    queues: Vec<ShortString>,
    transfer: SwarmTransfer,
    told_count: usize,
    told: Instant,
}

impl Announcement {
    /// For a body of this size; `None` if it is too small, or for no node.
    pub(super) fn new(
        broker: &Arc<Broker>,
        scope: ScopeId,
        audience: Audience,
        size_bytes: u64,
        now: Instant,
    ) -> Option<Self> {
        let is_for_nodes = !audience.node_queues.is_empty();
        (is_for_nodes && size_bytes >= SIZE_BYTES_MIN).then(|| Self {
            broker: Arc::clone(broker),
            scope,
            audience,
            began: now,
            begun: None,
        })
    }

    /// When [`Self::advance`] has something to tell next, if no more of the upload comes.
    pub(super) fn due(&self, upload: &Upload) -> Option<Instant> {
        match &self.begun {
            Some(begun) => {
                let has_new = upload.piece_hashes().len() > begun.told_count;
                has_new.then(|| begun.told + TELL_INTERVAL)
            }
            None if self.audience.node_queues.is_empty() => None,
            None => Some(self.began + PATIENCE),
        }
    }

    /// Tells what is new of the upload, if it is time to.
    // req: EARLY-1
    pub(super) fn advance(&mut self, swarm: &SwarmHandle, upload: &Upload, now: Instant) {
        if self.begun.is_none() {
            let is_slow = now.saturating_duration_since(self.began) >= PATIENCE;
            if !is_slow || self.audience.node_queues.is_empty() {
                return;
            }
            self.begun = self.begin(swarm, upload, now);
            if self.begun.is_none() {
                self.audience = Audience::default();
            }
        }
        if let Some(begun) = &mut self.begun {
            begun.tell_pieces(upload, now);
        }
    }

    fn begin(&self, swarm: &SwarmHandle, upload: &Upload, now: Instant) -> Option<Begun> {
        let vhosts = self.broker.vhosts();
        let vhost = vhosts.into_iter().find(|it| it.scope() == self.scope)?;
        let queues = self.audience.node_queues.iter();
        let queues: Vec<ShortString> = queues
            .filter_map(|queue| hearing(&self.broker, &vhost, queue))
            .collect();
        if queues.is_empty() {
            return None;
        }
        let connection = self.broker.connect_internal(vhost.name().as_bytes()).ok()?;
        let (mut id, mut key) = ([0; HASH_BYTES], [0; HASH_BYTES]);
        getrandom::fill(&mut id).ok()?;
        getrandom::fill(&mut key).ok()?;
        let early = EarlySwarm {
            id: PayloadId::from_bytes(id),
            key: AccessKey::from_bytes(key),
            geometry: *upload.geometry(),
        };
        let transfer = swarm.give_early(&early, upload.reader());
        let transfer = transfer
            .inspect_err(|error| tracing::debug!(%error, "a body is not announced"))
            .ok()?;
        let begun = Begun {
            id: early.id,
            vhost,
            connection,
            queues,
            transfer,
            told_count: 0,
            told: now,
        };
        begun.tell(
            &Word::Begin(Begin {
                swarm: early.id.to_string(),
                key: early.key.expose_hex(),
                size_bytes: early.geometry.size_bytes(),
                piece_bytes: u64::from(early.geometry.piece_bytes().get()),
                peers: swarm.local_addr().iter().map(ToString::to_string).collect(),
            }),
            now,
        );
        tracing::info!(
            swarm = %format_args!("{:.10}", early.id),
            size_bytes = early.geometry.size_bytes(),
            nodes = begun.queues.len(),
            "a body is announced while it is published"
        );
        Some(begun)
    }

    /// Ends it: tells whether the payload is stored. What was begun is given to who is to serve on.
    // req: EARLY-3
    pub(super) fn end(mut self, is_stored: bool, now: Instant) -> Option<SwarmTransfer> {
        let begun = self.begun.take()?;
        begun.tell_end(is_stored, now);
        is_stored.then_some(begun.transfer)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Some(begun) = &self.begun {
            begun.tell_end(false, Instant::now());
        }
    }
}

impl Begun {
    /// Tells the hashes that are new; what was told last is given out from now on.
    fn tell_pieces(&mut self, upload: &Upload, now: Instant) {
        let known = upload.piece_hashes();
        let geometry = upload.geometry();
        let is_all = known.len() == geometry.piece_count() as usize;
        let is_early = now.saturating_duration_since(self.told) < TELL_INTERVAL;
        if is_early && self.told_count > 0 && !is_all {
            return;
        }
        let new = known.get(self.told_count..).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        self.told = now;
        for hashes in new.chunks(HASHES_AT_ONCE) {
            let Ok(first) = u32::try_from(self.told_count) else {
                return;
            };
            self.told_count += hashes.len();
            let numbers = (first..).take(hashes.len());
            let pieces: Vec<PieceIndex> = numbers
                .filter_map(|number| geometry.piece_index(number))
                .collect();
            self.tell(
                &Word::Pieces {
                    swarm: self.id.to_string(),
                    first,
                    hashes: encode_hashes(hashes),
                },
                now,
            );
            self.transfer.gain(&pieces);
        }
    }

    fn tell_end(&self, stored: bool, now: Instant) {
        let swarm = self.id.to_string();
        self.tell(&Word::End { swarm, stored }, now);
    }

    /// Puts a message into each node's queue.
    // req: EARLY-2
    fn tell(&self, word: &Word, now: Instant) {
        let body = serde_json::to_vec(word).expect("plain values with text keys are JSON");
        let body = bytes::Bytes::from(body);
        let properties = Properties {
            content_type: Some(JSON),
            message_type: Some(MESSAGE_TYPE),
            ..Properties::default()
        };
        for queue in &self.queues {
            let to = (&ShortString::EMPTY, queue);
            let (vhost, connection, body) = (&self.vhost, &self.connection, body.clone());
            let published = publish_from_inside(vhost, connection, to, &properties, body, now);
            if let Err(error) = published {
                tracing::debug!(%queue, %error, "a node is not told of a body that is being published");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::field::FieldTable;
    use crate::broker::{BrokerSettings, PasswordHash, Permissions, QueueDeclare, Waker};

    struct Asleep;

    impl Waker for Asleep {
        fn wake(&self) {}
    }

    /// A key goes only into a queue of somebody's own who may read the node's manifests.
    // req: EARLY-2
    #[test]
    fn key_goes_to_who_may_read_the_manifest() {
        let now = Instant::now();
        let broker = Broker::open(BrokerSettings::new([1; 32], now, 0), None, None);
        let broker = broker.expect("nothing to recover");
        let users = broker.users();
        let connect = |name: &str, read: &str| {
            let (user, vhost) = (Name::from(name), Name::from("/"));
            let password = PasswordHash::new(b"pw", broker.salt());
            users
                .put_user(&user, Some(password), Vec::new())
                .expect("in memory");
            let rights = Permissions::new(".*", ".*", read).expect("patterns");
            users
                .put_permissions(&user, &vhost, rights)
                .expect("in memory");
            let user = users.user(name.as_bytes()).expect("an account");
            broker
                .connect(&user, b"/", Arc::new(Asleep))
                .expect("may enter")
        };
        let node = connect("node", "^warren[.](node|early)[.].*");
        let other = connect("other", "^warren[.]early[.].*");
        let declare = |by: &Connection, name: &str, exclusive| {
            let declare = QueueDeclare {
                name: name.as_bytes(),
                passive: false,
                durable: false,
                exclusive,
                auto_delete: false,
                arguments: &FieldTable::EMPTY,
            };
            let declared = by.vhost().queue_declare(by, &declare, now);
            declared.expect("declared");
        };
        declare(&node, "warren.early.own", true);
        declare(&node, "warren.early.shared", false);
        declare(&other, "warren.early.foreign", true);
        let hears = |name: &str| {
            let queue = Name::from(format!("warren.node.{name}").as_str());
            hearing(&broker, node.vhost(), &queue)
        };
        assert_eq!(
            hears("own"),
            Some(ShortString::from_static("warren.early.own"))
        );
        assert_eq!(hears("shared"), None, "anybody may consume it");
        assert_eq!(
            hears("foreign"),
            None,
            "its owner may not read the manifest"
        );
        assert_eq!(hears("absent"), None);
    }

    /// An announcement is read as it was written, shows no key, and nonsense is none.
    // req: EARLY-2
    #[test]
    fn announcements_are_read_back() {
        let begin = Word::Begin(Begin {
            swarm: "0b".repeat(32),
            key: "c4".repeat(32),
            size_bytes: 10 << 20,
            piece_bytes: 16 << 10,
            peers: vec!["0.0.0.0:5690".to_owned()],
        });
        assert!(!format!("{begin:?}").contains("c4c4"));
        let text = serde_json::to_string(&begin).expect("JSON");
        let Ok(Word::Begin(read)) = serde_json::from_str(&text) else {
            panic!("{text}");
        };
        let swarm = read.swarm().expect("a swarm");
        assert_eq!(swarm.geometry.piece_count(), 640);
        assert_eq!(swarm.key, AccessKey::from_bytes([0xc4; 32]));
        let odd = Begin {
            piece_bytes: 1_000,
            ..read
        };
        assert!(odd.swarm().is_none());
        let hashes = [
            PieceHash::from_bytes([1; 32]),
            PieceHash::from_bytes([2; 32]),
        ];
        assert_eq!(decode_hashes(&encode_hashes(&hashes)), Some(hashes.into()));
        assert_eq!(decode_hashes("AAAA"), None);
        assert_eq!(
            early_queue(b"warren.node.edge1"),
            Some(ShortString::from_static("warren.early.edge1"))
        );
        assert_eq!(early_queue(b"other"), None);
    }
}
