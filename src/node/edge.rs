//! The edge node: keeps its queue, fetches what is sent to its groups, places it and reports.
//!
//! Owns: what lives as long as the node does: store, swarm, inbox, journal of work. The connection to
//! the broker comes and goes (`upstream`); work goes on without it.
//! Bound: `HINTS_MAX` progress receipts wait, further ones are dropped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::early::{self, Earlies};
use super::fetch::Fetches;
use super::message::{FileState, Group, NodeName, Receipt};
use super::place::{Inbox, PlaceError};
use super::state::{NodeState, Record, StateError};
use super::{unix_ms, upstream};
use crate::amqp::field::ShortString;
use crate::client::{AmqpUri, ClientError};
use crate::config::{PeerTls, TrafficSettings};
use crate::disk::OsDisk;
use crate::payload::{Store, StoreError, StoreSettings};
use crate::server::peer::{PeerKey, PeerKeyError, Swarm, SwarmError, SwarmHandle, SwarmSettings};

/// Progress receipts that wait to be sent; hints beyond it are dropped.
const HINTS_MAX: usize = 1_024;
/// How often the store lets go of what nothing needs.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The broker.
    pub broker: AmqpUri,
    /// The node's name, unique at the broker.
    pub name: NodeName,
    /// Folder of journal and payload store; created if missing.
    pub data_dir: PathBuf,
    /// Folder that files appear in; created if missing.
    pub inbox: PathBuf,
    /// The groups that it belongs to, at least one.
    pub groups: Vec<Group>,
    /// Where peers connect; port 0 takes a free one. `None` for a node that only dials out.
    pub peer_listen: Option<std::net::SocketAddr>,
    /// What swarms may cost the network.
    pub traffic: TrafficSettings,
    /// Whether connections to peers are encrypted.
    pub peer_tls: PeerTls,
}

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The broker refuses this node for good.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A folder cannot be created.
    #[error("cannot create the folder {}: {cause}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Files cannot be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The node's key is unusable.
    #[error(transparent)]
    Key(#[from] PeerKeyError),
    /// The node's own state is unusable.
    #[error(transparent)]
    State(#[from] StateError),
    /// The payload store is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Pieces cannot be exchanged.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
}

/// A receipt on its way that may be lost.
pub(super) struct Hint {
    pub(super) reply_to: Option<ShortString>,
    pub(super) correlation_id: Option<ShortString>,
    pub(super) receipt: Receipt,
}

/// What all of the node's tasks share.
pub(super) struct Shared {
    pub(super) settings: NodeSettings,
    pub(super) state: NodeState,
    pub(super) inbox: Inbox,
    pub(super) store: Store,
    pub(super) swarm: SwarmHandle,
    pub(super) fetches: Fetches,
    pub(super) earlies: Earlies,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) ready: watch::Sender<bool>,
    hints: mpsc::Sender<Hint>,
    due: mpsc::UnboundedSender<[u8; 32]>,
    pub(super) receipts: AsyncMutex<Receipts>,
}

/// Receipts that wait for a connection.
pub(super) struct Receipts {
    pub(super) hints: mpsc::Receiver<Hint>,
    pub(super) due: mpsc::UnboundedReceiver<[u8; 32]>,
}

impl Shared {
    /// Sends a receipt that is not final if there is room for it and somebody who wants it.
    pub(super) fn hint(&self, record: &Record, receipt: Receipt) {
        let reply_to = short(record.reply_to.as_ref());
        // Who looks on hears of progress by reports.
        if reply_to.is_none() && receipt.state == FileState::Fetching {
            return;
        }
        let correlation_id = short(record.message_id.as_ref());
        let _ = self.hints.try_send(Hint {
            reply_to,
            correlation_id,
            receipt,
        });
    }

    /// Writes what became of a piece of work and has it reported. Blocks on the disk.
    // req: CONTROL-12
    pub(super) fn finish(&self, key: [u8; 32], mut record: Record) {
        record.is_receipt_due = true;
        record.updated_unix_ms = unix_ms();
        if let Err(error) = self.state.put(key, &record, None) {
            // It stays journaled as unfinished and is done again at the next start.
            tracing::error!(%error, name = record.name, "cannot record what became of a file");
            return;
        }
        let _ = self.due.send(key);
    }
}

pub(super) fn short(text: Option<&String>) -> Option<ShortString> {
    text.and_then(|text| ShortString::try_from(text.as_str()).ok())
}

/// An edge node; see [`Node::start`].
#[derive(Debug)]
pub struct Node;

/// A running node.
pub struct NodeHandle {
    shared: Arc<Shared>,
    upstream: JoinHandle<Result<(), NodeError>>,
    ready: watch::Receiver<bool>,
}

impl Node {
    /// Opens the node's folders, takes up unfinished work, and connects to the broker.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What cannot be used; nothing is left running then. A broker that cannot be reached is no
    /// error: the node goes on trying.
    pub async fn start(settings: NodeSettings) -> Result<NodeHandle, NodeError> {
        for path in [&settings.data_dir, &settings.inbox] {
            // A symlink or a file in the way is the inbox's own error, with better words.
            if path.symlink_metadata().is_err() {
                std::fs::create_dir_all(path).map_err(|cause| NodeError::Folder {
                    path: path.clone(),
                    cause,
                })?;
            }
        }
        let inbox = Inbox::open(&settings.inbox)?;
        let state = NodeState::open(&settings.data_dir)?;
        let store = Store::open(
            Arc::new(OsDisk),
            &settings.data_dir.join("payloads"),
            StoreSettings::default(),
        )?;
        let swarm_settings = SwarmSettings {
            listen: settings.peer_listen,
            usage_file: Some(settings.data_dir.join("swarm-usage.json")),
            key: PeerKey::lasting(settings.peer_tls, &settings.data_dir.join("peer.key"))?,
            tls: settings.peer_tls,
            ..SwarmSettings::default()
        };
        let mut swarm_settings = swarm_settings.with_traffic(&settings.traffic);
        swarm_settings.web_trust = web_trust(&settings.traffic);
        let swarm = Swarm::start(swarm_settings, store.clone()).await?;
        let (hints, hints_receiver) = mpsc::channel(HINTS_MAX);
        let (due, due_receiver) = mpsc::unbounded_channel();
        let (ready, ready_receiver) = watch::channel(false);
        let shared = Arc::new(Shared {
            settings,
            state,
            inbox,
            store,
            swarm,
            fetches: Fetches::default(),
            earlies: Earlies::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            ready,
            hints,
            due,
            receipts: AsyncMutex::new(Receipts {
                hints: hints_receiver,
                due: due_receiver,
            }),
        });
        super::fetch::take_up_unfinished(&shared)?;
        shared.tasks.spawn(sweep(Arc::clone(&shared)));
        let own = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            early::look_after(&own.earlies, &own.stop).await;
        });
        let upstream = tokio::spawn(upstream::run(Arc::clone(&shared)));
        Ok(NodeHandle {
            shared,
            upstream,
            ready: ready_receiver,
        })
    }
}

impl NodeHandle {
    /// Where peers connect.
    #[must_use]
    pub fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.shared.swarm.local_addr()
    }

    /// Takes other limits and another quota, from now on.
    pub fn set_traffic(&self, traffic: &TrafficSettings) {
        self.shared.swarm.set_traffic(traffic);
    }

    /// Waits until the node's queue is bound and consumed; false if the node has ended before.
    pub async fn ready(&mut self) -> bool {
        self.ready.wait_for(|ready| *ready).await.is_ok()
    }

    /// Waits until the node has ended by itself, and says why.
    ///
    /// # Errors
    /// Why the broker refused it.
    pub async fn ended(&mut self) -> Result<(), NodeError> {
        (&mut self.upstream).await.unwrap_or(Ok(()))
    }

    /// Says goodbye, stops all work where it is, and ends every task.
    ///
    /// # Errors
    /// Why the node had failed.
    pub async fn shutdown(mut self) -> Result<(), NodeError> {
        self.shared.stop.cancel();
        let result = if self.upstream.is_finished() {
            Ok(())
        } else {
            self.ended().await
        };
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.earlies.forget_all();
        self.shared.swarm.shutdown().await;
        result
    }
}

/// Whom to believe of web seeds, where any may be asked.
pub(crate) fn web_trust(traffic: &TrafficSettings) -> Option<Arc<rustls::ClientConfig>> {
    if traffic.web_seed_hosts.is_empty() {
        return None;
    }
    let trust = crate::client::system_trust();
    trust
        .inspect_err(|error| tracing::warn!(%error, "web seeds are asked without TLS alone"))
        .ok()
}

async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        let store = shared.store.clone();
        let sweep = move || store.sweep(std::time::Instant::now());
        let _ = tokio::task::spawn_blocking(sweep).await;
    }
}
