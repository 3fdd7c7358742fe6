//! Drives the swarm engine on TCP: sockets, disk and timer of one node.
//!
//! Owns: the engine behind one short lock, a task for each connection, the listener, the timer, and the
//! threads that run them. [`SwarmHandle`] is what node, broker and command line use.
//!
//! The flow: a connection's task reads a message and gives it to the engine under the lock; the actions
//! that come out are handed on before the lock is released, to connections' output queues or to dial tasks;
//! a piece that is whole is hashed and written after it (`disk`). Nothing waits while holding it.
//! Spec: `spec/peer-protocol.md`; limits of RELIABILITY section 6.

mod buffers;
mod connection;
mod core;
mod disk;
mod doubt;
mod early;
mod limits;
mod link;
mod listener;
mod secure;
mod transfer;
mod usage;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{PeerTls, WebSeedHost};
use crate::payload::store::BegunPartial;
use crate::payload::{Bitfield, Manifest, PayloadId, ScopeId, Store, StoreError};
use crate::swarm::{Engine, EngineError, Limits, NodeId, Order, Settings, TransferStats, Want};

use self::core::{Core, Shared};
use self::transfer::{Source, TransferIo};

pub use self::early::EarlySwarm;
pub use self::limits::LimitsChange;
pub use self::secure::{PeerKey, PeerKeyError};
pub use self::transfer::{FetchError, Progress, SwarmTransfer};

/// Longest wait for connections to end at a shutdown.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// How a node takes part in swarms.
#[derive(Clone, Debug)]
pub struct SwarmSettings {
    /// Bounds of the engine; its `listen_port` is set by `listen`.
    pub engine: Settings,
    /// Where other nodes can connect; `None` for a node that only dials out. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// The node's key, from which its id follows, if it has a lasting one; a random one otherwise.
    pub key: Option<PeerKey>,
    /// Whether connections are encrypted.
    pub tls: PeerTls,
    /// Threads that send, receive, read, hash and write, at least one. One moves about 1 GB a second;
    /// each more costs CPU time, since work that changes threads finds cold caches.
    pub threads: usize,
    /// File that keeps what was used of the upload quota over a restart.
    pub usage_file: Option<PathBuf>,
    /// Hosts that web seeds may be asked of.
    pub web_seed_hosts: Vec<WebSeedHost>,
    /// Who vouches for web seeds over TLS; without it those are not asked.
    pub web_trust: Option<Arc<rustls::ClientConfig>>,
}

impl Default for SwarmSettings {
    fn default() -> Self {
        Self {
            engine: Settings::default(),
            listen: None,
            key: None,
            tls: PeerTls::default(),
            threads: threads_default(),
            usage_file: None,
            web_seed_hosts: Vec::new(),
            web_trust: None,
        }
    }
}

/// A quarter of the processors, one to four.
fn threads_default() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors / 4).clamp(1, 4)
}

/// Why a swarm cannot start, or a payload not take part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for peers: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The node's key cannot be used.
    #[error(transparent)]
    Key(#[from] PeerKeyError),
    /// The system gives no thread, or no address.
    #[error("the system refuses a resource: {0}")]
    System(#[from] std::io::Error),
    /// The store cannot give or take the payload.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The payload is taken part in already.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The swarm was shut down.
    #[error("the swarm is shut down")]
    Stopped,
}

/// A node's part in all its swarms; see [`Swarm::start`].
#[derive(Debug)]
pub struct Swarm;

/// A running swarm. Clones share it; dropping all leaves it running until [`SwarmHandle::shutdown`].
#[derive(Clone)]
pub struct SwarmHandle {
    shared: Arc<Shared>,
    local_addr: Option<SocketAddr>,
}

/// The swarm's own threads; they end when this is dropped.
struct Workers(Option<tokio::runtime::Runtime>);

impl Workers {
    fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("swarm")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Result<tokio::runtime::Handle, SwarmError> {
        let runtime = self.0.as_ref().ok_or(SwarmError::Stopped)?;
        Ok(runtime.handle().clone())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // A runtime must not be waited for where others run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for SwarmHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SwarmHandle")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Swarm {
    /// Listens, if told to, and starts to drive an engine on payloads of `store`.
    ///
    /// # Errors
    /// If the address cannot be listened on or the system gives no randomness.
    pub async fn start(settings: SwarmSettings, store: Store) -> Result<SwarmHandle, SwarmError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let key = match settings.key {
            Some(key) => key,
            None => PeerKey::random()?,
        };
        let now = Instant::now();
        let mut engine = Engine::new(settings.engine.clone(), key.node()?, seed, now);
        engine.set_takes_tls(settings.tls != PeerTls::Off);
        let workers = Workers::start(settings.threads)?;
        let runtime = workers.handle()?;
        // Sockets belong to the runtime that they are made in.
        let entered = runtime.enter();
        let listener = match settings.listen {
            Some(address) => Some(listener::bind(address)?),
            None => None,
        };
        let local_addr = match &listener {
            Some(listener) => Some(listener.local_addr()?),
            None => None,
        };
        drop(entered);
        engine.set_listen_port(local_addr.map(|address| address.port()));
        let shared = Arc::new(Shared {
            core: parking_lot::Mutex::new(Core::new(engine, now)),
            store,
            settings: settings.engine,
            web_seed_hosts: settings.web_seed_hosts,
            web_trust: settings.web_trust,
            handshaker: secure::Handshaker::new(&key)?,
            listen_ip: local_addr
                .map(|address| address.ip())
                .filter(|ip| !ip.is_unspecified()),
            tls: parking_lot::Mutex::new(settings.tls),
            buffers: buffers::Buffers::default(),
            outgoing: buffers::Buffers::default(),
            timer: tokio::sync::Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: runtime.clone(),
            workers: parking_lot::Mutex::new(Some(workers)),
        });
        if let Some(path) = settings.usage_file {
            if let Some(used) = usage::read(&path) {
                core::with(&shared, |core, now| {
                    core.engine.restore_quota_use(used, now);
                });
            }
            let keep = usage::keep(Arc::clone(&shared), path);
            shared.tasks.spawn_on(keep, &runtime);
        }
        let timer = core::run_timer(Arc::clone(&shared));
        shared.tasks.spawn_on(timer, &runtime);
        if let Some(listener) = listener {
            let accept = listener::run(listener, Arc::clone(&shared));
            shared.tasks.spawn_on(accept, &runtime);
        }
        Ok(SwarmHandle { shared, local_addr })
    }
}

impl SwarmHandle {
    /// Where other nodes can connect; `None` if the node only dials out.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// This node's id in swarms.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.core.lock().engine.node()
    }

    /// Serves a payload that the store holds (complete or adopted), as its origin: each piece is given
    /// out once before one is repeated. Ends when the returned value is dropped.
    ///
    /// # Errors
    /// If the store does not hold all of it, or it is taken part in already.
    pub async fn seed(&self, scope: ScopeId, id: PayloadId) -> Result<SwarmTransfer, SwarmError> {
        let store = self.shared.store.clone();
        let read = move || -> Result<_, StoreError> {
            let manifest = store.manifest(scope, id)?;
            Ok((manifest, store.open_reader(scope, id)?))
        };
        let (manifest, reader) = self.blocking(read).await??;
        let have = reader.held();
        let source = Source::Whole(reader);
        self.take_part(&manifest, source, have, As::Origin, Order::RarestFirst)
    }

    /// Fetches a payload into the store, then serves it. Pieces that were verified before are not fetched
    /// again. Ends when the returned value is dropped; what was verified stays in the store.
    ///
    /// # Errors
    /// If the store has no room for it, or it is taken part in already.
    pub async fn fetch(
        &self,
        scope: ScopeId,
        manifest: &Manifest,
    ) -> Result<SwarmTransfer, SwarmError> {
        self.fetch_in(scope, manifest, Order::RarestFirst).await
    }

    /// As [`SwarmHandle::fetch`], with an order of pieces.
    ///
    /// # Errors
    /// As [`SwarmHandle::fetch`].
    pub async fn fetch_in(
        &self,
        scope: ScopeId,
        manifest: &Manifest,
        order: Order,
    ) -> Result<SwarmTransfer, SwarmError> {
        let store = self.shared.store.clone();
        let wanted = manifest.clone();
        let begin = move || -> Result<_, StoreError> {
            let begun = store.begin_partial(scope, &wanted)?;
            Ok((begun, store.open_reader(scope, wanted.id())?))
        };
        let (begun, reader) = self.blocking(begin).await??;
        let (source, have) = match begun {
            BegunPartial::Complete(stored) => {
                let have = Bitfield::full(manifest.geometry());
                (Source::Stored(reader, stored), have)
            }
            BegunPartial::Partial(partial) => {
                // req: SWARM-14
                let have = partial.held();
                (Source::Partial(reader, partial), have)
            }
        };
        let have_all = have.is_full();
        let transfer = self.take_part(manifest, source, have, As::Peer, order)?;
        if !have_all {
            web::start(&self.shared, transfer.id, manifest);
        }
        Ok(transfer)
    }

    fn take_part(
        &self,
        manifest: &Manifest,
        source: Source,
        have: Bitfield,
        part: As,
        order: Order,
    ) -> Result<SwarmTransfer, SwarmError> {
        let mut peers = Vec::new();
        let mut names = Vec::new();
        for peer in manifest.peers() {
            match peer.parse::<SocketAddr>() {
                Ok(address) => peers.push(address),
                Err(_) => names.push(peer.clone()),
            }
        }
        let want = Want {
            payload: manifest.id(),
            geometry: *manifest.geometry(),
            key: manifest.key().clone(),
            have,
            peers,
            origin: part == As::Origin,
            order,
            limits: Limits::default(),
            priority: manifest.hints().priority,
        };
        let transfer = self.begin(want, source, Part::Known)?;
        for name in names {
            let resolve = listener::resolve(Arc::clone(&self.shared), transfer.id, name);
            self.shared.tasks.spawn_on(resolve, &self.shared.runtime);
        }
        Ok(transfer)
    }

    /// Has the engine take part.
    fn begin(&self, want: Want, source: Source, part: Part) -> Result<SwarmTransfer, SwarmError> {
        if self.shared.stopping.is_cancelled() {
            return Err(SwarmError::Stopped);
        }
        let (io, progress) = TransferIo::new(source, want.geometry, &want.have);
        let io = Arc::new(io);
        let added = Arc::clone(&io);
        let id = core::with(&self.shared, |core, now| {
            let id = match part {
                Part::Known => core.engine.want(want, now)?,
                Part::Early => core.engine.want_early(want, now)?,
            };
            core.transfers.insert(id, added);
            Ok::<_, EngineError>(id)
        })?;
        Ok(SwarmTransfer::new(
            Arc::clone(&self.shared),
            id,
            io,
            progress,
        ))
    }

    /// Connections that are made from now on are encrypted in this way; those that stand stay as they are.
    // req: PEER-18
    pub fn set_tls(&self, tls: PeerTls) {
        *self.shared.tls.lock() = tls;
        let mut core = self.shared.core.lock();
        core.engine.set_takes_tls(tls != PeerTls::Off);
    }

    /// Figures of every payload and its peers.
    #[must_use]
    pub fn stats(&self) -> Vec<TransferStats> {
        self.shared.core.lock().engine.stats(Instant::now())
    }

    /// Nodes that are banned now.
    #[must_use]
    pub fn banned_count(&self) -> usize {
        self.shared.core.lock().engine.banned(Instant::now()).len()
    }

    /// Open connections to peers.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.core.lock().engine.connection_count()
    }

    /// Ends all connections, tasks and threads. Transfers that did not finish say so.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        let ended = tokio::time::timeout(SHUTDOWN_WAIT, self.shared.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("some peer connections did not end in time");
        }
        self.shared.core.lock().stop();
        let workers = self.shared.workers.lock().take();
        drop(workers);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SwarmError> {
        let task = self.shared.runtime.spawn_blocking(work);
        task.await.map_err(|_| SwarmError::Stopped)
    }
}

/// Whether a payload's pieces are known from the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Known,
    Early,
}

/// In which part a payload is joined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum As {
    Origin,
    Peer,
}
