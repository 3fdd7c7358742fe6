//! `warren status`: nodes on and off line, and how each file fares on each of them.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::EXIT_OK;
use super::broker::BrokerArgs;
use crate::config::{self, PeerTls, TrafficSettings};
use crate::node::distributor::DistributorSettings;
use crate::node::message::FileState;
use crate::node::status::{NodeStatus, Status, status};
use crate::payload::Hints;

/// Show the nodes of a broker, on line or not, and their files.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren status --broker amqp://localhost\n  warren status --broker amqp://localhost --json\n\n\
    Exit codes: 0 shown; 1 the broker cannot be reached."
)]
pub(crate) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Longest wait for nodes to answer
    #[arg(long, default_value = "2s", value_name = "D", value_parser = config::parse_duration)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = DistributorSettings {
        broker: args.broker.uri(),
        payload_threshold_bytes: u64::MAX,
        peer_listen: None,
        traffic: TrafficSettings::default(),
        hints: Hints::default(),
        peer_tls: PeerTls::default(),
        data_dir: std::env::temp_dir(),
        reply_queue: None,
    };
    let found = status(settings, args.timeout).await?;
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print_status(&found);
    }
    Ok(ExitCode::from(EXIT_OK))
}

fn print_status(status: &Status) {
    if status.nodes.is_empty() {
        println!("No node has ever joined; start one with: warren node --group KEY");
    }
    for node in &status.nodes {
        let groups: Vec<_> = node.groups.iter().map(|group| group.as_str()).collect();
        println!(
            "{:<24} {:<28} groups {}",
            node.name,
            presence(node),
            groups.join(", ")
        );
        for file in &node.files {
            let more = match (file.state, &file.reason) {
                (FileState::Failed, Some(reason)) => format!(": {reason}"),
                (FileState::Fetching, _) => format!(" {}/{}", file.pieces_done, file.piece_count),
                _ => String::new(),
            };
            println!("    {:<10} {:?}{more}", file.state.as_str(), file.name);
        }
    }
}

fn presence(node: &NodeStatus) -> String {
    if node.online {
        return "on line".to_owned();
    }
    let waiting = node.waiting.unwrap_or(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let ago = node
        .seen_unix_ms
        .map(|seen| now.saturating_sub(Duration::from_millis(seen)).as_secs());
    let ago = ago.map_or_else(|| "long".to_owned(), |seconds| format!("{seconds} s"));
    format!("off line, seen {ago} ago, {waiting} waiting")
}
