//! Looks on at the nodes of a broker, for `/api/swarm`.
//!
//! Owns: an account (`node::view`) of each vhost that has the control exchange, fed by a queue of its own there,
//! and the last report of this process's own swarm. Everything it hears came as ordinary messages; it is no part
//! of delivering any file. Machines are asked to report only while somebody asks for the pages.
//! Bounds: [`QUEUE_MESSAGES_MAX`] and [`QUEUE_BYTES_MAX`] wait in each queue, the oldest go; [`VHOSTS_MAX`] vhosts;
//! `view` for what is kept.
//! Spec: `spec/control-plane.md` CONTROL-15, CONTROL-17, CONTROL-22; `docs/swarm-api.md`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::broker::{
    AckMode, BindingRequest, BodyRef, Broker, Connection, Error, Get, Message, Name, Peek,
    PublishOutcome, QueueDeclare, Vhost, Wakes,
};
use crate::node::message::{
    CONTROL_EXCHANGE, ControlMessage, NodeName, PRESENCE_KEY, Presence, REGISTRY_QUEUE,
    REQUEST_KEY, Receipt, Registry, decode, encode, request_properties,
};
use crate::node::report::{
    Machine, MachineRole, RECEIPT_KEY, REPORT_KEY, Report, Reporter, Retry, SENT_KEY, Sent,
    WATCH_KEY, WATCH_TIME, Watch,
};
use crate::node::tune::{LIMIT_KEY, Tune};
use crate::node::view::View;
use crate::server::inside::publish_from_inside;
use crate::server::peer::SwarmHandle;

/// Messages that wait in a vhost's queue between two looks.
const QUEUE_MESSAGES_MAX: i64 = 20_000;
/// Their bytes.
const QUEUE_BYTES_MAX: i64 = 64 << 20;
/// Vhosts that are looked at.
const VHOSTS_MAX: usize = 256;
/// Messages of one vhost taken in one look, so that others get their turn.
const TAKEN_MAX: usize = 2_000;
/// How often queues are emptied.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often vhosts, registry and old reports are looked through.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// How long machines are asked to report after the last request for a page.
const ASKED_TIME: Duration = Duration::from_secs(60);
/// How often they are asked: well before they stop.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);
/// Reports of all machines of a vhost together that come in a second, about.
const REPORTS_PER_SECOND: u64 = 100;
/// What this process's own messages are marked with.
const OWN_MARK: ShortString = ShortString::from_static("warren-broker");
/// Name of this process in its own reports.
const OWN_NAME: &str = "broker";

/// Looks on; shared by the task that listens and the routes that answer.
#[derive(Debug)]
pub(super) struct Observer {
    broker: Arc<Broker>,
    swarm: SwarmHandle,
    state: Mutex<State>,
    /// Somebody has asked after a long time.
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<String, View>,
    own: Option<(Report, Instant)>,
    asked: Option<Instant>,
}

/// Why a node is not asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Broker(#[from] Error),
    #[error("the message cannot be read")]
    Malformed,
}

/// What the task holds in one vhost.
struct Attached {
    vhost: Arc<Vhost>,
    connection: Connection,
    queue: Name,
    watched: Option<Instant>,
    /// When somebody else last looked on there.
    others: Option<Instant>,
    /// When this process's own report was last told there.
    told: Option<Instant>,
}

impl Observer {
    pub(super) fn new(broker: Arc<Broker>, swarm: SwarmHandle) -> Arc<Self> {
        Arc::new(Self {
            broker,
            swarm,
            state: Mutex::default(),
            asked: Notify::new(),
        })
    }

    /// This process's part in swarms.
    pub(super) fn swarm(&self) -> &SwarmHandle {
        &self.swarm
    }

    /// Shows what is known, and sees to it that it stays fresh for a while.
    pub(super) fn look<T>(
        &self,
        now: Instant,
        show: impl FnOnce(&BTreeMap<String, View>, Option<&(Report, Instant)>) -> T,
    ) -> T {
        let mut state = self.state.lock();
        let is_fresh = |asked: Instant| now.saturating_duration_since(asked) < ASKED_TIME;
        if !state.asked.is_some_and(is_fresh) {
            self.asked.notify_one();
        }
        state.asked = Some(now);
        show(&state.views, state.own.as_ref())
    }

    /// Asks a node to try a failed file again; whether anybody heard it.
    pub(super) fn ask_again(
        &self,
        vhost: &Vhost,
        retry: &Retry,
        now: Instant,
    ) -> Result<bool, AskError> {
        let connection = self.broker.connect_internal(vhost.name().as_bytes())?;
        tell(vhost, &connection, &Retry::key(&retry.node), retry, now)
    }

    /// Changes a payload's limits in this process, if it is meant, and on the machines of a vhost; answers how many
    /// transfers of this process have changed.
    // req: CONTROL-28
    pub(super) fn tune(&self, tune: &Tune, now: Instant) -> usize {
        let changed = tune.apply(OWN_NAME, &self.swarm, None);
        for vhost in self.broker.vhosts() {
            if vhost.exchange(CONTROL_EXCHANGE.as_bytes()).is_none() {
                continue;
            }
            let connection = self.broker.connect_internal(vhost.name().as_bytes());
            let told = connection
                .map_err(AskError::from)
                .and_then(|connection| tell(&vhost, &connection, &LIMIT_KEY, tune, now));
            if let Err(error) = told {
                tracing::debug!(vhost = %vhost.name(), %error, "machines are not told of other limits");
            }
        }
        changed
    }

    /// Listens until the process stops.
    pub(super) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut attached: BTreeMap<String, Attached> = BTreeMap::new();
        let mut reporter = Reporter::default();
        let mut scanned: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.asked.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let now = Instant::now();
            if scanned.is_none_or(|at| now.saturating_duration_since(at) >= SCAN_INTERVAL) {
                scanned = Some(now);
                self.scan(&mut attached, now);
            }
            let asked = self.state.lock().asked;
            let is_asked =
                asked.is_some_and(|asked| now.saturating_duration_since(asked) < ASKED_TIME);
            if is_asked {
                attached.values_mut().for_each(|it| self.watch(it, now));
            }
            for (name, vhost) in &mut attached {
                self.take_all(name, vhost, now);
            }
            let is_recent = |at: Instant| now.saturating_duration_since(at) < WATCH_TIME;
            let has_others = |it: &Attached| it.others.is_some_and(is_recent);
            if is_asked || attached.values().any(has_others) {
                self.report_own(&mut reporter, now);
                for vhost in attached.values_mut().filter(|it| has_others(it)) {
                    self.tell_others(vhost, now);
                }
            }
        }
        for vhost in attached.into_values() {
            vhost.detach();
        }
    }

    /// Begins to listen where nodes have come, and ends it where the vhost is gone.
    fn scan(&self, attached: &mut BTreeMap<String, Attached>, now: Instant) {
        let vhosts = self.broker.vhosts();
        let names: HashSet<String> = vhosts.iter().map(|vhost| text(vhost.name())).collect();
        let gone: Vec<String> = attached
            .iter()
            .filter(|(name, it)| {
                !names.contains(*name) || it.vhost.queue(it.queue.as_bytes()).is_none()
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            attached
                .remove(&name)
                .into_iter()
                .for_each(Attached::detach);
        }
        self.state
            .lock()
            .views
            .retain(|name, _| names.contains(name));
        for vhost in vhosts {
            let name = text(vhost.name());
            let is_new = !attached.contains_key(&name) && attached.len() < VHOSTS_MAX;
            if is_new && vhost.exchange(CONTROL_EXCHANGE.as_bytes()).is_some() {
                match Attached::attach(&self.broker, &vhost, now) {
                    Ok(it) => drop(attached.insert(name.clone(), it)),
                    Err(error) => {
                        tracing::warn!(vhost = name, %error, "cannot look on at the nodes");
                    }
                }
            }
            if let Some(registry) = read_registry(&vhost) {
                let mut state = self.state.lock();
                state.views.entry(name).or_default().take_registry(registry);
            }
        }
        let mut state = self.state.lock();
        state.views.values_mut().for_each(|view| view.tidy(now));
    }

    /// Asks a vhost's machines to report, if it is time to.
    // req: CONTROL-22
    fn watch(&self, attached: &mut Attached, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < WATCH_INTERVAL;
        if attached.watched.is_some_and(is_recent) {
            return;
        }
        attached.watched = Some(now);
        let name = text(attached.vhost.name());
        let machine_count = {
            let state = self.state.lock();
            let nodes = state.views.get(&name).map(View::nodes);
            nodes.map_or(0, |nodes| {
                nodes.values().filter(|it| it.is_online(now)).count()
            })
        };
        let machine_count = u64::try_from(machine_count).unwrap_or(u64::MAX);
        let watch = Watch {
            interval_ms: machine_count
                .saturating_mul(1_000 / REPORTS_PER_SECOND)
                .max(1_000),
        };
        let asked = tell(
            &attached.vhost,
            &attached.connection,
            &WATCH_KEY,
            &watch,
            now,
        );
        if let Err(error) = asked {
            tracing::debug!(vhost = name, %error, "machines are not asked to report");
        }
    }

    /// Tells others who look on at a vhost how this process's transfers stand.
    // req: CONTROL-23
    fn tell_others(&self, attached: &mut Attached, now: Instant) {
        let state = self.state.lock();
        let Some((report, at)) = state
            .own
            .as_ref()
            .filter(|(_, at)| attached.told != Some(*at))
        else {
            return;
        };
        attached.told = Some(*at);
        let report = report.clone();
        drop(state);
        let told = tell(
            &attached.vhost,
            &attached.connection,
            &REPORT_KEY,
            &report,
            now,
        );
        if let Err(error) = told {
            tracing::debug!(%error, "others are not told of this process's transfers");
        }
    }

    /// Takes this process's own figures, about once a second.
    fn report_own(&self, reporter: &mut Reporter, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(1);
        if self
            .state
            .lock()
            .own
            .as_ref()
            .is_some_and(|(_, at)| is_recent(*at))
        {
            return;
        }
        let Ok(name) = OWN_NAME.parse() else { return };
        let machine = Machine {
            name,
            role: MachineRole::Broker,
            swarm_id: self.swarm.node(),
            address: self.swarm.local_addr().map(|address| address.to_string()),
        };
        let report = reporter.report(&machine, &self.swarm.stats(), now);
        self.state.lock().own = Some((report, now));
    }

    /// Takes what has come in one vhost.
    fn take_all(&self, name: &str, attached: &mut Attached, now: Instant) {
        let unix_ms = unix_ms();
        for _ in 0..TAKEN_MAX {
            let Some(message) = attached.next(now) else {
                return;
            };
            let Some((properties, body)) = read(&message) else {
                continue;
            };
            if decode::<Watch>(&properties, &body).is_some() {
                if properties.app_id != Some(OWN_MARK) {
                    attached.others = Some(now);
                }
                continue;
            }
            if let Some(tune) = decode::<Tune>(&properties, &body) {
                // Its own were heeded before they were told.
                if properties.app_id != Some(OWN_MARK) {
                    // Who may publish in one vhost has no say in another's.
                    tune.apply(OWN_NAME, &self.swarm, Some(attached.vhost.scope()));
                }
                continue;
            }
            let mut state = self.state.lock();
            let view = state.views.entry(name.to_owned()).or_default();
            take(view, &properties, &body, now, unix_ms);
        }
    }
}

impl Attached {
    /// Makes a queue that hears everything, and asks for everybody's presence.
    // req: CONTROL-15
    fn attach(broker: &Broker, vhost: &Arc<Vhost>, now: Instant) -> Result<Self, AskError> {
        let connection = broker.connect_internal(vhost.name().as_bytes())?;
        let arguments = FieldTable::from([
            ("x-max-length", FieldValue::LongLongInt(QUEUE_MESSAGES_MAX)),
            (
                "x-max-length-bytes",
                FieldValue::LongLongInt(QUEUE_BYTES_MAX),
            ),
        ]);
        let declare = QueueDeclare {
            name: b"",
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            arguments: &arguments,
        };
        let queue = vhost.queue_declare(&connection, &declare, now)?.name;
        let attached = Self {
            vhost: Arc::clone(vhost),
            connection,
            queue,
            watched: None,
            others: None,
            told: None,
        };
        match attached.begin(now) {
            Ok(()) => Ok(attached),
            Err(error) => {
                attached.detach();
                Err(error)
            }
        }
    }

    fn begin(&self, now: Instant) -> Result<(), AskError> {
        let (none, exchange) = (FieldTable::default(), CONTROL_EXCHANGE);
        for key in [
            PRESENCE_KEY,
            RECEIPT_KEY,
            SENT_KEY,
            REPORT_KEY,
            WATCH_KEY,
            LIMIT_KEY,
        ] {
            let request = BindingRequest {
                source: exchange.as_bytes(),
                destination: self.queue.as_bytes(),
                routing_key: key.as_bytes(),
                arguments: &none,
            };
            let mut wakes = Wakes::new();
            self.vhost
                .queue_bind(&self.connection, &request, now, &mut wakes)?;
        }
        let reply_to =
            ShortString::try_from(self.queue.as_bytes()).map_err(|_| AskError::Malformed)?;
        let properties = request_properties(&reply_to);
        let connection = &self.connection;
        publish(
            &self.vhost,
            connection,
            &REQUEST_KEY,
            properties,
            Bytes::new(),
            now,
        )?;
        Ok(())
    }

    /// The next message, if one waits.
    fn next(&self, now: Instant) -> Option<Message> {
        let get = Get {
            queue: self.queue.as_bytes(),
            ack_mode: AckMode::Automatic,
        };
        let got = self
            .vhost
            .get(&self.connection, get, now, &mut Wakes::new());
        got.ok()?.1.map(|got| got.message)
    }

    fn detach(self) {
        let ended = self
            .vhost
            .disconnect(&self.connection, Instant::now(), &mut Wakes::new());
        if let Err(error) = ended {
            tracing::debug!(%error, "the queue that looked on is not deleted");
        }
    }
}

/// Puts one message into the account; what is none of the forms is dropped.
// req: CONTROL-17
fn take(view: &mut View, properties: &Properties, body: &[u8], now: Instant, unix_ms: u64) {
    if let Some(presence) = decode::<Presence>(properties, body) {
        view.take_presence(presence, now, unix_ms);
    } else if let Some(report) = decode::<Report>(properties, body) {
        // What this process told others.
        if report.role == MachineRole::Broker {
            return;
        }
        view.take_report(report, now, unix_ms);
    } else if let Some(receipt) = decode::<Receipt>(properties, body) {
        let id = properties.correlation_id.as_ref().map(ToString::to_string);
        view.take_receipt(id, receipt, now, unix_ms);
    } else if let Some(sent) = decode::<Sent>(properties, body) {
        view.take_sent(sent, unix_ms);
    } else {
        tracing::debug!("a message to the control exchange has none of its forms");
    }
}

/// Properties and body of a message that lies in memory.
fn read(message: &Message) -> Option<(Properties, Bytes)> {
    let BodyRef::Inline(body) = message.body() else {
        return None;
    };
    let header = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: body.len() as u64,
        raw: Bytes::copy_from_slice(message.header()),
    };
    Some((header.properties().ok()?, Bytes::copy_from_slice(body)))
}

/// What the vhost's registry says, if nobody holds it just now.
// req: CONTROL-16
fn read_registry(vhost: &Vhost) -> Option<Registry> {
    let queue = vhost.queue(REGISTRY_QUEUE.as_bytes())?;
    let mut found: Option<Registry> = None;
    for peeked in queue.peek(Peek::new(0, 4)) {
        let (properties, body) = read(&peeked.message)?;
        if let Some(registry) = decode::<Registry>(&properties, &body) {
            found.get_or_insert_default().merge(registry);
        }
    }
    found
}

/// Publishes a message of the control plane; whether anybody hears it.
fn tell<M: ControlMessage>(
    vhost: &Vhost,
    connection: &Connection,
    key: &ShortString,
    message: &M,
    now: Instant,
) -> Result<bool, AskError> {
    let (properties, body) = encode(message);
    let properties = Properties {
        app_id: Some(OWN_MARK),
        ..properties
    };
    publish(vhost, connection, key, properties, body, now)
}

fn publish(
    vhost: &Vhost,
    connection: &Connection,
    key: &ShortString,
    properties: Properties,
    body: Bytes,
    now: Instant,
) -> Result<bool, AskError> {
    let to = (&CONTROL_EXCHANGE, key);
    let outcome = publish_from_inside(vhost, connection, to, &properties, body, now)?;
    Ok(match outcome {
        PublishOutcome::Routed { .. } => true,
        PublishOutcome::Rejected | PublishOutcome::Unroutable => false,
    })
}

/// A name as text, for maps and JSON.
pub(super) fn text(name: &Name) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// Messages that wait for a node in its queue; `None` if it has none.
pub(super) fn waiting(vhost: &Vhost, node: &NodeName) -> Option<usize> {
    let queue = vhost.queue(node.queue().as_bytes())?;
    Some(queue.depth().ready_count)
}

fn unix_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
