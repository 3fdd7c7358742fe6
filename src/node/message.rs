//! The control plane's messages: names, file messages, receipts, presence and the registry.
//!
//! Owns: every form of `spec/control-plane.md` in both directions. Knows no connection.
//! Bound: [`CONTROL_BYTES_MAX`] for a JSON message, [`REGISTRY_NODES_MAX`] nodes in the registry.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::place::LeafName;
use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::Properties;
use crate::payload::PayloadId;
use crate::session::NODE_QUEUE;

/// Topic exchange of files; the routing key is the group.
pub const FILES_EXCHANGE: ShortString = ShortString::from_static("warren.files");
/// Topic exchange of presence and requests for it.
pub const CONTROL_EXCHANGE: ShortString = ShortString::from_static("warren.control");
/// Queue of one message: the nodes that ever joined.
pub const REGISTRY_QUEUE: ShortString = ShortString::from_static("warren.registry");
/// Routing key of presence.
pub const PRESENCE_KEY: ShortString = ShortString::from_static("presence");
/// Routing key of requests for presence.
pub const REQUEST_KEY: ShortString = ShortString::from_static("request");
/// Longest JSON message that is read, in bytes. A longer one is dropped.
pub const CONTROL_BYTES_MAX: u64 = 1 << 20;
/// Most nodes that the registry keeps; beyond it the one that was away longest goes.
pub const REGISTRY_NODES_MAX: usize = 4_096;

const NODE_NAME_CHARS_MAX: usize = 64;
const GROUP_BYTES_MAX: usize = 200;
const TYPE_FILE: ShortString = ShortString::from_static("warren.file");
const TYPE_RECEIPT: ShortString = ShortString::from_static("warren.receipt");
const TYPE_PRESENCE: ShortString = ShortString::from_static("warren.presence");
const TYPE_REGISTRY: ShortString = ShortString::from_static("warren.registry");
const TYPE_REQUEST: ShortString = ShortString::from_static("warren.request");
const JSON: ShortString = ShortString::from_static("application/json");
const HEADER_NAME: ShortString = ShortString::from_static("x-payload-name");
const HEADER_ID: ShortString = ShortString::from_static("x-payload-id");
const HEADER_SIZE: ShortString = ShortString::from_static("x-payload-size");
/// `delivery-mode` of a message that survives a restart.
const PERSISTENT: u8 = 2;
/// Digits of a payload id that name a file which has no other name.
const NAME_DIGITS: usize = 16;

/// Why a text is no node name or group.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a group.
    #[error("a group is 1 to {GROUP_BYTES_MAX} bytes without control characters")]
    Group,
    /// Not a node name.
    #[error(
        "a node name is 1 to {NODE_NAME_CHARS_MAX} characters of a-z, A-Z, 0-9, '-', '_' and '.'"
    )]
    Node,
}

/// The name of a node, unique at its broker.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// A group of nodes: what a file is sent to.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Group(String);

impl NodeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The node's own durable queue.
    // req: CONTROL-2
    #[must_use]
    pub fn queue(&self) -> ShortString {
        ShortString::truncated(format!("{NODE_QUEUE}{}", self.0))
    }
}

impl Group {
    /// The group as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group as routing key or binding key.
    #[must_use]
    pub fn key(&self) -> ShortString {
        ShortString::truncated(self.0.clone())
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    // req: CONTROL-3
    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=NODE_NAME_CHARS_MAX).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if fits && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Node)
        }
    }
}

impl FromStr for Group {
    type Err = NameError;

    // req: CONTROL-3
    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=GROUP_BYTES_MAX).contains(&text.len());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Group)
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for Group {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// What became of a file on a node.
///
/// Announced ──> Accepted ──> Fetching ──> Complete or Failed; only the last two are final.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// The broker has the message; the node has not answered yet.
    Announced,
    /// The node has journaled the message.
    Accepted,
    /// Pieces are arriving.
    Fetching,
    /// The verified file is in the inbox.
    Complete,
    /// It was not placed and will not be.
    Failed,
}

impl FileState {
    /// Whether nothing follows this state.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }

    /// The state as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Accepted => "accepted",
            Self::Fetching => "fetching",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// One file on one node, as receipts and status tell it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Receipt {
    /// Which node.
    pub node: NodeName,
    /// BLAKE3 of the file, 64 hexadecimal digits.
    pub payload_id: String,
    /// The sender's name for the file.
    pub name: String,
    /// What became of it.
    pub state: FileState,
    /// Pieces verified and on disk.
    #[serde(default)]
    pub pieces_done: u32,
    /// Pieces of the payload; 0 for a small file.
    #[serde(default)]
    pub piece_count: u32,
    /// Why it failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// How often the node was asked to try it again; what it says of a later attempt counts more.
    #[serde(default)]
    pub attempt: u32,
    /// Its length in bytes.
    #[serde(default)]
    pub size_bytes: u64,
    /// When it came to this, in milliseconds since 1970.
    #[serde(default)]
    pub at_unix_ms: Option<u64>,
    /// The id of the file's message, where the receipt is no message of its own.
    #[serde(default)]
    pub message_id: Option<String>,
}

/// Why a presence message was sent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceEvent {
    /// The interval has passed, or somebody asked.
    Alive,
    /// The node is ready.
    Join,
    /// The node stops in an orderly way.
    Leave,
}

/// A node's word about itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Presence {
    /// Which node.
    pub node: NodeName,
    /// Why it speaks.
    pub event: PresenceEvent,
    /// The groups that it belongs to.
    pub groups: Vec<Group>,
    /// Where its peers reach it, as `host:port`.
    #[serde(default)]
    pub peers: Vec<String>,
    /// The version that it runs.
    #[serde(default)]
    pub version: String,
    /// Free space on the disk of its inbox, in bytes.
    #[serde(default)]
    pub free_bytes: u64,
    /// Files that it is fetching.
    #[serde(default)]
    pub fetching: u32,
    /// Its id in swarms, 64 hexadecimal digits.
    #[serde(default)]
    pub swarm_id: String,
    /// Its latest files, only in the answer to a request.
    #[serde(default)]
    pub files: Vec<Receipt>,
}

/// What the registry knows of a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Registered {
    /// The groups that it belonged to.
    pub groups: Vec<Group>,
    /// When it last joined or left, in milliseconds since 1970.
    pub seen_unix_ms: u64,
    /// The version that it ran.
    #[serde(default)]
    pub version: String,
}

/// The nodes that ever joined.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Registry {
    /// By name.
    pub nodes: BTreeMap<NodeName, Registered>,
}

impl Registry {
    /// Takes what another copy knows: of two words on a node the later counts.
    // req: CONTROL-16
    pub fn merge(&mut self, other: Self) {
        for (name, theirs) in other.nodes {
            let newer = self
                .nodes
                .get(&name)
                .is_none_or(|ours| ours.seen_unix_ms <= theirs.seen_unix_ms);
            if newer {
                self.nodes.insert(name, theirs);
            }
        }
        while self.nodes.len() > REGISTRY_NODES_MAX {
            let oldest = self.nodes.iter().min_by_key(|(_, node)| node.seen_unix_ms);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            self.nodes.remove(&oldest);
        }
    }
}

/// A JSON message that can be sent.
pub trait ControlMessage: Serialize + DeserializeOwned {
    /// The AMQP `type` property.
    const TYPE: ShortString;
    /// Whether it is to survive a restart of the broker.
    const IS_PERSISTENT: bool;
}

impl ControlMessage for Receipt {
    const TYPE: ShortString = TYPE_RECEIPT;
    const IS_PERSISTENT: bool = true;
}

impl ControlMessage for Presence {
    const TYPE: ShortString = TYPE_PRESENCE;
    const IS_PERSISTENT: bool = false;
}

impl ControlMessage for Registry {
    const TYPE: ShortString = TYPE_REGISTRY;
    const IS_PERSISTENT: bool = true;
}

/// Properties and body of a control message.
#[must_use]
pub fn encode<M: ControlMessage>(message: &M) -> (Properties, Bytes) {
    let body = serde_json::to_vec(message).expect("plain values with text keys are JSON");
    let properties = Properties {
        content_type: Some(JSON),
        message_type: Some(M::TYPE),
        delivery_mode: M::IS_PERSISTENT.then_some(PERSISTENT),
        ..Properties::default()
    };
    (properties, Bytes::from(body))
}

/// Reads a control message; `None` if it is not one of this type and form.
// req: CONTROL-17
#[must_use]
pub fn decode<M: ControlMessage>(properties: &Properties, body: &[u8]) -> Option<M> {
    if properties.message_type.as_ref() != Some(&M::TYPE) || body.len() as u64 > CONTROL_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// Properties of a request for presence, to be answered to `reply_to`.
// req: CONTROL-15
#[must_use]
pub fn request_properties(reply_to: &ShortString) -> Properties {
    Properties {
        message_type: Some(TYPE_REQUEST),
        reply_to: Some(reply_to.clone()),
        ..Properties::default()
    }
}

/// What a sender says about a file besides its bytes.
#[derive(Clone, Debug)]
pub struct FileHead {
    /// The file's name.
    pub name: String,
    /// BLAKE3 of its bytes.
    pub payload_id: PayloadId,
    /// Its length.
    pub size_bytes: u64,
    /// The sender's name for this message.
    pub message_id: ShortString,
    /// Where receipts go.
    pub reply_to: Option<ShortString>,
}

impl FileHead {
    /// Properties of a small file's message.
    // req: CONTROL-4
    #[must_use]
    pub fn properties(&self) -> Properties {
        let size = i64::try_from(self.size_bytes).unwrap_or(i64::MAX);
        let mut headers = FieldTable::default();
        headers.insert(HEADER_NAME, FieldValue::from(self.name.as_str()));
        headers.insert(HEADER_ID, FieldValue::from(self.payload_id.to_string()));
        headers.insert(HEADER_SIZE, FieldValue::from(size));
        Properties {
            content_type: Some(ShortString::from_static("application/octet-stream")),
            message_type: Some(TYPE_FILE),
            headers: Some(headers),
            ..self.common_properties()
        }
    }

    /// What both kinds of file messages have.
    #[must_use]
    pub fn common_properties(&self) -> Properties {
        Properties {
            delivery_mode: Some(PERSISTENT),
            message_id: Some(self.message_id.clone()),
            reply_to: self.reply_to.clone(),
            ..Properties::default()
        }
    }
}

/// The payload id that a message claims for its body, if it claims one that can be one.
#[must_use]
pub fn claimed_id(properties: &Properties) -> Option<Result<PayloadId, ()>> {
    let value = properties.headers.as_ref()?.get("x-payload-id")?;
    Some(value.as_str().and_then(|text| text.parse().ok()).ok_or(()))
}

/// The name for a file: the sender's, else the message id if it is a safe name, else its id's digits.
// req: CONTROL-5
#[must_use]
pub fn file_name(properties: &Properties, payload_id: &PayloadId) -> String {
    let header = properties
        .headers
        .as_ref()
        .and_then(|headers| headers.get("x-payload-name"));
    if let Some(name) = header.as_ref().and_then(FieldValue::as_str) {
        return name.to_owned();
    }
    let message_id = properties.message_id.as_ref().and_then(ShortString::as_str);
    let safe = message_id.filter(|name| LeafName::new(name).is_ok());
    safe.map_or_else(|| format!("{payload_id:.NAME_DIGITS$}"), str::to_owned)
}

/// What names a piece of work: a message that comes again has the same.
// req: CONTROL-8
#[must_use]
pub fn work_key(properties: &Properties, payload_id: &PayloadId, name: &str) -> [u8; 32] {
    let message_id = properties
        .message_id
        .as_ref()
        .map_or(&b""[..], ShortString::as_bytes);
    let mut hasher = blake3::Hasher::new();
    for part in [message_id, payload_id.as_bytes(), name.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Peers with the broker's host in the place of an unspecified one; host names stay as they are.
// req: CONTROL-10
#[must_use]
pub fn peer_addresses(peers: &[String], broker: Option<IpAddr>) -> Vec<String> {
    let resolved = peers
        .iter()
        .filter_map(|peer| match peer.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() => {
                broker.map(|host| SocketAddr::new(host, address.port()).to_string())
            }
            Ok(_) | Err(_) => Some(peer.clone()),
        });
    resolved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(bytes: &[u8]) -> PayloadId {
        PayloadId::from_bytes(*blake3::hash(bytes).as_bytes())
    }

    /// Names that could mean something to a broker, a shell or a terminal are refused.
    // req: CONTROL-3
    #[test]
    fn names_of_nodes_and_groups_are_checked() {
        for name in ["edge1", "a", "A-b_c.9", &"n".repeat(64)] {
            assert!(name.parse::<NodeName>().is_ok(), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", "#", "*", &"n".repeat(65), "a\n"] {
            assert_eq!(name.parse::<NodeName>(), Err(NameError::Node), "{name}");
        }
        for group in ["sites", "sites.*.berlin", "#", "größe", &"g".repeat(200)] {
            assert!(group.parse::<Group>().is_ok(), "{group}");
        }
        for group in ["", "a\u{0}b", "a\tb", &"g".repeat(201)] {
            assert_eq!(group.parse::<Group>(), Err(NameError::Group), "{group}");
        }
        assert!(serde_json::from_str::<NodeName>("\"../x\"").is_err());
    }

    /// A small file's properties carry its name, id and size, and who wants receipts.
    // req: CONTROL-4
    // req: CONTROL-5
    #[test]
    fn file_message_tells_name_id_and_size() {
        let payload_id = id_of(b"abc");
        let head = FileHead {
            name: "ä b.txt".to_owned(),
            payload_id,
            size_bytes: 3,
            message_id: ShortString::from_static("m1"),
            reply_to: Some(ShortString::from_static("q")),
        };
        let properties = head.properties();
        assert_eq!(claimed_id(&properties), Some(Ok(payload_id)));
        assert_eq!(file_name(&properties, &payload_id), "ä b.txt");
        assert_eq!(properties.delivery_mode, Some(2));
        assert_eq!(properties.reply_to, Some(ShortString::from_static("q")));
        let headers = properties.headers.expect("headers");
        assert_eq!(
            headers.get("x-payload-size").and_then(|v| v.as_integer()),
            Some(3)
        );
    }

    /// An ordinary message is named by its message id where that is safe, else by its content.
    // req: CONTROL-5
    #[test]
    fn ordinary_message_gets_a_name() {
        let payload_id = id_of(b"abc");
        let digits = format!("{payload_id:.16}");
        let named = |message_id: Option<&str>| {
            let message_id = message_id.map(ShortString::truncated);
            file_name(
                &Properties {
                    message_id,
                    ..Properties::default()
                },
                &payload_id,
            )
        };
        assert_eq!(named(None), digits);
        assert_eq!(named(Some("report.pdf")), "report.pdf");
        assert_eq!(named(Some("../../etc/passwd")), digits);
    }

    /// The same message again is the same work; another message id, content or name is not.
    // req: CONTROL-8
    #[test]
    fn work_is_told_apart() {
        let with_id = |id: &'static str| Properties {
            message_id: Some(ShortString::from_static(id)),
            ..Properties::default()
        };
        let (a, b) = (id_of(b"a"), id_of(b"b"));
        let key = work_key(&with_id("1"), &a, "n");
        assert_eq!(key, work_key(&with_id("1"), &a, "n"));
        assert_ne!(key, work_key(&with_id("2"), &a, "n"));
        assert_ne!(key, work_key(&with_id("1"), &b, "n"));
        assert_ne!(key, work_key(&with_id("1"), &a, "m"));
        assert_ne!(key, work_key(&Properties::default(), &a, "n"));
    }

    /// Control messages come back as they were; what is not of the form is no message.
    // req: CONTROL-11
    // req: CONTROL-17
    #[test]
    fn control_messages_round_trip_and_garbage_is_dropped() {
        let receipt = Receipt {
            node: "edge1".parse().expect("a name"),
            payload_id: id_of(b"x").to_string(),
            name: "a.bin".to_owned(),
            state: FileState::Fetching,
            pieces_done: 17,
            piece_count: 763,
            reason: None,
            attempt: 0,
            size_bytes: 0,
            at_unix_ms: None,
            message_id: None,
        };
        let (properties, body) = encode(&receipt);
        assert_eq!(decode::<Receipt>(&properties, &body), Some(receipt));
        assert_eq!(decode::<Presence>(&properties, &body), None);
        assert_eq!(decode::<Receipt>(&Properties::default(), &body), None);
        for garbage in [
            &b"{}"[..],
            b"\xff",
            b"[1,2]",
            b"{\"node\":\"a/b\",\"payload_id\":\"\",\"name\":\"\",\"state\":\"complete\"}",
        ] {
            assert_eq!(decode::<Receipt>(&properties, garbage), None);
        }
        let mut long = body.to_vec();
        long.resize(usize::try_from(CONTROL_BYTES_MAX).expect("small") + 1, b' ');
        assert_eq!(decode::<Receipt>(&properties, &long), None);
    }

    /// Two copies of the registry make one that has the latest word on each node.
    // req: CONTROL-16
    #[test]
    fn registries_merge_by_time() {
        let one = |name: &str, seen_unix_ms| {
            let node = Registered {
                groups: Vec::new(),
                seen_unix_ms,
                version: String::new(),
            };
            Registry {
                nodes: BTreeMap::from([(name.parse().expect("a name"), node)]),
            }
        };
        let mut registry = one("a", 5);
        registry.merge(one("b", 1));
        registry.merge(one("a", 9));
        registry.merge(one("a", 7));
        let seen: Vec<_> = registry
            .nodes
            .values()
            .map(|node| node.seen_unix_ms)
            .collect();
        assert_eq!(seen, [9, 1]);
        for number in 0..REGISTRY_NODES_MAX as u64 {
            registry.merge(one(&format!("n{number}"), 100 + number));
        }
        assert_eq!(registry.nodes.len(), REGISTRY_NODES_MAX);
        assert!(!registry.nodes.contains_key(&"b".parse().expect("a name")));
    }

    /// An unspecified host is the broker's; other addresses and names stay.
    // req: CONTROL-10
    #[test]
    fn unspecified_peer_is_at_the_brokers_host() {
        let peers = ["0.0.0.0:5690", "[::]:7", "10.1.2.3:9", "seed.example:5690"];
        let peers: Vec<_> = peers.map(str::to_owned).into();
        let broker = IpAddr::from([192, 168, 0, 1]);
        let found = peer_addresses(&peers, Some(broker));
        assert_eq!(
            found,
            [
                "192.168.0.1:5690",
                "192.168.0.1:7",
                "10.1.2.3:9",
                "seed.example:5690"
            ]
        );
        assert_eq!(peer_addresses(&peers, None).len(), 2);
    }
}
