//! How an embedded broker is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::broker::Parts;
use super::home::TemporaryFolder;
use super::{Authorizer, Broker, EmbedError, TestClock};
use crate::admin::http::HttpServer;
use crate::config::{ServerSettings, SyncMode};
use crate::server::{Embedding, Keeping, PeerListener, Server, ServerHandle};

/// A free port of this machine alone.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Settings of a broker that is to run in this process.
///
/// As it is made, it listens nowhere and lives in a temporary folder that goes with it: what a test wants. A broker
/// that must keep what it is given has a [`data_dir`](Self::data_dir).
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = warren::Broker::builder().listen_on_loopback().start().await?;
/// let uri = broker.amqp_uri().expect("it listens");       // for any AMQP client
/// assert!(uri.starts_with("amqp://guest:guest@127.0.0.1:"));
/// broker.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// Started so it is ready in a few milliseconds: nothing is synced (see
/// `examples/embedded_broker.rs`, which measures it).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct BrokerBuilder {
    settings: ServerSettings,
    data_dir: Option<PathBuf>,
    listens_http: bool,
    listens_peers: bool,
    embedding: Embedding,
}

impl BrokerBuilder {
    pub(super) fn new() -> Self {
        let settings = ServerSettings {
            listen: LOOPBACK,
            listen_plain: false,
            http_listen: LOOPBACK,
            peer_listen: LOOPBACK,
            ..ServerSettings::default()
        };
        Self {
            settings,
            data_dir: None,
            listens_http: false,
            listens_peers: false,
            embedding: Embedding::default(),
        }
    }

    /// Takes all settings as a broker of its own process has them, its three listeners and its data folder too; what
    /// is called before this counts no more.
    pub fn settings(mut self, settings: ServerSettings) -> Self {
        self.data_dir = Some(settings.data_dir.clone());
        self.settings = settings;
        self.listens_http = true;
        self.listens_peers = true;
        self
    }

    /// Changes settings that have no call of their own.
    ///
    /// ```
    /// let builder = warren::Broker::builder().configure(|settings| settings.payload.threshold_bytes = 64 * 1024);
    /// # drop(builder);
    /// ```
    pub fn configure(mut self, change: impl FnOnce(&mut ServerSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Keeps everything in this folder, made if missing, and syncs it to the disk before it confirms. One broker at a
    /// time can use it.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(folder.into());
        self
    }

    /// Lets AMQP clients connect to this address; port 0 takes a free one.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.settings.listen = address;
        self.settings.listen_plain = true;
        self
    }

    /// Lets AMQP clients of this machine connect, on a free port: [`Broker::amqp_uri`] has it.
    pub fn listen_on_loopback(self) -> Self {
        self.listen(LOOPBACK)
    }

    /// Answers on HTTP at this address: the management interface, payloads, health. Port 0 takes a free one.
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.settings.http_listen = address;
        self.listens_http = true;
        self
    }

    /// Lets nodes fetch pieces at this address: without it nobody can fetch payloads from the swarm. Port 0 takes a
    /// free one.
    pub fn peers(mut self, address: SocketAddr) -> Self {
        self.settings.peer_listen = address;
        self.listens_peers = true;
        self
    }

    /// Goes by a clock of the caller's: a test lets a TTL pass without waiting for it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use warren::embed::{Broker, Message, QueueOptions, TestClock};
    ///
    /// let clock = TestClock::stopped();
    /// let broker = Broker::builder().clock(clock.clone()).start().await?;
    /// let channel = broker.channel()?;
    /// channel.declare_queue("q", &QueueOptions::durable()).await?;
    /// let hour = Duration::from_secs(3_600);
    /// channel.publish("", "q", Message::new("old").expires_after(hour)).await?;
    /// clock.advance(hour);
    /// broker.do_what_is_due().await?;
    /// assert!(channel.get("q")?.is_none());
    /// broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.embedding.clock = Some(clock);
        self
    }

    /// Asks `authorizer` for every right before the broker's own permissions.
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.embedding.authorizer = Some(authorizer);
        self
    }

    /// Starts the broker. It answers when this returns.
    ///
    /// Must be called within a tokio runtime, of any kind, that lives as long as the broker.
    ///
    /// # Errors
    /// If an address or a folder cannot be used, or what is in the folder cannot be read; nothing is left running
    /// then.
    pub async fn start(self) -> Result<Broker, EmbedError> {
        let Self {
            mut settings,
            data_dir,
            listens_http,
            listens_peers,
            mut embedding,
        } = self;
        let folder = match data_dir {
            Some(data_dir) => {
                settings.data_dir = data_dir;
                None
            }
            None => {
                let folder = TemporaryFolder::new()?;
                settings.data_dir = folder.path().to_owned();
                // Nothing in it outlives this process anyway.
                settings.sync = SyncMode::Os;
                embedding.keeping = Keeping::Scratch;
                Some(folder)
            }
        };
        embedding.peers = match listens_peers {
            true => PeerListener::On,
            false => PeerListener::Off,
        };
        let clock = embedding.clock.clone();
        let server = Server::start_in(settings.clone(), embedding).await?;
        let http = match listens_http {
            true => Some(serve_http(&settings, &server).await),
            false => None,
        };
        let (http, http_addr) = match http {
            Some(Ok((address, task))) => (Some(task), Some(address)),
            Some(Err(error)) => {
                server.shutdown().await?;
                return Err(error);
            }
            None => (None, None),
        };
        let parts = Parts {
            channels: Mutex::default(),
            http,
            server,
            folder,
        };
        Ok(Broker::new(parts, &settings.access, clock, http_addr))
    }
}

type Serving = (CancellationToken, tokio::task::JoinHandle<()>);

async fn serve_http(
    settings: &ServerSettings,
    server: &ServerHandle,
) -> Result<(SocketAddr, Serving), EmbedError> {
    let http = HttpServer::bind(settings, server).await?;
    let (address, stopping) = (http.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(http.serve(stopping.clone()));
    Ok((address, (stopping, serving)))
}
