//! The broker under test.
//!
//! Owns: how tests get one. `WARREN_IT_BROKER=HOST:PORT` names another broker to hold the same tests
//! against, RabbitMQ for one; what tests Warren's own settings starts its own all the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, OnceLock};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use warren::admin::http::HttpServer;
use warren::broker::{Alarms, Broker};
use warren::config::ServerSettings;
use warren::journal::StorageFailure;
use warren::payload::Store;
use warren::server::tls::Tls;
use warren::server::{Server, ServerError, ServerHandle};

/// Runs all servers of this test binary, until it ends.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads"));

/// A server of one test's own, with its data folder; stopped when dropped.
pub(crate) struct Own {
    server: Option<ServerHandle>,
    address: SocketAddr,
    folder: TempDir,
}

/// Runs a test's asynchronous part.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// The address of the broker that all tests share.
pub(crate) fn shared() -> SocketAddr {
    static SHARED: OnceLock<Own> = OnceLock::new();
    match std::env::var("WARREN_IT_BROKER") {
        Ok(address) => address.parse().expect("WARREN_IT_BROKER is HOST:PORT"),
        Err(_) => SHARED.get_or_init(|| Own::start(|_| {})).address,
    }
}

impl Own {
    /// A server with the settings that `change` makes of the defaults.
    pub(crate) fn start(change: impl FnOnce(&mut ServerSettings)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), change)
    }

    /// A server on what another one left.
    pub(crate) fn start_in(folder: TempDir, change: impl FnOnce(&mut ServerSettings)) -> Self {
        let mut settings = settings_in(&folder);
        change(&mut settings);
        let server = RUNTIME.block_on(Server::start(settings)).expect("a server");
        Self {
            address: server.amqp_addr(),
            server: Some(server),
            folder,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves pieces.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.server().peer_addr().expect("it serves pieces")
    }

    /// Serves its HTTP interface until the test binary ends; gives the address.
    pub(crate) fn serve_http(&self) -> SocketAddr {
        self.serve_http_with(|_| {})
    }

    /// The same with other settings.
    pub(crate) fn serve_http_with(&self, change: impl FnOnce(&mut ServerSettings)) -> SocketAddr {
        let mut settings = settings_in(&self.folder);
        change(&mut settings);
        let bound = RUNTIME.block_on(HttpServer::bind(&settings, self.server()));
        let http = bound.expect("a free port");
        let address = http.local_addr();
        RUNTIME.spawn(http.serve(CancellationToken::new()));
        address
    }

    /// Where it listens for AMQP over TLS.
    pub(crate) fn amqps_address(&self) -> Option<SocketAddr> {
        self.server().amqps_addr()
    }

    /// The names of its connections.
    pub(crate) fn connection_names(&self) -> Vec<String> {
        let connections = self.server().registry().connections();
        connections.iter().map(|entry| entry.name()).collect()
    }

    /// Its TLS side.
    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.server().tls()
    }

    /// Its broker.
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        self.server().broker()
    }

    /// As [`Self::serve_http`], over TLS.
    pub(crate) fn serve_https(&self, listen: Option<SocketAddr>) -> SocketAddr {
        let mut settings = settings_in(&self.folder);
        settings.tls.http_listen = listen;
        let bound = RUNTIME.block_on(HttpServer::bind(&settings, self.server()));
        let http = bound.expect("a free port");
        let address = http.tls_addr().expect("TLS is on");
        RUNTIME.spawn(http.serve(CancellationToken::new()));
        address
    }

    /// Turns the firehose of vhost `/` on or off.
    pub(crate) fn set_tracing(&self, is_on: bool) {
        let vhost = self.server().broker().vhost(b"/").expect("the first vhost");
        vhost.set_tracing(is_on);
    }

    /// What is short there.
    pub(crate) fn alarms(&self) -> &Arc<Alarms> {
        self.server().broker().alarms()
    }

    /// Its payload store.
    pub(crate) fn store(&self) -> &Store {
        self.server().store()
    }

    /// Where its payload store lies.
    pub(crate) fn payload_folder(&self) -> PathBuf {
        self.folder.path().join("data").join("payloads")
    }

    fn server(&self) -> &ServerHandle {
        self.server.as_ref().expect("it runs until dropped")
    }

    /// Tries to start a second server in the same folder.
    pub(crate) fn start_twice(&self) -> Result<ServerHandle, ServerError> {
        RUNTIME.block_on(Server::start(settings_in(&self.folder)))
    }

    /// Stops it in an orderly way; its data stays.
    pub(crate) fn stop(mut self) -> TempDir {
        self.stop_now();
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"))
    }

    /// Waits until its disk has failed.
    pub(crate) fn storage_failed(&self) -> StorageFailure {
        RUNTIME.block_on(self.server().storage_failed())
    }

    /// Stops it after its disk has failed.
    pub(crate) fn stop_failed(mut self) -> Result<(), ServerError> {
        let server = self.server.take().expect("it runs until dropped");
        RUNTIME.block_on(server.shutdown())
    }

    fn stop_now(&mut self) {
        if let Some(server) = self.server.take() {
            RUNTIME.block_on(server.shutdown()).expect("a clean stop");
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop_now();
    }
}

fn settings_in(folder: &TempDir) -> ServerSettings {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ServerSettings {
        data_dir: folder.path().join("data"),
        listen: any_port,
        peer_listen: any_port,
        http_listen: any_port,
        ..ServerSettings::default()
    }
}
