//! `warren demo`: a broker and nodes as real processes on this machine, with real files.
//!
//! Owns: the story that the demo tells and the figures it prints. The processes are the lab's, the
//! comparison with plain queues is in `fanout`, the sweep over node counts in `sweep`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use self::lab::{GROUP, Lab, ended_children_cpu_time, node_name};
use super::EXIT_OK;
use crate::config;

mod chart;
mod fanout;
mod lab;
mod sweep;

/// Size of the small file, in bytes: far below any threshold, so it travels as a message.
const SMALL_FILE_BYTES: u64 = 20_000;
/// Longest time for one distribution.
const DISTRIBUTION_WAIT: &str = "30m";
/// Bytes read at a time when a copy is checked.
const CHECK_BUFFER_BYTES: usize = 1 << 20;

/// See it work: a broker and nodes on this machine, one small and one large file.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  warren demo --nodes 8 --size 200MB\n  \
    warren demo --sweep --out ./figures")]
pub(crate) struct Args {
    /// How many node processes to start
    #[arg(long, default_value_t = 4, value_name = "N")]
    nodes: usize,
    /// Size of the large file, as in 100MB or 1GiB
    #[arg(long, default_value = "100MB", value_name = "SIZE", value_parser = config::parse_size)]
    size: u64,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Leave out the comparison with plain queues
    #[arg(long)]
    no_fanout: bool,
    /// Repeat over node counts and sizes; writes a table and charts
    #[arg(long)]
    sweep: bool,
    /// Folder for the sweep's table and charts
    #[arg(long, default_value = "./warren-sweep", value_name = "DIR")]
    out: PathBuf,
    /// Node counts of the sweep
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,4,8,16,30,60",
        value_name = "N,N,..."
    )]
    sweep_nodes: Vec<usize>,
    /// File sizes that the sweep takes over all node counts
    #[arg(long, value_delimiter = ',', default_value = "100MB,1000MB", value_name = "SIZE,...",
        value_parser = config::parse_size)]
    sweep_sizes: Vec<u64>,
    /// File sizes that the sweep takes at the largest node count
    #[arg(long, value_delimiter = ',', default_value = "1MB,10MB,50MB,100MB,200MB",
        value_name = "SIZE,...", value_parser = config::parse_size)]
    sweep_sizes_at_most_nodes: Vec<u64>,
}

/// What one distribution cost.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    /// Nodes that got the file.
    nodes: usize,
    /// Size of the file, in bytes.
    size_bytes: u64,
    /// From the start of the sender to the last verified copy.
    seconds: f64,
    /// Bytes delivered to all nodes together, per second, in MB (10^6).
    rate_mb_per_s: f64,
    /// CPU time of broker, sender and nodes per 10^9 bytes delivered.
    cpu_s_per_gb: f64,
    /// Bytes that the origin uploaded, in copies of the file; none where it went as a message.
    origin_copies: Option<f64>,
}

/// What the demo prints as JSON.
#[derive(Serialize)]
struct Report {
    small: Figures,
    large: Figures,
    plain_fanout: Option<Figures>,
    copies_verified: usize,
}

/// What `warren send --json` says at its end, as far as the demo needs it.
#[derive(Deserialize)]
struct Sent {
    files: Vec<SentFile>,
}

#[derive(Deserialize)]
struct SentFile {
    payload_id: Option<String>,
    uploaded_bytes: u64,
}

/// Runs the demo, or the sweep.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.nodes == 0 || args.size == 0 {
        bail!("--nodes and --size must be at least 1");
    }
    tokio::select! {
        result = run_to_end(&args) => result?,
        // The lab goes with the work that was dropped.
        signal = tokio::signal::ctrl_c() => {
            signal?;
            bail!("interrupted; the processes are ended and their folder is removed");
        }
    }
    Ok(ExitCode::from(EXIT_OK))
}

async fn run_to_end(args: &Args) -> anyhow::Result<()> {
    if args.sweep {
        return sweep::run(args).await;
    }
    let report = one(args).await?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report);
    }
    Ok(())
}

async fn one(args: &Args) -> anyhow::Result<Report> {
    let say = |text: String| {
        if !args.json {
            println!("{text}");
        }
    };
    say(format!(
        "Starting a broker and {} nodes on loopback",
        args.nodes
    ));
    let lab = Lab::start(args.nodes).await?;
    let small = make_file(lab.folder(), "small.bin", SMALL_FILE_BYTES)?;
    let large = make_file(lab.folder(), "large.bin", args.size)?;

    say(format!(
        "Sending {} ({}) as a message",
        small.name,
        size_text(small.size_bytes)
    ));
    let small_figures = distribute(&lab, &small, !args.json).await?;
    say(format!(
        "Sending {} ({}) through the swarm",
        large.name,
        size_text(large.size_bytes)
    ));
    let large_figures = distribute(&lab, &large, !args.json).await?;
    let copies_verified = check_copies(&lab, &small)? + check_copies(&lab, &large)?;
    say(format!(
        "Checked {copies_verified} copies with BLAKE3: all equal to what was sent"
    ));

    let plain_fanout = if args.no_fanout {
        None
    } else {
        say("The same bytes as a plain message to one queue for each node, for comparison".into());
        Some(fanout::run(&lab, &large).await?)
    };
    lab.stop().await?;
    Ok(Report {
        small: small_figures,
        large: large_figures,
        plain_fanout,
        copies_verified,
    })
}

/// A file made for the demo.
struct MadeFile {
    path: PathBuf,
    name: String,
    size_bytes: u64,
    hash: blake3::Hash,
}

/// Writes a file of incompressible bytes that differ from name to name.
fn make_file(folder: &Path, name: &str, size_bytes: u64) -> anyhow::Result<MadeFile> {
    let path = folder.join(name);
    let mut content = blake3::Hasher::new()
        .update(name.as_bytes())
        .update(&size_bytes.to_le_bytes())
        .finalize_xof();
    let mut file = fs::File::create(&path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHECK_BUFFER_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let (bytes, _) = buffer.split_at_mut(length);
        content.fill(bytes);
        hasher.update(bytes);
        std::io::Write::write_all(&mut file, bytes)
            .with_context(|| format!("cannot write {}; is the disk full?", path.display()))?;
        left -= length as u64;
    }
    Ok(MadeFile {
        path,
        name: name.to_owned(),
        size_bytes,
        hash: hasher.finalize(),
    })
}

/// Sends a file to all nodes of the lab with `warren send --wait` and measures it.
async fn distribute(lab: &Lab, file: &MadeFile, show_progress: bool) -> anyhow::Result<Figures> {
    let cpu_before = lab.cpu_time()? + ended_children_cpu_time()?;
    let started = Instant::now();
    let mut command = lab::warren("send")?;
    command
        .arg(&file.path)
        .args([
            "--broker",
            lab.broker_uri(),
            "--group",
            GROUP,
            "--wait",
            "--json",
        ])
        .args([
            "--nodes",
            &lab.node_count().to_string(),
            "--timeout",
            DISTRIBUTION_WAIT,
        ])
        .stdout(Stdio::piped())
        .stderr(if show_progress {
            Stdio::inherit()
        } else {
            Stdio::null()
        });
    let mut child = command.spawn().context("cannot start the sender")?;
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut output).await?;
    }
    let status = child.wait().await?;
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("sending {} ended with {status}: {output}", file.name);
    }
    let cpu = (lab.cpu_time()? + ended_children_cpu_time()?).saturating_sub(cpu_before);
    let sent: Sent = serde_json::from_str(output.trim())
        .with_context(|| format!("the sender's report cannot be read: {output}"))?;
    let sent = sent.files.first().context("the sender reported no file")?;
    let origin_copies = sent
        .payload_id
        .is_some()
        .then(|| ratio(sent.uploaded_bytes, file.size_bytes));
    Ok(figures(
        lab.node_count(),
        file.size_bytes,
        seconds,
        cpu,
        origin_copies,
    ))
}

/// The figures of a distribution of `size_bytes` to `nodes`.
fn figures(
    nodes: usize,
    size_bytes: u64,
    seconds: f64,
    cpu: Duration,
    origin_copies: Option<f64>,
) -> Figures {
    let delivered = u128::from(size_bytes) * nodes as u128;
    let delivered = u64::try_from(delivered).unwrap_or(u64::MAX);
    Figures {
        nodes,
        size_bytes,
        seconds,
        rate_mb_per_s: ratio(delivered, 1_000_000) / seconds.max(1e-9),
        cpu_s_per_gb: cpu.as_secs_f64() / ratio(delivered, 1_000_000_000),
        origin_copies,
    }
}

/// A quotient of byte counts; exact enough for a report.
#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people needs no more than 52 bits"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / (whole.max(1)) as f64
}

/// Compares every node's copy with what was sent; gives how many there are.
fn check_copies(lab: &Lab, file: &MadeFile) -> anyhow::Result<usize> {
    let mut buffer = vec![0; CHECK_BUFFER_BYTES];
    for index in 1..=lab.node_count() {
        let path = lab.inbox(index).join(&file.name);
        let mut copy = fs::File::open(&path)
            .with_context(|| format!("{} has no copy at {}", node_name(index), path.display()))?;
        let mut hasher = blake3::Hasher::new();
        loop {
            let count = copy.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        if hasher.finalize() != file.hash {
            bail!("the copy at {} differs from what was sent", path.display());
        }
    }
    Ok(lab.node_count())
}

/// Takes every node's copy away, so that the disk holds one file at a time.
fn remove_copies(lab: &Lab, file: &MadeFile) -> anyhow::Result<()> {
    for index in 1..=lab.node_count() {
        fs::remove_file(lab.inbox(index).join(&file.name))?;
    }
    Ok(())
}

/// A size in MB or kB, for people.
fn size_text(bytes: u64) -> String {
    if bytes >= 1_000_000 {
        format!("{:.0} MB", ratio(bytes, 1_000_000))
    } else {
        format!("{:.1} kB", ratio(bytes, 1_000))
    }
}

fn print_report(report: &Report) {
    println!();
    println!(
        "{:<28} {:>6} {:>10} {:>10} {:>12} {:>13}",
        "", "nodes", "seconds", "MB/s", "CPU s/GB", "origin copies"
    );
    print_row("small file, as a message", &report.small);
    print_row("large file, swarm", &report.large);
    if let Some(fanout) = &report.plain_fanout {
        print_row("large file, plain fan-out", fanout);
    }
}

fn print_row(name: &str, figures: &Figures) {
    let copies = figures
        .origin_copies
        .map_or_else(|| "-".to_owned(), |copies| format!("{copies:.2}"));
    println!(
        "{name:<28} {:>6} {:>10.3} {:>10.1} {:>12.2} {copies:>13}",
        figures.nodes, figures.seconds, figures.rate_mb_per_s, figures.cpu_s_per_gb
    );
}
