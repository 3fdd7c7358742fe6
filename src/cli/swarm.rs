//! `warren swarm`: the machines of one payload's swarm: piece maps, rates, and who serves whom.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use tokio::time::{sleep_until, timeout_at};

use super::broker::BrokerArgs;
use super::{EXIT_FAILED, EXIT_OK};
use crate::config;
use crate::node::look::Look;
use crate::node::message::NodeName;
use crate::node::tune::{RateWish, Tune};
use crate::node::view::machines::Machines;
use crate::payload::Priority;

/// How often machines are asked to report on.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);
/// Width of a screen that does not tell its own.
const WIDTH_DEFAULT: usize = 80;
/// Peers of one machine that are shown: those that move most.
const PEERS_MAX: usize = 4;
/// Machines that are shown on a terminal; the rest is counted.
const MACHINES_MAX: usize = 16;
/// What is said of a payload that no machine tells of.
const NOBODY: &str = "warren: nobody tells of such a swarm; see them all with: warren swarm";
/// From no piece of a group to all of them.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];

/// Show a payload's swarm: piece map, peers and rates.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  warren swarm af1349b9 --broker amqp://localhost\n  warren swarm update.img --json\n  \
    warren swarm update.img --up-limit 2MB/s --machine edge1\n\n\
    ID is a payload's id, its first digits, or the name of a file. Without it all swarms are listed. On a terminal the \
    picture is drawn again every second until Ctrl-C; otherwise, and with --once or --json, once. \
    Limits and priority count until the transfer ends.\n\n\
    Exit codes: 0 shown; 1 the broker cannot be reached, or nobody tells of such a swarm."
)]
pub(crate) struct Args {
    /// The payload: its id, the first digits of it, or a file's name [default: list all]
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// How long machines may take to report before the first picture
    #[arg(long, default_value = "2s", value_name = "D", value_parser = config::parse_duration)]
    timeout: Duration,
    /// Show it once
    #[arg(long)]
    once: bool,
    /// Let each machine send so much of it per second, or `unlimited`
    #[arg(long, value_name = "RATE", value_parser = parse_limit, requires = "id")]
    up_limit: Option<RateWish>,
    /// Let each machine ask for so much of it per second, or `unlimited`
    #[arg(long, value_name = "RATE", value_parser = parse_limit, requires = "id")]
    down_limit: Option<RateWish>,
    /// Give it another share where payloads compete, 1 to 100
    #[arg(long, value_name = "N", requires = "id")]
    priority: Option<Priority>,
    /// Change it on this machine only; may be repeated
    #[arg(long, value_name = "NAME", requires = "id")]
    machine: Vec<NodeName>,
    /// Print one JSON object, as GET /api/swarm/swarms/ID has it
    #[arg(long)]
    json: bool,
}

/// Listens and draws.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let interval = Duration::from_secs(1);
    let tune = args.tune();
    let mut look = Look::connect(&args.broker.uri()).await?;
    look.watch(interval).await?;
    let mut watched = Instant::now();
    gather(&mut look, watched + args.timeout).await?;
    if let Some(tune) = tune {
        let found = find(&look, args.id.as_deref(), Instant::now());
        let Some(id) = found.as_ref().and_then(|found| found["id"].as_str()) else {
            eprintln!("{NOBODY}");
            look.close().await;
            return Ok(ExitCode::from(EXIT_FAILED));
        };
        let payload_id = id.to_owned();
        look.tune(&Tune { payload_id, ..tune }).await?;
        // Until the next reports, which show it.
        gather(&mut look, Instant::now() + 2 * interval).await?;
    }
    let is_live = std::io::stdout().is_terminal() && !args.once && !args.json;
    let mut drawn = 0;
    loop {
        let now = Instant::now();
        let found = find(&look, args.id.as_deref(), now);
        match &found {
            Some(found) if args.json => println!("{found}"),
            Some(found) => {
                let lines = draw(found, width());
                redraw(&lines, if is_live { drawn } else { 0 })?;
                drawn = lines.len();
            }
            None => {
                eprintln!("{NOBODY}");
            }
        }
        if !is_live || found.is_none() {
            look.close().await;
            let exit = if found.is_some() {
                EXIT_OK
            } else {
                EXIT_FAILED
            };
            return Ok(ExitCode::from(exit));
        }
        if now.saturating_duration_since(watched) >= WATCH_INTERVAL {
            watched = now;
            look.watch(interval).await?;
        }
        tokio::select! {
            signal = tokio::signal::ctrl_c() => {
                signal?;
                look.close().await;
                return Ok(ExitCode::from(EXIT_OK));
            }
            gathered = gather(&mut look, now + interval) => gathered?,
        }
    }
}

impl Args {
    /// What is to change, if anything is; the payload is not known yet.
    fn tune(&self) -> Option<Tune> {
        let changes = self.up_limit.is_some() || self.down_limit.is_some();
        (changes || self.priority.is_some()).then(|| Tune {
            payload_id: String::new(),
            machines: self.machine.clone(),
            up_rate: self.up_limit,
            down_rate: self.down_limit,
            priority: self.priority.map(Priority::get),
        })
    }
}

fn parse_limit(text: &str) -> Result<RateWish, config::RateError> {
    match text {
        "unlimited" => Ok(RateWish::UNLIMITED),
        _ => config::parse_rate(text).map(RateWish::Bytes),
    }
}

/// Listens until then.
async fn gather(look: &mut Look, until: Instant) -> anyhow::Result<()> {
    loop {
        match timeout_at(until.into(), look.listen()).await {
            Ok(heard) => heard?,
            Err(_) => {
                sleep_until(until.into()).await;
                return Ok(());
            }
        }
    }
}

/// One swarm by the payload's id, its beginning or a file's name; without a wish the list of all.
fn find(look: &Look, wish: Option<&str>, now: Instant) -> Option<Value> {
    let views = look.views();
    let machines = Machines::of(views, None, "broker", now);
    let swarms = machines.by_payload();
    let Some(wish) = wish else {
        let all = swarms
            .iter()
            .map(|(id, members)| crate::node::view::machines::swarm(id, members, views));
        return Some(all.collect());
    };
    let by_id = swarms
        .keys()
        .find(|id| id.starts_with(&wish.to_ascii_lowercase()));
    let files = || views.values().flat_map(|view| view.files().values());
    let by_name = || {
        files()
            .find(|file| file.name == wish)
            .map(|file| file.payload_id.as_str())
    };
    let id = by_id.copied().or_else(by_name)?;
    machines.whole(id, views)
}

fn width() -> usize {
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size
        .map(|size| usize::from(size.ws_col))
        .filter(|width| *width > 0);
    columns.or(size).unwrap_or(WIDTH_DEFAULT).clamp(40, 240)
}

/// Writes lines over those that were drawn before.
fn redraw(lines: &[String], before: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if before > 0 {
        write!(out, "\x1b[{before}A\x1b[J")?;
    }
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// A swarm, or a list of them, as lines of at most `width` characters.
fn draw(found: &Value, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(list) = found.as_array() {
        if list.is_empty() {
            lines.push("No machine tells of a transfer; is a node running?".to_owned());
        }
        for swarm in list {
            lines.push(head(swarm));
        }
        return cut(lines, width);
    }
    lines.push(head(found));
    let octets = decode(&found["availability"]);
    let most = octets.iter().copied().max().unwrap_or(0).max(1);
    let share = |octets: &[u8]| {
        let sum: u64 = octets.iter().map(|count| u64::from(*count)).sum();
        sum as f64 / (octets.len() as f64 * f64::from(most))
    };
    let map_width = width.saturating_sub(12);
    lines.push(format!("copies      {}", shades(&octets, map_width, share)));
    let machines = found["machines"].as_array().map_or(&[][..], Vec::as_slice);
    for machine in machines.iter().take(MACHINES_MAX) {
        lines.push(format!(
            "{:<24} {:<8} {:>5.1} %  down {:>9}/s  up {:>9}/s",
            text(&machine["name"]),
            text(&machine["state"]),
            machine["progress"].as_f64().unwrap_or(0.0) * 100.0,
            size(&machine["down_rate"]),
            size(&machine["up_rate"]),
        ));
        let count = machine["piece_count"].as_u64().unwrap_or(0).min(65_536);
        let map = decode(&machine["map"]);
        let bits: Vec<u8> = (0..usize::try_from(count).unwrap_or(0))
            .map(|index| {
                let octet = map.get(index / 8).copied().unwrap_or(0);
                (octet >> (7 - index % 8)) & 1
            })
            .collect();
        let held = |bits: &[u8]| {
            let held: u64 = bits.iter().map(|bit| u64::from(*bit)).sum();
            held as f64 / bits.len() as f64
        };
        lines.push(format!("            {}", shades(&bits, map_width, held)));
        lines.extend(peers(machine));
    }
    if machines.len() > MACHINES_MAX {
        lines.push(format!(
            "and {} machines more",
            machines.len() - MACHINES_MAX
        ));
    }
    cut(lines, width)
}

/// What a swarm is and how far it is.
fn head(swarm: &Value) -> String {
    let id = text(&swarm["id"]);
    let origin = swarm["origin"]["share"].as_f64();
    let origin = origin.map_or_else(String::new, |share| {
        format!(
            ", origin {} sent {:.0} %",
            text(&swarm["origin"]["name"]),
            share * 100.0
        )
    });
    format!(
        "{} {:?} {}: {} machines, {} complete, {:.0} %, {}/s{origin}",
        id.get(..10).unwrap_or(id),
        text(&swarm["name"]),
        size(&swarm["size_bytes"]),
        swarm["members"],
        swarm["seeds"],
        swarm["progress"].as_f64().unwrap_or(0.0) * 100.0,
        size(&swarm["down_rate"]),
    )
}

/// The peers of a machine that move most.
fn peers(machine: &Value) -> Vec<String> {
    let mut peers: Vec<&Value> = machine["peers"].as_array().into_iter().flatten().collect();
    let rate = |peer: &Value| {
        peer["down_rate"].as_u64().unwrap_or(0) + peer["up_rate"].as_u64().unwrap_or(0)
    };
    peers.retain(|peer| rate(peer) > 0);
    peers.sort_by_key(|peer| std::cmp::Reverse(rate(peer)));
    let shown = peers.into_iter().take(PEERS_MAX).map(|peer| {
        let id = text(&peer["swarm_id"]);
        let name = peer["name"]
            .as_str()
            .unwrap_or_else(|| id.get(..10).unwrap_or(id));
        format!(
            "              {:<24} {:>4.0} %  from {:>9}/s  to {:>9}/s  {} asked",
            name,
            peer["fraction"].as_f64().unwrap_or(0.0) * 100.0,
            size(&peer["down_rate"]),
            size(&peer["up_rate"]),
            peer["requests"],
        )
    });
    shown.collect()
}

/// One character for each of at most `width` groups of pieces.
fn shades(pieces: &[u8], width: usize, share: impl Fn(&[u8]) -> f64) -> String {
    let group = pieces.len().div_ceil(width.max(1)).max(1);
    let shade = |pieces: &[u8]| {
        let share = share(pieces);
        let index = match share {
            share if share >= 1.0 => SHADES.len() - 1,
            share if share <= 0.0 => 0,
            share => 1 + (share * (SHADES.len() - 2) as f64) as usize,
        };
        SHADES.get(index).copied().unwrap_or(SHADES[0])
    };
    pieces.chunks(group).map(shade).collect()
}

fn decode(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    BASE64.decode(text).unwrap_or_default()
}

/// A text of others', without what would move the cursor.
fn text(value: &Value) -> &str {
    let text = value.as_str().unwrap_or("?");
    match text.chars().any(char::is_control) {
        true => "?",
        false => text,
    }
}

fn size(value: &Value) -> String {
    indicatif::HumanBytes(value.as_u64().unwrap_or(0)).to_string()
}

fn cut(mut lines: Vec<String>, width: usize) -> Vec<String> {
    for line in &mut lines {
        if line.chars().count() > width {
            *line = line.chars().take(width).collect();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A map has a character for each group of pieces, empty to full, and no line is wider than the screen.
    #[test]
    fn maps_and_machines_are_drawn() {
        let machine = json!({
            "name": "edge1", "state": "fetching", "progress": 0.5, "piece_count": 16, "map": "/wA=",
            "down_rate": 2048, "up_rate": 0,
            "peers": [
                {"swarm_id": "ab".repeat(32), "name": null, "fraction": 1.0, "down_rate": 2048, "up_rate": 0, "requests": 3},
                {"swarm_id": "cd".repeat(32), "name": "idle", "fraction": 1.0, "down_rate": 0, "up_rate": 0, "requests": 0},
            ],
        });
        let swarm = json!({
            "id": "ef".repeat(32), "name": "a\u{1b}[2J", "size_bytes": 1 << 20, "members": 1, "seeds": 0,
            "progress": 0.5, "down_rate": 2048, "origin": {"name": "o", "share": 0.25},
            "availability": BASE64.encode([2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]),
            "machines": [machine],
        });
        let lines = draw(&swarm, 100);
        assert!(lines[0].contains("origin o sent 25 %"), "{lines:?}");
        assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
        assert_eq!(lines[1], "copies      ████████▒▒▒▒····");
        assert_eq!(lines[3], "            ████████········");
        assert!(
            lines[4].contains("abababababab".get(..10).expect("ten")),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 5, "who moves nothing is not shown");
        let narrow = draw(&swarm, 40);
        assert!(
            narrow.iter().all(|line| line.chars().count() <= 40),
            "{narrow:?}"
        );
        assert_eq!(shades(&[1; 100], 10, |_| 0.5), "▒".repeat(10));
    }
}
