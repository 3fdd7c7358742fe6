//! `warren node`: an edge node that takes the files of its groups into its inbox.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::EXIT_OK;
use super::broker::BrokerArgs;
use super::serve::StopSignals;
use super::systemd::{Notice, notify};
use super::traffic::TrafficArgs;
use crate::config::PeerTls;
use crate::node::message::{Group, NodeName};
use crate::node::{Node, NodeSettings};

/// Run an edge node: files sent to its groups appear in its inbox.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren node --broker amqp://guest:guest@localhost:5672/%2F --name edge1 \\\n    \
    --group sites --inbox ./inbox\n\nThe broker may be Warren's or a RabbitMQ. While it is away the node goes on \
    trying.\n\nExit codes: 0 stopped; 1 the broker refuses the node, or a folder cannot be used."
)]
pub(crate) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The node's name, unique at the broker [default: the machine's]
    #[arg(long, env = "WARREN_NODE_NAME", value_name = "NAME")]
    name: Option<NodeName>,
    /// Folder of the node's own state and of payloads that it serves
    #[arg(
        long,
        env = "WARREN_NODE_DATA_DIR",
        default_value = "./warren-node",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// Folder in which files appear
    #[arg(
        long,
        env = "WARREN_INBOX",
        default_value = "./inbox",
        value_name = "DIR"
    )]
    inbox: PathBuf,
    /// A group that the node belongs to; several may be given, and `*` and `#` stand for words
    #[arg(long, required = true, num_args = 1.., value_name = "KEY")]
    group: Vec<Group>,
    /// Address on which other nodes fetch pieces
    #[arg(
        long,
        env = "WARREN_PEER_LISTEN",
        default_value = "0.0.0.0:0",
        value_name = "ADDR"
    )]
    peer_listen: SocketAddr,
    /// Listen on nothing: take part over connections that this node opens, as behind a firewall
    #[arg(long, env = "WARREN_OUTBOUND_ONLY")]
    outbound_only: bool,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Encrypt connections to peers: off, prefer or require
    #[arg(
        long,
        env = "WARREN_PEER_TLS",
        default_value_t = PeerTls::default(),
        value_name = "MODE"
    )]
    peer_tls: PeerTls,
}

/// Runs the node until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = match args.name {
        Some(name) => name,
        None => machine_name()?,
    };
    let mut groups = args.group;
    groups.sort_unstable();
    groups.dedup();
    let settings = NodeSettings {
        broker: args.broker.uri(),
        name: name.clone(),
        data_dir: args.data_dir,
        inbox: args.inbox,
        groups,
        peer_listen: (!args.outbound_only).then_some(args.peer_listen),
        traffic: args.traffic.read()?,
        peer_tls: args.peer_tls,
    };
    let mut node = Node::start(settings).await?;
    let stopped_by = StopSignals::listen()?.received();
    let mut hangup = signal(SignalKind::hangup())?;
    let listening = node
        .peer_addr()
        .map_or_else(|| "nothing".to_owned(), |addr| addr.to_string());
    tokio::pin!(stopped_by);
    let stopped = tokio::select! {
        ready = node.ready() => !ready,
        signal = &mut stopped_by => {
            tracing::info!(signal, "stopping");
            true
        }
    };
    if !stopped {
        println!("Node {name} ready; peers listening on {listening}");
        notify(Notice::Ready);
        loop {
            tokio::select! {
                signal = &mut stopped_by => {
                    tracing::info!(signal, "stopping");
                    break;
                }
                ended = node.ended() => {
                    ended?;
                    break;
                }
                Some(()) = hangup.recv() => match args.traffic.read() {
                    Ok(traffic) => {
                        node.set_traffic(&traffic);
                        tracing::info!(?traffic, "limits are read again");
                    }
                    Err(error) => {
                        let error = format_args!("{error:#}");
                        tracing::error!(%error, "the limits stay as they were");
                    }
                },
            }
        }
    }
    notify(Notice::Stopping);
    node.shutdown().await?;
    Ok(ExitCode::from(EXIT_OK))
}

fn machine_name() -> anyhow::Result<NodeName> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    name.parse()
        .map_err(|error| anyhow::anyhow!("{error}; this machine's is '{name}', so give --name"))
}
