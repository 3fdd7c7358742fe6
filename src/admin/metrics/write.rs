//! Which families stand on a page, and in which order.
//!
//! Owns: RabbitMQ's groups of families by their names, and how each is written as sums or by object.

use crate::broker::{
    DeliveryCounts, LoginProtocol, MESSAGE_SIZE_BOUNDS_BYTES, Name, Pattern, QueueKind,
};

use super::families::{self, OfNode};
use super::gather::{self, ChannelRow, Clients, ConnectionRow, Form, Labelled, Objects, Sources};
use super::object_families::{self, OfChannel, OfConnection, OfQueue};
use super::own;
use super::text::{Columns, Family, Kind, Labels, Page};
use crate::admin::api::RABBITMQ_VERSION;

/// What a page is to show.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Everything.
    All(Form),
    /// Some families, of some vhosts or, if none is named, of all; of queues, those whose name matches.
    Chosen {
        families: Vec<String>,
        vhosts: Vec<String>,
        queue: Option<Pattern>,
    },
    /// What the memory is used for.
    Memory,
}

impl Wanted {
    pub(super) fn all(form: Form) -> Self {
        Self::All(form)
    }

    pub(super) fn chosen(
        families: Vec<String>,
        vhosts: Vec<String>,
        queue: Option<Pattern>,
    ) -> Self {
        Self::Chosen {
            families,
            vhosts,
            queue,
        }
    }

    /// Whether channels or connections are named, so that their sessions must be asked.
    pub(super) fn names_clients(&self) -> bool {
        match self {
            Self::All(form) => *form == Form::PerObject,
            Self::Chosen { families, .. } => families
                .iter()
                .any(|family| family.starts_with("channel_") || family.starts_with("connection_")),
            Self::Memory => false,
        }
    }

    pub(super) fn form(&self) -> Form {
        match self {
            Self::All(form) => *form,
            Self::Chosen { .. } => Form::PerObject,
            Self::Memory => Form::Aggregated,
        }
    }

    /// Whether objects of this vhost are shown.
    pub(super) fn shows(&self, vhost: &str) -> bool {
        match self {
            Self::All(_) | Self::Memory => true,
            Self::Chosen { vhosts, .. } => vhosts.is_empty() || vhosts.iter().any(|v| v == vhost),
        }
    }

    /// Whether a queue of this name is shown, if its vhost is.
    pub(super) fn shows_queue(&self, queue: &Name) -> bool {
        match self {
            Self::All(_) | Self::Memory => true,
            Self::Chosen { queue: wanted, .. } => {
                (wanted.as_ref()).is_none_or(|wanted| wanted.matches(queue.as_bytes()))
            }
        }
    }
}

/// Everything that a page is written from.
struct Writer<'a> {
    page: Page,
    sources: &'a Sources,
    objects: &'a Objects,
    clients: &'a Clients,
    wanted: &'a Wanted,
    form: Form,
}

/// A group of families, by RabbitMQ's name for it.
type Group = (&'static str, fn(&mut Writer<'_>));

/// The groups that every page has, in RabbitMQ's order.
const GROUPS: &[Group] = &[
    ("connection_churn_metrics", |w| w.node(families::CHURN)),
    ("node_coarse_metrics", |w| w.node(families::NODE_COARSE)),
    ("node_metrics", |w| w.node(families::NODE)),
    ("node_persister_metrics", |w| w.node(families::PERSISTER)),
    ("ra_metrics", |w| w.node(families::RAFT)),
    ("auth_attempt_metrics", |w| w.logins()),
    ("queue_coarse_metrics", |w| {
        w.queues(object_families::QUEUE_COARSE);
    }),
    ("queue_consumer_count", |w| {
        w.queues(object_families::QUEUE_CONSUMERS);
    }),
    ("queue_metrics", |w| {
        w.queues(object_families::QUEUE);
        w.head_timestamps();
    }),
    ("channel_metrics", |w| w.channels(object_families::CHANNEL)),
    ("channel_exchange_metrics", |w| w.channels_by_exchange()),
    ("channel_process_metrics", |w| {
        w.channels(object_families::CHANNEL_PROCESS);
    }),
    ("channel_queue_metrics", |w| w.channels_by_queue()),
    ("connection_coarse_metrics", |w| {
        w.connections(object_families::CONNECTION_COARSE);
    }),
    ("connection_metrics", |w| {
        w.connections(object_families::CONNECTION);
    }),
    ("channel_queue_exchange_metrics", |w| {
        w.published_to_queues()
    }),
];

/// The groups that only the detailed page has; their names begin differently.
const CLUSTER_GROUPS: &[Group] = &[
    ("vhost_status", |w| w.vhost_status()),
    ("exchange_bindings", |w| w.exchange_bindings()),
    ("exchange_names", |w| w.exchange_names()),
];

/// Writes a page.
// req: PROM-2
// req: PROM-3
pub(super) fn page(
    sources: &Sources,
    objects: &Objects,
    clients: &Clients,
    wanted: &Wanted,
) -> String {
    let mut writer = Writer {
        page: Page::new("rabbitmq_"),
        sources,
        objects,
        clients,
        wanted,
        form: wanted.form(),
    };
    let endpoint = match wanted {
        Wanted::All(Form::Aggregated) => "aggregated",
        Wanted::All(Form::PerObject) => "per-object",
        Wanted::Chosen { .. } => "detailed",
        Wanted::Memory => "memory-breakdown",
    };
    match wanted {
        Wanted::All(_) => {
            writer.node(families::ALARMS);
            for (_, write) in GROUPS {
                write(&mut writer);
            }
            writer.node(families::TOTALS);
            writer.global();
        }
        Wanted::Memory => writer.memory(),
        Wanted::Chosen { families, .. } => {
            let is_chosen = |name: &str| families.iter().any(|family| family == name);
            writer.page.set_prefix("rabbitmq_detailed_");
            for (name, write) in GROUPS {
                // RabbitMQ's `queue_metrics` has the consumers too, once.
                let has_consumers = *name == "queue_consumer_count" && is_chosen("queue_metrics");
                if is_chosen(name) || has_consumers {
                    write(&mut writer);
                }
            }
            writer.page.set_prefix("rabbitmq_");
            for (name, write) in CLUSTER_GROUPS {
                if is_chosen(name) {
                    write(&mut writer);
                }
            }
        }
    }
    writer.information(endpoint);
    if let Wanted::All(_) = wanted {
        writer.page.set_prefix("warren_");
        own::write(&mut writer.page, sources);
    }
    writer.page.finish()
}

impl Writer<'_> {
    fn node(&mut self, families: &[OfNode]) {
        for (family, read) in families {
            self.page.single(family, read(&self.objects.node));
        }
    }

    fn queues(&mut self, families: &[OfQueue]) {
        match self.form {
            Form::Aggregated => self.sum(families, &self.objects.all),
            Form::PerObject => {
                let (rows, labels) = (&self.objects.queues, &self.objects.queue_labels);
                self.page.rows(families, rows, labels);
            }
        }
    }

    fn sum<Row>(&mut self, families: &Columns<Row>, all: &Row) {
        for (family, read) in families {
            self.page.single(family, read(all));
        }
    }

    /// All that is used counts as one of RabbitMQ's kinds, since nothing here is told apart so.
    fn memory(&mut self) {
        let used_bytes = self.sources.broker.alarms().memory().used_bytes;
        for family in families::MEMORY {
            let is_all = family.name == families::MEMORY_OF_ALL;
            self.page
                .single(family, if is_all { used_bytes } else { 0 });
        }
    }

    fn head_timestamps(&mut self) {
        self.page.family(&object_families::HEAD_TIMESTAMP);
        let queues = self.objects.queues.iter();
        for (row, labels) in queues.zip(&self.objects.queue_labels) {
            if let Some(seconds) = row.head_timestamp {
                self.page.sample(labels, seconds);
            }
        }
    }

    fn channels(&mut self, families: &[OfChannel]) {
        if self.form == Form::Aggregated {
            return self.sum(families, &self.objects.channels);
        }
        let shown = |row: &&ChannelRow| self.wanted.shows(&row.vhost);
        let channels = self.clients.channels.iter().filter(shown);
        let rows: Vec<_> = channels.cloned().collect();
        let labels = rows.iter().map(|row| Labels::of([("channel", &row.name)]));
        let labels: Vec<_> = labels.collect();
        self.page.rows(families, &rows, &labels);
    }

    fn channels_by_exchange(&mut self) {
        let families = object_families::CHANNEL_EXCHANGE;
        if self.form == Form::Aggregated {
            return self.sum(families, &self.objects.published);
        }
        let (rows, labels) = self.shown(&self.clients.at_exchanges);
        self.page.rows(families, &rows, &labels);
    }

    /// Counts of the vhosts that are shown, and their labels.
    fn shown<Counts: Copy>(&self, all: &[Labelled<Counts>]) -> (Vec<Counts>, Vec<String>) {
        let shown = all.iter().filter(|each| {
            let is_queue_shown = |queue: &Name| self.wanted.shows_queue(queue);
            self.wanted.shows(&each.vhost) && each.queue.as_ref().is_none_or(is_queue_shown)
        });
        shown.map(|each| (each.counts, each.labels.clone())).unzip()
    }

    /// What no open channel has counted stands at the channel without a name, so that a queue's sum only grows.
    fn channels_by_queue(&mut self) {
        let families = object_families::CHANNEL_QUEUE;
        if self.form == Form::Aggregated {
            return self.sum(families, &self.objects.all.counts.delivery);
        }
        let (mut rows, mut labels) = self.shown(&self.clients.from_queues);
        for queue in &self.objects.queues {
            let (rest, _) = queue.rest(self.clients);
            if rest != DeliveryCounts::default() {
                rows.push(rest);
                labels.push(gather::from_queue("", &queue.vhost, &queue.name));
            }
        }
        self.page.rows(families, &rows, &labels);
    }

    /// As [`Self::channels_by_queue`].
    fn published_to_queues(&mut self) {
        let families = object_families::PUBLISHED_TO_QUEUE;
        if self.form == Form::Aggregated {
            return self.sum(families, &self.objects.all.counts.published);
        }
        let (mut rows, mut labels) = self.shown(&self.clients.into_queues);
        for queue in &self.objects.queues {
            let (_, rest) = queue.rest(self.clients);
            if rest > 0 {
                rows.push(rest);
                labels.push(gather::into_queue("", &queue.vhost, &queue.name, ""));
            }
        }
        self.page.rows(families, &rows, &labels);
    }

    fn connections(&mut self, families: &[OfConnection]) {
        if self.form == Form::Aggregated {
            return self.sum(families, &self.objects.connections);
        }
        // The label has that name in RabbitMQ.
        let label = |row: &ConnectionRow| Labels::of([("channel", &row.name)]);
        let rows = &self.clients.connections;
        let labels: Vec<_> = rows.iter().map(label).collect();
        self.page.rows(families, rows, &labels);
    }

    fn logins(&mut self) {
        let statistics = self.sources.broker.statistics();
        let counts = [
            ("amqp091", statistics.logins(LoginProtocol::Amqp)),
            ("http", statistics.logins(LoginProtocol::Http)),
        ];
        let [all, succeeded, failed] = families::LOGINS;
        for (family, read) in [(all, [1, 1]), (succeeded, [1, 0]), (failed, [0, 1])] {
            self.page.family(&family);
            let [good, bad] = read;
            let of =
                |counts: crate::broker::LoginCounts| counts.succeeded * good + counts.failed * bad;
            for (protocol, counts) in counts {
                self.page
                    .sample(&Labels::of([("protocol", protocol)]), of(counts));
            }
        }
    }

    fn vhost_status(&mut self) {
        self.page.family(&families::VHOST_STATUS);
        for vhost in self
            .objects
            .vhosts
            .iter()
            .filter(|name| self.wanted.shows(name))
        {
            self.page.sample(&Labels::of([("vhost", vhost)]), 1);
        }
    }

    fn exchange_bindings(&mut self) {
        self.page.family(&families::EXCHANGE_BINDINGS);
        for row in gather::exchanges(&self.sources.broker, |vhost| self.wanted.shows(vhost)) {
            self.page.sample(&row.labels, row.binding_count);
        }
    }

    fn exchange_names(&mut self) {
        self.page.family(&families::EXCHANGE_NAMES);
        for row in gather::exchanges(&self.sources.broker, |vhost| self.wanted.shows(vhost)) {
            self.page.sample(&row.labels, 1);
        }
    }

    fn information(&mut self, endpoint: &str) {
        let sources = self.sources;
        self.page.family(&families::BUILD_INFO);
        let versions = Labels::of([
            ("rabbitmq_version", RABBITMQ_VERSION),
            ("prometheus_plugin_version", RABBITMQ_VERSION),
            ("prometheus_client_version", &sources.version),
            ("erlang_version", "n/a (Warren)"),
            ("product_name", &sources.product),
            ("product_version", &sources.version),
        ]);
        self.page.sample(&versions, 1);
        self.page.family(&families::IDENTITY_INFO);
        let names = Labels::of([
            ("rabbitmq_node", &sources.node),
            ("rabbitmq_cluster", &sources.cluster_name()),
            ("rabbitmq_cluster_permanent_id", &sources.cluster_id),
            ("rabbitmq_endpoint", endpoint),
        ]);
        self.page.sample(&names, 1);
    }

    /// RabbitMQ's global counters, by protocol and kind of queue.
    fn global(&mut self) {
        let statistics = self.sources.broker.statistics();
        let amqp = Labels::of([("protocol", "amqp091")]);
        self.page.family(&families::GLOBAL_CONSUMERS);
        let consumer_count = self.objects.all.depth.consumer_count;
        self.page.sample(&amqp, consumer_count);
        self.page.family(&families::GLOBAL_PUBLISHERS);
        self.page.sample(&amqp, statistics.publisher_count());
        let published = statistics.published();
        for (family, read) in families::GLOBAL_PUBLISHED {
            self.page.family(family);
            self.page.sample(&amqp, read(&published));
        }
        for (family, read) in families::GLOBAL_QUEUE {
            self.page.family(family);
            for (kind, counts) in self.objects.by_kind.iter() {
                let labels =
                    Labels::of([("protocol", "amqp091"), ("queue_type", queue_type(kind))]);
                self.page.sample(&labels, read(counts));
            }
        }
        self.letters();
        self.page.family(&MESSAGE_SIZE);
        let (bounds, sum) = (MESSAGE_SIZE_BOUNDS_BYTES, published.body_bytes);
        self.page.histogram(&amqp, bounds, &published.by_size, sum);
    }

    fn letters(&mut self) {
        let labels = |kind, strategy: &str| {
            Labels::of([
                ("queue_type", queue_type(kind)),
                ("dead_letter_strategy", strategy),
            ])
        };
        let statistics = self.sources.broker.statistics();
        for letters in families::LETTERS {
            self.page.family(&letters.family);
            for (kind, counts) in self.objects.by_kind.iter() {
                let has = match kind {
                    QueueKind::Classic => letters.of_classic,
                    QueueKind::Quorum => true,
                    QueueKind::Stream => false,
                };
                if !has {
                    continue;
                }
                let sent = (letters.sent)(&statistics.letters(kind));
                let lost = (letters.died)(counts).saturating_sub(sent);
                if kind == QueueKind::Quorum && letters.at_least_once {
                    self.page.sample(&labels(kind, "at_least_once"), 0);
                }
                self.page.sample(&labels(kind, "at_most_once"), sent);
                self.page.sample(&labels(kind, "disabled"), lost);
            }
        }
        self.page.family(&families::LETTERS_CONFIRMED);
        let labels = labels(QueueKind::Quorum, "at_least_once");
        self.page.sample(&labels, 0);
    }
}

/// What RabbitMQ 4 has and 3.10 has not.
const MESSAGE_SIZE: Family = Family {
    name: "message_size_bytes",
    kind: Kind::Histogram,
    help: "Size of messages received from publishers",
};

fn queue_type(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "rabbit_classic_queue",
        QueueKind::Quorum => "rabbit_quorum_queue",
        QueueKind::Stream => "rabbit_stream_queue",
    }
}
