//! `warren send`: files to a group of nodes.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::broker::BrokerArgs;
use super::progress::Bars;
use super::{EXIT_INCOMPLETE, EXIT_OK};
use crate::config::{self, PeerTls, TrafficSettings};
use crate::node::board::Board;
use crate::node::distributor::DistributorSettings;
use crate::node::message::{FileState, Group};
use crate::node::send::{FileReport, SendReport, SendSettings, send};
use crate::payload::{Hints, Priority};

/// Send files to a group of nodes.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren send update.img --broker amqp://localhost --group sites --wait --timeout 10m\n\n\
    Small files travel as messages. Large ones go through the swarm, and this command serves them until every node on \
    line has them, or for --seed-for.\n\nExit codes: 0 sent, and with --wait all (or at least --nodes) hold verified \
    copies; 1 not sent; 3 with --wait: not enough nodes hold copies."
)]
pub(crate) struct Args {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// The group of nodes
    #[arg(long, value_name = "KEY")]
    group: Group,
    /// Wait until the nodes hold verified copies
    #[arg(long)]
    wait: bool,
    /// With --wait: so many nodes suffice [default: all of the group that are on line]
    #[arg(long, value_name = "N", requires = "wait")]
    nodes: Option<usize>,
    /// Longest wait for nodes, as in 90s, 10m or 2h [default: none]
    #[arg(long, value_name = "D", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
    /// Serve large files for so long, also to nodes that come later
    #[arg(long, value_name = "D", value_parser = config::parse_duration)]
    seed_for: Option<Duration>,
    /// Write the manifests of large files into this folder, for `warren fetch`
    #[arg(long, value_name = "DIR")]
    save_manifests: Option<PathBuf>,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
    /// Files of at least this size go through the swarm
    #[arg(long, env = "WARREN_PAYLOAD_THRESHOLD", default_value = "1MiB", value_name = "SIZE", value_parser = config::parse_size)]
    payload_threshold: u64,
    /// Address on which nodes fetch pieces
    #[arg(
        long,
        env = "WARREN_PEER_LISTEN",
        default_value = "0.0.0.0:0",
        value_name = "ADDR"
    )]
    peer_listen: SocketAddr,
    /// Listen on nothing: bring large files to nodes over connections that this command opens
    #[arg(long, env = "WARREN_OUTBOUND_ONLY")]
    outbound_only: bool,
    /// Most bytes of pieces sent per second, as in 2MiB/s [default: no limit]
    #[arg(long, env = "WARREN_SWARM_UP_RATE", value_name = "RATE", value_parser = config::parse_rate)]
    up_rate: Option<NonZeroU64>,
    /// Share of busy uplinks, 1 to 100, on every node that passes the files on
    #[arg(long, default_value = "10", value_name = "N")]
    priority: Priority,
    /// A URL under which the file can be had with ranges, for nodes that allow its host; may be repeated, for one file
    #[arg(long, value_name = "URL")]
    web_seed: Vec<String>,
    /// Encrypt connections to peers: off, prefer or require
    #[arg(
        long,
        env = "WARREN_PEER_TLS",
        default_value_t = PeerTls::default(),
        value_name = "MODE"
    )]
    peer_tls: PeerTls,
}

/// A folder of this process's own, removed on drop.
struct OwnFolder(PathBuf);

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // It exists only if a large file was sent.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends the files.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.web_seed.is_empty() && args.files.len() > 1 {
        anyhow::bail!("--web-seed names one file's address: send the files one by one");
    }
    let folder = OwnFolder(own_folder()?);
    let traffic = TrafficSettings {
        up_bytes_per_second: args.up_rate,
        ..TrafficSettings::default()
    };
    let hints = Hints {
        priority: args.priority,
        web_seeds: args.web_seed,
    };
    let settings = SendSettings {
        distributor: DistributorSettings {
            broker: args.broker.uri(),
            payload_threshold_bytes: args.payload_threshold.max(1),
            peer_listen: (!args.outbound_only).then_some(args.peer_listen),
            traffic,
            hints,
            peer_tls: args.peer_tls,
            data_dir: folder.0.clone(),
            reply_queue: None,
        },
        group: args.group,
        wait: args.wait,
        node_count: args.nodes,
        timeout: args.timeout,
        seed_for: args.seed_for,
        manifest_folder: args.save_manifests,
    };
    let mut bars = Bars::on_terminal();
    let report = send(settings, &args.files, |board: &Board| bars.show(board)).await?;
    bars.clear();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report, args.wait);
    }
    warn_of_nobody(&report, args.seed_for);
    let exit = if args.wait && !report.complete {
        EXIT_INCOMPLETE
    } else {
        EXIT_OK
    };
    if exit == EXIT_INCOMPLETE && !args.json {
        eprintln!("warren: not enough nodes hold copies; see them with: warren status");
    }
    Ok(ExitCode::from(exit))
}

/// A large file that nobody has begun to fetch is of no use once its origin has ended.
fn warn_of_nobody(report: &SendReport, seed_for: Option<Duration>) {
    let is_lost = |file: &&FileReport| file.payload_id.is_some() && file.nodes.is_empty();
    for file in report.files.iter().filter(is_lost) {
        let more = if seed_for.is_some() { "longer " } else { "" };
        eprintln!(
            "warren: no node of the group is on line, so nobody has {}; serve it {more}with --seed-for",
            file.name
        );
    }
}

/// A name that no other process has; the folder is made when it is needed.
fn own_folder() -> anyhow::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let number = u64::from_le_bytes(random);
    Ok(std::env::temp_dir().join(format!("warren-send-{}-{number:016x}", std::process::id())))
}

fn print_report(report: &SendReport, waited: bool) {
    for file in &report.files {
        let way = if file.payload_id.is_some() {
            "through the swarm"
        } else {
            "as a message"
        };
        println!("{}: {} bytes sent {way}", file.name, file.size_bytes);
        if !waited && file.payload_id.is_none() {
            continue;
        }
        for node in &file.nodes {
            let reason = node
                .reason
                .as_ref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            println!("  {:<24} {}{reason}", node.name, node.state.as_str());
        }
        let done = file
            .nodes
            .iter()
            .filter(|node| node.state == FileState::Complete)
            .count();
        println!(
            "  {done} of {} nodes hold verified copies after {:.2} s",
            file.nodes.len(),
            file.seconds
        );
    }
}
