//! Listening sockets that whoever started the process has made, and keeps while it restarts: systemd's socket activation.
//!
//! Owns: those that no listener has taken yet. A listener of TCP takes the one with the port that its setting names; on
//! which address that is, who made the socket has decided.
//! Bound: what was handed over.

use std::io;
use std::net::{SocketAddr, TcpListener as Socket};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;

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
    /// Takes the socket with the port of a listener's setting, if there is one; must be called within a runtime.
    ///
    /// # Errors
    /// If the system does not let it be used.
    pub(crate) fn take(&self, setting: SocketAddr) -> io::Result<Option<TcpListener>> {
        let mut sockets = self.0.lock();
        let is_meant = |socket: &Socket| {
            let local_addr = socket.local_addr();
            local_addr.is_ok_and(|address| address.port() == setting.port())
        };
        let Some(at) = sockets.iter().position(is_meant) else {
            return Ok(None);
        };
        let socket = sockets.swap_remove(at);
        drop(sockets);
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket).map(Some)
    }

    /// Listens where a listener's setting says, with the socket for it that was handed over if there is one.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn listen(&self, setting: SocketAddr) -> io::Result<TcpListener> {
        match self.take(setting)? {
            Some(socket) => Ok(socket),
            None => TcpListener::bind(setting).await,
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
}
