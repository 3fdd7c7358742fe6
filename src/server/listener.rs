//! Accepts AMQP connections, within limits.
//!
//! Owns: one listening socket. A connection over a limit is closed at once; a process out of file
//! descriptors waits instead of spinning.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::admission::{Admission, Place};
use super::{ServerError, Shared, connection};
use crate::config::AdmissionSettings;

/// Pause after an accept that failed, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted.
const BACKLOG_COUNT: u32 = 1_024;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    local_addr: SocketAddr,
    admission: Arc<Admission>,
}

impl Listener {
    pub(super) async fn bind(
        address: SocketAddr,
        settings: &AdmissionSettings,
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
                admission: Admission::new(settings),
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
        shared
            .tasks
            .spawn(connection::run(stream, address, place, Arc::clone(shared)));
    }
}
