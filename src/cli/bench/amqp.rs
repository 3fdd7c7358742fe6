//! `warren bench amqp`: loads a broker with messages, measures it, and checks that each arrives once and in order.
//!
//! Owns: the flags, and what of them goes together. Producers and consumers have a connection each and write
//! and read frames in batches with the crate's codec, so that the generator costs little beside the broker.
//! Bounds: [`CONNECTIONS_MAX`], [`QUEUES_MAX`]; a bit for each message that a consumer saw.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};

use self::check::STAMP_BYTES;
use self::plan::Plan;
use crate::cli::broker::BrokerArgs;
use crate::cli::{EXIT_FAILED, EXIT_OK};
use crate::config;

mod check;
mod consumer;
mod encode;
mod plan;
mod producer;
mod report;
mod run;
mod shared;

/// Most producers, and most consumers; each producer has a thread of tokio's pool, which has 512.
const CONNECTIONS_MAX: u64 = 500;
/// Most idle connections beside them.
const IDLE_MAX: u64 = 60_000;
/// Most queues.
const QUEUES_MAX: u64 = 200_000;
/// Most bindings of all queues together.
const BINDINGS_MAX: usize = 2_000_000;
/// Largest body, in bytes.
const BODY_BYTES_MAX: u64 = 1 << 40;
/// Messages that are published and not consumed unless asked otherwise, if they are small.
const WINDOW_DEFAULT: u64 = 20_000;
/// Bytes of them, if they are large.
const WINDOW_BYTES_DEFAULT: u64 = 64 << 20;
/// Prefetch where acknowledgements are sent and nothing else was asked for.
const PREFETCH_DEFAULT: u16 = 1_000;

/// Load a broker with messages, measure it, and check that each arrives once and in order.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  warren bench amqp --seconds 10 --size 1KiB --pid $(pidof warren)\n  \
    warren bench amqp --rate 5000 --seconds 30 --json\n  \
    warren bench amqp --durable --persistent --confirm 1000 --consumers 0\n  \
    warren bench amqp --exchange fanout --queues 60 --consumers 60\n  \
    warren bench amqp --broker amqp://user:secret@rabbit:5672/%2F --ack each --prefetch 100\n\n\
    Exit codes: 0 all messages arrived once and in order; 1 they did not, or the broker failed; 2 wrong usage."
)]
pub(super) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Connections that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    producers: u64,
    /// Connections that consume; 0 only publishes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=CONNECTIONS_MAX))]
    consumers: u64,
    /// Queues; each producer publishes to its share, each consumer consumes its share
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=QUEUES_MAX))]
    queues: u64,
    /// Exchange that is published to
    #[arg(long, value_enum, default_value = "default")]
    exchange: plan::ExchangeKind,
    /// Bindings of each queue, for direct and topic; the messages use them in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    bindings: u64,
    /// Body of a message, at least 16 bytes
    #[arg(long, default_value = "1KiB", value_name = "SIZE", value_parser = config::parse_size)]
    size: u64,
    /// Queues and exchange survive a restart
    #[arg(long)]
    durable: bool,
    /// Messages survive a restart (delivery mode 2); with --durable
    #[arg(long)]
    persistent: bool,
    /// Messages of a producer that may wait for their confirms; 0 asks for none
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    confirm: u64,
    /// How deliveries are acknowledged
    #[arg(long, value_enum, default_value = "auto")]
    ack: consumer::AckMode,
    /// Deliveries to one acknowledgement, with --ack multiple
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_535))]
    ack_every: u64,
    /// Deliveries that may wait for their acknowledgement; 0 is no bound [default: 1000, or 0 with --ack auto]
    #[arg(long, value_name = "N")]
    prefetch: Option<u16>,
    /// Messages a second of all producers; latency then counts from when each was to leave [default: as fast as can be]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Messages that may be published and not consumed; 0 is no bound [default: 20000 or 64 MiB; 0 with --rate]
    #[arg(long, value_name = "N")]
    window: Option<u64>,
    /// How long to measure, in seconds [default: 10]
    #[arg(long, value_name = "S", conflicts_with = "count", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Publish so many messages instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long to run before measuring
    #[arg(long, default_value = "1s", value_name = "D", conflicts_with = "count", value_parser = config::parse_duration)]
    warmup: Duration,
    /// Messages that are queued before consumers start, and stay so many while it is measured
    #[arg(long, default_value_t = 0, value_name = "N")]
    backlog: u64,
    /// Connections beside them that do nothing
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=IDLE_MAX))]
    idle_connections: u64,
    /// Give up when nothing arrives any more for so long
    #[arg(long, default_value = "20s", value_name = "D", value_parser = config::parse_duration)]
    drain: Duration,
    /// Process of a broker on this machine, to report its CPU time and memory
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// First part of the names of queues and exchange [default: one of this run's own]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Leave queues and exchange, with what is in them
    #[arg(long)]
    keep: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs it and prints what was measured.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let is_json = args.json;
    let settings = args.settings()?;
    let report = run::run(settings).await?;
    if is_json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    match report.faults.sentence() {
        None => Ok(ExitCode::from(EXIT_OK)),
        Some(sentence) => {
            eprintln!("warren: {sentence}");
            Ok(ExitCode::from(EXIT_FAILED))
        }
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
enum Extent {
    /// When each producer has published its share of so many messages, and all have arrived.
    Count(u64),
    /// After a time that is measured, behind one that is not.
    Time {
        warmup: Duration,
        measured: Duration,
    },
}

/// What is to be done, checked.
struct Settings {
    broker: crate::client::AmqpUri,
    plan: Plan,
    body_bytes: u64,
    is_durable: bool,
    is_persistent: bool,
    /// Unconfirmed messages of a producer; 0 is without confirms.
    confirm_window: u64,
    ack: consumer::Ack,
    prefetch: u16,
    /// Messages a second of all producers.
    rate: Option<u64>,
    /// Messages that may be published and not consumed, beside the backlog.
    window: Option<u64>,
    extent: Extent,
    backlog: u64,
    idle_connections: u64,
    drain: Duration,
    pid: Option<u32>,
    is_kept: bool,
}

impl Args {
    /// Refuses what cannot go together.
    fn settings(self) -> anyhow::Result<Settings> {
        ensure!(
            (STAMP_BYTES as u64..=BODY_BYTES_MAX).contains(&self.size),
            "--size {}: a body has {STAMP_BYTES} bytes (sender, number and time) to 1 TiB",
            self.size
        );
        let plan = Plan {
            name: self
                .name
                .unwrap_or_else(|| format!("warren.bench.{}", std::process::id())),
            exchange: self.exchange,
            producers: usize::try_from(self.producers)?,
            consumers: usize::try_from(self.consumers)?,
            queues: usize::try_from(self.queues)?,
            bindings: usize::try_from(self.bindings)?,
        };
        ensure!(
            plan.name.len() <= NAME_BYTES_MAX,
            "--name: at most {NAME_BYTES_MAX} bytes"
        );
        ensure!(
            plan.queues.saturating_mul(plan.bindings) <= BINDINGS_MAX,
            "--queues times --bindings: at most {BINDINGS_MAX} bindings"
        );
        if plan.bindings > 1 && !plan.exchange.has_keys() {
            bail!("--bindings needs --exchange direct or topic");
        }
        let prefetch = self.prefetch.unwrap_or(match self.ack {
            consumer::AckMode::Auto => 0,
            consumer::AckMode::Each | consumer::AckMode::Multiple => PREFETCH_DEFAULT,
        });
        let ack = match self.ack {
            consumer::AckMode::Auto => consumer::Ack::Auto,
            consumer::AckMode::Each => consumer::Ack::Each,
            consumer::AckMode::Multiple => consumer::Ack::Multiple {
                every: self.ack_every,
            },
        };
        if let consumer::Ack::Multiple { every } = ack
            && prefetch != 0
            && every > u64::from(prefetch)
        {
            bail!(
                "--ack-every {every}: the broker stops after --prefetch {prefetch} deliveries; acknowledge sooner"
            );
        }
        let window = match (self.window, self.rate) {
            _ if plan.consumers == 0 => None,
            (Some(0), _) | (None, Some(_)) => None,
            (Some(window), _) => Some(window),
            (None, None) => Some((WINDOW_BYTES_DEFAULT / self.size).clamp(2, WINDOW_DEFAULT)),
        };
        Ok(Settings {
            broker: self.broker.uri(),
            plan,
            body_bytes: self.size,
            is_durable: self.durable,
            is_persistent: self.persistent,
            confirm_window: self.confirm,
            ack,
            prefetch,
            rate: self.rate,
            window,
            extent: match self.count {
                Some(count) => Extent::Count(count),
                None => Extent::Time {
                    warmup: self.warmup,
                    measured: Duration::from_secs(self.seconds.unwrap_or(10)),
                },
            },
            backlog: self.backlog,
            idle_connections: self.idle_connections,
            drain: self.drain,
            pid: self.pid,
            is_kept: self.keep,
        })
    }
}

/// Longest `--name`, in bytes: what is put behind it must fit into a short string too.
const NAME_BYTES_MAX: usize = 128;
