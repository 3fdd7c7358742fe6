//! Many connections at once: nothing is lost, nothing comes twice, and nobody waits for ever.

use std::sync::Arc;
use std::thread;

use crate::testing::disk::SeededNumbers;

use super::super::*;
use super::kit::{Client, Flag, broker, owed};

const THREAD_COUNT: u64 = 4;
const STEP_COUNT: usize = 3_000;
const QUEUES: [&str; 3] = ["a", "b", "c"];

/// One connection's life: publishes, consumes, settles, and comes and goes.
struct Life {
    client: Client,
    numbers: SeededNumbers,
    consumers: Vec<Arc<Consumer>>,
    owed: Vec<(Arc<Queue>, MessageSeq)>,
    name: String,
}

impl Life {
    fn new(broker: &Arc<Broker>, seed: u64) -> Self {
        Self {
            client: Client::new(broker),
            numbers: SeededNumbers::new(seed),
            consumers: Vec::new(),
            owed: Vec::new(),
            name: format!("own {seed}"),
        }
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let at = self.numbers.below(from.len() as u64) as usize;
        from[at]
    }

    fn step(&mut self) {
        let queue = self.pick(&QUEUES);
        let client = &mut self.client;
        match self.numbers.below(16) {
            0..=4 => drop(client.publish("", queue, "x")),
            5 | 6 => drop(client.publish("amq.fanout", "", "x")),
            7 => self
                .consumers
                .push(client.consume(queue, "tag", 3).expect("not exclusive")),
            8 => {
                if let Some(consumer) = self.consumers.pop() {
                    let vhost = client.vhost();
                    vhost
                        .cancel(&consumer, client.now, &mut client.wakes)
                        .expect("no journal");
                }
            }
            9 => {
                if let Some(got) = client.get(queue, AckMode::Manual) {
                    self.owed.push((client.queue(queue), got.seq));
                }
            }
            10..=12 => {
                let how = [Settle::Ack, Settle::Discard, Settle::Requeue];
                let how = how[self.numbers.below(3) as usize];
                if let Some((queue, seq)) = self.owed.pop() {
                    queue.settle(&[seq], how, client.now, &mut client.wakes);
                }
            }
            13 => client.limiter.set(
                self.numbers.below(4) as u32,
                self.numbers.below(3) as u32 * 8,
                client.now,
                &mut client.wakes,
            ),
            14 => self.own_queue(),
            _ => self.close_channel(),
        }
        self.client.wakes.wake_all();
        self.take();
    }

    fn take(&mut self) {
        self.owed.extend(owed(&self.client.drain()));
    }

    /// A queue that comes, is bound, and goes again, while others publish to where it is bound.
    fn own_queue(&mut self) {
        let name = self.name.clone();
        self.client
            .declare(&name, &[Flag::Exclusive])
            .expect("a name of its own");
        self.client
            .bind("amq.fanout", &name, "")
            .expect("both are there");
        self.client.publish("", &name, "x");
        self.client.delete_queue(&name).expect("no condition");
    }

    fn close_channel(&mut self) {
        self.take();
        let client = &mut self.client;
        let vhost = client.vhost();
        let (connection, now, wakes) = (&client.connection, client.now, &mut client.wakes);
        vhost
            .close_channel(connection, 1, &self.consumers, &self.owed, now, wakes)
            .expect("no journal");
        self.consumers.clear();
        self.owed.clear();
    }
}

#[test]
fn connections_at_once_neither_lose_nor_repeat_messages() {
    let broker = broker();
    let first = Client::new(&broker);
    for queue in QUEUES {
        first.declare(queue, &[]).expect("a plain queue");
        first.bind("amq.fanout", queue, "").expect("both are there");
    }
    thread::scope(|scope| {
        for seed in 0..THREAD_COUNT {
            let broker = &broker;
            scope.spawn(move || {
                let mut life = Life::new(broker, seed);
                for _ in 0..STEP_COUNT {
                    life.step();
                }
                life.close_channel();
                let vhost = life.client.vhost();
                let (connection, wakes) = (&life.client.connection, &mut life.client.wakes);
                let now = life.client.now;
                vhost
                    .disconnect(connection, now, wakes)
                    .expect("no journal");
            });
        }
    });
    for name in QUEUES {
        let queue = first.queue(name);
        let (depth, counts) = (queue.depth(), queue.counts());
        assert_eq!(
            (depth.unacked_count, depth.consumer_count),
            (0, 0),
            "{name}"
        );
        let left = counts.delivery.acked + counts.discarded + counts.delivery.fetched_no_ack;
        assert_eq!(
            left + depth.ready_count as u64,
            counts.published,
            "{name}: {counts:?}"
        );
        assert_eq!(first.take_all(name).len(), depth.ready_count, "{name}");
    }
    assert_eq!(first.vhost().queues().len(), QUEUES.len());
}
