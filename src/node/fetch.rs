//! Fetching payloads: one task for each payload, however many messages ask for it.
//!
//! Journaled ──fetch──> all pieces verified ──place──> in the inbox, receipt; then served on for a while
//!
//! Owns: which payloads are being fetched or served, and the work that waits for each.
//! Bound: [`FETCHES_MAX`] fetches at once, further ones wait their turn in the journal's order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::early;
use super::edge::Shared;
use super::message::FileState;
use super::place::{LeafName, PlaceError, Placed};
use super::state::{Record, StateError};
use crate::payload::{Manifest, PayloadId, ScopeId, StoreError};
use crate::server::peer::{FetchError, Progress, SwarmError, SwarmTransfer};

/// Payloads fetched at once.
const FETCHES_MAX: usize = 64;
/// How often a fetch is told of, if it has advanced.
const HINT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a payload is served after it was placed.
const SERVE_TIME: Duration = Duration::from_secs(600);

/// A file that is wanted: the record of its message.
pub(super) struct Work {
    pub(super) key: [u8; 32],
    pub(super) record: Record,
}

/// How to get a payload, and a file that is wanted of it.
struct Order {
    /// None while the file's message is still being journaled.
    work: Option<Work>,
    manifest: Manifest,
}

/// Payloads that have a task.
pub(super) struct Fetches {
    running: Mutex<HashMap<PayloadId, mpsc::UnboundedSender<Order>>>,
    turns: Arc<Semaphore>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            turns: Arc::new(Semaphore::new(FETCHES_MAX)),
        }
    }
}

impl Fetches {
    /// Payloads that are fetched or served now.
    pub(super) fn count(&self) -> usize {
        self.running.lock().len()
    }
}

/// Starts all work that the journal says is not done.
pub(super) fn take_up_unfinished(shared: &Arc<Shared>) -> Result<(), StateError> {
    for (key, record, message) in shared.state.unfinished()? {
        match Manifest::from_message(&message.properties, &message.body) {
            Ok(manifest) => start(shared, manifest, Work { key, record }),
            Err(error) => fail(shared, Work { key, record }, &error.to_string()),
        }
    }
    Ok(())
}

/// Has the payload fetched for this work, by the task that it has or by a new one.
pub(super) fn start(shared: &Arc<Shared>, manifest: Manifest, work: Work) {
    let work = Some(work);
    send(shared, Order { work, manifest });
}

/// Has the payload fetched for work that follows, so that its pieces need not wait for the journal.
pub(super) fn begin(shared: &Arc<Shared>, manifest: Manifest) {
    let work = None;
    send(shared, Order { work, manifest });
}

fn send(shared: &Arc<Shared>, order: Order) {
    let id = order.manifest.id();
    let mut running = shared.fetches.running.lock();
    let order = match running.get(&id) {
        // The task removes itself under this lock, so a send that works is received.
        Some(sender) => match sender.send(order) {
            Ok(()) => return,
            Err(refused) => refused.0,
        },
        None => order,
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    let _ = sender.send(order);
    running.insert(id, sender);
    drop(running);
    shared.tasks.spawn(run(Arc::clone(shared), id, receiver));
}

async fn run(shared: Arc<Shared>, id: PayloadId, mut orders: mpsc::UnboundedReceiver<Order>) {
    let stop = shared.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = fetch_and_serve(&shared, id, &mut orders) => {}
    }
}

async fn fetch_and_serve(
    shared: &Arc<Shared>,
    id: PayloadId,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) {
    let mut waiting = Vec::new();
    let mut first = orders.recv().await;
    while let Some(order) = first.take() {
        let Ok(turn) = Arc::clone(&shared.fetches.turns).acquire_owned().await else {
            return;
        };
        let mut manifest = order.manifest;
        waiting.extend(order.work);
        let outcome = fetch(shared, &mut manifest, orders, &mut waiting).await;
        drop(turn);
        let reason = match outcome {
            Ok(transfer) => {
                match place_all(shared, id, &mut waiting).await {
                    // What lay in the store was changed by somebody: it is fetched anew.
                    Some(work) => {
                        let work = Some(work);
                        first = Some(Order { work, manifest });
                    }
                    None => first = serve(shared, id, orders).await,
                }
                drop(transfer);
                continue;
            }
            Err(reason) => reason,
        };
        close(shared, id, orders);
        while let Ok(order) = orders.try_recv() {
            waiting.extend(order.work);
        }
        for work in waiting.drain(..) {
            fail(shared, work, &reason);
        }
    }
}

/// Places what waits; answers work for which the payload is to be fetched again.
async fn place_all(shared: &Arc<Shared>, id: PayloadId, waiting: &mut Vec<Work>) -> Option<Work> {
    waiting.reverse();
    while let Some(work) = waiting.pop() {
        let again = place(shared, id, work).await;
        if again.is_some() {
            return again;
        }
    }
    None
}

/// Fetches until all pieces are on the disk; collects the work that comes meanwhile.
///
/// A manifest under another access key comes from another origin, since the earlier one may be gone
/// for good: the fetch goes on there, with the pieces that are verified.
async fn fetch(
    shared: &Arc<Shared>,
    manifest: &mut Manifest,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &mut Vec<Work>,
) -> Result<SwarmTransfer, String> {
    loop {
        match fetch_under(shared, manifest, orders, waiting).await? {
            Fetched::Complete(transfer) => return Ok(transfer),
            Fetched::OtherKey(other) => *manifest = *other,
        }
    }
}

/// How a fetch under one access key ended.
enum Fetched {
    Complete(SwarmTransfer),
    OtherKey(Box<Manifest>),
}

async fn fetch_under(
    shared: &Arc<Shared>,
    manifest: &Manifest,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &mut Vec<Work>,
) -> Result<Fetched, String> {
    let started = Instant::now();
    let early = early::take_over(shared, manifest).await;
    let with_peers = early.as_ref().map_or(manifest, |early| &early.manifest);
    let transfer = shared.swarm.fetch(ScopeId::NODE, with_peers).await;
    let transfer = transfer.map_err(|error| swarm_reason(&error))?;
    if let Some(early) = early {
        early.linger(shared);
    }
    let progress = transfer.progress();
    let first = *progress.borrow();
    say_begin(manifest, first);
    let mut told = None;
    let mut ticks = interval(HINT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = transfer.finished() => {
                ended.map_err(|error| fetch_reason(&error))?;
                break;
            }
            Some(Order { work, manifest: other }) = orders.recv() => {
                waiting.extend(work);
                told = None;
                if other.key() != manifest.key() {
                    return Ok(Fetched::OtherKey(Box::new(other)));
                }
                for address in other.peers().iter().filter_map(|peer| peer.parse().ok()) {
                    transfer.add_peer(address);
                }
            }
            _ = ticks.tick() => {
                let now = *progress.borrow();
                if told.replace(now.pieces_held) != Some(now.pieces_held) {
                    tell(shared, waiting, now);
                }
            }
        }
    }
    while let Ok(order) = orders.try_recv() {
        waiting.extend(order.work);
    }
    say_end(&transfer, manifest.id(), first, started);
    Ok(Fetched::Complete(transfer))
}

fn say_begin(manifest: &Manifest, first: Progress) {
    let payload = manifest.id();
    if first.pieces_held > 0 {
        tracing::info!(
            payload = %format_args!("{payload:.10}"),
            pieces_verified = first.pieces_held,
            piece_count = first.piece_count,
            "resumed; verified pieces are not fetched again"
        );
    } else {
        tracing::info!(
            payload = %format_args!("{payload:.10}"),
            piece_count = first.piece_count,
            size_bytes = first.size_bytes,
            "fetching"
        );
    }
}

fn say_end(transfer: &SwarmTransfer, payload: PayloadId, first: Progress, started: Instant) {
    let counts = transfer.stats().map(|stats| stats.counts);
    tracing::info!(
        payload = %format_args!("{payload:.10}"),
        pieces_verified_before = first.pieces_held,
        pieces_fetched = counts.as_ref().map_or(0, |counts| counts.pieces_fetched),
        bytes_fetched = counts.as_ref().map_or(0, |counts| counts.down_bytes),
        bytes_uploaded = counts.as_ref().map_or(0, |counts| counts.up_bytes),
        seconds = started.elapsed().as_secs_f64(),
        "payload complete"
    );
}

fn tell(shared: &Shared, waiting: &[Work], progress: Progress) {
    for work in waiting {
        let mut receipt = work.record.receipt(&shared.settings.name);
        receipt.state = FileState::Fetching;
        receipt.pieces_done = progress.pieces_held;
        receipt.piece_count = progress.piece_count;
        shared.hint(&work.record, receipt);
    }
}

/// Serves the payload on, and places it for whoever asks again; ends when nobody has for a while, or
/// with an order for which it is to be fetched anew.
async fn serve(
    shared: &Arc<Shared>,
    id: PayloadId,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> Option<Order> {
    loop {
        let Order { work, manifest } = tokio::select! {
            Some(order) = orders.recv() => order,
            () = sleep(SERVE_TIME) => {
                close(shared, id, orders);
                // Whoever came before it was closed; closed and empty ends the task.
                orders.try_recv().ok()?
            }
        };
        let Some(work) = work else { continue };
        if let Some(work) = place(shared, id, work).await {
            let work = Some(work);
            return Some(Order { work, manifest });
        }
    }
}

/// From now on a message for this payload starts a new task.
fn close(shared: &Shared, id: PayloadId, orders: &mut mpsc::UnboundedReceiver<Order>) {
    let mut running = shared.fetches.running.lock();
    orders.close();
    running.remove(&id);
}

/// Puts the complete payload into the inbox and reports; gives the work back if what the store holds is
/// not the payload any more.
async fn place(shared: &Arc<Shared>, id: PayloadId, work: Work) -> Option<Work> {
    let shared = Arc::clone(shared);
    let placing = tokio::task::spawn_blocking(move || {
        match place_stored(&shared, id, &work.record.name) {
            Err(NotPlaced::Damaged(reason)) => match shared.store.discard(ScopeId::NODE, id) {
                Ok(true) => return Some(work),
                Ok(false) | Err(_) => finish(&shared, work, Err(reason)),
            },
            Err(NotPlaced::Other(reason)) => finish(&shared, work, Err(reason)),
            Ok(placed) => finish(&shared, work, Ok(placed)),
        }
        None
    });
    placing.await.unwrap_or_else(|error| {
        tracing::error!(%error, "placing a file was cut off; it is done again at the next start");
        None
    })
}

/// Why a payload of the store is not in the inbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum NotPlaced {
    /// What the store holds is not what its name says.
    Damaged(String),
    /// Anything else.
    Other(String),
}

impl NotPlaced {
    /// The reason in words.
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Damaged(reason) | Self::Other(reason) => reason,
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::Damaged(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Puts a payload of the store into the inbox: by a second name for its file where the file system takes
/// one and the bytes are known to be right, as a checked copy otherwise. Blocks on the disk.
// req: CONTROL-9
pub(super) fn place_stored(
    shared: &Shared,
    id: PayloadId,
    name: &str,
) -> Result<Placed, NotPlaced> {
    let leaf = LeafName::new(name)
        .map_err(|error| NotPlaced::Other(format!("the name is not safe: {error}")))?;
    let reader = shared
        .store
        .open_reader(ScopeId::NODE, id)
        .map_err(|error| NotPlaced::of_store(&error))?;
    let size_bytes = reader.geometry().size_bytes();
    if let Some(source) = reader.whole_file() {
        let linked = shared
            .inbox
            .place_link(&leaf, *id.as_bytes(), size_bytes, &source);
        if let Some(placed) = linked.map_err(|error| NotPlaced::Other(error.to_string()))? {
            return Ok(placed);
        }
    }
    let mut damage = None;
    let read = |buffer: &mut [u8], offset_bytes: u64| {
        reader.read_at(buffer, offset_bytes).map_err(|error| {
            let text = error.to_string();
            damage = Some(NotPlaced::of_store(&error));
            std::io::Error::other(text)
        })
    };
    let placed = shared
        .inbox
        .place_from(&leaf, *id.as_bytes(), size_bytes, read);
    placed.map_err(|error| match error {
        PlaceError::Content { .. } => NotPlaced::Damaged(error.to_string()),
        _ => damage.unwrap_or_else(|| NotPlaced::Other(error.to_string())),
    })
}

/// Records and reports what became of a piece of work. Blocks on the disk.
pub(super) fn finish(shared: &Shared, work: Work, outcome: Result<Placed, String>) {
    match outcome {
        Ok(placed) => {
            let path = placed.path().display().to_string();
            tracing::info!(name = work.record.name, path, "file is in the inbox");
            let record = Record {
                state: FileState::Complete,
                path: Some(path),
                reason: None,
                ..work.record
            };
            shared.finish(work.key, record);
        }
        Err(reason) => fail(shared, work, &reason),
    }
}

/// Records and reports that a piece of work failed. Blocks on the disk.
pub(super) fn fail(shared: &Shared, work: Work, reason: &str) {
    tracing::warn!(name = ?work.record.name, reason, "file is not placed");
    let reason = Some(reason.to_owned());
    shared.finish(
        work.key,
        Record {
            state: FileState::Failed,
            reason,
            ..work.record
        },
    );
}

fn swarm_reason(error: &SwarmError) -> String {
    format!("cannot fetch: {error}")
}

fn fetch_reason(error: &FetchError) -> String {
    format!("cannot fetch: {error}")
}
