//! The distributor: publishes files to groups, is the origin of the large ones, and hears what becomes
//! of them.
//!
//! Owns: one connection with a reply queue, and while there are large files a swarm with a store that
//! serves them where they lie.
//! Spec: `spec/control-plane.md` CONTROL-4, CONTROL-18, CONTROL-19.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::{Board, FileBoard};
use super::message::{
    CONTROL_BYTES_MAX, CONTROL_EXCHANGE, FILES_EXCHANGE, FileHead, Group, NodeName, PRESENCE_KEY,
    Presence, REQUEST_KEY, Receipt, Registry, decode, request_properties,
};
use super::place::{LeafName, NameError};
use super::presence::reachable;
use super::report::{SENT_KEY, Sent};
use super::{registry, reporting, unix_ms, upstream};
use crate::amqp::field::ShortString;
use crate::amqp::header::Properties;
use crate::client::{
    AmqpUri, Channel, ClientError, ConnectSettings, Connection, ConsumeSettings, Consumer,
    Delivery, Publish, QueueSettings,
};
use crate::config::{PeerTls, TrafficSettings};
use crate::disk::OsDisk;
use crate::payload::manifest::PEER_COUNT_MAX;
use crate::payload::store::{AdoptedFile, FileStamp, Origin};
use crate::payload::{
    AccessKey, Hints, Manifest, ManifestError, PayloadId, ScopeId, Store, StoreError, StoreSettings,
};
use crate::server::peer::{Swarm, SwarmError, SwarmHandle, SwarmSettings, SwarmTransfer};

/// Why files cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The broker, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file's name could not be used by a node.
    #[error("{} cannot be sent under its name: {cause}; rename it", path.display())]
    Name {
        /// Which one.
        path: PathBuf,
        /// The rule that it breaks.
        cause: NameError,
    },
    /// Nobody gets it.
    #[error(
        "no node ever joined the group '{group}'; start one with: warren node --group {group} ..."
    )]
    NobodyInGroup {
        /// The group.
        group: Group,
    },
    /// It is a folder or a device.
    #[error("{} is no regular file", path.display())]
    NotAFile {
        /// Which one.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// A wish for the manifest cannot be.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The file cannot be served.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Peers cannot be served.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
}

/// How a distributor reaches its nodes.
#[derive(Clone, Debug)]
pub struct DistributorSettings {
    /// The broker.
    pub broker: AmqpUri,
    /// Files of at least this many bytes go through the swarm.
    pub payload_threshold_bytes: u64,
    /// Where peers connect; port 0 takes a free one. `None` brings files to nodes instead, whose addresses are
    /// in their presence.
    pub peer_listen: Option<SocketAddr>,
    /// What serving may cost the network.
    pub traffic: TrafficSettings,
    /// What large files' manifests ask of who fetches them.
    pub hints: Hints,
    /// Whether connections to peers are encrypted.
    pub peer_tls: PeerTls,
    /// Folder of the origin's own state; created when it is needed.
    pub data_dir: PathBuf,
    /// A durable reply queue of this name; `None` takes one that goes with the connection.
    pub reply_queue: Option<ShortString>,
}

/// A large file that is served where it lies.
struct Served {
    file: Arc<AdoptedFile>,
    transfer: SwarmTransfer,
    message_id: String,
}

/// Store and swarm of a sender of large files.
struct OriginSide {
    store: Store,
    swarm: SwarmHandle,
    /// Tells those who look on.
    reporting: tokio::task::JoinHandle<()>,
}

impl Drop for OriginSide {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

/// What came from a node.
#[derive(Debug)]
pub enum News {
    /// Of a file that this distributor knows: its place on the board.
    File(usize),
    /// A receipt for a file of an earlier run.
    OlderFile {
        /// The message id of the file's message.
        message_id: String,
        /// What it says.
        receipt: Receipt,
    },
    /// A node is there, has come or has gone.
    Node(Presence),
    /// Nothing that can be read, or nothing new.
    Nothing,
}

/// Sends files and listens to what nodes say. See [`Distributor::connect`].
pub struct Distributor {
    settings: DistributorSettings,
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    reply_queue: ShortString,
    origin: Option<OriginSide>,
    served: Vec<Served>,
    /// Where nodes can be dialled, for a sender that cannot be.
    nodes: BTreeSet<SocketAddr>,
    board: Board,
    /// This sender's name for those who look on.
    name: NodeName,
}

impl Distributor {
    /// Connects, makes the reply queue, listens to presence and asks for it.
    ///
    /// # Errors
    /// What the broker refuses, or why it is not reached.
    // req: CONTROL-15
    pub async fn connect(settings: DistributorSettings) -> Result<Self, SendError> {
        let connect = ConnectSettings {
            name: "warren distributor".to_owned(),
            ..ConnectSettings::default()
        };
        let connection = Connection::open(&settings.broker, &connect).await?;
        let channel = connection.channel().await?;
        upstream::declare_exchanges(&channel).await?;
        channel.select_confirms().await?;
        let listening = connection.channel().await?;
        let reply_queue = match &settings.reply_queue {
            Some(name) => {
                let durable = QueueSettings {
                    durable: true,
                    ..QueueSettings::default()
                };
                listening.declare_queue(name, &durable).await?.queue
            }
            None => {
                let own = QueueSettings {
                    exclusive: true,
                    ..QueueSettings::default()
                };
                listening
                    .declare_queue(&ShortString::EMPTY, &own)
                    .await?
                    .queue
            }
        };
        listening
            .bind_queue(&reply_queue, &CONTROL_EXCHANGE, &PRESENCE_KEY)
            .await?;
        let settings_of_consumer = ConsumeSettings {
            prefetch_count: 256,
            ..ConsumeSettings::default()
        };
        let consumer = listening
            .consume(&reply_queue, &settings_of_consumer)
            .await?;
        let distributor = Self {
            settings,
            connection,
            channel,
            consumer,
            reply_queue,
            origin: None,
            served: Vec::new(),
            nodes: BTreeSet::new(),
            board: Board::default(),
            name: sender_name()?,
        };
        distributor.request_presence().await?;
        Ok(distributor)
    }

    /// Asks all nodes to tell their presence and their latest files.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn request_presence(&self) -> Result<(), ClientError> {
        let publish = Publish {
            exchange: CONTROL_EXCHANGE,
            routing_key: REQUEST_KEY,
            mandatory: false,
            properties: request_properties(&self.reply_queue),
        };
        self.channel.publish(&publish, b"").await.map(drop)
    }

    /// The nodes that ever joined, as the broker's registry has them.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn registry(&self) -> Result<Registry, ClientError> {
        registry::read(&self.connection).await
    }

    /// How many messages wait in a node's queue; `None` if it has none.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn backlog(&self, node: &NodeName) -> Result<Option<u32>, ClientError> {
        let channel = self.connection.channel().await?;
        match channel.queue_depth(&node.queue()).await {
            Ok(count) => Ok(Some(count)),
            Err(ClientError::ChannelClosed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is known of files and nodes.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Publishes one file to a group and, if it is large, serves it from now on.
    ///
    /// # Errors
    /// Why it cannot be read, served or published; then nobody was told of it.
    // req: CONTROL-18
    pub async fn publish(&mut self, path: &Path, group: &Group) -> Result<usize, SendError> {
        let (name, stamp) = look_at(path)?;
        let message_id = random_id()?;
        let file = if stamp.len_bytes < self.settings.payload_threshold_bytes {
            self.publish_small(path, group, name, message_id).await?
        } else {
            self.publish_large(path, group, name, stamp, message_id)
                .await?
        };
        self.board.files.push(file);
        Ok(self.board.files.len() - 1)
    }

    // req: CONTROL-4
    async fn publish_small(
        &self,
        path: &Path,
        group: &Group,
        name: String,
        message_id: ShortString,
    ) -> Result<FileBoard, SendError> {
        let owned = path.to_owned();
        let read =
            move || std::fs::read(&owned).map_err(|cause| SendError::File { path: owned, cause });
        let body = blocking(read).await?;
        let payload_id = PayloadId::from_bytes(*blake3::hash(&body).as_bytes());
        let head = self.head(name, payload_id, body.len() as u64, message_id);
        self.put(group, head.properties(), &body).await?;
        self.tell_sent(&head, group, 0).await;
        Ok(board_of(head, group, false))
    }

    async fn publish_large(
        &mut self,
        path: &Path,
        group: &Group,
        name: String,
        stamp: FileStamp,
        message_id: ShortString,
    ) -> Result<FileBoard, SendError> {
        let local = self.connection.local_addr().ip();
        let origin_side = self.origin_side().await?;
        let address = origin_side
            .swarm
            .local_addr()
            .map(|address| reachable(address, local));
        let store = origin_side.store.clone();
        let swarm = origin_side.swarm.clone();
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let origin = Origin {
            key: AccessKey::from_bytes(key),
            peers: address
                .into_iter()
                .map(|address| address.to_string())
                .collect(),
            name: Some(name.clone()),
            content_type: None,
        };
        let owned = path.to_owned();
        let hash = move || {
            AdoptedFile::hash(&OsDisk, &owned, stamp, origin, |_| {}).map_err(SendError::from)
        };
        let file = Arc::new(blocking(hash).await?);
        let id = file.manifest().id();
        let known = self
            .served
            .iter()
            .find(|served| served.file.manifest().id() == id);
        let file = match known {
            // The same bytes again: one origin serves both messages, under one key.
            Some(served) => Arc::clone(&served.file),
            None => {
                store.adopt(ScopeId::NODE, Arc::clone(&file));
                let transfer = swarm.seed(ScopeId::NODE, id).await?;
                transfer.set_priority(self.settings.hints.priority);
                for address in &self.nodes {
                    transfer.add_peer(*address);
                }
                let message_id = message_id.to_string();
                self.served.push(Served {
                    file: Arc::clone(&file),
                    transfer,
                    message_id,
                });
                file
            }
        };
        let head = self.head(
            name,
            id,
            file.manifest().geometry().size_bytes(),
            message_id,
        );
        let publisher = Properties {
            message_type: Some(ShortString::from_static("warren.manifest")),
            ..head.common_properties()
        };
        let mut manifest = file.manifest().with_hints(self.settings.hints.clone())?;
        if self.settings.peer_listen.is_none() {
            // req: SWARM-34
            let nodes = self.nodes.iter().map(SocketAddr::to_string);
            manifest = manifest.with_peers(nodes.collect())?;
        }
        let (properties, body) = manifest.to_message(&publisher);
        self.put(group, properties, &body).await?;
        let piece_count = file.manifest().geometry().piece_count();
        self.tell_sent(&head, group, piece_count).await;
        Ok(board_of(head, group, true))
    }

    /// Tells those who look on; nobody needs to hear it.
    // req: CONTROL-25
    async fn tell_sent(&self, head: &FileHead, group: &Group, piece_count: u32) {
        let sent = Sent {
            message_id: head.message_id.to_string(),
            name: head.name.clone(),
            payload_id: head.payload_id.to_string(),
            size_bytes: head.size_bytes,
            piece_count,
            group: group.clone(),
            sender: self.name.clone(),
            sent_unix_ms: unix_ms(),
        };
        if let Err(error) = reporting::tell(&self.channel, SENT_KEY, &sent).await {
            tracing::debug!(%error, "not told that a file was sent");
        }
    }

    fn head(
        &self,
        name: String,
        payload_id: PayloadId,
        size_bytes: u64,
        message_id: ShortString,
    ) -> FileHead {
        let reply_to = Some(self.reply_queue.clone());
        FileHead {
            name,
            payload_id,
            size_bytes,
            message_id,
            reply_to,
        }
    }

    async fn put(
        &self,
        group: &Group,
        properties: Properties,
        body: &[u8],
    ) -> Result<(), SendError> {
        let publish = Publish {
            exchange: FILES_EXCHANGE,
            routing_key: group.key(),
            mandatory: true,
            properties,
        };
        match self.channel.publish(&publish, body).await?.wait().await {
            Ok(()) => Ok(()),
            Err(ClientError::Returned { .. }) => Err(SendError::NobodyInGroup {
                group: group.clone(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn origin_side(&mut self) -> Result<&OriginSide, SendError> {
        if self.origin.is_none() {
            let folder = self.settings.data_dir.clone();
            let open = move || {
                std::fs::create_dir_all(&folder).map_err(|cause| SendError::File {
                    path: folder.clone(),
                    cause,
                })?;
                Ok(Store::open(
                    Arc::new(OsDisk),
                    &folder.join("payloads"),
                    StoreSettings::default(),
                )?)
            };
            let store = blocking(open).await?;
            let settings = SwarmSettings {
                listen: self.settings.peer_listen,
                tls: self.settings.peer_tls,
                ..SwarmSettings::default()
            };
            let settings = settings.with_traffic(&self.settings.traffic);
            let swarm = Swarm::start(settings, store.clone()).await?;
            let local = self.connection.local_addr().ip();
            let address = swarm.local_addr();
            let address = address.map(|address| reachable(address, local).to_string());
            let (watched, name) = (swarm.clone(), self.name.clone());
            let reporting =
                reporting::start_for_sender(&self.connection, watched, name, address).await?;
            self.origin = Some(OriginSide {
                store,
                swarm,
                reporting,
            });
        }
        Ok(self.origin.as_ref().expect("it was just made"))
    }

    /// Waits for the next word from a node and puts it on the board.
    ///
    /// Giving up the wait loses no word, at most an acknowledgement.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn news(&mut self) -> Result<News, ClientError> {
        let delivery = self.consumer.next().await?;
        let tag = delivery.delivery_tag;
        let news = self.take(delivery).await;
        self.consumer.channel().ack(tag).await?;
        Ok(news)
    }

    // req: CONTROL-17
    async fn take(&mut self, delivery: Delivery) -> News {
        let now = Instant::now();
        let Some(properties) = delivery.properties() else {
            return News::Nothing;
        };
        let Ok(body) = delivery.body.whole(CONTROL_BYTES_MAX).await else {
            return News::Nothing;
        };
        if let Some(presence) = decode::<Presence>(&properties, &body) {
            self.board.take_presence(&presence, now);
            self.reach(&presence);
            return News::Node(presence);
        }
        let Some(receipt) = decode::<Receipt>(&properties, &body) else {
            tracing::warn!(
                "a message in the reply queue is neither receipt nor presence; it is dropped"
            );
            return News::Nothing;
        };
        let message_id = properties
            .correlation_id
            .map(|id| id.to_string())
            .unwrap_or_default();
        if !self
            .board
            .files
            .iter()
            .any(|file| file.message_id == message_id)
        {
            return News::OlderFile {
                message_id,
                receipt,
            };
        }
        match self.board.take_receipt(&message_id, receipt, now) {
            Some(index) => News::File(index),
            None => News::Nothing,
        }
    }

    /// Tells what is served of a node's addresses, where nobody could come by himself.
    // req: SWARM-34
    fn reach(&mut self, presence: &Presence) {
        if self.settings.peer_listen.is_some() {
            return;
        }
        let addresses = presence.peers.iter().filter_map(|peer| peer.parse().ok());
        for address in addresses {
            if self.nodes.len() < PEER_COUNT_MAX {
                self.nodes.insert(address);
            }
            for served in &self.served {
                served.transfer.add_peer(address);
            }
        }
    }

    /// The manifest of a large file that this distributor serves.
    #[must_use]
    pub fn manifest(&self, file: &FileBoard) -> Option<&Manifest> {
        let is_of = |manifest: &&Manifest| manifest.id().to_string() == file.payload_id;
        self.served
            .iter()
            .map(|served| served.file.manifest())
            .find(is_of)
    }

    /// Bytes that this origin has sent to peers of a file.
    #[must_use]
    pub fn uploaded_bytes(&self, file: &FileBoard) -> u64 {
        let served = self
            .served
            .iter()
            .find(|served| served.message_id == file.message_id);
        let stats = served.and_then(|served| served.transfer.stats());
        stats.map_or(0, |stats| stats.counts.up_bytes)
    }

    /// Looks whether served files have changed; what has is served only as far as it still verifies.
    pub fn observe_files(&self) {
        for served in &self.served {
            match look_at(served.file.path()) {
                Ok((_, stamp)) => served.file.observe(stamp),
                Err(error) => tracing::warn!(%error, "a file that is being sent is gone"),
            }
        }
    }

    /// Stops to serve the file whose message has this id.
    pub fn stop_serving(&mut self, message_id: &str) {
        let Some(origin) = &self.origin else { return };
        self.served.retain(|served| {
            let stays = served.message_id != message_id;
            if !stays {
                origin
                    .store
                    .forget_adopted(ScopeId::NODE, served.file.manifest().id());
            }
            stays
        });
    }

    /// Ends connection and swarm.
    pub async fn close(mut self) {
        self.served.clear();
        if let Some(origin) = self.origin.take() {
            origin.swarm.shutdown().await;
        }
        self.connection.close().await;
    }
}

fn board_of(head: FileHead, group: &Group, is_payload: bool) -> FileBoard {
    FileBoard {
        name: head.name,
        size_bytes: head.size_bytes,
        payload_id: head.payload_id.to_string(),
        is_payload,
        group: group.clone(),
        message_id: head.message_id.to_string(),
        nodes: BTreeMap::new(),
    }
}

/// Name and stamp of a file that could be sent.
///
/// # Errors
/// Why it could not.
pub fn look_at(path: &Path) -> Result<(String, FileStamp), SendError> {
    let metadata = std::fs::metadata(path).map_err(|cause| SendError::File {
        path: path.to_owned(),
        cause,
    })?;
    if !metadata.is_file() {
        return Err(SendError::NotAFile {
            path: path.to_owned(),
        });
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    LeafName::new(&name).map_err(|cause| SendError::Name {
        path: path.to_owned(),
        cause,
    })?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .unwrap_or(Duration::ZERO);
    Ok((
        name,
        FileStamp {
            len_bytes: metadata.len(),
            modified,
        },
    ))
}

fn random_id() -> Result<ShortString, SendError> {
    Ok(ShortString::truncated(random_digits::<16>()?))
}

/// A name that no other sender has.
fn sender_name() -> Result<NodeName, SendError> {
    let name = format!("sender-{}", random_digits::<4>()?);
    Ok(name.parse().expect("letters and digits are a name"))
}

/// Two hexadecimal digits for each of `COUNT` random octets.
fn random_digits<const COUNT: usize>() -> Result<String, SendError> {
    let mut bytes = [0; COUNT];
    getrandom::fill(&mut bytes)?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(digits.collect())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SendError> + Send + 'static,
) -> Result<T, SendError> {
    let task = tokio::task::spawn_blocking(work).await;
    task.unwrap_or(Err(SendError::Client(ClientError::Ended)))
}
