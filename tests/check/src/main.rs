//! `warren-check`: kills an AMQP 0-9-1 broker again and again and proves that it loses nothing.
//!
//! `run` drives any broker that a command starts and SIGKILL ends: publishers with confirms, consumers
//! with acks, and a worker that changes the topology, while the process is killed and started again.
//! Everything goes into a history file; `judge` reads such a file and says what the broker did wrong.
//! It shares no code with the broker that it was written for. Exit status: 0 nothing found, 1 something
//! found, 2 no verdict.

mod body;
mod broker;
mod client;
mod consumer;
mod history;
mod judge;
mod publisher;
mod random;
mod run;
mod shared;
mod topology;
mod wire;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser as _;

use crate::broker::Broker;
use crate::judge::{Finding, Verdict};
use crate::publisher::Sizes;
use crate::run::Plan;

/// Kills an AMQP 0-9-1 broker again and again and proves that it loses nothing confirmed.
#[derive(clap::Parser)]
#[command(version)]
enum Command {
    /// Drive a broker, then judge what happened
    Run(Box<RunArgs>),
    /// Judge a history that a run has left
    Judge {
        /// History file
        history: PathBuf,
        /// Print the summary as one JSON object as well
        #[arg(long)]
        json: bool,
    },
}

/// Bodies from nothing to above 1 MiB, about 9 KB in the middle.
const SIZES: &str = "0:5,12:200,100:300,1000:290,5000:150,70000:42,300000:10,1300000:3";

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren-check run 127.0.0.1:5720 --cycles 25 \\\n    \
    --start 'exec warren serve --data-dir /tmp/d --listen 127.0.0.1:5720'"
)]
struct RunArgs {
    /// Where the broker serves AMQP; guest may log in from loopback
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// Shell command that starts the broker in the foreground
    #[arg(long, value_name = "CMD")]
    start: String,
    /// Shell command for every later start [default: the same]
    #[arg(long, value_name = "CMD")]
    restart: Option<String>,
    /// File that the broker writes its pid to, if the command's process is not the broker itself
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Decides kill times, sizes, routes and what consumers do [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// How often the broker is killed; 0 for a run without kills, which --messages or --seconds ends
    #[arg(long, default_value_t = 25)]
    cycles: u32,
    /// Go on after the cycles until so many messages are confirmed
    #[arg(long, default_value_t = 0)]
    messages: u64,
    /// Stop killing after so many seconds, whatever is not reached
    #[arg(long, default_value_t = 86_400)]
    seconds: u64,
    /// Publishing connections
    #[arg(long, default_value_t = 6)]
    publishers: u16,
    /// Messages a second of all publishers together; each begins with a burst as large as its window
    #[arg(long, default_value_t = 1_500.0)]
    rate: f64,
    /// Body sizes in bytes with their weights
    #[arg(long, default_value = SIZES, value_parser = Sizes::parse)]
    sizes: Sizes,
    /// How long a start may take, in seconds
    #[arg(long, default_value_t = 90)]
    start_seconds: u64,
    /// Of 100 ends that do not fall into a start, so many by SIGTERM, after which nothing may come back
    #[arg(long, default_value_t = 0)]
    clean_percent: u64,
    /// Where the history goes
    #[arg(long, default_value = "warren-check.history")]
    history: PathBuf,
    /// Where the broker's output goes
    #[arg(long, default_value = "warren-check.broker.log")]
    broker_log: PathBuf,
    /// Print the summary as one JSON object as well
    #[arg(long)]
    json: bool,
    /// Of the publishers, let one in three commit transactions, and hold the broker to all or nothing
    #[arg(long)]
    transactions: bool,
    /// Publish transient messages and hold the broker to persistent ones: must be found lost
    #[arg(long)]
    sabotage_publish_transient: bool,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Judge { history, json } => {
            run::judge(&history).map(|verdict| (verdict, None, json))
        }
        Command::Run(args) => {
            let json = args.json;
            run_and_judge(*args).map(|(verdict, seed)| (verdict, Some(seed), json))
        }
    };
    match outcome {
        Ok((verdict, seed, json)) => {
            print!("{verdict}");
            if json {
                println!("{}", summary(&verdict, seed));
            }
            if verdict.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            }
        }
        Err(error) => {
            eprintln!("warren-check: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_and_judge(args: RunArgs) -> io::Result<(Verdict, u64)> {
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    println!(
        "seed {seed}; replay with --seed {seed}, judge again with: judge {}",
        args.history.display()
    );
    let plan = Plan {
        seed,
        cycles: args.cycles,
        messages: args.messages,
        time_max: Duration::from_secs(args.seconds),
        publishers: args.publishers.max(1),
        rate: args.rate.max(1.0),
        sizes: args.sizes,
        start_max: Duration::from_secs(args.start_seconds),
        clean_percent: args.clean_percent.min(100),
        transactions: args.transactions,
        publish_transient: args.sabotage_publish_transient,
    };
    let mut broker = Broker {
        address: resolve(&args.address)?,
        restart: args.restart.unwrap_or_else(|| args.start.clone()),
        start: args.start,
        pid_file: args.pid_file,
        log: args.broker_log,
        child: None,
    };
    let ran = run::run(&plan, &mut broker, &args.history);
    drop(broker);
    if let Err(error) = ran {
        // What was written so far may still tell why.
        if let Ok(verdict) = run::judge(&args.history) {
            eprint!("{verdict}");
        }
        return Err(error);
    }
    Ok((run::judge(&args.history)?, seed))
}

fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000_007)
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let none = || io::Error::other(format!("'{address}' is no HOST:PORT"));
    address.to_socket_addrs()?.next().ok_or_else(none)
}

/// Counts and findings as one object; every kind of finding is in it, with 0 where there is none.
fn summary(verdict: &Verdict, seed: Option<u64>) -> serde_json::Value {
    let counts = &verdict.counts;
    let mut summary = serde_json::json!({
        "good": verdict.is_good(),
        "seed": seed,
        "kills": counts.kills,
        "kills_starting": counts.kills_starting,
        "messages": counts.messages,
        "attempts": counts.attempts,
        "confirmed": counts.confirmed,
        "confirmed_large": counts.confirmed_large,
        "nacked": counts.nacked,
        "unknown": counts.unknown,
        "deliveries": counts.deliveries,
        "redeliveries": counts.redeliveries,
        "after_ack": counts.after_ack,
        "topology_checked": counts.topology_checked,
        "transactions": counts.transactions,
        "transactions_unknown": counts.transactions_unknown,
    });
    for finding in Finding::ALL {
        summary[finding.name()] = verdict.found.get(&finding).copied().unwrap_or(0).into();
    }
    summary
}
