//! Serves HTTP connections, within limits.
//!
//! Owns: who may connect, how long a client may take for a request's head and for being idle, and the end of
//! connections when the broker stops. What a request leads to is the router's business.
//! Bounds: [`HttpSettings`]: connections, also from one address, head and time (RELIABILITY section 6).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::config::HttpSettings;
use crate::server::descriptors;
use crate::server::{Listening, canonical};

/// How long requests may go on when the broker stops.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Pause after an accept that failed, as when file descriptors have run out.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The door of all HTTP listeners of a broker.
#[derive(Debug)]
pub(super) struct Door {
    settings: HttpSettings,
    /// Most connections: what the settings say, if there are file descriptors for them.
    connection_count_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place for one connection.
#[derive(Debug)]
struct Place {
    door: Arc<Door>,
    address: IpAddr,
}

impl Door {
    pub(super) fn new(settings: &HttpSettings) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            connection_count_max: settings.connection_count_max.min(descriptors::http_share()),
            counts: Mutex::default(),
        })
    }

    /// A place for a connection from `address`, if there is one.
    // req: LIMIT-2
    // req: LIMIT-4
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let counts = &mut *self.counts.lock();
        if counts.all >= self.connection_count_max {
            return None;
        }
        let from_address = counts.by_address.entry(address).or_insert(0);
        if *from_address >= self.settings.connections_per_address_max {
            return None;
        }
        *from_address += 1;
        counts.all += 1;
        Some(Place {
            door: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &mut *self.door.counts.lock();
        counts.all -= 1;
        if let Some(from_address) = counts.by_address.get_mut(&self.address) {
            *from_address -= 1;
            if *from_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

impl Listener for Listening {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection; waiting");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}

/// Accepts and serves until `stopping` is cancelled and all have ended.
pub(super) async fn serve<L>(
    mut listener: L,
    router: Router,
    door: Arc<Door>,
    stopping: CancellationToken,
) where
    L: Listener<Addr = SocketAddr>,
{
    let tasks = TaskTracker::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        let address = canonical(address);
        let Some(place) = door.admit(address.ip()) else {
            tracing::warn!(%address, "an HTTP connection is turned away: there are too many");
            continue;
        };
        let (router, stopping) = (router.clone(), stopping.clone());
        tasks.spawn(converse(stream, address, router, place, stopping));
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection.
// req: LIMIT-2
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    router: Router,
    place: Place,
    stopping: CancellationToken,
) {
    let settings = &place.door.settings;
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_wait)
        .max_buf_size(settings.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(SHUTDOWN_WAIT, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "an HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are so many places, and so many from one address; a place given back can be had again.
    // req: LIMIT-2
    #[test]
    fn places_are_limited_and_come_back() {
        let door = Door::new(&HttpSettings {
            connection_count_max: 3,
            connections_per_address_max: 2,
            ..HttpSettings::default()
        });
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = door.admit(one).expect("a place");
        let second = door.admit(one).expect("a place");
        assert!(door.admit(one).is_none(), "two from one address");
        let third = door.admit(other).expect("a place");
        assert!(door.admit(other).is_none(), "three");
        drop(first);
        assert!(door.admit(one).is_some());
        drop((second, third));
        let counts = door.counts.lock();
        assert!(counts.all == 0 && counts.by_address.is_empty());
    }
}
