//! AMQP over a socket in the file system, for programs of this machine.
//!
//! Owns: the listening socket and its file, which is this server's alone while the data folder is. Who may
//! connect is what the file's rights say; whoever does counts as coming from a loopback address.
//! Bound: as TCP connections, by the admission.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener as Socket, UnixStream};

use super::admission::Admission;
use super::connection::{self, Transport};
use super::listener::Accepts;
use super::{ServerError, Shared, socket};
use crate::session::Addresses;

/// Rights of the socket's file: owner and group.
const MODE: u32 = 0o660;

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub(super) struct UnixListener {
    socket: Socket,
    path: PathBuf,
    admission: Arc<Admission>,
    /// Of the last connection: they have no addresses of their own, and need names that differ.
    number: u16,
}

impl UnixListener {
    /// Listens on `path`. What another server left there is replaced, if nobody listens on it.
    pub(super) fn bind(path: &Path, admission: Arc<Admission>) -> Result<Self, ServerError> {
        let failed = |source| ServerError::ListenUnix {
            path: path.to_owned(),
            source,
        };
        remove_stale(path).map_err(failed)?;
        let socket = Socket::bind(path).map_err(failed)?;
        let listener = Self {
            socket,
            path: path.to_owned(),
            admission,
            number: 0,
        };
        let rights = std::fs::Permissions::from_mode(MODE);
        std::fs::set_permissions(path, rights).map_err(failed)?;
        Ok(listener)
    }
}

impl Accepts for UnixListener {
    type Arrived = UnixStream;

    async fn accept(&self) -> std::io::Result<Self::Arrived> {
        let (stream, _) = self.socket.accept().await?;
        Ok(stream)
    }

    fn admit(&mut self, stream: UnixStream, shared: &Arc<Shared>) {
        let address = Ipv4Addr::LOCALHOST;
        let place = match self.admission.admit(address.into()) {
            Ok(place) => place,
            Err(refused) => {
                tracing::warn!(reason = %refused, "a local connection is turned away");
                return;
            }
        };
        self.number = self.number.wrapping_add(1);
        let transport = Transport {
            socket: socket::Socket::Unix(stream),
            addresses: Addresses {
                peer: SocketAddr::from((address, self.number)),
                local: SocketAddr::from((address, 0)),
            },
            tls: None,
        };
        connection::start(transport, place, Arc::clone(shared));
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        // Whoever starts next would take it away too.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody listens on any more; anything else stays, and binding fails.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
