//! Sockets, tasks and timers: tokio begins here.
//!
//! Owns: a running broker with its listeners. [`Server::start`] opens the data folder, starts to listen
//! and gives a [`ServerHandle`]; dropping the handle leaves the server running, [`ServerHandle::shutdown`]
//! ends it in an orderly way.
#![allow(clippy::disallowed_methods)]

mod admission;
mod connection;
mod listener;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerSettings, OpenError};
use crate::config::ServerSettings;
use crate::journal::Lsn;
use crate::session::SessionSettings;

use listener::Listener;

/// Longest wait for connections to say goodbye at a shutdown.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

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
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}: {source}", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The broker's state cannot be restored.
    #[error(transparent)]
    Broker(#[from] OpenError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// A broker with its listeners; see [`Server::start`].
#[derive(Debug)]
pub struct Server;

/// What all connections of a server share.
#[derive(Debug)]
struct Shared {
    broker: Arc<Broker>,
    session_settings: Arc<SessionSettings>,
    /// How far the journal is durable.
    durable: watch::Receiver<Lsn>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// A running server.
#[derive(Debug)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    amqp_addr: SocketAddr,
    /// Kept so that connections can wait for it.
    _durable: watch::Sender<Lsn>,
}

impl Server {
    /// Opens the data folder and listens. Everything that is confirmed before a crash is there again.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`] says what cannot be used; nothing is left running then.
    pub async fn start(settings: ServerSettings) -> Result<ServerHandle, ServerError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let unix_ms = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis());
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let broker_settings = BrokerSettings::new(seed, Instant::now(), unix_ms);
        let broker = Broker::open(broker_settings, None, None)?;
        let (durable_sender, durable) = watch::channel(Lsn::ZERO);
        let shared = Arc::new(Shared {
            broker,
            session_settings: Arc::new(SessionSettings {
                connection: settings.connection.clone(),
                admission: settings.admission.clone(),
                payload_threshold_bytes: None,
            }),
            durable,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let listener = Listener::bind(settings.listen, &settings.admission).await?;
        let amqp_addr = listener.local_addr();
        shared.tasks.spawn(listener.run(Arc::clone(&shared)));
        Ok(ServerHandle {
            shared,
            amqp_addr,
            _durable: durable_sender,
        })
    }
}

impl ServerHandle {
    /// Where AMQP clients connect.
    #[must_use]
    pub fn amqp_addr(&self) -> SocketAddr {
        self.amqp_addr
    }

    /// The broker, for calls from inside the process.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Closes all connections with a word to their clients, and stops.
    ///
    /// # Errors
    /// If what must be written at the end cannot be written.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_WAIT, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections did not close in time");
        }
        Ok(())
    }
}
