//! What to look at when a swarm misses its bound: when nodes found peers, pieces and the end, why uplinks were idle, and
//! what the last ones waited for. `SIM_REPORT=1` prints it.

use std::time::{Duration, Instant};

use warren::payload::Bitfield;
use warren::swarm::NodeId;

use crate::network::Network;

/// How often the swarm is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Looks that one printed line stands for.
const LOOKS_PER_LINE: usize = 5;
/// Nodes that are shown one by one.
const LAST_SHOWN: usize = 12;

/// One node's way.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    first_peer_s: Option<f64>,
    first_piece_s: Option<f64>,
    half_s: Option<f64>,
    complete_s: Option<f64>,
    /// Looks at which it was incomplete and had fewer than four peers, and at which it was asking nobody.
    lonely: u32,
    waiting: u32,
    /// Looks at which it asked nobody although a peer held what it lacks.
    hesitating: u32,
}

/// Uplinks at one look, of nodes that hold something.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    looks: usize,
    connected: usize,
    peers: usize,
    incomplete: usize,
    /// Nodes whose uplink had nothing to do: everybody near is complete; nobody near lacks what it holds; somebody does.
    all_complete: usize,
    nothing_new: usize,
    unasked: usize,
    empty: usize,
}

/// The whole swarm's way.
#[derive(Debug)]
pub(crate) struct Report {
    ways: Vec<Way>,
    lines: Vec<Line>,
}

fn number(node: NodeId) -> usize {
    let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = *node.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize
}

fn lacks_some(who: &Bitfield, of: &Bitfield) -> bool {
    let (who, of) = (who.to_bytes(), of.to_bytes());
    of.iter().zip(&who).any(|(of, who)| of & !who != 0)
}

impl Report {
    /// Runs the network to its end, looking on.
    pub(crate) fn run(network: &mut Network, limit: Duration) -> (Option<Duration>, Self) {
        let count = network.hosts.len();
        let mut report = Self {
            ways: vec![Way::default(); count],
            lines: Vec::new(),
        };
        let until = network.began + limit;
        while network.now < until {
            network.run_for(LOOK);
            report.look(network);
            if network.all_complete() {
                break;
            }
        }
        let mut completed = network.hosts.iter().map(|host| host.completed);
        let last = completed.try_fold(network.began, |last, at| at.map(|at| last.max(at)));
        for (way, host) in report.ways.iter_mut().zip(&network.hosts) {
            way.complete_s = host.completed.map(|at| (at - network.began).as_secs_f64());
        }
        (last.map(|last: Instant| last - network.began), report)
    }

    fn look(&mut self, network: &Network) {
        let now = network.now;
        let seconds = (now - network.began).as_secs_f64();
        let slot = self
            .lines
            .last_mut()
            .filter(|line| line.looks < LOOKS_PER_LINE);
        let line = match slot {
            Some(line) => line,
            None => {
                self.lines.push(Line::default());
                self.lines.last_mut().expect("just pushed")
            }
        };
        line.looks += 1;
        for (host, way) in network.hosts.iter().zip(&mut self.ways).skip(1) {
            let stats = host.engine.stats(now);
            let stats = &stats[0];
            let peers = &stats.peers;
            let is_complete = host.completed.is_some();
            line.connected += usize::from(!peers.is_empty());
            line.peers += peers.len();
            line.incomplete += usize::from(!is_complete);
            let held = host.held.held_count();
            if !peers.is_empty() {
                way.first_peer_s.get_or_insert(seconds);
            }
            if held > 0 {
                way.first_piece_s.get_or_insert(seconds);
            }
            if held * 2 >= stats.piece_count {
                way.half_s.get_or_insert(seconds);
            }
            let truth = || {
                peers
                    .iter()
                    .map(|peer| (peer, &network.hosts[number(peer.node)]))
            };
            if !is_complete {
                way.lonely += u32::from(peers.len() < 4);
                if peers.iter().all(|peer| peer.requests == 0) {
                    way.waiting += 1;
                    let has_some = truth().any(|(peer, other)| {
                        number(peer.node) != 0 && lacks_some(&host.held, &other.held)
                    });
                    way.hesitating += u32::from(has_some);
                }
            }
            if network.is_uplink_idle(host) {
                if held == 0 {
                    line.empty += 1;
                } else if truth().all(|(_, other)| other.completed.is_some()) {
                    line.all_complete += 1;
                } else if truth().any(|(_, other)| lacks_some(&other.held, &host.held)) {
                    line.unasked += 1;
                } else {
                    line.nothing_new += 1;
                }
            }
        }
    }

    /// Tables of it.
    pub(crate) fn print(&self, network: &Network) {
        let nodes = self.ways.len() - 1;
        println!(
            "  seconds  with peers  peers  incomplete  idle uplinks: holds nothing, all complete, nothing new, unasked"
        );
        for (at, line) in self.lines.iter().enumerate() {
            let share = |count: usize| count as f64 / line.looks as f64 / nodes as f64;
            println!(
                "  {:7.2}  {:10.3}  {:5.2}  {:10.3}  {:.3} {:.3} {:.3} {:.3}",
                (at * LOOKS_PER_LINE) as f64 * LOOK.as_secs_f64(),
                share(line.connected),
                share(line.peers),
                share(line.incomplete),
                share(line.empty),
                share(line.all_complete),
                share(line.nothing_new),
                share(line.unasked),
            );
        }
        let ways = &self.ways[1..];
        quantiles("first peer", ways.iter().map(|way| way.first_peer_s));
        quantiles("first piece", ways.iter().map(|way| way.first_piece_s));
        quantiles("half", ways.iter().map(|way| way.half_s));
        quantiles("complete", ways.iter().map(|way| way.complete_s));
        let refused = network.hosts[1..]
            .iter()
            .map(|host| Some(host.refused_dials as f64));
        quantiles("refused dials", refused);
        let mut last: Vec<(usize, &Way)> = self.ways.iter().enumerate().skip(1).collect();
        let key = |way: &Way| way.complete_s.unwrap_or(f64::MAX);
        last.sort_by(|(_, one), (_, other)| key(other).total_cmp(&key(one)));
        for (host, way) in last.into_iter().take(LAST_SHOWN) {
            let refused = network.hosts[host].refused_dials;
            println!("  host {host}: {way:.2?}, refused {refused}");
        }
    }
}

fn quantiles(name: &str, values: impl Iterator<Item = Option<f64>>) {
    let mut values: Vec<f64> = values.flatten().collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = values.len().saturating_sub(1) as f64;
        values
            .get((last * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "  {name}: of {}: least {:.2}, 10 % {:.2}, half {:.2}, 90 % {:.2}, 99 % {:.2}, most {:.2}",
        values.len(),
        at(0.0),
        at(0.1),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
