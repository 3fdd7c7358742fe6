//! What happened in a whole broker since it started, in numbers for operators.
//!
//! Owns: the counters that belong to no queue: the broker's, a vhost's of its clients, and a channel's own of what it
//! published and got. Counting on a channel is plain addition; what came together is added to the counters of vhost and
//! broker once for each batch.
//! Bounds: a fixed set of counters; numbers wrap after 2^64.
//! Spec: RabbitMQ's global counters, as its Prometheus plugin shows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dead_letter::DeathReason;
use super::queue::arguments::QueueKind;

/// Upper bounds of the classes by which message bodies are counted, in bytes; behind the last are all larger
/// ones.
pub const MESSAGE_SIZE_BOUNDS_BYTES: [u64; 8] = [
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
];
/// Classes of body sizes.
pub(super) const MESSAGE_SIZE_CLASSES: usize = MESSAGE_SIZE_BOUNDS_BYTES.len() + 1;

/// What publishers did, on one channel or on all. Numbers of messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PublishCounts {
    /// Came whole.
    pub received: u64,
    /// Of those, on channels with confirms.
    pub received_confirm: u64,
    /// Confirmed.
    pub confirmed: u64,
    /// Refused, where a confirm was wanted: a queue was full.
    pub refused: u64,
    /// Went to a queue at least.
    pub routed: u64,
    /// Dropped, because they led nowhere.
    pub dropped: u64,
    /// Returned, because they led nowhere.
    pub returned: u64,
    /// Sum of their bodies, in bytes.
    pub body_bytes: u64,
    /// By size of body: at most each of [`MESSAGE_SIZE_BOUNDS_BYTES`] and above the one before.
    pub by_size: [u64; MESSAGE_SIZE_CLASSES],
}

impl PublishCounts {
    /// A message came whole.
    #[inline]
    pub fn receive(&mut self, body_bytes: u64) {
        self.received += 1;
        self.body_bytes = self.body_bytes.wrapping_add(body_bytes);
        let class = MESSAGE_SIZE_BOUNDS_BYTES
            .iter()
            .position(|bound| body_bytes <= *bound)
            .unwrap_or(MESSAGE_SIZE_CLASSES - 1);
        self.by_size[class] += 1;
    }
}

/// What consumers got and acknowledged, from a queue or on a channel. Numbers of messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeliveryCounts {
    /// Handed to consumers that acknowledge.
    pub delivered: u64,
    /// Handed to consumers that do not acknowledge.
    pub delivered_no_ack: u64,
    /// Fetched with `basic.get`, to be acknowledged.
    pub fetched: u64,
    /// Fetched with `basic.get`, without acknowledgement.
    pub fetched_no_ack: u64,
    /// `basic.get` that found nothing.
    pub fetched_empty: u64,
    /// Handed over again, in the first four numbers above too.
    pub redelivered: u64,
    /// Acknowledged.
    pub acked: u64,
}

impl DeliveryCounts {
    /// Adds what somebody else got.
    pub fn add(&mut self, other: &Self) {
        let Self {
            delivered,
            delivered_no_ack,
            fetched,
            fetched_no_ack,
            fetched_empty,
            redelivered,
            acked,
        } = other;
        self.delivered += delivered;
        self.delivered_no_ack += delivered_no_ack;
        self.fetched += fetched;
        self.fetched_no_ack += fetched_no_ack;
        self.fetched_empty += fetched_empty;
        self.redelivered += redelivered;
        self.acked += acked;
    }

    /// What of it others did not get.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            delivered: self.delivered.saturating_sub(others.delivered),
            delivered_no_ack: (self.delivered_no_ack).saturating_sub(others.delivered_no_ack),
            fetched: self.fetched.saturating_sub(others.fetched),
            fetched_no_ack: self.fetched_no_ack.saturating_sub(others.fetched_no_ack),
            fetched_empty: self.fetched_empty.saturating_sub(others.fetched_empty),
            redelivered: self.redelivered.saturating_sub(others.redelivered),
            acked: self.acked.saturating_sub(others.acked),
        }
    }

    /// Handed over in one way or another.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        self.delivered + self.delivered_no_ack + self.fetched + self.fetched_no_ack
    }
}

/// What a vhost's clients did beside what its queues count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClientCounts {
    /// Publishes that were confirmed.
    pub confirmed: u64,
    /// Publishes that were dropped, because they led nowhere.
    pub dropped: u64,
    /// Publishes that were returned, because they led nowhere.
    pub returned: u64,
    /// Octets that came from connections that ended.
    pub received_bytes: u64,
    /// Octets that went to connections that ended.
    pub sent_bytes: u64,
}

/// A vhost's counters of its clients.
#[derive(Debug, Default)]
pub struct ClientStatistics {
    confirmed: AtomicU64,
    dropped: AtomicU64,
    returned: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl ClientStatistics {
    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> ClientCounts {
        ClientCounts {
            confirmed: read(&self.confirmed),
            dropped: read(&self.dropped),
            returned: read(&self.returned),
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
        }
    }

    /// A connection ended that took and gave so many octets.
    pub fn connection_gone(&self, received_bytes: u64, sent_bytes: u64) {
        add(&self.received_bytes, received_bytes);
        add(&self.sent_bytes, sent_bytes);
    }
}

/// How logins went, by one protocol.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LoginCounts {
    /// Let in.
    pub succeeded: u64,
    /// Refused.
    pub failed: u64,
}

/// By what somebody logs in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoginProtocol {
    /// AMQP 0-9-1.
    Amqp,
    /// The HTTP interface.
    Http,
}

/// Why messages became dead letters, by kind of queue. Numbers of messages that a dead-letter exchange got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LetterCounts {
    /// Came back too often.
    pub delivery_limit: u64,
    /// Their time was over.
    pub expired: u64,
    /// The queue was full.
    pub max_length: u64,
    /// Nobody wanted them.
    pub rejected: u64,
}

/// Channels and queues that came and went.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChurnCounts {
    /// Connections that opened a vhost.
    pub connections_opened: u64,
    /// Of those, ended.
    pub connections_closed: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels ended.
    pub channels_closed: u64,
    /// Queues declared, those that were there included.
    pub queues_declared: u64,
    /// Queues made.
    pub queues_created: u64,
    /// Queues that went.
    pub queues_deleted: u64,
}

/// The counters of one broker.
#[derive(Debug, Default)]
pub struct Statistics {
    received: AtomicU64,
    received_confirm: AtomicU64,
    confirmed: AtomicU64,
    refused: AtomicU64,
    /// Wanted a confirm and lost their channel before.
    abandoned: AtomicU64,
    routed: AtomicU64,
    dropped: AtomicU64,
    returned: AtomicU64,
    body_bytes: AtomicU64,
    by_size: [AtomicU64; MESSAGE_SIZE_CLASSES],
    publishers: AtomicU64,
    connections_opened: AtomicU64,
    connections_closed: AtomicU64,
    channels_opened: AtomicU64,
    channels_closed: AtomicU64,
    queues_declared: AtomicU64,
    queues_created: AtomicU64,
    queues_deleted: AtomicU64,
    /// By [`DeathReason`] within kind of queue.
    letters: [[AtomicU64; 4]; 2],
    /// Succeeded and failed, within protocol.
    logins: [[AtomicU64; 2]; 2],
}

fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Statistics {
    /// What all publishers did.
    #[must_use]
    pub fn published(&self) -> PublishCounts {
        let mut by_size = [0; MESSAGE_SIZE_CLASSES];
        for (count, counter) in by_size.iter_mut().zip(&self.by_size) {
            *count = read(counter);
        }
        PublishCounts {
            received: read(&self.received),
            received_confirm: read(&self.received_confirm),
            confirmed: read(&self.confirmed),
            refused: read(&self.refused),
            routed: read(&self.routed),
            dropped: read(&self.dropped),
            returned: read(&self.returned),
            body_bytes: read(&self.body_bytes),
            by_size,
        }
    }

    /// Publishes of open channels that wait for their confirm.
    #[must_use]
    pub fn unconfirmed_count(&self) -> u64 {
        let answered = read(&self.confirmed)
            .wrapping_add(read(&self.refused))
            .wrapping_add(read(&self.abandoned));
        // The counters are not read at one moment.
        read(&self.received_confirm).saturating_sub(answered)
    }

    /// Open channels that something was published on.
    #[must_use]
    pub fn publisher_count(&self) -> u64 {
        read(&self.publishers)
    }

    /// What came and went.
    #[must_use]
    pub fn churn(&self) -> ChurnCounts {
        ChurnCounts {
            connections_opened: read(&self.connections_opened),
            connections_closed: read(&self.connections_closed),
            channels_opened: read(&self.channels_opened),
            channels_closed: read(&self.channels_closed),
            queues_declared: read(&self.queues_declared),
            queues_created: read(&self.queues_created),
            queues_deleted: read(&self.queues_deleted),
        }
    }

    /// Dead letters of queues of a kind; a stream has none.
    #[must_use]
    pub fn letters(&self, kind: QueueKind) -> LetterCounts {
        let Some(counters) = letter_index(kind).and_then(|index| self.letters.get(index)) else {
            return LetterCounts::default();
        };
        let [delivery_limit, expired, max_length, rejected] = counters.each_ref().map(read);
        LetterCounts {
            delivery_limit,
            expired,
            max_length,
            rejected,
        }
    }

    /// How logins went.
    #[must_use]
    pub fn logins(&self, protocol: LoginProtocol) -> LoginCounts {
        let [succeeded, failed] = self.logins[protocol as usize].each_ref().map(read);
        LoginCounts { succeeded, failed }
    }

    /// Somebody was let in, or not.
    pub fn login_attempted<T, E>(&self, protocol: LoginProtocol, result: &Result<T, E>) {
        let [succeeded, failed] = &self.logins[protocol as usize];
        add(if result.is_ok() { succeeded } else { failed }, 1);
    }

    /// Forgets how logins went.
    pub fn reset_logins(&self) {
        for counter in self.logins.iter().flatten() {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn letter_sent(&self, kind: QueueKind, reason: DeathReason) {
        let counters = letter_index(kind).and_then(|index| self.letters.get(index));
        let Some([delivery_limit, expired, max_length, rejected]) = counters else {
            return;
        };
        let counter = match reason {
            DeathReason::DeliveryLimit => delivery_limit,
            DeathReason::Expired => expired,
            DeathReason::MaxLength => max_length,
            DeathReason::Rejected => rejected,
        };
        add(counter, 1);
    }

    /// A client's connection has opened its vhost.
    pub fn connection_opened(&self) {
        add(&self.connections_opened, 1);
    }

    /// Such a connection ended.
    pub fn connection_closed(&self) {
        add(&self.connections_closed, 1);
    }

    pub(crate) fn queue_declared(&self) {
        add(&self.queues_declared, 1);
    }

    pub(crate) fn queue_created(&self) {
        add(&self.queues_created, 1);
    }

    pub(crate) fn queue_deleted(&self) {
        add(&self.queues_deleted, 1);
    }
}

fn letter_index(kind: QueueKind) -> Option<usize> {
    match kind {
        QueueKind::Classic => Some(0),
        QueueKind::Quorum => Some(1),
        QueueKind::Stream => None,
    }
}

/// One channel's count of what it published; as long as it lives, the channel counts as open.
#[derive(Debug)]
pub struct Tally {
    statistics: Arc<Statistics>,
    of_vhost: Arc<ClientStatistics>,
    counts: PublishCounts,
    /// What the broker's counters have of it.
    told: PublishCounts,
}

impl Tally {
    /// A channel opens in a vhost with these counters.
    #[must_use]
    pub fn new(statistics: Arc<Statistics>, of_vhost: Arc<ClientStatistics>) -> Self {
        add(&statistics.channels_opened, 1);
        Self {
            statistics,
            of_vhost,
            counts: PublishCounts::default(),
            told: PublishCounts::default(),
        }
    }

    /// To count with.
    #[inline]
    pub fn counts_mut(&mut self) -> &mut PublishCounts {
        &mut self.counts
    }

    /// What was counted since the channel opened.
    #[must_use]
    pub fn counts(&self) -> &PublishCounts {
        &self.counts
    }

    /// Adds what is new to the counters of vhost and broker.
    pub fn tell(&mut self) {
        let (now, told) = (&self.counts, &self.told);
        if now == told {
            return;
        }
        let (all, of_vhost) = (&self.statistics, &self.of_vhost);
        if told.received == 0 && now.received > 0 {
            add(&all.publishers, 1);
        }
        let pairs = [
            (&all.received, now.received, told.received),
            (
                &all.received_confirm,
                now.received_confirm,
                told.received_confirm,
            ),
            (&all.confirmed, now.confirmed, told.confirmed),
            (&all.refused, now.refused, told.refused),
            (&all.routed, now.routed, told.routed),
            (&all.dropped, now.dropped, told.dropped),
            (&all.returned, now.returned, told.returned),
            (&all.body_bytes, now.body_bytes, told.body_bytes),
            (&of_vhost.confirmed, now.confirmed, told.confirmed),
            (&of_vhost.dropped, now.dropped, told.dropped),
            (&of_vhost.returned, now.returned, told.returned),
        ];
        for (counter, now, told) in pairs {
            add(counter, now.wrapping_sub(told));
        }
        let by_size = now.by_size.iter().zip(&told.by_size);
        for (counter, (now, told)) in all.by_size.iter().zip(by_size) {
            add(counter, now.wrapping_sub(*told));
        }
        self.told = self.counts;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.tell();
        let told = &self.told;
        let answered = told.confirmed.wrapping_add(told.refused);
        let abandoned = told.received_confirm.saturating_sub(answered);
        add(&self.statistics.abandoned, abandoned);
        if self.told.received > 0 {
            self.statistics.publishers.fetch_sub(1, Ordering::Relaxed);
        }
        add(&self.statistics.channels_closed, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a channel counts reaches the broker's counters once, whether it is told in parts or at the end.
    #[test]
    fn a_channels_count_is_told_once() {
        let all = Arc::<Statistics>::default();
        let of_vhost = Arc::<ClientStatistics>::default();
        let mut tally = Tally::new(Arc::clone(&all), Arc::clone(&of_vhost));
        assert_eq!(all.publisher_count(), 0);
        for bytes in [0, 100, 101, u64::from(u32::MAX)] {
            tally.counts_mut().receive(bytes);
            tally.counts_mut().routed += 1;
            tally.tell();
            tally.tell();
        }
        tally.counts_mut().confirmed += 1;
        assert_eq!(all.publisher_count(), 1);
        assert_eq!(all.published().confirmed, 0);
        drop(tally);
        let published = all.published();
        assert_eq!((published.received, published.routed), (4, 4));
        assert_eq!(published.confirmed, 1);
        assert_eq!(of_vhost.counts().confirmed, 1);
        assert_eq!(published.by_size, [2, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(published.body_bytes, 201 + u64::from(u32::MAX));
        let churn = all.churn();
        assert_eq!((churn.channels_opened, churn.channels_closed), (1, 1));
        assert_eq!(all.publisher_count(), 0);
    }

    #[test]
    fn letters_and_logins_are_told_apart() {
        let all = Statistics::default();
        all.letter_sent(QueueKind::Quorum, DeathReason::Rejected);
        all.letter_sent(QueueKind::Stream, DeathReason::Rejected);
        assert_eq!(all.letters(QueueKind::Quorum).rejected, 1);
        assert_eq!(all.letters(QueueKind::Classic), LetterCounts::default());
        all.login_attempted(LoginProtocol::Http, &Err::<(), ()>(()));
        all.login_attempted(LoginProtocol::Amqp, &Ok::<(), ()>(()));
        let http = all.logins(LoginProtocol::Http);
        assert_eq!((http.succeeded, http.failed), (0, 1));
        assert_eq!(all.logins(LoginProtocol::Amqp).succeeded, 1);
    }
}
