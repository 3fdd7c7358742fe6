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

/// How to get a payload, and what is wanted of it.
struct Order {
    step: Step,
    manifest: Manifest,
}

/// What an order says of work.
enum Step {
    /// It follows once its message is journaled, by [`Step::AnnouncedWork`] or [`Step::Withdrawn`].
    Announced,
    /// Here it is, and it was announced.
    AnnouncedWork(Work),
    /// What was announced does not come.
    Withdrawn,
    /// Here it is.
    Work(Work),
}

/// The work of a payload's task.
#[derive(Default)]
struct Waiting {
    works: Vec<Work>,
    /// Of work that was announced and has not come.
    announced_count: usize,
}

impl Waiting {
    fn take(&mut self, step: Step) {
        match step {
            Step::Announced => self.announced_count += 1,
            Step::Work(work) => self.works.push(work),
            // An earlier task may have heard the announcement.
            Step::Withdrawn => self.announced_count = self.announced_count.saturating_sub(1),
            Step::AnnouncedWork(work) => {
                self.announced_count = self.announced_count.saturating_sub(1);
                self.works.push(work);
            }
        }
    }

    /// Whether anybody wants the payload.
    fn is_needed(&self) -> bool {
        !self.works.is_empty() || self.announced_count > 0
    }
}

/// A fetch whose work is being journaled. Dropped before that, it ends unless others want the payload.
pub(super) struct Begun {
    shared: Arc<Shared>,
    /// None once its work is there.
    manifest: Option<Manifest>,
}

impl Begun {
    /// The work for which it was begun.
    pub(super) fn start(mut self, work: Work) {
        if let Some(manifest) = self.manifest.take() {
            let step = Step::AnnouncedWork(work);
            send(&self.shared, Order { step, manifest });
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(manifest) = self.manifest.take() {
            self.shared.fetches.withdraw(manifest);
        }
    }
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

    /// Hands an order to the payload's task; answers what a new one is to take orders from, if it has none.
    fn send(&self, order: Order) -> Option<mpsc::UnboundedReceiver<Order>> {
        let id = order.manifest.id();
        let mut running = self.running.lock();
        let order = match running.get(&id) {
            // The task removes itself under this lock, so a send that works is received.
            Some(sender) => match sender.send(order) {
                Ok(()) => return None,
                Err(refused) => refused.0,
            },
            None => order,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let _ = sender.send(order);
        running.insert(id, sender);
        Some(receiver)
    }

    /// Work that was announced does not come; nothing is to be done where there is no task.
    fn withdraw(&self, manifest: Manifest) {
        if let Some(sender) = self.running.lock().get(&manifest.id()) {
            let step = Step::Withdrawn;
            let _ = sender.send(Order { step, manifest });
        }
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
    let step = Step::Work(work);
    send(shared, Order { step, manifest });
}

/// Has the payload fetched for work that follows, so that its pieces need not wait for the journal.
pub(super) fn begin(shared: &Arc<Shared>, manifest: Manifest) -> Begun {
    let (step, announced) = (Step::Announced, manifest.clone());
    send(
        shared,
        Order {
            step,
            manifest: announced,
        },
    );
    Begun {
        shared: Arc::clone(shared),
        manifest: Some(manifest),
    }
}

fn send(shared: &Arc<Shared>, order: Order) {
    let id = order.manifest.id();
    if let Some(receiver) = shared.fetches.send(order) {
        shared.tasks.spawn(run(Arc::clone(shared), id, receiver));
    }
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
    let mut waiting = Waiting::default();
    let mut first = orders.recv().await;
    while let Some(order) = first.take() {
        let Ok(turn) = Arc::clone(&shared.fetches.turns).acquire_owned().await else {
            return;
        };
        let mut manifest = order.manifest;
        waiting.take(order.step);
        let outcome = fetch(shared, &mut manifest, orders, &mut waiting).await;
        drop(turn);
        let reason = match outcome {
            Ok(Some(transfer)) => {
                match place_all(shared, id, &mut waiting.works).await {
                    // What lay in the store was changed by somebody: it is fetched anew.
                    Some(work) => {
                        let step = Step::Work(work);
                        first = Some(Order { step, manifest });
                    }
                    None => first = serve(shared, id, orders, &mut waiting).await,
                }
                drop(transfer);
                continue;
            }
            Ok(None) => {
                close(shared, id, orders);
                // Whoever came before it was closed.
                first = orders.try_recv().ok();
                continue;
            }
            Err(reason) => reason,
        };
        // What was announced fails with the rest, and not by another task that tries the same.
        while waiting.announced_count > 0
            && let Some(order) = orders.recv().await
        {
            waiting.take(order.step);
        }
        close(shared, id, orders);
        while let Ok(order) = orders.try_recv() {
            waiting.take(order.step);
        }
        for work in waiting.works.drain(..) {
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

/// Fetches until all pieces are on the disk; collects the work that comes meanwhile. `None` once nobody wants the payload.
///
/// A manifest under another access key comes from another origin, since the earlier one may be gone
/// for good: the fetch goes on there, with the pieces that are verified.
async fn fetch(
    shared: &Arc<Shared>,
    manifest: &mut Manifest,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &mut Waiting,
) -> Result<Option<SwarmTransfer>, String> {
    while waiting.is_needed() {
        match fetch_under(shared, manifest, orders, waiting).await? {
            Fetched::Complete(transfer) => return Ok(Some(transfer)),
            Fetched::Unwanted => break,
            Fetched::OtherKey(other) => *manifest = *other,
        }
    }
    Ok(None)
}

/// How a fetch under one access key ended.
enum Fetched {
    Complete(SwarmTransfer),
    OtherKey(Box<Manifest>),
    /// The last work for it was withdrawn.
    Unwanted,
}

async fn fetch_under(
    shared: &Arc<Shared>,
    manifest: &Manifest,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &mut Waiting,
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
            Some(Order { step, manifest: other }) = orders.recv() => {
                waiting.take(step);
                if !waiting.is_needed() {
                    return Ok(Fetched::Unwanted);
                }
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
                    tell(shared, &waiting.works, now);
                }
            }
        }
    }
    while let Ok(order) = orders.try_recv() {
        waiting.take(order.step);
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
    waiting: &mut Waiting,
) -> Option<Order> {
    loop {
        let Order { step, manifest } = tokio::select! {
            Some(order) = orders.recv() => order,
            () = sleep(SERVE_TIME) => {
                close(shared, id, orders);
                // Whoever came before it was closed; closed and empty ends the task.
                orders.try_recv().ok()?
            }
        };
        waiting.take(step);
        let Some(work) = waiting.works.pop() else {
            continue;
        };
        if let Some(work) = place(shared, id, work).await {
            let step = Step::Work(work);
            return Some(Order { step, manifest });
        }
    }
}

/// From now on a message for this payload starts a new task.
fn close(shared: &Shared, id: PayloadId, orders: &mut mpsc::UnboundedReceiver<Order>) {
    let mut running = shared.fetches.running.lock();
    if orders.is_closed() {
        // Another task may have its place.
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::manifest::manifest_of;

    fn manifest() -> Manifest {
        manifest_of(&[7; 100])
    }

    fn work(number: u8) -> Work {
        Work {
            key: [number; 32],
            record: Record {
                name: "a".to_owned(),
                payload_id: manifest().id().to_string(),
                size_bytes: 100,
                state: FileState::Accepted,
                piece_count: 1,
                reason: None,
                path: None,
                reply_to: None,
                message_id: None,
                updated_unix_ms: 0,
                attempt: 0,
                is_receipt_due: false,
            },
        }
    }

    fn order(step: Step) -> Order {
        let manifest = manifest();
        Order { step, manifest }
    }

    /// A payload is needed for work that is there or announced, and not once it is withdrawn; one task hears all of it.
    #[test]
    fn withdrawn_work_leaves_nothing_to_fetch() {
        let fetches = Fetches::default();
        fetches.withdraw(manifest());
        assert_eq!(fetches.count(), 0, "nobody is told");
        let orders = fetches.send(order(Step::Announced));
        let mut orders = orders.expect("the first needs a task");
        let mut waiting = Waiting::default();
        let hear = |orders: &mut mpsc::UnboundedReceiver<Order>, waiting: &mut Waiting| {
            while let Ok(order) = orders.try_recv() {
                waiting.take(order.step);
            }
            waiting.is_needed()
        };
        assert!(hear(&mut orders, &mut waiting), "its work follows");
        assert!(fetches.send(order(Step::Announced)).is_none());
        fetches.withdraw(manifest());
        assert!(hear(&mut orders, &mut waiting), "one is still to come");
        assert_eq!(waiting.announced_count, 1);
        fetches.withdraw(manifest());
        assert!(!hear(&mut orders, &mut waiting));
        assert!(fetches.send(order(Step::Announced)).is_none());
        let journaled = order(Step::AnnouncedWork(work(1)));
        assert!(fetches.send(journaled).is_none());
        assert!(fetches.send(order(Step::Work(work(2)))).is_none());
        assert!(hear(&mut orders, &mut waiting));
        assert_eq!((waiting.works.len(), waiting.announced_count), (2, 0));
        fetches.withdraw(manifest());
        assert!(hear(&mut orders, &mut waiting), "an earlier task's");
    }
}
