//! The connections of a server, for operators: who is there, and the order to go.
//!
//! Owns: one entry for each connection, from accept to end. What a session looks like inside is asked of its
//! task, which answers between two batches of work: so an entry costs a few hundred bytes and a message
//! nothing. Bytes are counted once for each read or write of the socket.
//! Bounds: connections, by the listener's limits; one pending question for each asker.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::broker::{ClientStatistics, Waker};
use crate::session::SessionView;

/// Longest wait for a connection's task to say how its session looks: one that is stuck in a long call
/// is left out.
const VIEW_WAIT: Duration = Duration::from_millis(500);

/// All connections of a server.
#[derive(Debug, Default)]
pub struct Registry {
    entries: DashMap<u64, Arc<ConnectionEntry>>,
    id_next: AtomicU64,
    opened_count: AtomicU64,
    closed_count: AtomicU64,
    /// What went over the sockets of those that ended.
    traffic_of_gone: Mutex<Traffic>,
}

/// One connection, as long as it lasts.
pub struct ConnectionEntry {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    connected_unix_ms: u64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    /// The counters of its vhost, from when that is open.
    of_vhost: OnceLock<Arc<ClientStatistics>>,
    waker: Arc<dyn Waker>,
    /// Whether `orders` holds anything.
    has_orders: AtomicBool,
    orders: Mutex<Orders>,
}

/// What the connection's task is to do.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) close: Option<String>,
    pub(super) views: Vec<oneshot::Sender<SessionView>>,
}

/// Octets and calls of one connection's socket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Bytes that came.
    pub received_bytes: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Reads that found something.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Traffic {
    fn add(&mut self, other: Self) {
        let Self {
            received_bytes,
            sent_bytes,
            reads,
            writes,
        } = other;
        self.received_bytes = self.received_bytes.wrapping_add(received_bytes);
        self.sent_bytes = self.sent_bytes.wrapping_add(sent_bytes);
        self.reads = self.reads.wrapping_add(reads);
        self.writes = self.writes.wrapping_add(writes);
    }
}

impl ConnectionEntry {
    /// Its number, never used again while the process lives.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// RabbitMQ's name of it: both ends of the socket.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} -> {}", self.peer, self.local)
    }

    /// The client's end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The server's end.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// When it was accepted, in milliseconds since 1970.
    #[must_use]
    pub fn connected_unix_ms(&self) -> u64 {
        self.connected_unix_ms
    }

    /// What went over its socket.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
        }
    }

    /// Has the connection closed, with a word to its client (320).
    pub fn close(&self, reason: &str) {
        let reason = reason.to_owned();
        self.order(|orders| {
            orders.close.get_or_insert(reason);
        });
    }

    /// How its session looks now; none if it is gone or does not answer.
    pub async fn view(&self) -> Option<SessionView> {
        let (sender, receiver) = oneshot::channel();
        self.order(|orders| orders.views.push(sender));
        tokio::time::timeout(VIEW_WAIT, receiver).await.ok()?.ok()
    }

    /// Its vhost is open, if it is; at the cost of one load from then on.
    #[inline]
    pub(super) fn opened_in(&self, of_vhost: Option<&Arc<ClientStatistics>>) {
        if self.of_vhost.get().is_none()
            && let Some(of_vhost) = of_vhost
        {
            // A connection opens one vhost.
            drop(self.of_vhost.set(Arc::clone(of_vhost)));
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// What the task is to do now; none, at the cost of one load, if nothing.
    #[inline]
    pub(super) fn take_orders(&self) -> Option<Orders> {
        if !self.has_orders.load(Ordering::Acquire) {
            return None;
        }
        let mut orders = self.orders.lock();
        self.has_orders.store(false, Ordering::Release);
        Some(std::mem::take(&mut *orders))
    }

    fn order(&self, add: impl FnOnce(&mut Orders)) {
        {
            let mut orders = self.orders.lock();
            orders.views.retain(|sender| !sender.is_closed());
            add(&mut orders);
            self.has_orders.store(true, Ordering::Release);
        }
        self.waker.wake();
    }
}

impl std::fmt::Debug for ConnectionEntry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConnectionEntry")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Takes the entry out when the connection ends, whatever ends it.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    pub(super) entry: Arc<ConnectionEntry>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.entries.remove(&self.entry.id);
        self.registry.closed_count.fetch_add(1, Ordering::Relaxed);
        let traffic = self.entry.traffic();
        self.registry.traffic_of_gone.lock().add(traffic);
        if let Some(of_vhost) = self.entry.of_vhost.get() {
            of_vhost.connection_gone(traffic.received_bytes, traffic.sent_bytes);
        }
        // Who asked meanwhile hears at once that there is nobody.
        self.entry.orders.lock().views.clear();
    }
}

impl Registry {
    /// All connections, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<ConnectionEntry>> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Connections that were accepted since the start, and those of them that ended.
    #[must_use]
    pub fn churn(&self) -> (u64, u64) {
        (
            self.opened_count.load(Ordering::Relaxed),
            self.closed_count.load(Ordering::Relaxed),
        )
    }

    /// What went over all sockets since the start.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut all = *self.traffic_of_gone.lock();
        for entry in &self.entries {
            all.add(entry.traffic());
        }
        all
    }

    /// What went over the sockets of the connections that there are, by the counters of their vhosts.
    #[must_use]
    pub fn traffic_by_vhost(&self) -> HashMap<*const ClientStatistics, Traffic> {
        let mut by_vhost = HashMap::<_, Traffic>::new();
        for entry in &self.entries {
            if let Some(of_vhost) = entry.of_vhost.get() {
                let traffic = by_vhost.entry(Arc::as_ptr(of_vhost)).or_default();
                traffic.add(entry.traffic());
            }
        }
        by_vhost
    }

    /// How all sessions look now, those that answer; asked all at once.
    pub async fn views(&self) -> Vec<(Arc<ConnectionEntry>, SessionView)> {
        let asked = self.connections().into_iter().map(|entry| async move {
            let view = entry.view().await?;
            Some((entry, view))
        });
        let answers = futures_util::future::join_all(asked).await;
        answers.into_iter().flatten().collect()
    }

    pub(super) fn register(
        self: &Arc<Self>,
        peer: SocketAddr,
        local: SocketAddr,
        connected_unix_ms: u64,
        waker: Arc<dyn Waker>,
    ) -> Registered {
        let id = self.id_next.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(ConnectionEntry {
            id,
            peer,
            local,
            connected_unix_ms,
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            of_vhost: OnceLock::new(),
            waker,
            has_orders: AtomicBool::new(false),
            orders: Mutex::default(),
        });
        self.entries.insert(id, Arc::clone(&entry));
        self.opened_count.fetch_add(1, Ordering::Relaxed);
        Registered {
            registry: Arc::clone(self),
            entry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Count(AtomicU64);

    impl Waker for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Orders wake the task once each, are taken once, and an entry goes with its guard.
    #[tokio::test]
    async fn orders_reach_the_task_and_entries_go_with_their_connection() {
        let registry = Arc::<Registry>::default();
        let waker = Arc::<Count>::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let guard = registry.register(address, address, 0, Arc::clone(&waker) as Arc<dyn Waker>);
        assert!(guard.entry.take_orders().is_none());
        let entry = Arc::clone(&registry.connections()[0]);
        assert_eq!(entry.name(), "127.0.0.1:1 -> 127.0.0.1:1");
        entry.close("enough");
        entry.close("too late");
        assert_eq!(waker.0.load(Ordering::Relaxed), 2);
        let orders = guard.entry.take_orders().expect("an order");
        assert_eq!(orders.close.as_deref(), Some("enough"));
        assert!(guard.entry.take_orders().is_none());
        let view = tokio::spawn(async move { entry.view().await });
        tokio::task::yield_now().await;
        drop(guard);
        assert!(view.await.expect("no panic").is_none());
        assert!(registry.is_empty());
        assert_eq!(registry.churn(), (1, 1));
    }
}
