//! Listening sockets that whoever started the process has made, and keeps while it restarts: systemd's socket activation.
//!
//! Owns: those that no listener has taken yet, and the accepting on several sockets as if they were one. A listener of TCP
//! takes all with the port that its setting names, as those for IPv4 and IPv6; on which addresses that is, who made the
//! sockets has decided.
//! Bound: what was handed over.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as Socket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

/// Sockets that listen already; clones share them.
#[derive(Clone, Debug, Default)]
pub struct InheritedSockets(Arc<Mutex<Vec<Socket>>>);

impl InheritedSockets {
    /// These sockets.
    #[must_use]
    pub fn new(sockets: Vec<Socket>) -> Self {
        Self(Arc::new(Mutex::new(sockets)))
    }

    // req: SOCKET-1
    /// Takes the sockets with the port of a listener's setting, if there are any; must be called within a runtime.
    ///
    /// # Errors
    /// If the system does not let one be used.
    pub(crate) fn take(&self, setting: SocketAddr) -> io::Result<Option<Listening>> {
        let is_meant = |socket: &mut Socket| {
            let local_addr = socket.local_addr();
            local_addr.is_ok_and(|address| address.port() == setting.port())
        };
        let meant: Vec<Socket> = self.0.lock().extract_if(.., is_meant).collect();
        let usable = meant.into_iter().map(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        Ok(Listening::on(usable.collect::<io::Result<_>>()?))
    }

    /// Listens where a listener's setting says, with the sockets for it that were handed over if there are any.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn listen(&self, setting: SocketAddr) -> io::Result<Listening> {
        match self.take(setting)? {
            Some(sockets) => Ok(sockets),
            None => TcpListener::bind(setting).await.map(Listening::from),
        }
    }

    /// Where those listen that nobody has taken: no setting names their ports.
    #[must_use]
    pub fn left(&self) -> Vec<SocketAddr> {
        let sockets = self.0.lock();
        let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok());
        addresses.collect()
    }
}

/// What one listener listens on: a socket, or the sockets that were handed over for its port.
#[derive(Debug)]
pub(crate) struct Listening {
    first: TcpListener,
    others: Vec<TcpListener>,
    /// Which of them is asked first.
    turn: AtomicUsize,
}

impl From<TcpListener> for Listening {
    fn from(socket: TcpListener) -> Self {
        Self {
            first: socket,
            others: Vec::new(),
            turn: AtomicUsize::new(0),
        }
    }
}

impl Listening {
    fn on(sockets: Vec<TcpListener>) -> Option<Self> {
        let mut sockets = sockets.into_iter();
        let first = Self::from(sockets.next()?);
        Some(Self {
            others: sockets.collect(),
            ..first
        })
    }

    /// Where it listens; of several, where the first does.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.first.local_addr()
    }

    /// Waits for the next connection on any of them; nothing is lost if the wait is given up.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// The socket behind the one that had somebody last comes first, so that a busy one does not keep others waiting.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let sockets = std::iter::once(&self.first).chain(&self.others);
        let count = 1 + self.others.len();
        let first = self.turn.load(Ordering::Relaxed) % count;
        for (passed, socket) in sockets.cycle().skip(first).take(count).enumerate() {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                self.turn.store(first + passed + 1, Ordering::Relaxed);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The port decides, not the address, and a socket is taken once.
    #[tokio::test]
    async fn a_socket_goes_to_the_setting_with_its_port() {
        let socket = Socket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let inherited = InheritedSockets::new(vec![socket]);
        let other = SocketAddr::from(([127, 0, 0, 1], 0));
        let taken = |setting| inherited.take(setting).expect("it can be used");
        assert!(taken(other).is_none());
        assert_eq!(inherited.left(), [address]);
        let anywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let taken_first = taken(anywhere).expect("the socket");
        assert_eq!(taken_first.local_addr().expect("an address"), address);
        assert!(taken(anywhere).is_none());
        assert!(inherited.left().is_empty());
    }

    /// Two sockets of one port, as for two addresses, are one listener, and none of them waits for the other.
    // req: SOCKET-1
    #[tokio::test]
    async fn sockets_of_one_port_are_one_listener() {
        let socket = Socket::bind("127.0.0.1:0").expect("a free port");
        let first = socket.local_addr().expect("an address");
        let second = SocketAddr::from(([127, 0, 0, 2], first.port()));
        let inherited = InheritedSockets::new(vec![socket, Socket::bind(second).expect("free")]);
        let taken = inherited.take(first).expect("they can be used");
        let listening = taken.expect("both");
        assert!(inherited.left().is_empty());
        let mut clients = Vec::new();
        for address in [first, first, second] {
            clients.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let mut reached = Vec::new();
        for _ in &clients {
            let (stream, _) = listening.accept().await.expect("somebody came");
            reached.push(stream.local_addr().expect("an address"));
        }
        assert_eq!(reached, [first, second, first]);
    }
}
