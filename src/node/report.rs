//! What machines tell those who look on: transfers, files that were sent, and requests to look or to try again.
//!
//! Owns: the forms of `warren.report`, `warren.sent`, `warren.watch` and `warren.retry`, and how a report is made
//! from the swarm's figures. Knows no connection; time comes in.
//! Bounds: [`TRANSFERS_MAX`] transfers of a report, [`PEERS_MAX`] peers of each: with the largest piece maps a
//! report stays below the bound of a control message.
//! Spec: `spec/control-plane.md` CONTROL-22 to CONTROL-27.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::message::{ControlMessage, Group, NodeName};
use crate::amqp::field::ShortString;
use crate::payload::PayloadId;
use crate::swarm::{NodeId, PeerCounts, TransferState, TransferStats};

/// Routing key of copies of receipts.
pub const RECEIPT_KEY: ShortString = ShortString::from_static("receipt");
/// Routing key of reports.
pub const REPORT_KEY: ShortString = ShortString::from_static("report");
/// Routing key of files that were sent.
pub const SENT_KEY: ShortString = ShortString::from_static("sent");
/// Routing key of who looks on.
pub const WATCH_KEY: ShortString = ShortString::from_static("watch");
/// Most transfers of one report; fetching ones come first, then those with peers.
pub const TRANSFERS_MAX: usize = 32;
/// Most peers of one transfer in a report; those that take part now come first, then who moved most.
pub const PEERS_MAX: usize = 48;
/// Shortest time between two reports of a machine.
pub const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// Longest time between two reports of a machine that is watched.
pub const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// How long a machine reports after somebody looked on.
pub const WATCH_TIME: Duration = Duration::from_secs(30);

const TYPE_REPORT: ShortString = ShortString::from_static("warren.report");
const TYPE_RETRY: ShortString = ShortString::from_static("warren.retry");
const TYPE_SENT: ShortString = ShortString::from_static("warren.sent");
const TYPE_WATCH: ShortString = ShortString::from_static("warren.watch");

/// What a machine is to a swarm.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineRole {
    /// A broker that serves what clients published.
    Broker,
    /// A node that takes part for its inbox.
    #[default]
    Node,
    /// A sender that serves files where they lie.
    Sender,
}

impl MachineRole {
    /// The role as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Node => "node",
            Self::Sender => "sender",
        }
    }
}

/// The state of a transfer as it stands in JSON.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportState {
    /// All pieces are held.
    Complete,
    /// The disk failed it.
    Failed,
    /// Pieces are missing.
    Fetching,
}

impl ReportState {
    /// The state as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Fetching => "fetching",
        }
    }
}

impl From<TransferState> for ReportState {
    fn from(state: TransferState) -> Self {
        match state {
            TransferState::Fetching => Self::Fetching,
            TransferState::Complete => Self::Complete,
            TransferState::Failed => Self::Failed,
        }
    }
}

/// A machine's part in swarms at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Which machine.
    pub node: NodeName,
    /// What it is.
    #[serde(default)]
    pub role: MachineRole,
    /// Its id in swarms, 64 hexadecimal digits.
    pub swarm_id: String,
    /// Where peers reach it.
    #[serde(default)]
    pub address: Option<String>,
    /// Its transfers.
    pub transfers: Vec<TransferReport>,
}

/// One payload on one machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TransferReport {
    /// Which payload, 64 hexadecimal digits.
    pub payload_id: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Bytes of each piece but the last.
    pub piece_bytes: u32,
    /// Whether this machine gave the payload to the swarm.
    #[serde(default)]
    pub origin: bool,
    /// How it stands.
    pub state: ReportState,
    /// Pieces held.
    pub pieces_held: u32,
    /// Pieces of the payload.
    pub piece_count: u32,
    /// The pieces held: base64 of the bitfield.
    #[serde(default)]
    pub map: Option<String>,
    /// Bytes received per second lately.
    pub down_rate: u64,
    /// Bytes sent per second lately.
    pub up_rate: u64,
    /// Block bytes received.
    pub down_bytes: u64,
    /// Block bytes sent.
    pub up_bytes: u64,
    /// Pieces received and verified.
    pub pieces_fetched: u32,
    /// Bytes received that were not needed any more.
    pub duplicate_bytes: u64,
    /// Bytes of pieces that did not verify.
    pub bad_bytes: u64,
    /// Pieces that did not verify.
    pub bad_pieces: u32,
    /// Its own limit of block bytes sent per second.
    #[serde(default)]
    pub up_limit: Option<u64>,
    /// Its own limit of block bytes asked for per second.
    #[serde(default)]
    pub down_limit: Option<u64>,
    /// Its share where payloads compete.
    #[serde(default)]
    pub priority: u8,
    /// Who takes part, or took part and moved bytes.
    pub peers: Vec<PeerReport>,
}

/// One peer as a machine sees it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PeerReport {
    /// Its id in swarms, 64 hexadecimal digits.
    pub swarm_id: String,
    /// Whether it takes part now.
    pub connected: bool,
    /// Where it can be dialled.
    #[serde(default)]
    pub address: Option<String>,
    /// Pieces that it says it holds.
    pub pieces_held: u32,
    /// Bytes received from it per second lately.
    pub down_rate: u64,
    /// Bytes sent to it per second lately.
    pub up_rate: u64,
    /// Block bytes received from it, on all connections.
    pub down_bytes: u64,
    /// Block bytes sent to it, on all connections.
    pub up_bytes: u64,
    /// Requests that it has not answered.
    pub requests: u32,
    /// Bytes that it may be asked for at a time.
    pub window_bytes: u64,
    /// Pieces from it that verified.
    pub pieces: u32,
    /// Bytes from it that were not needed any more.
    pub duplicate_bytes: u64,
    /// Requests that it let run out.
    pub stalls: u32,
}

/// A sender's word that it has sent a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sent {
    /// The id of the file's message.
    pub message_id: String,
    /// Its name.
    pub name: String,
    /// BLAKE3 of its bytes, 64 hexadecimal digits.
    pub payload_id: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Pieces; 0 for a file that is a message.
    #[serde(default)]
    pub piece_count: u32,
    /// The group that it was sent to.
    pub group: Group,
    /// Who sent it.
    pub sender: NodeName,
    /// When, in milliseconds since 1970.
    pub sent_unix_ms: u64,
}

/// Somebody looks on: whoever hears it reports for [`WATCH_TIME`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Watch {
    /// Time between two reports, in milliseconds.
    pub interval_ms: u64,
}

impl Watch {
    /// The time between two reports, within bounds.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms).clamp(INTERVAL_MIN, INTERVAL_MAX)
    }
}

/// A node is to try a failed file again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Retry {
    /// Which node.
    pub node: NodeName,
    /// The id of the file's message, if it had one.
    #[serde(default)]
    pub message_id: Option<String>,
    /// BLAKE3 of the file, 64 hexadecimal digits.
    pub payload_id: String,
    /// The sender's name for it.
    pub name: String,
}

impl Retry {
    /// The routing key of requests to `node`.
    #[must_use]
    pub fn key(node: &NodeName) -> ShortString {
        ShortString::truncated(format!("retry.{node}"))
    }
}

impl ControlMessage for Report {
    const TYPE: ShortString = TYPE_REPORT;
    const IS_PERSISTENT: bool = false;
}

impl ControlMessage for Retry {
    const TYPE: ShortString = TYPE_RETRY;
    const IS_PERSISTENT: bool = false;
}

impl ControlMessage for Sent {
    const TYPE: ShortString = TYPE_SENT;
    const IS_PERSISTENT: bool = false;
}

impl ControlMessage for Watch {
    const TYPE: ShortString = TYPE_WATCH;
    const IS_PERSISTENT: bool = false;
}

/// A node's id in swarms as 64 hexadecimal digits.
#[must_use]
pub fn swarm_id(node: &NodeId) -> String {
    let digits = node.as_bytes().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// Who reports, in all its reports.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name.
    pub name: NodeName,
    /// What it is.
    pub role: MachineRole,
    /// Its id in swarms.
    pub swarm_id: NodeId,
    /// Where peers reach it.
    pub address: Option<String>,
}

/// What came from and went to each peer, by payload.
type CountsOfPeers = HashMap<(PayloadId, NodeId), PeerCounts>;

/// Makes reports; remembers the last figures, from which peers' rates follow.
#[derive(Debug, Default)]
pub struct Reporter {
    last: Option<(Instant, CountsOfPeers)>,
}

impl Reporter {
    /// The report of these figures.
    // req: CONTROL-23
    pub fn report(&mut self, machine: &Machine, stats: &[TransferStats], now: Instant) -> Report {
        let mut chosen: Vec<&TransferStats> = stats.iter().collect();
        chosen.sort_by_key(|stats| {
            (
                stats.state != TransferState::Fetching,
                stats.peers.is_empty(),
            )
        });
        chosen.truncate(TRANSFERS_MAX);
        let mut counts = HashMap::new();
        let transfers = chosen
            .into_iter()
            .map(|stats| self.transfer(stats, &mut counts, now));
        let transfers = transfers.collect();
        self.last = Some((now, counts));
        Report {
            node: machine.name.clone(),
            role: machine.role,
            swarm_id: swarm_id(&machine.swarm_id),
            address: machine.address.clone(),
            transfers,
        }
    }

    fn transfer(
        &self,
        stats: &TransferStats,
        counts: &mut HashMap<(PayloadId, NodeId), PeerCounts>,
        now: Instant,
    ) -> TransferReport {
        let mut peers: BTreeMap<NodeId, (PeerReport, PeerCounts)> = BTreeMap::new();
        for peer in &stats.peers {
            let report = PeerReport {
                connected: true,
                address: peer.address.map(|address| address.to_string()),
                pieces_held: peer.pieces_held,
                requests: u32::try_from(peer.requests).unwrap_or(u32::MAX),
                window_bytes: peer.window_bytes,
                ..PeerReport::default()
            };
            peers.insert(peer.node, (report, peer.counts));
        }
        for (node, past) in &stats.past {
            peers.entry(*node).or_default().1.add(past);
        }
        let peers = peers.into_iter().map(|(node, (report, total))| {
            let key = (stats.payload, node);
            let report = PeerReport {
                swarm_id: swarm_id(&node),
                down_rate: self.rate(&key, now, &total, |counts| counts.down_bytes),
                up_rate: self.rate(&key, now, &total, |counts| counts.up_bytes),
                down_bytes: total.down_bytes,
                up_bytes: total.up_bytes,
                pieces: total.pieces,
                duplicate_bytes: total.duplicate_bytes,
                stalls: total.stalls,
                ..report
            };
            counts.insert(key, total);
            report
        });
        let mut peers: Vec<PeerReport> = peers.collect();
        peers.sort_by_key(|peer| {
            (
                !peer.connected,
                u64::MAX - peer.down_bytes.max(peer.up_bytes),
            )
        });
        peers.truncate(PEERS_MAX);
        TransferReport {
            payload_id: stats.payload.to_string(),
            size_bytes: stats.size_bytes,
            piece_bytes: stats.piece_bytes,
            origin: stats.is_origin,
            state: stats.state.into(),
            pieces_held: stats.pieces_held,
            piece_count: stats.piece_count,
            map: Some(BASE64.encode(stats.have.to_bytes())),
            down_rate: stats.down_bytes_per_second,
            up_rate: stats.up_bytes_per_second,
            down_bytes: stats.counts.down_bytes,
            up_bytes: stats.counts.up_bytes,
            pieces_fetched: stats.counts.pieces_fetched,
            duplicate_bytes: stats.counts.duplicate_bytes,
            bad_bytes: stats.counts.bad_bytes,
            bad_pieces: stats.counts.bad_pieces,
            up_limit: stats.limits.up.map(NonZeroU64::get),
            down_limit: stats.limits.down.map(NonZeroU64::get),
            priority: stats.priority.get(),
            peers,
        }
    }

    /// Bytes per second since the last report.
    fn rate(
        &self,
        key: &(PayloadId, NodeId),
        now: Instant,
        total: &PeerCounts,
        bytes: impl Fn(&PeerCounts) -> u64,
    ) -> u64 {
        let Some((at, last)) = &self.last else {
            return 0;
        };
        let millis = now.saturating_duration_since(*at).as_millis();
        let before = last.get(key).map_or(0, &bytes);
        let moved = bytes(total).saturating_sub(before);
        match u64::try_from(millis) {
            Ok(millis) if millis > 0 => moved.saturating_mul(1000) / millis,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::message::{decode, encode};
    use crate::payload::{Bitfield, Geometry, PieceBytes, Priority};
    use crate::swarm::{Limits, PeerStats, TransferCounts, TransferId};

    fn machine() -> Machine {
        Machine {
            name: "edge1".parse().expect("a name"),
            role: MachineRole::Node,
            swarm_id: NodeId::from_bytes([0xab; 32]),
            address: Some("10.0.0.7:5690".to_owned()),
        }
    }

    fn stats(number: u8, pieces: u32, down_bytes: u64) -> TransferStats {
        let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
        let geometry = Geometry::new(u64::from(pieces) * 16 * 1024, piece_bytes).expect("valid");
        TransferStats {
            transfer: TransferId(number.into()),
            payload: PayloadId::from_bytes([number; 32]),
            size_bytes: geometry.size_bytes(),
            piece_bytes: 16 * 1024,
            is_origin: false,
            state: TransferState::Fetching,
            pieces_held: pieces,
            piece_count: pieces,
            have: Bitfield::full(&geometry),
            counts: TransferCounts {
                down_bytes,
                ..TransferCounts::default()
            },
            down_bytes_per_second: 5,
            up_bytes_per_second: 6,
            limits: Limits::default(),
            priority: Priority::default(),
            peers: vec![PeerStats {
                node: NodeId::from_bytes([1; 32]),
                address: None,
                pieces_held: 1,
                requests: 2,
                window_bytes: 3,
                counts: PeerCounts {
                    down_bytes,
                    ..PeerCounts::default()
                },
            }],
            past: Vec::new(),
        }
    }

    /// A peer's rate is what it moved since the last report; earlier connections count in the bytes.
    // req: CONTROL-23
    #[test]
    fn reports_tell_rates_and_whole_counts_of_peers() {
        let start = Instant::now();
        let mut reporter = Reporter::default();
        let first = reporter.report(&machine(), &[stats(7, 9, 1_000)], start);
        assert_eq!(first.transfers[0].peers[0].down_rate, 0);
        assert_eq!(first.transfers[0].map.as_deref(), Some("/4A="));
        let mut later = stats(7, 9, 5_000);
        let past = PeerCounts {
            down_bytes: 2_000,
            up_bytes: 1,
            ..PeerCounts::default()
        };
        later.past = vec![
            (NodeId::from_bytes([1; 32]), past),
            (NodeId::from_bytes([2; 32]), past),
        ];
        let second = reporter.report(&machine(), &[later], start + Duration::from_secs(2));
        let peers = &second.transfers[0].peers;
        assert_eq!(peers.len(), 2);
        assert!(peers[0].connected && !peers[1].connected);
        assert_eq!(peers[0].down_bytes, 7_000);
        assert_eq!(peers[0].down_rate, 3_000);
        assert_eq!(second.swarm_id, "ab".repeat(32));
    }

    /// The largest report that is made can be sent and read.
    // req: CONTROL-23
    #[test]
    fn largest_report_fits_into_a_control_message() {
        let many: Vec<TransferStats> = (0..40_u8)
            .map(|number| {
                let mut stats = stats(number, 65_536, 1);
                stats.past = (0..200_u8)
                    .map(|node| (NodeId::from_bytes([node; 32]), PeerCounts::default()))
                    .collect();
                stats
            })
            .collect();
        let report = Reporter::default().report(&machine(), &many, Instant::now());
        assert_eq!(report.transfers.len(), TRANSFERS_MAX);
        assert_eq!(report.transfers[0].peers.len(), PEERS_MAX);
        let (properties, body) = encode(&report);
        assert_eq!(decode::<Report>(&properties, &body), Some(report));
    }

    /// Whoever looks on cannot make others report all the time.
    // req: CONTROL-22
    #[test]
    fn interval_of_reports_is_bounded() {
        let interval = |interval_ms| Watch { interval_ms }.interval();
        assert_eq!(interval(0), INTERVAL_MIN);
        assert_eq!(interval(2_000), Duration::from_secs(2));
        assert_eq!(interval(u64::MAX), INTERVAL_MAX);
    }
}
