//! A run: starts the broker and the workers, kills and restarts, drains, and lets the judge read.
//!
//! Owns: the kill schedule, which the seed alone decides; how far the broker's work has come when a
//! kill meets it is the machine's doing.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::Connection;
use crate::consumer::{self, CONSUMERS, ConsumerPlan};
use crate::history::{self, Event, History, LifeEnd};
use crate::judge::{Judge, Verdict};
use crate::publisher::{self, PublisherPlan, Sizes};
use crate::random::Random;
use crate::shared::{QUEUES, Shared};
use crate::topology;

/// Kill times after the broker serves, in milliseconds, spread evenly over their logarithms.
const KILL_AFTER_MS: (f64, f64) = (20.0, 2_000.0);
/// Of 100 kills, so many come while the broker starts.
const KILL_STARTING_PERCENT: u64 = 10;
/// Confirm windows of the publishers, in turn.
const WINDOWS: [usize; 4] = [1, 10, 100, 1_000];
/// With transactions, one publisher of so many commits instead of asking for confirms.
const TRANSACTIONAL_EACH: u16 = 3;
/// The run is given up when so many protocol breaks were seen: the broker is not one to be measured.
const BROKEN_MAX: u64 = 1_000;

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) cycles: u32,
    /// Go on after the cycles until so many messages are confirmed.
    pub(crate) messages: u64,
    /// Stop killing after so long.
    pub(crate) time_max: Duration,
    pub(crate) publishers: u16,
    /// Messages a second of all publishers together, on the long run.
    pub(crate) rate: f64,
    pub(crate) sizes: Sizes,
    pub(crate) start_max: Duration,
    /// Of 100 ends that are no kill while starting, so many are a SIGTERM.
    pub(crate) clean_percent: u64,
    pub(crate) publish_transient: bool,
    pub(crate) transactions: bool,
}

/// Judges a history file.
pub(crate) fn judge(path: &Path) -> io::Result<Verdict> {
    let mut judge = Judge::default();
    history::read(path, |event| judge.take(event))?;
    Ok(judge.finish())
}

/// Drives the broker as planned and writes the history. An error means that there is nothing to judge.
pub(crate) fn run(plan: &Plan, broker: &mut Broker, history: &Path) -> io::Result<()> {
    let shared = Shared::new(broker.address, plan.seed, History::create(history)?);
    shared.history.add(&Event::Note(format!("{plan:?}")));
    shared
        .history
        .add(&Event::Note(format!("start: {}", broker.start)));
    let mut lives = Lives {
        shared: &shared,
        broker,
        life: 0,
        start_max: plan.start_max,
        start_time: plan.start_max,
    };
    lives.start()?;
    lives.wait_until_ready()?;
    let mut connection = Connection::open(shared.address).map_err(cannot("connect"))?;
    topology::prepare(&shared, &mut connection).map_err(cannot("declare the queues"))?;
    connection.close();

    thread::scope(|scope| {
        let shared = &shared;
        let mut publishing = Vec::new();
        for number in 0..plan.publishers {
            let publisher = PublisherPlan {
                number,
                window: WINDOWS[usize::from(number) % WINDOWS.len()],
                rate: plan.rate / f64::from(plan.publishers),
                sizes: plan.sizes.clone(),
                is_transactional: plan.transactions
                    && number % TRANSACTIONAL_EACH == TRANSACTIONAL_EACH - 1,
                is_transient: plan.publish_transient,
            };
            publishing.push(scope.spawn(move || publisher::run(shared, publisher)));
        }
        publishing.push(scope.spawn(|| topology::run(shared)));
        for (number, (queue, style)) in CONSUMERS.into_iter().enumerate() {
            let consumer = ConsumerPlan {
                number: number as u16,
                queue,
                style,
            };
            scope.spawn(move || consumer::run(shared, consumer));
        }
        let outcome = lives.end_and_start_again(plan);
        // The consumers go on until the last confirm: they make the room that a publisher may wait for.
        shared.stop_publishing.store(true, Ordering::SeqCst);
        let panicked = publishing
            .into_iter()
            .filter_map(|worker| worker.join().err())
            .count();
        shared.stop_consuming.store(true, Ordering::SeqCst);
        match panicked {
            0 => outcome,
            _ => Err(io::Error::other("a worker of the checker panicked")),
        }
    })?;

    topology::probe_last(&shared);
    thread::scope(|scope| {
        for queue in 0..QUEUES.len() as u16 {
            let shared = &shared;
            scope.spawn(move || consumer::drain(shared, queue));
        }
    });
    if !lives.broker.is_alive() {
        shared.broken("the broker's process ended by itself during the drain");
    }
    shared.history.add(&Event::Drained);
    shared.announce_end();
    if !lives.broker.stop()? {
        eprintln!("the broker did not end on SIGTERM and was killed");
    }
    shared.history.flush()
}

fn cannot(what: &'static str) -> impl Fn(crate::client::ClientError) -> io::Error {
    move |error| io::Error::other(format!("cannot {what}: {error:?}"))
}

/// The broker's lives one after the other.
struct Lives<'a> {
    shared: &'a Shared,
    broker: &'a mut Broker,
    life: u32,
    start_max: Duration,
    /// How long the last complete start took.
    start_time: Duration,
}

impl Lives<'_> {
    fn start(&mut self) -> io::Result<()> {
        self.life += 1;
        self.shared.begin_life(self.life);
        self.broker.start(self.life == 1)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        if self.broker.wait_until_ready(self.start_max) {
            self.start_time = begin.elapsed();
            return Ok(());
        }
        let text = format!(
            "the broker did not serve {:?} after start {}; its output is in {}",
            self.start_max,
            self.life,
            self.broker.log.display()
        );
        self.shared.broken(&text);
        Err(io::Error::other(text))
    }

    fn end(&mut self, how: LifeEnd) -> io::Result<()> {
        if !self.broker.is_alive() {
            let text = format!("the broker's process ended by itself in life {}", self.life);
            self.shared.broken(&text);
        }
        let life = self.life;
        self.shared.history.add(&Event::End { life, how });
        self.shared.announce_end();
        match how {
            LifeEnd::Clean => {
                if !self.broker.stop()? {
                    self.shared.broken("the broker did not end on SIGTERM");
                }
            }
            LifeEnd::Killed | LifeEnd::KilledStarting => self.broker.kill()?,
        }
        self.shared.end_life();
        Ok(())
    }

    /// The whole schedule. Ends with a broker that serves.
    fn end_and_start_again(&mut self, plan: &Plan) -> io::Result<()> {
        let mut random = Random::of(plan.seed, "kills");
        let begin = Instant::now();
        let mut ends = 0;
        let mut serves = true;
        loop {
            let confirmed = self.shared.confirmed.load(Ordering::Relaxed);
            let is_enough = ends >= plan.cycles && confirmed >= plan.messages;
            let is_late = begin.elapsed() > plan.time_max;
            if is_enough || is_late || self.shared.broken.load(Ordering::Relaxed) > BROKEN_MAX {
                break;
            }
            if plan.cycles == 0 {
                // Nothing is killed: what is found then has nothing to do with crashes.
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            // Every draw is made on each turn, so that the schedule is the seed's alone.
            let is_starting = random.percent(KILL_STARTING_PERCENT) && ends > 0;
            let serving_ms = random.log_uniform(KILL_AFTER_MS.0, KILL_AFTER_MS.1);
            let starting_part = random.log_uniform(0.01, 1.0);
            let is_clean = random.percent(plan.clean_percent);
            let how = if is_starting {
                thread::sleep(self.start_time.mul_f64(starting_part));
                LifeEnd::KilledStarting
            } else {
                if !serves {
                    self.wait_until_ready()?;
                }
                thread::sleep(Duration::from_secs_f64(serving_ms / 1_000.0));
                if is_clean {
                    LifeEnd::Clean
                } else {
                    LifeEnd::Killed
                }
            };
            self.end(how)?;
            self.start()?;
            serves = false;
            ends += 1;
            if ends % 10 == 0 || ends == plan.cycles {
                let seconds = begin.elapsed().as_secs();
                let start_ms = self.start_time.as_millis();
                eprintln!(
                    "{ends} ends in {seconds} s, {confirmed} confirmed, last start {start_ms} ms"
                );
            }
        }
        if serves {
            Ok(())
        } else {
            self.wait_until_ready()
        }
    }
}
