//! Sockets, tasks and timers: tokio begins here.
//!
//! Owns: a running broker with its listeners. [`Server::start`] opens the data folder, starts to listen
//! and gives a [`ServerHandle`]; dropping the handle leaves the server running, [`ServerHandle::shutdown`]
//! ends it in an orderly way.
#![allow(clippy::disallowed_methods)]

mod admission;
mod alarm;
mod connection;
mod data_dir;
pub(crate) mod descriptors;
pub mod early;
pub(crate) mod failed_logins;
mod inherited;
pub(crate) mod inside;
pub mod io_meter;
mod leader;
mod listener;
mod oauth;
mod output;
mod pager;
mod payloads;
pub mod peer;
mod proxy;
pub mod registry;
mod socket;
mod space;
mod timers;
pub mod tls;
mod unix;
mod workers;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{
    Authorizer, Broker, BrokerSettings, DefaultUser, Error as BrokerError, HashAlgorithm, Name,
    OpenError, SpillSettings, TestClock, TokenAuthority,
};
use crate::config::{Network, PasswordHashing, ServerSettings, SyncMode};
use crate::disk::{Disk, ScratchDisk};
use crate::journal::{Journal, JournalError, JournalSettings, Lsn, StorageFailure};
use crate::payload::{Store, StoreError};
use crate::session::SessionSettings;

use admission::Admission;
use alarm::AlarmWatch;
use data_dir::DataDir;
use failed_logins::FailedLogins;
pub use inherited::InheritedSockets;
pub(crate) use inherited::Listening;
pub(crate) use inside::{Inside, InsideUpload};
use io_meter::{Area, IoMeter};
use listener::Listener;
pub(crate) use listener::canonical;
use oauth::{OAuth, OAuthError};
use pager::PagerThread;
use payloads::{Payloads, Quiet, StoreReferences, open_store};
use peer::{Swarm, SwarmError, SwarmSettings};
use registry::Registry;
use space::Space;
use tls::{Tls, TlsError};
use unix::UnixListener;
use workers::Workers;

/// Passwords that are checked at the same time, on threads that other work needs too.
const LOGINS_AT_ONCE_MAX: usize = 8;

/// Longest wait for connections to say goodbye at a shutdown.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for acknowledgements to reach the disk before a payload's files stay for this time.
const REMOVAL_WAIT: Duration = Duration::from_secs(1);

/// Why a server cannot start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another broker running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A socket in the file system cannot be listened on.
    #[error("cannot listen on {}: {source}; is another broker running there?", path.display())]
    ListenUnix {
        /// The socket's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}: {source}", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another broker uses the data folder.
    #[error("the data folder {} is in use by another broker; stop it or name another folder", .0.display())]
    DataFolderInUse(PathBuf),
    /// Tokens cannot be taken.
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    /// TLS cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The journal cannot be opened, or closed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The payload store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker cannot take part in swarms.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// The broker's state cannot be restored.
    #[error(transparent)]
    Broker(#[from] OpenError),
    /// What must be noted at the end cannot be noted.
    #[error("cannot note what was delivered: {0}")]
    Note(#[from] BrokerError),
    /// The system starts no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// A broker with its listeners; see [`Server::start`].
#[derive(Debug)]
pub struct Server;

/// What a program that a server is part of may give it beside the settings.
#[derive(Clone, Debug, Default)]
pub struct Embedding {
    /// Who is asked for rights before the permissions.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// What time the broker goes by, if not the machine's.
    pub clock: Option<TestClock>,
    /// Whether peers can connect.
    pub peers: PeerListener,
    /// For how long what is written must be readable.
    pub keeping: Keeping,
    /// Sockets that listen already, for the listeners with their ports.
    pub sockets: InheritedSockets,
    /// An empty store gets no first account: whoever starts the server brings users in.
    pub brings_users: bool,
    /// Clients wait until [`ServerHandle::open_doors`].
    pub opens_later: bool,
}

/// For how long what is written to the data folder must be readable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Keeping {
    /// Whatever happens to the machine.
    #[default]
    Lasting,
    /// As long as the process lives: nothing is synced.
    Scratch,
}

/// Whether there is a listener for peers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerListener {
    /// Where the settings say.
    #[default]
    On,
    /// None: the broker serves its payloads only to peers that it dials itself.
    Off,
}

/// What all connections of a server share.
#[derive(Debug)]
struct Shared {
    broker: Arc<Broker>,
    payloads: Arc<Payloads>,
    registry: Arc<Registry>,
    /// What sessions that begin now are made with.
    session_settings: ArcSwap<SessionSettings>,
    /// Who says where clients really are.
    proxies: Vec<Network>,
    /// How far the journal is durable.
    durable: watch::Receiver<Lsn>,
    stopping: CancellationToken,
    /// Clients are served.
    open: CancellationToken,
    /// Who commits on a thread of its own.
    leader: leader::Leader,
    /// The journal has failed: every connection closes with 541.
    storage_failed: CancellationToken,
    tasks: TaskTracker,
    /// Where connections are served.
    workers: Workers,
    /// Passwords that are checked at once.
    logins: Semaphore,
    /// Where everything else is done.
    runtime: Handle,
}

/// A running server.
#[derive(Debug)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    amqp_addr: SocketAddr,
    plain_addr: Option<SocketAddr>,
    amqps_addr: Option<SocketAddr>,
    admission: Arc<Admission>,
    meter: Arc<IoMeter>,
    tls: Option<Arc<Tls>>,
    sockets: InheritedSockets,
    journal: Journal,
    failure: watch::Receiver<Option<StorageFailure>>,
    pager: PagerThread,
    /// Held as long as the folder is in use.
    _data_dir: DataDir,
}

impl Server {
    /// Opens the data folder and listens. Everything that is confirmed before a crash is there again.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`] says what cannot be used; nothing is left running then.
    pub async fn start(settings: ServerSettings) -> Result<ServerHandle, ServerError> {
        Self::start_in(settings, Embedding::default()).await
    }

    /// The same as a part of another program.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(
        settings: ServerSettings,
        embedding: Embedding,
    ) -> Result<ServerHandle, ServerError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let unix_ms = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis());
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let access = &settings.access;
        let broker_settings = BrokerSettings {
            default_user: (!embedding.brings_users).then(|| DefaultUser {
                name: Name::from(access.default_user.as_str()),
                password: access.default_password.clone().into_bytes(),
            }),
            password_hashing: match access.password_hashing {
                PasswordHashing::Argon2id => HashAlgorithm::Argon2id,
                PasswordHashing::Sha256 => HashAlgorithm::Sha256,
            },
            default_vhost: Name::from(access.default_vhost.as_str()),
            loopback_users: access
                .loopback_users
                .iter()
                .map(|name| Name::from(name.as_str()))
                .collect(),
            body_memory_bytes_max: settings.payload.memory_bytes_max,
            authorizer: embedding.authorizer,
            clock: embedding.clock,
            ..BrokerSettings::new(seed, Instant::now(), unix_ms)
        };
        let tls = match settings.tls.listen.or(settings.tls.http_listen) {
            Some(_) => Some(Arc::new(Tls::load(&settings.tls)?)),
            None => None,
        };
        let tokens = token_authority(&settings)?;
        let data_dir = DataDir::open(&settings.data_dir)?;
        let meter = Arc::<IoMeter>::default();
        let peer_key = data_dir.path().join("peer.key");
        let opened = tokio::task::spawn_blocking({
            let (path, settings) = (data_dir.path().to_owned(), settings.clone());
            let (keeping, meter) = (embedding.keeping, Arc::clone(&meter));
            move || open(broker_settings, &path, &settings, keeping, seed, &meter)
        });
        let Opened {
            journal,
            store,
            quiet,
            broker,
            pager,
            alarm_watch,
        } = opened
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        broker.users().set_token_authority(tokens);
        let swarm = SwarmSettings {
            listen: match embedding.peers {
                PeerListener::On => Some(settings.peer_listen),
                PeerListener::Off => None,
            },
            usage_file: Some(data_dir.path().join("swarm-usage.json")),
            key: peer::PeerKey::lasting(settings.peer_tls, &peer_key).map_err(SwarmError::from)?,
            tls: settings.peer_tls,
            ..SwarmSettings::default()
        };
        let swarm = swarm.with_traffic(&settings.swarm);
        let swarm = Swarm::start(swarm, store.clone()).await?;
        let payloads = Payloads::new(store, quiet, swarm, Arc::clone(&broker), &settings.payload);
        let durable = watch_durable(&journal);
        let storage_failed = CancellationToken::new();
        let failure = watch_failure(&journal, storage_failed.clone());
        let shared = Arc::new(Shared {
            broker,
            payloads,
            registry: Arc::default(),
            proxies: settings.proxies.clone(),
            session_settings: ArcSwap::from_pointee(session_settings(&settings)),
            durable,
            stopping: CancellationToken::new(),
            open: CancellationToken::new(),
            leader: leader::Leader::new(journal.clone()),
            storage_failed,
            tasks: TaskTracker::new(),
            logins: Semaphore::new(LOGINS_AT_ONCE_MAX),
            workers: Workers::start(thread_count()).map_err(ServerError::Thread)?,
            runtime: Handle::current(),
        });
        if !embedding.opens_later {
            shared.open.cancel();
        }
        let admission = Admission::new(&settings.admission);
        let sockets = embedding.sockets;
        let bind = |address, tls| Listener::bind(address, &sockets, tls, Arc::clone(&admission));
        let plain_listener = match settings.listen_plain {
            true => Some(bind(settings.listen, None)?),
            false => None,
        };
        let plain_addr = plain_listener.as_ref().map(Listener::local_addr);
        let tls_listener = match settings.tls.listen {
            Some(address) => Some(bind(address, tls.clone())?),
            None => None,
        };
        if let Some(path) = &settings.unix_listen {
            let listener = UnixListener::bind(path, Arc::clone(&admission))?;
            shared
                .tasks
                .spawn(listener::run(listener, Arc::clone(&shared)));
        }
        let amqps_addr = tls_listener.as_ref().map(Listener::local_addr);
        for listener in [plain_listener, tls_listener].into_iter().flatten() {
            shared
                .tasks
                .spawn(listener::run(listener, Arc::clone(&shared)));
        }
        shared.tasks.spawn(alarm_watch.run(shared.stopping.clone()));
        let broker = Arc::clone(&shared.broker);
        let stopping = shared.stopping.clone();
        shared.tasks.spawn(timers::keep_time(broker, stopping));
        let payloads = Arc::clone(&shared.payloads);
        shared
            .tasks
            .spawn(payloads.look_after(shared.stopping.clone()));
        Ok(ServerHandle {
            shared,
            amqp_addr: plain_addr.or(amqps_addr).unwrap_or(settings.listen),
            plain_addr,
            amqps_addr,
            tls,
            sockets,
            admission,
            meter,
            journal,
            failure,
            pager,
            _data_dir: data_dir,
        })
    }
}

/// Threads that serve connections: as many as there are processors that this process may use.
fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Runs what may take some tens of milliseconds, as checking a password does, while others go on.
pub(crate) fn slowly<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A runtime of one thread has nobody to go on.
        _ => work(),
    }
}

/// Who says which tokens are good, if any are taken.
fn token_authority(
    settings: &ServerSettings,
) -> Result<Option<Arc<dyn TokenAuthority>>, OAuthError> {
    let oauth = OAuth::new(&settings.oauth)?;
    Ok(oauth.map(|oauth| Arc::new(oauth) as Arc<dyn TokenAuthority>))
}

/// What sessions are made with.
fn session_settings(settings: &ServerSettings) -> SessionSettings {
    SessionSettings {
        connection: settings.connection.clone(),
        admission: settings.admission.clone(),
        tells_content_ids: settings.payload.tells_content_ids,
        payload_threshold_bytes: Some(settings.payload.threshold_bytes.max(1)),
    }
}

/// What the data folder held, and what looks after it.
struct Opened {
    journal: Journal,
    store: Store,
    quiet: Arc<Quiet>,
    broker: Arc<Broker>,
    pager: PagerThread,
    alarm_watch: AlarmWatch,
}

/// Opens journal, payload store and broker; reads the disk.
fn open(
    broker_settings: BrokerSettings,
    data_dir: &Path,
    settings: &ServerSettings,
    keeping: Keeping,
    seed: [u8; 32],
    meter: &IoMeter,
) -> Result<Opened, ServerError> {
    // What is kept for this process alone has nothing to lose.
    // req: MGMT-11
    if settings.sync == SyncMode::Os && matches!(keeping, Keeping::Lasting) {
        tracing::warn!(
            "sync = \"os\": confirms do not wait for the disk; a power failure loses confirmed messages"
        );
    }
    let space = Space::of(settings);
    let journal_settings = JournalSettings {
        sync: settings.sync,
        scrub_every: Some(settings.journal.scrub_every),
        scrub_bytes_per_second: settings.journal.scrub_bytes_per_second,
        seed,
        segment_bytes: space.segment_bytes,
        free_bytes_min: space.free_bytes_min,
        ..JournalSettings::default()
    };
    let journal_dir = data_dir.join("journal");
    let disk = match keeping {
        Keeping::Lasting => disk_for(data_dir),
        Keeping::Scratch => Arc::new(ScratchDisk),
    };
    let (journal, recovered) = Journal::open(
        meter.metered(Area::Journal, Arc::clone(&disk)),
        &journal_dir,
        journal_settings,
    )?;
    let store_disk = meter.metered(Area::Payloads, Arc::clone(&disk));
    let store = open_store(store_disk, data_dir, settings)?;
    let gate = journal.clone();
    store.set_removal_gate(Box::new(move || gate.wait_all_durable(REMOVAL_WAIT)));
    let quiet = Arc::new(Quiet::default());
    let references = Arc::new(StoreReferences {
        store: store.clone(),
        quiet: Arc::clone(&quiet),
    });
    let journal_state = Some((journal.clone(), recovered));
    let broker_settings = BrokerSettings {
        spill: Some(SpillSettings {
            disk: meter.metered(Area::Spill, disk),
            dir: data_dir.join("spill"),
            queue_bytes_max: settings.backlog.queue_memory_bytes_max,
            total_bytes_max: settings.backlog.total_memory_bytes_max,
        }),
        ..broker_settings
    };
    let broker = Broker::open(broker_settings, journal_state, Some(references))?;
    let pager = PagerThread::start(&broker).map_err(ServerError::Thread)?;
    let alarms = Arc::clone(broker.alarms());
    let alarm_watch = AlarmWatch::start(&alarms, &settings.alarm, data_dir, space.free_bytes_min);
    journal.set_space_listener(Box::new(move |is_short| {
        alarms.report_journal_space(is_short);
    }));
    Ok(Opened {
        journal,
        store,
        quiet,
        broker,
        pager,
        alarm_watch,
    })
}

/// The disk under journal and payload store: the system's own, unless a test has planted a fault.
fn disk_for(_data_dir: &Path) -> Arc<dyn Disk> {
    #[cfg(feature = "sabotage")]
    return crate::sabotage::disk::disk_for(_data_dir);
    #[cfg(not(feature = "sabotage"))]
    Arc::new(crate::disk::OsDisk)
}

/// How far the journal is durable, for tasks to wait on.
fn watch_durable(journal: &Journal) -> watch::Receiver<Lsn> {
    let (sender, receiver) = watch::channel(journal.durable_lsn().lsn());
    journal.set_commit_listener(Box::new(move |durable| {
        sender.send_replace(durable.lsn());
    }));
    receiver
}

/// The journal's failure, for tasks to wait on.
fn watch_failure(
    journal: &Journal,
    has_failed: CancellationToken,
) -> watch::Receiver<Option<StorageFailure>> {
    let (sender, receiver) = watch::channel(journal.failed());
    journal.set_failure_listener(Box::new(move |failure| {
        // Who hears of it stops the server; connections are to know by then why.
        has_failed.cancel();
        sender.send_replace(Some(failure.clone()));
    }));
    receiver
}

impl ServerHandle {
    /// Where AMQP clients connect: without TLS, if there is such a listener.
    #[must_use]
    pub fn amqp_addr(&self) -> SocketAddr {
        self.amqp_addr
    }

    /// Where AMQP clients connect without TLS, if they can.
    #[must_use]
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.plain_addr
    }

    /// Takes what of the settings can change while the server runs: certificates, what connections may do
    /// and cost that come from now on, the memory watermark, which bodies become payloads, what swarms may
    /// cost the network.
    ///
    /// # Errors
    /// If the certificates cannot be used; then nothing changes.
    pub fn reload(&self, settings: &ServerSettings) -> Result<(), ServerError> {
        let tokens = token_authority(settings)?;
        if let Some(tls) = &self.tls {
            tls.reload(&settings.tls)?;
        }
        self.shared.broker.users().set_token_authority(tokens);
        let sessions = Arc::new(session_settings(settings));
        self.shared.session_settings.store(sessions);
        self.admission.set(&settings.admission);
        self.shared.payloads.swarm().set_tls(settings.peer_tls);
        let alarms = self.shared.broker.alarms();
        alarms.set_memory_watermark(settings.alarm.memory_watermark);
        self.shared.payloads.swarm().set_traffic(&settings.swarm);
        Ok(())
    }

    /// Where AMQP clients connect over TLS, if they can.
    #[must_use]
    pub fn amqps_addr(&self) -> Option<SocketAddr> {
        self.amqps_addr
    }

    /// The TLS side, if there is a TLS listener.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Serves clients from now on, those too that wait already; for a server that [`Embedding::opens_later`].
    pub fn open_doors(&self) {
        self.shared.open.cancel();
    }

    /// Sockets that were handed over and that no listener has taken so far.
    #[must_use]
    pub fn sockets(&self) -> &InheritedSockets {
        &self.sockets
    }

    /// Where peers connect for pieces.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.payloads.peer_addr()
    }

    /// The broker's part in swarms.
    #[must_use]
    pub fn swarm(&self) -> &peer::SwarmHandle {
        self.shared.payloads.swarm()
    }

    /// The payload store, for reading what large bodies hold.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.shared.payloads.store()
    }

    /// What is done with the disk.
    #[must_use]
    pub fn io_meter(&self) -> &Arc<IoMeter> {
        &self.meter
    }

    /// Logins that failed, by address.
    pub(crate) fn failed_logins(&self) -> &Arc<FailedLogins> {
        self.admission.failed_logins()
    }

    /// The AMQP connections.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// How far the journal is durable, for answers that must not be belied by a crash.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.shared.durable.clone()
    }

    /// The broker, for calls from inside the process.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Waits until the disk fails under the journal. Nothing is confirmed from then on, and the server
    /// is to be shut down: what the page cache says can no longer be trusted.
    pub async fn storage_failed(&self) -> StorageFailure {
        let mut failure = self.failure.clone();
        loop {
            if let Some(failure) = &*failure.borrow_and_update() {
                return failure.clone();
            }
            if failure.changed().await.is_err() {
                // The journal is closed and cannot fail any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Closes all connections with a word to their clients, notes the clean stop, and stops.
    ///
    /// # Errors
    /// If what must be written at the end cannot be written; nothing that was confirmed is lost then.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_WAIT, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections did not close in time");
        }
        self.shared.payloads.shutdown().await;
        let (broker, journal) = (Arc::clone(&self.shared.broker), self.journal.clone());
        let pager = self.pager;
        let closed = tokio::task::spawn_blocking(move || {
            drop(pager);
            broker.note_for_stop()?;
            journal.close()?;
            Ok(())
        });
        closed
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}
