//! Accepts AMQP connections, within limits.
//!
//! Owns: the loop that accepts, for sockets of any kind, and one listening socket of TCP, plain or for TLS. A connection over a limit is closed at once; a process out of file
//! descriptors waits instead of spinning.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::admission::{Admission, Place, Refused};
use super::connection::{self, Transport};
use super::inherited::{InheritedSockets, Listening};
use super::proxy::{ProxyError, read_header};
use super::socket::Socket;
use super::tls::{HandshakeError, Tls, TlsSocket};
use super::{ServerError, Shared};
use crate::session::Addresses;

/// Pause after an accept that failed, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted.
const BACKLOG_COUNT: u32 = 1_024;

/// A listening socket of any kind.
pub(super) trait Accepts: Send + 'static {
    /// A connection as the system gives it.
    type Arrived: Send;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = std::io::Result<Self::Arrived>> + Send;

    /// Has it served, or drops it if a limit says so. Does not wait.
    fn admit(&mut self, arrived: Self::Arrived, shared: &Arc<Shared>);
}

/// An IPv4 client of a socket for both families under its own address, as a socket for IPv4 names it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Accepts from when the doors are open until the server stops.
pub(super) async fn run(mut listener: impl Accepts, shared: Arc<Shared>) {
    tokio::select! {
        () = shared.open.cancelled() => {}
        () = shared.stopping.cancelled() => return,
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => return,
        };
        match accepted {
            Ok(arrived) => listener.admit(arrived, &shared),
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection; waiting");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Listening sockets of TCP, of one port.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Listening,
    local_addr: SocketAddr,
    tls: Option<Arc<Tls>>,
    admission: Arc<Admission>,
}

impl Listener {
    /// Listens on `address`, with the sockets for it that were handed over if there are any.
    pub(super) fn bind(
        address: SocketAddr,
        inherited: &InheritedSockets,
        tls: Option<Arc<Tls>>,
        admission: Arc<Admission>,
    ) -> Result<Self, ServerError> {
        let listen = || {
            let socket = match inherited.take(address)? {
                Some(socket) => socket,
                None => listen(address)?.into(),
            };
            Ok((socket.local_addr()?, socket))
        };
        let listening = listen().map_err(|source| ServerError::Listen { address, source });
        listening.map(|(local_addr, socket)| Self {
            socket,
            local_addr,
            tls,
            admission,
        })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

fn listen(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG_COUNT)
}

impl Accepts for Listener {
    type Arrived = (TcpStream, SocketAddr);

    async fn accept(&self) -> std::io::Result<Self::Arrived> {
        let (stream, address) = self.socket.accept().await?;
        Ok((stream, canonical(address)))
    }

    fn admit(&mut self, (stream, address): Self::Arrived, shared: &Arc<Shared>) {
        let is_proxy = shared
            .proxies
            .iter()
            .any(|network| network.contains(address.ip()));
        let admitted = match is_proxy {
            // Where the client is, and how many are there, its header will say.
            true => self.admission.admit_unknown(),
            false => self.admission.admit(address.ip()),
        };
        let place: Place = match admitted {
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
            local: canonical(local),
        };
        if !is_proxy && self.tls.is_none() && place.delay(Instant::now()).is_none() {
            let transport = Transport {
                socket: Socket::Tcp(stream),
                addresses,
                tls: None,
            };
            return connection::start(transport, place, Arc::clone(shared));
        }
        let arrival = Arrival {
            stream,
            addresses,
            is_proxy,
            tls: self.tls.clone(),
        };
        let served = serve(arrival, place, Arc::clone(shared));
        shared.tasks.spawn(served);
    }
}

/// A connection before anything was read from it.
struct Arrival {
    stream: TcpStream,
    addresses: Addresses,
    is_proxy: bool,
    tls: Option<Arc<Tls>>,
}

/// Does what comes before AMQP, in a task of its own, then serves the connection.
async fn serve(arrival: Arrival, mut place: Place, shared: Arc<Shared>) {
    let peer = arrival.addresses.peer;
    let eviction = place.eviction();
    let prepared = tokio::select! {
        prepared = prepare(arrival, &mut place, &shared) => prepared,
        () = eviction.cancelled() => return,
        () = shared.stopping.cancelled() => return,
    };
    match prepared {
        Ok(transport) => {
            if let Some(delay) = place.delay(Instant::now()) {
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = eviction.cancelled() => return,
                    () = shared.stopping.cancelled() => return,
                }
            }
            connection::start(transport, place, shared);
        }
        Err(error) => tracing::info!(address = %peer, %error, "no connection"),
    }
}

/// Why a connection ends before AMQP.
#[derive(Debug, thiserror::Error)]
enum ArrivalError {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("the PROXY protocol header did not come in time")]
    ProxyTimeout,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Tls(#[from] HandshakeError),
}

async fn prepare(
    mut arrival: Arrival,
    place: &mut Place,
    shared: &Shared,
) -> Result<Transport, ArrivalError> {
    let mut addresses = arrival.addresses;
    if arrival.is_proxy {
        let wait = shared
            .session_settings
            .load()
            .admission
            .protocol_header_wait;
        let header = read_header(&mut arrival.stream);
        let header = tokio::time::timeout(wait, header).await;
        if let Some(told) = header.map_err(|_| ArrivalError::ProxyTimeout)?? {
            addresses = told;
        }
        place.settle(addresses.peer.ip())?;
    }
    let Some(tls) = arrival.tls else {
        return Ok(Transport {
            socket: Socket::Tcp(arrival.stream),
            addresses,
            tls: None,
        });
    };
    let (stream, state) = tls.accept(arrival.stream).await?.into_inner();
    let facts = tls.facts(&state);
    Ok(Transport {
        socket: Socket::Tls(Box::new(TlsSocket::new(stream, state))),
        addresses,
        tls: Some(Arc::new(facts)),
    })
}
