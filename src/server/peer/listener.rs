//! Accepts and dials connections, within bounds, agrees on their transport, and resolves names of a manifest's peers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::connection::{self, Output};
use super::core::{self, Shared};
use super::link::Link;
use super::secure;
use crate::config::PeerTls;
use crate::swarm::{ConnId, Role, TransferId};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;
/// Longest wait for a connection to be made.
const DIAL_WAIT: Duration = Duration::from_secs(5);
/// Pause after the system could not give one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Addresses of one name that are taken.
const ADDRESSES_PER_NAME: usize = 4;

/// Listens on `address`.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, super::SwarmError> {
    listen(address).map_err(|source| super::SwarmError::Listen { address, source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the swarm stops.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => begin(&shared, stream, remote, Role::Listener),
            Err(error) => {
                tracing::warn!(%error, "peer connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Connects to `address`, and tells the engine if nobody is there.
pub(super) async fn dial(shared: Arc<Shared>, address: SocketAddr) {
    let dialled = tokio::select! {
        () = shared.stopping.cancelled() => return,
        dialled = tokio::time::timeout(DIAL_WAIT, connect(&shared, address)) => dialled,
    };
    match dialled {
        Ok(Ok(stream)) => begin(&shared, stream, address, Role::Dialler),
        Ok(Err(_)) | Err(_) => {
            tracing::debug!(peer = %address, "peer not reached");
            core::with(&shared, |core, now| {
                core.engine.handle_dial_failed(address, now);
            });
        }
    }
}

/// Connects from the address that this node listens on, if it is one address: the peer, and whom it tells, take the
/// address that they see for the one to dial.
async fn connect(shared: &Shared, address: SocketAddr) -> io::Result<TcpStream> {
    let reaches = |own: &IpAddr| {
        let remote = address.ip();
        own.is_ipv4() == remote.is_ipv4() && own.is_loopback() == remote.is_loopback()
    };
    let Some(own) = shared.listen_ip.filter(reaches) else {
        return TcpStream::connect(address).await;
    };
    let socket = match own {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    match socket.bind(SocketAddr::new(own, 0)) {
        Ok(()) => socket.connect(address).await,
        Err(error) => {
            tracing::debug!(%own, %error, "cannot dial from where this node listens");
            TcpStream::connect(address).await
        }
    }
}

/// Gives a connection to a task of its own, or closes it if there are too many.
fn begin(shared: &Arc<Shared>, stream: TcpStream, remote: SocketAddr, role: Role) {
    let admitted = core::with(shared, |core, now| {
        let admitted = core.admit(remote, &shared.settings);
        if admitted.is_none() && role == Role::Dialler {
            core.engine.handle_dial_failed(remote, now);
        }
        admitted
    });
    match admitted {
        Some((conn, output)) => {
            let run = greet_and_run(Arc::clone(shared), stream, remote, role, conn, output);
            shared.tasks.spawn_on(run, &shared.runtime);
        }
        None => tracing::debug!(peer = %remote, "too many peer connections"),
    }
}

/// Agrees on the transport, then runs the connection to its end.
async fn greet_and_run(
    shared: Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    role: Role,
    conn: ConnId,
    output: Arc<Output>,
) {
    let agreed = tokio::select! {
        () = shared.stopping.cancelled() => Err(io::ErrorKind::Interrupted.into()),
        agreed = agree(&shared, stream, remote, role) => agreed,
    };
    match agreed {
        Ok(link) => {
            let binding = link.binding();
            core::with(&shared, |core, now| {
                core.engine
                    .handle_connected(conn, role, remote, binding, now);
            });
            connection::run(shared, link, remote, conn, output).await;
        }
        Err(error) => {
            tracing::debug!(peer = %remote, %error, "no connection with the peer");
            core::with(&shared, |core, now| {
                core.remove(conn, remote);
                if role == Role::Dialler {
                    core.engine.handle_dial_failed(remote, now);
                }
            });
        }
    }
}

/// Speaks TLS or not, as both sides want.
// req: PEER-17
async fn agree(
    shared: &Shared,
    stream: TcpStream,
    remote: SocketAddr,
    role: Role,
) -> io::Result<Link> {
    without_delay(&stream, remote);
    let tls = *shared.tls.lock();
    let handshaker = &shared.handshaker;
    match (tls, role) {
        (PeerTls::Off, _) => Ok(Link::Plain(stream)),
        (PeerTls::Require, Role::Dialler) => {
            Ok(Link::Secure(Arc::new(handshaker.connect(stream).await?)))
        }
        (PeerTls::Prefer, Role::Dialler) => match handshaker.connect(stream).await {
            Ok(secure) => Ok(Link::Secure(Arc::new(secure))),
            // Something came that is no TLS: it may be one that speaks plainly only. If it is not, the two find out and
            // part. Who just closes has no place; asking him at once again would only double what a crowd costs him.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::debug!(peer = %remote, %error, "no TLS with the peer; trying without");
                let plain = tokio::time::timeout(DIAL_WAIT, connect(shared, remote)).await;
                let plain = plain.map_err(|_| io::ErrorKind::TimedOut)??;
                without_delay(&plain, remote);
                Ok(Link::Plain(plain))
            }
            Err(error) => Err(error),
        },
        (PeerTls::Prefer | PeerTls::Require, Role::Listener) => {
            match secure::begins_with_tls(&stream).await? {
                true => Ok(Link::Secure(Arc::new(handshaker.accept(stream).await?))),
                false if tls == PeerTls::Prefer => Ok(Link::Plain(stream)),
                false => Err(io::Error::other("the peer speaks without TLS")),
            }
        }
    }
}

/// Small messages must not wait for large ones to be acknowledged.
fn without_delay(stream: &TcpStream, remote: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = %remote, %error, "no TCP_NODELAY");
    }
}

/// Finds the addresses of a manifest's peer that is given by name.
pub(super) async fn resolve(shared: Arc<Shared>, id: TransferId, name: String) {
    let found = tokio::select! {
        () = shared.stopping.cancelled() => return,
        found = tokio::net::lookup_host(name.as_str()) => found,
    };
    match found {
        Ok(addresses) => core::with(&shared, |core, now| {
            for address in addresses.take(ADDRESSES_PER_NAME) {
                core.engine.add_address(id, address, now);
            }
        }),
        Err(error) => tracing::debug!(%error, "name of a peer not found"),
    }
}
