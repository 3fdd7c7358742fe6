//! What a channel did at each exchange and with each queue.
//!
//! Owns: the channel's counts of what it got and acknowledged, in all and by queue, and those of what it published, by
//! exchange. The latter are made from the channel's sums whenever it turns to another exchange, so that a message to the
//! same one costs a comparison of names; the former come once for each batch.
//! Bounds: [`EXCHANGES_MAX`] and [`QUEUES_MAX`]; what is beyond is in the sums alone. One entry for each run of publishes
//! to one exchange whose confirms are not out.
//! Spec: RabbitMQ's statistics by channel and exchange, and by channel and queue.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::broker::{DeliveryCounts, Name, PublishCounts, Queue};
use crate::journal::QueueId;

/// Exchanges that a channel's publishes are told apart by.
const EXCHANGES_MAX: usize = 64;
/// Queues that a channel's deliveries are told apart by; those that are gone make room.
const QUEUES_MAX: usize = 256;

/// What was published at one exchange on a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExchangeShare {
    /// The exchange's name; empty for the default one.
    pub exchange: Name,
    /// What became of it.
    pub counts: PublishOutcomes,
}

/// What became of publishes. Numbers of messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PublishOutcomes {
    /// Came whole.
    pub published: u64,
    /// Confirmed.
    pub confirmed: u64,
    /// Returned, because they led nowhere.
    pub returned: u64,
    /// Dropped, because they led nowhere.
    pub dropped: u64,
}

/// What came from one queue on a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeliveryShare {
    /// The queue's name.
    pub queue: Name,
    /// The queue's number: another of its name is another queue.
    pub queue_id: QueueId,
    /// What was got from it and acknowledged.
    pub counts: DeliveryCounts,
}

/// The counts of one channel.
#[derive(Debug, Default)]
pub(super) struct Breakdown {
    exchanges: Exchanges,
    delivered: DeliveryCounts,
    queues: Vec<OfQueue>,
    /// Where in `queues` each is.
    places: HashMap<QueueId, usize>,
    /// The queue of the last batch, and where it is.
    last_queue: Option<(QueueId, usize)>,
    /// Batches of queues that there was no room for.
    untold_count: usize,
}

#[derive(Debug)]
struct OfQueue {
    queue: Weak<Queue>,
    share: DeliveryShare,
}

impl Breakdown {
    /// What the channel's client got and acknowledged, from all queues.
    pub(super) fn delivered(&self) -> DeliveryCounts {
        self.delivered
    }

    /// Counts something that has to do with a queue.
    pub(super) fn count(&mut self, queue: &Arc<Queue>, add: impl Fn(&mut DeliveryCounts)) {
        add(&mut self.delivered);
        let id = queue.id();
        let place = match self.last_queue {
            Some((last, place)) if last == id => Some(place),
            Some(_) | None => self.place_of(queue),
        };
        if let Some(place) = place
            && let Some(of_queue) = self.queues.get_mut(place)
        {
            self.last_queue = Some((id, place));
            add(&mut of_queue.share.counts);
        }
    }

    fn place_of(&mut self, queue: &Arc<Queue>) -> Option<usize> {
        let id = queue.id();
        if let Some(place) = self.places.get(&id) {
            return Some(*place);
        }
        // Looking who is gone costs as much as there are queues, so not each batch does.
        if self.queues.len() >= QUEUES_MAX && self.untold_count.is_multiple_of(QUEUES_MAX) {
            self.queues
                .retain(|of_queue| of_queue.queue.strong_count() > 0);
            let places = self.queues.iter().enumerate();
            self.places = places
                .map(|(place, of_queue)| (of_queue.share.queue_id, place))
                .collect();
            self.last_queue = None;
        }
        let place = self.queues.len();
        if place >= QUEUES_MAX {
            self.untold_count += 1;
            return None;
        }
        self.untold_count = 0;
        self.queues.push(OfQueue {
            queue: Arc::downgrade(queue),
            share: DeliveryShare {
                queue: queue.name().clone(),
                queue_id: id,
                counts: DeliveryCounts::default(),
            },
        });
        self.places.insert(id, place);
        Some(place)
    }

    /// Something is about to be published at an exchange; `sums` are the channel's so far.
    #[inline]
    pub(super) fn publish_at(&mut self, exchange: &[u8], sums: &PublishCounts) {
        self.exchanges.turn_to(exchange, sums);
    }

    /// By exchange; `sums` are the channel's.
    pub(super) fn exchanges(&self, sums: &PublishCounts) -> Vec<ExchangeShare> {
        self.exchanges.list(sums)
    }

    /// By queue.
    pub(super) fn queues(&self) -> Vec<DeliveryShare> {
        let queues = self.queues.iter();
        queues.map(|of_queue| of_queue.share.clone()).collect()
    }
}

/// What was published, by exchange.
#[derive(Clone, Debug, Default)]
struct Exchanges {
    shares: Vec<ExchangeShare>,
    /// Which of them the channel publishes at; none at first, and beyond [`EXCHANGES_MAX`].
    current: Option<usize>,
    /// The name of that exchange, also where there is no share of it.
    name: Option<Name>,
    /// The channel's sums when it turned to that exchange.
    mark: PublishCounts,
    /// Publishes that were to be confirmed, in order, by where they were published.
    runs: VecDeque<Run>,
    /// Confirms that were told apart.
    confirmed: u64,
}

/// Publishes at one exchange that are to be confirmed.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: Option<usize>,
    count: u64,
}

impl Exchanges {
    #[inline]
    fn turn_to(&mut self, exchange: &[u8], sums: &PublishCounts) {
        let is_current = (self.name.as_ref()).is_some_and(|name| name.as_bytes() == exchange);
        if !is_current {
            self.settle(sums);
            self.begin(exchange);
        }
    }

    fn begin(&mut self, exchange: &[u8]) {
        let known = |share: &ExchangeShare| share.exchange.as_bytes() == exchange;
        self.current = self.shares.iter().position(known);
        if let Some(share) = self.current.and_then(|at| self.shares.get(at)) {
            self.name = Some(share.exchange.clone());
            return;
        }
        let name = Name::new(exchange);
        if self.shares.len() < EXCHANGES_MAX {
            self.current = Some(self.shares.len());
            self.shares.push(ExchangeShare {
                exchange: name.clone(),
                counts: PublishOutcomes::default(),
            });
        }
        self.name = Some(name);
    }

    /// Tells apart what the sums have more than at the mark.
    fn settle(&mut self, sums: &PublishCounts) {
        let mark = std::mem::replace(&mut self.mark, *sums);
        if let Some(share) = self.current.and_then(|at| self.shares.get_mut(at)) {
            let counts = &mut share.counts;
            counts.published += sums.received - mark.received;
            counts.returned += sums.returned - mark.returned;
            counts.dropped += sums.dropped - mark.dropped;
        }
        // What was refused is never confirmed.
        let to_confirm = (sums.received_confirm - mark.received_confirm)
            .saturating_sub(sums.refused - mark.refused);
        match self.runs.back_mut() {
            Some(last) if last.at == self.current => last.count += to_confirm,
            Some(_) | None if to_confirm > 0 => self.runs.push_back(Run {
                at: self.current,
                count: to_confirm,
            }),
            Some(_) | None => {}
        }
        let mut confirmed = sums.confirmed.saturating_sub(self.confirmed);
        self.confirmed = sums.confirmed;
        while confirmed > 0
            && let Some(run) = self.runs.front_mut()
        {
            let taken = confirmed.min(run.count);
            run.count -= taken;
            confirmed -= taken;
            if let Some(share) = run.at.and_then(|at| self.shares.get_mut(at)) {
                share.counts.confirmed += taken;
            }
            if run.count == 0 {
                self.runs.pop_front();
            }
        }
    }

    fn list(&self, sums: &PublishCounts) -> Vec<ExchangeShare> {
        let mut now = self.clone();
        now.settle(sums);
        now.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(exchange: &str, counts: [u64; 4]) -> ExchangeShare {
        let [published, confirmed, returned, dropped] = counts;
        ExchangeShare {
            exchange: Name::from(exchange),
            counts: PublishOutcomes {
                published,
                confirmed,
                returned,
                dropped,
            },
        }
    }

    /// Publishes are told apart by exchange, and confirms that come later go to where they were published; what was
    /// refused gets none.
    #[test]
    fn publishes_are_told_apart() {
        let mut exchanges = Exchanges::default();
        let mut sums = PublishCounts::default();
        let mut publish = |exchange: &str, returned: u64, dropped: u64, refused: u64| {
            exchanges.turn_to(exchange.as_bytes(), &sums);
            sums.receive(10);
            sums.received_confirm += 1;
            sums.returned += returned;
            sums.dropped += dropped;
            sums.refused += refused;
        };
        publish("a", 0, 0, 0);
        publish("a", 1, 0, 0);
        publish("b", 0, 1, 0);
        publish("a", 0, 0, 1);
        publish("", 0, 0, 0);
        sums.confirmed = 3;
        let expected = [
            share("a", [3, 2, 1, 0]),
            share("b", [1, 1, 0, 1]),
            share("", [1, 0, 0, 0]),
        ];
        assert_eq!(exchanges.list(&sums), expected);
        assert_eq!(exchanges.list(&sums), expected, "a look changes nothing");
        sums.confirmed = 4;
        assert_eq!(exchanges.list(&sums)[2], share("", [1, 1, 0, 0]));
        exchanges.turn_to(b"b", &sums);
        assert_eq!(exchanges.runs.len(), 0, "all are out");
    }

    /// Beyond so many exchanges only the sums count, and those that are known go on.
    #[test]
    fn exchanges_are_bounded() {
        let mut exchanges = Exchanges::default();
        let mut sums = PublishCounts::default();
        for round in 0..2 {
            for number in 0..2 * EXCHANGES_MAX {
                exchanges.turn_to(format!("{number}").as_bytes(), &sums);
                sums.receive(10);
            }
            let shares = exchanges.list(&sums);
            assert_eq!(shares.len(), EXCHANGES_MAX);
            assert!(
                shares
                    .iter()
                    .all(|share| share.counts.published == round + 1)
            );
        }
    }
}
