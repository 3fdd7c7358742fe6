//! The engine behind its lock, where its actions go, and the timer.
//!
//! Lock order: `Shared::core` first, then a connection's output; never the other way round. No lock is
//! held while anything waits.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Workers;
use super::buffers::Buffers;
use super::connection::Output;
use super::disk::{self, Job};
use super::listener;
use super::secure::Handshaker;
use super::transfer::TransferIo;
use crate::config::{PeerTls, WebSeedHost};
use crate::payload::Store;
use crate::swarm::{Action, ConnId, Engine, Settings, TransferId};

/// What all tasks and threads of one swarm share.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) store: Store,
    pub(super) settings: Settings,
    pub(super) web_seed_hosts: Vec<WebSeedHost>,
    pub(super) web_trust: Option<Arc<rustls::ClientConfig>>,
    pub(super) handshaker: Handshaker,
    /// The one address that this node listens on; `None` if it listens on all or on none.
    pub(super) listen_ip: Option<IpAddr>,
    /// For connections that are made from now on; never locked with another lock.
    pub(super) tls: Mutex<PeerTls>,
    /// For blocks that come in.
    pub(super) buffers: Buffers,
    /// For what goes out.
    pub(super) outgoing: Buffers,
    pub(super) timer: Notify,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// The swarm's own threads.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) workers: Mutex<Option<Workers>>,
}

/// The engine, and where its connections and payloads are.
pub(super) struct Core {
    pub(super) engine: Engine,
    pub(super) conns: HashMap<ConnId, Arc<Output>>,
    pub(super) transfers: HashMap<TransferId, Arc<TransferIo>>,
    per_address: HashMap<IpAddr, usize>,
    next_conn: u64,
    /// When the timer task will wake.
    armed: Option<Instant>,
}

impl Core {
    pub(super) fn new(engine: Engine, now: Instant) -> Self {
        Self {
            engine,
            conns: HashMap::new(),
            transfers: HashMap::new(),
            per_address: HashMap::new(),
            next_conn: 0,
            armed: Some(now),
        }
    }

    /// A number and an output for one more connection; `None` when there are too many.
    pub(super) fn admit(
        &mut self,
        remote: SocketAddr,
        settings: &Settings,
    ) -> Option<(ConnId, Arc<Output>)> {
        let from_there = self.per_address.entry(remote.ip()).or_default();
        if self.conns.len() >= settings.connections_max
            // Nodes of one machine share an address without being one peer.
            || (!remote.ip().is_loopback() && *from_there >= settings.connections_per_address_max)
        {
            return None;
        }
        *from_there += 1;
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let output = Arc::new(Output::new());
        self.conns.insert(conn, Arc::clone(&output));
        Some((conn, output))
    }

    /// A connection's task has ended.
    pub(super) fn remove(&mut self, conn: ConnId, remote: SocketAddr) {
        self.conns.remove(&conn);
        if let Some(count) = self.per_address.get_mut(&remote.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&remote.ip());
            }
        }
    }

    /// The swarm has stopped: nobody waits for anything any more.
    pub(super) fn stop(&mut self) {
        for transfer in self.transfers.values() {
            transfer.stopped();
        }
        self.transfers.clear();
        self.conns.clear();
    }
}

/// Runs `work` on the engine and hands its actions on; what touches files is done here, after the lock.
pub(super) fn with<T>(shared: &Arc<Shared>, work: impl FnOnce(&mut Core, Instant) -> T) -> T {
    let now = Instant::now();
    let mut core = shared.core.lock();
    let result = work(&mut core, now);
    let mut jobs = Vec::new();
    while let Some(action) = core.engine.poll_action() {
        jobs.extend(act(shared, &mut core, action));
    }
    while let Some(id) = core.engine.poll_accused() {
        if let Some(io) = core.transfers.get(&id) {
            io.accused(now);
        }
    }
    let next = core.engine.poll_timeout();
    if let Some(next) = next
        && core.armed.is_none_or(|armed| next < armed)
    {
        core.armed = Some(next);
        shared.timer.notify_one();
    }
    drop(core);
    if !jobs.is_empty() {
        disk::run(shared, jobs);
    }
    result
}

fn act(shared: &Arc<Shared>, core: &mut Core, action: Action) -> Option<Job> {
    match action {
        Action::Dial { address } => {
            shared
                .tasks
                .spawn_on(listener::dial(Arc::clone(shared), address), &shared.runtime);
        }
        Action::Send { conn, message } => {
            if let Some(output) = core.conns.get(&conn) {
                output.send(&message);
            }
        }
        Action::SendBlock {
            conn,
            slot,
            transfer,
            block,
        } => {
            if let (Some(output), Some(io)) = (core.conns.get(&conn), core.transfers.get(&transfer))
            {
                output.send_block(slot, transfer, Arc::clone(io), block);
            }
        }
        Action::Close { conn, reason } => {
            if let Some(output) = core.conns.get(&conn) {
                tracing::debug!(conn = conn.0, %reason, "peer connection closed");
                output.close();
            }
        }
        Action::Write {
            transfer,
            piece,
            blocks,
        } => {
            return core.transfers.get(&transfer).map(|io| Job::Write {
                id: transfer,
                transfer: Arc::clone(io),
                piece,
                blocks,
            });
        }
        Action::Completed { transfer } => {
            return core.transfers.get(&transfer).map(|io| Job::Complete {
                id: transfer,
                transfer: Arc::clone(io),
            });
        }
        Action::Banned { node, time } => {
            tracing::warn!(peer = %node, hours = time.as_secs() / 3600, "peer banned for bad pieces");
        }
    }
    None
}

/// Wakes the engine when it wants to be woken.
pub(super) async fn run_timer(shared: Arc<Shared>) {
    loop {
        let armed = shared.core.lock().armed;
        let sleep = async {
            match armed {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = shared.timer.notified() => {}
            () = sleep => {
                with(&shared, |core, now| {
                    core.armed = None;
                    core.engine.handle_timeout(now);
                });
            }
        }
    }
}
