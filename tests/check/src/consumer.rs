//! Consumers: push and get, which ack, requeue, reject and vanish; and the final drain.
//!
//! Owns: what each did with each delivery, written down before it is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::body;
use crate::client::{ClientError, Connection, Incoming};
use crate::history::{Event, MessageKey};
use crate::random::Random;
use crate::shared::{QUEUES, Shared};
use crate::wire::{self, Args, Fields, MethodId};

/// Of 1,000 deliveries, so many are requeued, rejected for good, and answered by vanishing.
const REQUEUE_PER_MILLE: u64 = 20;
const REJECT_PER_MILLE: u64 = 5;
const VANISH_PER_MILLE: u64 = 1;
/// Deliveries between two questions that prove which acks the broker has.
const SETTLE_EVERY: u32 = 200;
/// Pause of a getting consumer at an empty queue.
const GET_PAUSE: Duration = Duration::from_millis(4);

/// How a consumer takes its messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// `basic.get`, acked one by one.
    Get,
    /// `basic.consume`; one ack for `ack_every` deliveries.
    Push { prefetch: u16, ack_every: usize },
    /// `basic.consume` now and then, until the backlog is gone.
    Sweep,
}

/// A consumer's queue and style.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerPlan {
    pub(crate) number: u16,
    pub(crate) queue: u16,
    pub(crate) style: Style,
}

/// Pause of a sweeping consumer, in milliseconds: the backlog outlives some kills and stays within bounds.
const SWEEP_PAUSE_MS: (f64, f64) = (5_000.0, 20_000.0);

/// The consumers of a run. The last queue is mostly without one: it is a backlog.
pub(crate) const CONSUMERS: [(u16, Style); 6] = [
    (
        0,
        Style::Push {
            prefetch: 50,
            ack_every: 1,
        },
    ),
    (
        0,
        Style::Push {
            prefetch: 5,
            ack_every: 1,
        },
    ),
    (
        1,
        Style::Push {
            prefetch: 200,
            ack_every: 20,
        },
    ),
    (1, Style::Get),
    (2, Style::Get),
    (3, Style::Sweep),
];

/// Consumes until the run stops consuming.
pub(crate) fn run(shared: &Shared, plan: ConsumerPlan) {
    let who = format!("consumer {}", plan.number);
    let mut random = Random::of(shared.seed, &who);
    loop {
        if matches!(plan.style, Style::Sweep) {
            pause(&shared.stop_consuming, &mut random);
        }
        let Some((connection, life)) = shared.connect(&shared.stop_consuming) else {
            return;
        };
        let mut channel = Channel::new(shared, connection, plan.queue, life);
        let outcome = match plan.style {
            Style::Get => channel.get_until(&shared.stop_consuming, &mut random),
            Style::Push {
                prefetch,
                ack_every,
            } => channel.push_until(&shared.stop_consuming, prefetch, ack_every, &mut random),
            Style::Sweep => channel.sweep(&shared.stop_consuming, &mut random),
        };
        match outcome {
            // What the broker sent ahead goes back into the queue.
            Ok(Leave::Stopped) => {
                channel.drop_out();
                channel.connection.close();
            }
            Ok(Leave::Vanished) => channel.drop_out(),
            Err(error) => shared.blame(&who, life, &error),
        }
    }
}

/// Waits before the next sweep, unless the run stops.
fn pause(stop: &AtomicBool, random: &mut Random) {
    let (least, most) = SWEEP_PAUSE_MS;
    let end = Instant::now() + Duration::from_secs_f64(random.log_uniform(least, most) / 1_000.0);
    while Instant::now() < end && !stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Why a consumer left while the broker lived.
enum Leave {
    Stopped,
    Vanished,
}

/// What to do with a delivery.
enum Answer {
    Ack,
    Reject,
    Requeue,
    Vanish,
}

fn draw_answer(random: &mut Random) -> Answer {
    let draw = random.below(1_000);
    if draw < VANISH_PER_MILLE {
        Answer::Vanish
    } else if draw < VANISH_PER_MILLE + REJECT_PER_MILLE {
        Answer::Reject
    } else if draw < VANISH_PER_MILLE + REJECT_PER_MILLE + REQUEUE_PER_MILLE {
        Answer::Requeue
    } else {
        Answer::Ack
    }
}

/// One consumer on one channel.
struct Channel<'a> {
    shared: &'a Shared,
    connection: Connection,
    consumer: u32,
    queue: &'static str,
    /// Delivered, to be acked together.
    pending: Vec<u64>,
}

impl<'a> Channel<'a> {
    fn new(shared: &'a Shared, connection: Connection, queue: u16, life: u32) -> Self {
        let consumer = shared.next_consumer();
        shared.history.add(&Event::Consumer {
            consumer,
            queue,
            life,
        });
        Self {
            shared,
            connection,
            consumer,
            queue: QUEUES[usize::from(queue)],
            pending: Vec::new(),
        }
    }

    fn drop_out(&self) {
        let consumer = self.consumer;
        self.shared.history.add(&Event::Dropped { consumer });
    }

    fn subscribe(&mut self, prefetch: u16) -> Result<(), ClientError> {
        self.qos(prefetch)?;
        let consume = Args::of(wire::BASIC_CONSUME)
            .u16(0)
            .short(self.queue)
            .short("")
            .u8(0)
            .u32(0);
        self.connection.call(consume, wire::BASIC_CONSUME_OK)?;
        Ok(())
    }

    /// Sets the prefetch count; its answer proves that the broker has all acks before it.
    fn qos(&mut self, prefetch: u16) -> Result<(), ClientError> {
        let qos = Args::of(wire::BASIC_QOS).u32(0).u16(prefetch).u8(0);
        self.connection.call(qos, wire::BASIC_QOS_OK)?;
        self.settled();
        Ok(())
    }

    fn settled(&self) {
        let consumer = self.consumer;
        self.shared.history.add(&Event::Settled { consumer });
    }

    /// Writes a delivery down; gives its tag.
    fn delivered(&self, incoming: &Incoming) -> Result<u64, ClientError> {
        let mut fields = Fields(&incoming.args);
        let parsed = if incoming.id == wire::BASIC_DELIVER {
            fields
                .short()
                .and_then(|_| Ok((fields.u64()?, fields.u8()?)))
        } else {
            fields.u64().and_then(|tag| Ok((tag, fields.u8()?)))
        };
        let (tag, flag) = parsed.map_err(|error| ClientError::Violation(error.to_string()))?;
        let consumer = self.consumer;
        self.shared
            .history
            .add(&match MessageKey::parse(&incoming.properties.message_id) {
                Some(message) => Event::Deliver {
                    consumer,
                    tag,
                    message,
                    redelivered: flag & 1 != 0,
                    body: body::print(&incoming.body),
                },
                None => Event::Foreign { consumer },
            });
        Ok(tag)
    }

    /// Puts an ack of everything pending, up to and with the last.
    fn ack_pending(&mut self) {
        let Some(last) = self.pending.last().copied() else {
            return;
        };
        let consumer = self.consumer;
        for tag in &self.pending {
            let tag = *tag;
            self.shared.history.add(&Event::Acked { consumer, tag });
        }
        let is_multiple = u8::from(self.pending.len() > 1);
        self.connection
            .put(Args::of(wire::BASIC_ACK).u64(last).u8(is_multiple));
        self.pending.clear();
    }

    /// Writes down and puts the answer to a delivery. False for vanishing: there is none.
    fn answer(&mut self, tag: u64, answer: &Answer, ack_every: usize) -> bool {
        let consumer = self.consumer;
        match answer {
            Answer::Ack => {
                self.pending.push(tag);
                if self.pending.len() >= ack_every {
                    self.ack_pending();
                }
            }
            Answer::Reject => {
                self.shared.history.add(&Event::Acked { consumer, tag });
                self.connection
                    .put(Args::of(wire::BASIC_REJECT).u64(tag).u8(0));
            }
            Answer::Requeue => {
                self.shared.history.add(&Event::Requeued { consumer, tag });
                self.connection
                    .put(Args::of(wire::BASIC_NACK).u64(tag).u8(0b10));
            }
            Answer::Vanish => return false,
        }
        true
    }

    fn push_until(
        &mut self,
        stop: &AtomicBool,
        prefetch: u16,
        ack_every: usize,
        random: &mut Random,
    ) -> Result<Leave, ClientError> {
        self.subscribe(prefetch)?;
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            let Some(incoming) = self.next_delivery(Duration::from_millis(30))? else {
                self.ack_pending();
                continue;
            };
            let tag = self.delivered(&incoming)?;
            if !self.answer(tag, &draw_answer(random), ack_every) {
                return Ok(Leave::Vanished);
            }
            count += 1;
            if count % SETTLE_EVERY == 0 {
                self.ack_pending();
                self.qos(prefetch)?;
            }
        }
        self.ack_pending();
        self.qos(prefetch)?;
        Ok(Leave::Stopped)
    }

    /// Takes the backlog, and leaves when nothing more comes.
    fn sweep(&mut self, stop: &AtomicBool, random: &mut Random) -> Result<Leave, ClientError> {
        const PREFETCH: u16 = 400;
        const ACK_EVERY: usize = 50;
        self.subscribe(PREFETCH)?;
        while !stop.load(Ordering::SeqCst) {
            let Some(incoming) = self.next_delivery(Duration::from_millis(50))? else {
                break;
            };
            let tag = self.delivered(&incoming)?;
            if !self.answer(tag, &draw_answer(random), ACK_EVERY) {
                return Ok(Leave::Vanished);
            }
        }
        self.ack_pending();
        self.qos(PREFETCH)?;
        Ok(Leave::Stopped)
    }

    /// The next pushed message; what was put is sent before waiting for one.
    fn next_delivery(&mut self, patience: Duration) -> Result<Option<Incoming>, ClientError> {
        let mut incoming = self.connection.next(Duration::ZERO)?;
        if incoming.is_none() {
            self.connection.flush()?;
            incoming = self.connection.next(patience)?;
        }
        match incoming {
            Some(incoming) => expect_kind(incoming, wire::BASIC_DELIVER).map(Some),
            None => Ok(None),
        }
    }

    fn get_until(&mut self, stop: &AtomicBool, random: &mut Random) -> Result<Leave, ClientError> {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            let got = self.connection.get(self.queue)?;
            // Any answer proves that the broker has the acks before it.
            count += 1;
            if count % SETTLE_EVERY == 0 {
                self.settled();
            }
            let Some(incoming) = got else {
                std::thread::sleep(GET_PAUSE);
                continue;
            };
            let tag = self.delivered(&incoming)?;
            if !self.answer(tag, &draw_answer(random), 1) {
                return Ok(Leave::Vanished);
            }
        }
        self.connection.flush()?;
        Ok(Leave::Stopped)
    }

    /// Messages that the queue reports as ready.
    fn ready_count(&mut self) -> Result<u32, ClientError> {
        let declare = Args::of(wire::QUEUE_DECLARE)
            .u16(0)
            .short(self.queue)
            .u8(1)
            .u32(0);
        let answer = self.connection.call(declare, wire::QUEUE_DECLARE_OK)?;
        let mut fields = Fields(&answer.args);
        let count = fields.short().and_then(|_| fields.u32());
        count.map_err(|error| ClientError::Violation(error.to_string()))
    }
}

fn expect_kind(incoming: Incoming, id: MethodId) -> Result<Incoming, ClientError> {
    if incoming.id == id {
        return Ok(incoming);
    }
    let got = incoming.id;
    Err(ClientError::Violation(format!("{got:?} to a consumer")))
}

/// Takes everything out of a queue and acks it, then asks how much is left on a connection of its own.
pub(crate) fn drain(shared: &Shared, queue: u16) {
    const PREFETCH: u16 = 500;
    const ACK_EVERY: usize = 100;
    /// A queue that counts messages and delivers none for so long keeps them.
    const PATIENCE: Duration = Duration::from_secs(20);
    let who = format!("drain of {}", QUEUES[usize::from(queue)]);
    let never = AtomicBool::new(false);
    let Some((connection, life)) = shared.connect(&never) else {
        return;
    };
    let mut channel = Channel::new(shared, connection, queue, life);
    let drained = (|| {
        channel.subscribe(PREFETCH)?;
        let mut last = Instant::now();
        loop {
            match channel.next_delivery(Duration::from_millis(300))? {
                Some(incoming) => {
                    let tag = channel.delivered(&incoming)?;
                    channel.answer(tag, &Answer::Ack, ACK_EVERY);
                    last = Instant::now();
                }
                None => {
                    channel.ack_pending();
                    if channel.ready_count()? == 0 && last.elapsed() > Duration::from_millis(600)
                        || last.elapsed() > PATIENCE
                    {
                        return channel.qos(PREFETCH);
                    }
                }
            }
        }
    })();
    channel.drop_out();
    if let Err(error) = drained {
        shared.blame(&who, life, &error);
    }
    channel.connection.close();

    // With the connection gone, whatever it had not acked is ready again and counts.
    let Some((connection, life)) = shared.connect(&never) else {
        return;
    };
    let mut channel = Channel::new(shared, connection, queue, life);
    let counted = (|| {
        let begin = Instant::now();
        loop {
            let messages = channel.ready_count()?;
            if messages == 0 || begin.elapsed() > Duration::from_secs(5) {
                return Ok(messages);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    })();
    match counted {
        Ok(messages) => shared.history.add(&Event::Remaining { queue, messages }),
        Err(error) => shared.blame(&who, life, &error),
    }
    channel.connection.close();
}
