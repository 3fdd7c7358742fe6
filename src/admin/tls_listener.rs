//! The HTTP listener over TLS: shakes hands beside the accepting, so that a slow client delays nobody.
//!
//! Owns: the listening sockets of one port and the handshakes under way.
//! Bounds: [`HANDSHAKE_COUNT_MAX`] of them at once; whoever comes then waits in the system's queue.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::serve::ACCEPT_PAUSE;
use crate::server::Listening;
use crate::server::tls::{HANDSHAKE_COUNT_MAX, Tls};

/// Gives connections whose handshake is done.
#[derive(Debug)]
pub(super) struct TlsListener {
    shaken: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local_addr: SocketAddr,
}

impl TlsListener {
    /// Begins to accept, until `stopping` is cancelled.
    pub(super) fn start(
        socket: Listening,
        local_addr: SocketAddr,
        tls: Arc<Tls>,
        stopping: CancellationToken,
    ) -> Self {
        let (sender, shaken) = mpsc::channel(1);
        tokio::spawn(accept(socket, tls, sender, stopping));
        Self { shaken, local_addr }
    }
}

async fn accept(
    socket: Listening,
    tls: Arc<Tls>,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKE_COUNT_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection; waiting");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, sender) = (Arc::clone(&tls), sender.clone());
        tokio::spawn(async move {
            match tls.accept(stream).await {
                // Nobody takes it only when everything ends.
                Ok(stream) => drop(sender.send((stream, address)).await),
                Err(error) => tracing::info!(%address, %error, "no TLS connection"),
            }
            drop(place);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.shaken.recv().await {
            Some(shaken) => shaken,
            // The listener has stopped, and so will whoever waits here.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.local_addr)
    }
}
