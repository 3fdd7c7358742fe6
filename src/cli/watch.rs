//! `warren watch`: a folder whose files go to a group of nodes as they come.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::EXIT_OK;
use super::broker::BrokerArgs;
use super::serve::StopSignals;
use super::traffic::TrafficArgs;
use crate::amqp::field::ShortString;
use crate::config::{self, PeerTls};
use crate::node::distributor::DistributorSettings;
use crate::node::message::{FileState, Group};
use crate::node::watch::{Event, WatchSettings, watch};
use crate::payload::{Hints, Priority};

/// Watch a folder and send every file that appears in it to a group of nodes.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren watch ./outbox --broker amqp://localhost --group sites --interval 5s\n\n\
    A file is sent once it has stood still for one interval. Hidden files and sub-folders are left alone. What was sent, \
    and what became of it on each node, is kept in --data-dir over restarts.\n\nExit codes: 0 stopped; 1 the folder or \
    the broker cannot be used."
)]
pub(crate) struct Args {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
    /// The group of nodes
    #[arg(long, value_name = "KEY")]
    group: Group,
    /// Time between two looks at the folder
    #[arg(long, default_value = "5s", value_name = "D", value_parser = config::parse_duration)]
    interval: Duration,
    /// Files of at least this size go through the swarm
    #[arg(long, env = "WARREN_PAYLOAD_THRESHOLD", default_value = "1MiB", value_name = "SIZE", value_parser = config::parse_size)]
    payload_threshold: u64,
    /// Folder of the watch's own state [default: DIR/.warren]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address on which nodes fetch pieces
    #[arg(
        long,
        env = "WARREN_PEER_LISTEN",
        default_value = "0.0.0.0:0",
        value_name = "ADDR"
    )]
    peer_listen: SocketAddr,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Share of busy uplinks, 1 to 100, on every node that passes the files on
    #[arg(long, default_value = "10", value_name = "N")]
    priority: Priority,
    /// Encrypt connections to peers: off, prefer or require
    #[arg(
        long,
        env = "WARREN_PEER_TLS",
        default_value_t = PeerTls::default(),
        value_name = "MODE"
    )]
    peer_tls: PeerTls,
    /// Print one JSON object for each thing that happens
    #[arg(long)]
    json: bool,
}

/// What happened, as an object; nothing for what is only on its way.
fn to_json(event: &Event) -> Option<serde_json::Value> {
    Some(match event {
        Event::Sent {
            name,
            size_bytes,
            is_payload,
        } => json!({ "event": "sent", "name": name, "size": size_bytes, "is_payload": is_payload }),
        Event::NotSent { name, reason } => {
            json!({ "event": "not_sent", "name": name, "reason": reason })
        }
        Event::Receipt(receipt) => {
            let event = match receipt.state {
                FileState::Complete => "complete",
                FileState::Failed => "failed",
                FileState::Announced | FileState::Accepted | FileState::Fetching => return None,
            };
            json!({ "event": event, "name": receipt.name, "node": receipt.node, "reason": receipt.reason })
        }
    })
}

/// Tells a person what happened.
fn print(event: &Event) {
    match event {
        Event::Sent {
            name,
            size_bytes,
            is_payload,
        } => {
            let way = if *is_payload {
                "through the swarm"
            } else {
                "as a message"
            };
            println!("sent {name:?}, {size_bytes} bytes, {way}");
        }
        Event::NotSent { name, reason } => eprintln!("warren: {name:?} is not sent: {reason}"),
        Event::Receipt(receipt) => match receipt.state {
            FileState::Complete => println!("complete {:?} on {}", receipt.name, receipt.node),
            FileState::Failed => {
                let reason = receipt.reason.as_deref().unwrap_or("no reason given");
                println!("failed {:?} on {}: {reason}", receipt.name, receipt.node);
            }
            FileState::Announced | FileState::Accepted | FileState::Fetching => {}
        },
    }
}

/// Watches until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let data_dir = args.data_dir.unwrap_or_else(|| args.folder.join(".warren"));
    if !args.folder.is_dir() {
        anyhow::bail!(
            "{} is no folder; create it, or name another",
            args.folder.display()
        );
    }
    let hints = Hints {
        priority: args.priority,
        web_seeds: Vec::new(),
    };
    let settings = WatchSettings {
        distributor: DistributorSettings {
            broker: args.broker.uri(),
            payload_threshold_bytes: args.payload_threshold.max(1),
            peer_listen: Some(args.peer_listen),
            traffic: args.traffic.read()?,
            hints,
            peer_tls: args.peer_tls,
            reply_queue: Some(reply_queue(&data_dir)?),
            data_dir,
        },
        folder: args.folder,
        group: args.group,
        interval: args.interval.max(Duration::from_millis(100)),
    };
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let watching = watch(&settings, stop, |event| match to_json(event) {
        Some(object) if args.json => println!("{object}"),
        _ => print(event),
    });
    tokio::pin!(watching);
    let signals = StopSignals::listen()?;
    match args.json {
        true => println!(
            "{}",
            json!({ "event": "watching", "folder": settings.folder })
        ),
        false => println!("Watching {}", settings.folder.display()),
    }
    tokio::select! {
        ended = &mut watching => ended?,
        signal = signals.received() => {
            tracing::info!(signal, "stopping");
            stopping.cancel();
            watching.await?;
        }
    }
    Ok(ExitCode::from(EXIT_OK))
}

/// A durable queue of this watch's own: named by its state folder, which only it has.
fn reply_queue(data_dir: &std::path::Path) -> anyhow::Result<ShortString> {
    std::fs::create_dir_all(data_dir)?;
    let path = data_dir.join("id");
    let id = match std::fs::read_to_string(&path) {
        Ok(id) if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => id,
        Ok(_) | Err(_) => {
            let mut random = [0; 16];
            getrandom::fill(&mut random)?;
            let id = format!("{:032x}", u128::from_le_bytes(random));
            std::fs::write(&path, &id)?;
            id
        }
    };
    Ok(ShortString::truncated(format!("warren.watch.{id}")))
}
