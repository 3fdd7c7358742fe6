//! Accepts AMQP connections, within limits.
//!
//! Owns: one listening socket, plain or for TLS. A connection over a limit is closed at once; a process out of file
//! descriptors waits instead of spinning.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::admission::{Admission, Place};
use super::connection::{self, Transport};
use super::socket::Socket;
use super::tls::{Tls, TlsSocket};
use super::{ServerError, Shared};
use crate::session::Addresses;

/// Pause after an accept that failed, as when file descriptors have run out.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted.
const BACKLOG_COUNT: u32 = 1_024;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    local_addr: SocketAddr,
    tls: Option<Arc<Tls>>,
    admission: Arc<Admission>,
}

impl Listener {
    pub(super) async fn bind(
        address: SocketAddr,
        tls: Option<Arc<Tls>>,
        admission: Arc<Admission>,
    ) -> Result<Self, ServerError> {
        let listen = || {
            let socket = match address {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG_COUNT)?;
            let local_addr = socket.local_addr()?;
            Ok(Self {
                socket,
                local_addr,
                tls: tls.clone(),
                admission: Arc::clone(&admission),
            })
        };
        listen().map_err(|source| ServerError::Listen { address, source })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts until the server stops.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = shared.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address, &shared),
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection; waiting");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, shared: &Arc<Shared>) {
        let place: Place = match self.admission.admit(address.ip()) {
            Ok(place) => place,
            Err(refused) => {
                tracing::warn!(%address, reason = %refused, "a connection is turned away");
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "the connection is gone already");
            return;
        }
        let local = stream.local_addr().unwrap_or(self.local_addr);
        let addresses = Addresses {
            peer: address,
            local,
        };
        let shared_too = Arc::clone(shared);
        match &self.tls {
            None => {
                let transport = Transport {
                    socket: Socket::Tcp(stream),
                    addresses,
                    tls: None,
                };
                let served = connection::run(transport, place, shared_too);
                shared.tasks.spawn(served);
            }
            Some(tls) => {
                let tls = Arc::clone(tls);
                shared
                    .tasks
                    .spawn(run_tls(tls, stream, addresses, place, shared_too));
            }
        }
    }
}

/// Shakes hands first, in the connection's own task.
async fn run_tls(
    tls: Arc<Tls>,
    stream: TcpStream,
    addresses: Addresses,
    place: Place,
    shared: Arc<Shared>,
) {
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = shared.stopping.cancelled() => return,
    };
    let (stream, state) = match shaken {
        Ok(stream) => stream.into_inner(),
        Err(error) => {
            tracing::info!(address = %addresses.peer, %error, "no TLS connection");
            return;
        }
    };
    let facts = tls.facts(&state);
    let transport = Transport {
        socket: Socket::Tls(Box::new(TlsSocket::new(stream, state))),
        addresses,
        tls: Some(Arc::new(facts)),
    };
    connection::run(transport, place, shared).await;
}
