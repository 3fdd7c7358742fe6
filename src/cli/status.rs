//! `warren status`: nodes on and off line, and how each file fares on each of them.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::time::timeout_at;

use super::EXIT_OK;
use super::broker::BrokerArgs;
use crate::client::AmqpUri;
use crate::config::{self, PeerTls, TrafficSettings};
use crate::node::distributor::DistributorSettings;
use crate::node::look::Look;
use crate::node::message::FileState;
use crate::node::report::INTERVAL_MIN;
use crate::node::status::{NodeStatus, Status, status};
use crate::node::view::machines::{self, Machines};
use crate::payload::Hints;

/// Machines that are not known yet have this long to tell of their transfers.
const REPORTS_WAIT_MIN: Duration = Duration::from_millis(400);
/// And those that are known to be there, so long.
const REPORTS_WAIT_MAX: Duration = Duration::from_millis(1_200);

/// Show the nodes of a broker, on line or not, their files, and the swarms that move.
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
    let broker = args.broker.uri();
    let settings = DistributorSettings {
        broker: broker.clone(),
        payload_threshold_bytes: u64::MAX,
        peer_listen: None,
        traffic: TrafficSettings::default(),
        hints: Hints::default(),
        peer_tls: PeerTls::default(),
        data_dir: std::env::temp_dir(),
        reply_queue: None,
    };
    let (found, swarms) = tokio::join!(status(settings, args.timeout), swarms(&broker));
    let (found, swarms) = (found?, swarms?);
    if args.json {
        let mut found = serde_json::to_value(&found)?;
        found["swarms"] = swarms.into();
        println!("{found}");
    } else {
        print_status(&found);
        for swarm in &swarms {
            println!("{}", summary(swarm));
        }
    }
    Ok(ExitCode::from(EXIT_OK))
}

/// Every swarm that machines tell of.
async fn swarms(broker: &AmqpUri) -> anyhow::Result<Vec<Value>> {
    let mut look = Look::connect(broker).await?;
    look.watch(INTERVAL_MIN).await?;
    let began = Instant::now();
    loop {
        let nodes = look.views().values().flat_map(|view| view.nodes().values());
        let mut online = nodes.filter(|node| node.is_online(Instant::now()));
        let have_all = online.all(|node| node.report.is_some());
        let wait = if have_all {
            REPORTS_WAIT_MIN
        } else {
            REPORTS_WAIT_MAX
        };
        if began.elapsed() >= wait {
            break;
        }
        match timeout_at((began + wait).into(), look.listen()).await {
            Ok(heard) => heard?,
            Err(_) => break,
        }
    }
    let machines = Machines::of(look.views(), None, "broker", Instant::now());
    let swarms = machines.by_payload();
    let shown = swarms
        .iter()
        .map(|(id, members)| machines::swarm(id, members, look.views()));
    let shown = shown.collect();
    look.close().await;
    Ok(shown)
}

/// A swarm in one line: who, how fast, and what went wrong.
fn summary(swarm: &Value) -> String {
    let number = |name: &str| swarm[name].as_u64().unwrap_or(0);
    let bytes = |name: &str| indicatif::HumanBytes(number(name));
    let id = swarm["id"].as_str().unwrap_or("?");
    format!(
        "swarm {:<10} {:?} {}: {} machines, {} complete, {:.0} %, down {}/s, up {}/s, {} twice, {} bad pieces, {} stalls",
        id.get(..10).unwrap_or(id),
        swarm["name"].as_str().unwrap_or("?"),
        bytes("size_bytes"),
        number("members"),
        number("seeds"),
        swarm["progress"].as_f64().unwrap_or(0.0) * 100.0,
        bytes("down_rate"),
        bytes("up_rate"),
        bytes("duplicate_bytes"),
        number("bad_pieces"),
        number("stalls"),
    )
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
