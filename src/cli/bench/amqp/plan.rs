//! Who publishes what to which queue: the topology, and what each queue must get from each producer.
//!
//! Owns: names, keys and the arithmetic of them. Pure, so that producers, consumers and the check agree.
//!
//! With a fan-out each queue gets every message. Otherwise producer `p` of `P` publishes to the queues `q` with
//! `q mod P = p` in turn, or to queue `p mod Q` if there are fewer queues than producers.

use crate::amqp::field::ShortString;

/// The kinds of exchange that can be published to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum ExchangeKind {
    /// The nameless exchange, by the queue's name
    Default,
    /// By the same key as the binding's
    Direct,
    /// To every queue
    Fanout,
    /// By patterns with a wildcard
    Topic,
}

impl ExchangeKind {
    /// Whether a queue can be bound with more than one key.
    pub(super) fn has_keys(self) -> bool {
        match self {
            Self::Direct | Self::Topic => true,
            Self::Default | Self::Fanout => false,
        }
    }

    /// As `exchange.declare` names it; `None` for what is there anyway.
    pub(super) fn declared(self) -> Option<ShortString> {
        match self {
            Self::Default => None,
            Self::Direct => Some(ShortString::from_static("direct")),
            Self::Fanout => Some(ShortString::from_static("fanout")),
            Self::Topic => Some(ShortString::from_static("topic")),
        }
    }
}

/// The topology of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What all names begin with.
    pub(super) name: String,
    pub(super) exchange: ExchangeKind,
    pub(super) producers: usize,
    pub(super) consumers: usize,
    pub(super) queues: usize,
    /// Of each queue.
    pub(super) bindings: usize,
}

/// Which of a producer's sequence numbers a queue gets: `first`, `first + stride` and so on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lane {
    pub(super) first: u64,
    pub(super) stride: u64,
}

impl Lane {
    /// The how-manieth of the lane a sequence number is; `None` if it belongs elsewhere.
    #[inline]
    pub(super) fn index(self, sequence: u64) -> Option<u64> {
        let behind = sequence.checked_sub(self.first)?;
        behind
            .is_multiple_of(self.stride)
            .then(|| behind / self.stride)
    }

    /// The sequence number at an index.
    pub(super) fn sequence(self, index: u64) -> u64 {
        self.first + index * self.stride
    }

    /// How many of the first `published` sequence numbers are in it.
    pub(super) fn count(self, published: u64) -> u64 {
        published.saturating_sub(self.first).div_ceil(self.stride)
    }
}

impl Plan {
    /// Name of a queue.
    pub(super) fn queue(&self, queue: usize) -> ShortString {
        ShortString::truncated(format!("{}.q{queue}", self.name))
    }

    /// Name of the exchange; empty for the default one.
    pub(super) fn exchange(&self) -> ShortString {
        match self.exchange {
            ExchangeKind::Default => ShortString::EMPTY,
            ExchangeKind::Direct | ExchangeKind::Fanout | ExchangeKind::Topic => {
                ShortString::truncated(format!("{}.x", self.name))
            }
        }
    }

    /// Key with which a queue is bound.
    pub(super) fn binding_key(&self, queue: usize, binding: usize) -> ShortString {
        match self.exchange {
            ExchangeKind::Default | ExchangeKind::Fanout => ShortString::EMPTY,
            ExchangeKind::Direct => self.routing_key(queue, binding),
            ExchangeKind::Topic => ShortString::truncated(match binding % 2 {
                0 => format!("q{queue}.k{binding}.*"),
                _ => format!("q{queue}.k{binding}.#"),
            }),
        }
    }

    /// Key that reaches a queue by one of its bindings and by no other.
    fn routing_key(&self, queue: usize, binding: usize) -> ShortString {
        match self.exchange {
            ExchangeKind::Default => self.queue(queue),
            ExchangeKind::Fanout => ShortString::EMPTY,
            ExchangeKind::Direct | ExchangeKind::Topic => {
                ShortString::truncated(format!("q{queue}.k{binding}.x"))
            }
        }
    }

    /// Queues to which each message goes.
    pub(super) fn fan_out(&self) -> u64 {
        match self.exchange {
            ExchangeKind::Fanout => self.queues as u64,
            ExchangeKind::Default | ExchangeKind::Direct | ExchangeKind::Topic => 1,
        }
    }

    /// The queues that a producer publishes to in turn.
    fn queues_of(&self, producer: usize) -> Vec<usize> {
        if self.queues < self.producers {
            return vec![producer % self.queues];
        }
        (producer..self.queues).step_by(self.producers).collect()
    }

    /// The keys that a producer uses in turn.
    pub(super) fn keys(&self, producer: usize) -> Vec<ShortString> {
        if self.exchange == ExchangeKind::Fanout {
            return vec![ShortString::EMPTY];
        }
        let queues = self.queues_of(producer);
        let keys = |binding| {
            let queues = queues.iter();
            queues.map(move |queue| self.routing_key(*queue, binding))
        };
        (0..self.bindings).flat_map(keys).collect()
    }

    /// What a queue gets from a producer; `None` if nothing.
    pub(super) fn lane(&self, producer: usize, queue: usize) -> Option<Lane> {
        if self.exchange == ExchangeKind::Fanout {
            return Some(Lane {
                first: 0,
                stride: 1,
            });
        }
        if self.queues < self.producers {
            let is_its = producer % self.queues == queue;
            return is_its.then_some(Lane {
                first: 0,
                stride: 1,
            });
        }
        (queue % self.producers == producer).then(|| Lane {
            first: (queue / self.producers) as u64,
            stride: (self.queues - producer).div_ceil(self.producers) as u64,
        })
    }

    /// The queues that a consumer reads: one, or its share if there are fewer consumers.
    pub(super) fn consumed_by(&self, consumer: usize) -> Vec<usize> {
        if self.consumers >= self.queues {
            return vec![consumer % self.queues];
        }
        (consumer..self.queues).step_by(self.consumers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(exchange: ExchangeKind, producers: usize, queues: usize, bindings: usize) -> Plan {
        Plan {
            name: "n".to_owned(),
            exchange,
            producers,
            consumers: 1,
            queues,
            bindings,
        }
    }

    /// Walks what producers publish and holds each message against the lanes, for many shapes.
    #[test]
    fn lanes_say_what_the_keys_reach() {
        for exchange in [
            ExchangeKind::Default,
            ExchangeKind::Direct,
            ExchangeKind::Topic,
        ] {
            for (producers, queues) in [(1, 1), (1, 5), (3, 3), (3, 7), (5, 2)] {
                let bindings = if exchange.has_keys() { 3 } else { 1 };
                let plan = plan(exchange, producers, queues, bindings);
                for producer in 0..producers {
                    let keys = plan.keys(producer);
                    let mut counts = vec![0; queues];
                    for sequence in 0..40 {
                        let key = &keys[sequence as usize % keys.len()];
                        let reaches = |queue: &usize| {
                            (0..bindings).any(|binding| plan.routing_key(*queue, binding) == *key)
                        };
                        let queue = (0..queues).find(reaches).expect("a queue");
                        let lane = plan.lane(producer, queue).expect("a lane");
                        assert_eq!(lane.index(sequence), Some(counts[queue]));
                        assert_eq!(lane.sequence(counts[queue]), sequence);
                        counts[queue] += 1;
                    }
                    for (queue, count) in counts.into_iter().enumerate() {
                        let expected = plan.lane(producer, queue);
                        assert_eq!(expected.map_or(0, |lane| lane.count(40)), count);
                    }
                }
            }
        }
    }

    /// Each queue of a fan-out gets all, and consumers share all queues among them.
    #[test]
    fn fan_out_and_consumers_leave_no_queue_out() {
        let fan_out = plan(ExchangeKind::Fanout, 2, 3, 1);
        assert_eq!(fan_out.fan_out(), 3);
        assert_eq!(fan_out.lane(1, 2).expect("a lane").count(10), 10);
        for consumers in [1, 2, 3, 5] {
            let plan = Plan {
                consumers,
                ..fan_out.clone()
            };
            let read: Vec<_> = (0..consumers)
                .flat_map(|one| plan.consumed_by(one))
                .collect();
            assert!((0..3).all(|queue| read.contains(&queue)), "{consumers}");
        }
    }
}
