//! Machines and what they told of their swarms, put together: members of a swarm, maps, who served whom.
//!
//! Owns: the forms of swarms, machines, peers and edges, as `docs/swarm-api.md` has them. Keeps nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::View;
use crate::node::report::{MachineRole, PeerReport, Report, ReportState, TransferReport};

/// Digits of a swarm id that stand for a machine without a name.
const NAME_DIGITS: usize = 16;

/// All machines that are known, this process among them.
pub struct Machines<'a> {
    all: Vec<Machine<'a>>,
    /// Names by swarm id.
    names: HashMap<&'a str, &'a str>,
}

/// One machine with its last report.
#[derive(Clone, Copy)]
struct Machine<'a> {
    name: &'a str,
    /// None for this process.
    vhost: Option<&'a str>,
    role: MachineRole,
    swarm_id: &'a str,
    address: Option<&'a str>,
    told_ms_ago: u64,
    transfers: &'a [TransferReport],
}

/// One machine's part in one swarm.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    machine: Machine<'a>,
    transfer: &'a TransferReport,
}

impl Member<'_> {
    /// Whether it has not all pieces yet.
    #[must_use]
    pub fn is_fetching(&self) -> bool {
        self.transfer.state == ReportState::Fetching
    }
}

impl<'a> Machines<'a> {
    /// Those of all vhosts' accounts, and this process with its last report.
    #[must_use]
    pub fn of(
        views: &'a BTreeMap<String, View>,
        own: Option<&'a (Report, Instant)>,
        own_name: &'a str,
        now: Instant,
    ) -> Self {
        let mut all = Vec::new();
        let mut names = HashMap::new();
        if let Some((report, at)) = own {
            names.insert(report.swarm_id.as_str(), own_name);
            all.push(Machine {
                name: own_name,
                vhost: None,
                role: MachineRole::Broker,
                swarm_id: &report.swarm_id,
                address: report.address.as_deref(),
                told_ms_ago: millis(now.saturating_duration_since(*at)),
                transfers: &report.transfers,
            });
        }
        for (vhost, view) in views {
            for (name, node) in view.nodes() {
                if !node.swarm_id.is_empty() {
                    names.insert(node.swarm_id.as_str(), name.as_str());
                }
                let Some((report, at)) = &node.report else {
                    continue;
                };
                all.push(Machine {
                    name: name.as_str(),
                    vhost: Some(vhost),
                    role: node.role,
                    swarm_id: &report.swarm_id,
                    address: node.addresses.first().map(String::as_str),
                    told_ms_ago: millis(now.saturating_duration_since(*at)),
                    transfers: node.transfers(now),
                });
            }
        }
        Self { all, names }
    }

    /// The members of each swarm, by payload id.
    #[must_use]
    pub fn by_payload(&self) -> BTreeMap<&'a str, Vec<Member<'a>>> {
        let mut swarms: BTreeMap<&str, Vec<Member<'_>>> = BTreeMap::new();
        for machine in &self.all {
            for transfer in machine.transfers {
                let members = swarms.entry(transfer.payload_id.as_str()).or_default();
                members.push(Member {
                    machine: *machine,
                    transfer,
                });
            }
        }
        swarms
    }

    /// This process's transfers.
    #[must_use]
    pub fn own_transfers(&self) -> Vec<Value> {
        let own = self.all.iter().filter(|machine| machine.vhost.is_none());
        let transfers = own.flat_map(|machine| machine.transfers);
        transfers
            .map(|transfer| Value::Object(self.transfer_with_payload(transfer)))
            .collect()
    }

    /// The transfers of a vhost's machine.
    #[must_use]
    pub fn transfers_of(&self, vhost: &str, name: &str) -> Value {
        let is_meant =
            |machine: &&Machine<'_>| machine.vhost == Some(vhost) && machine.name == name;
        let transfers = self.all.iter().filter(is_meant);
        let transfers = transfers.flat_map(|machine| machine.transfers);
        transfers
            .map(|transfer| Value::Object(self.transfer_with_payload(transfer)))
            .collect()
    }

    /// A swarm with its machines, maps and who served whom; `None` if nobody told of it.
    #[must_use]
    pub fn whole(&self, id: &str, views: &BTreeMap<String, View>) -> Option<Value> {
        let swarms = self.by_payload();
        let members = swarms.get(id)?;
        let mut shown = swarm(id, members, views);
        if let Some(object) = shown.as_object_mut() {
            object.insert("availability".to_owned(), availability(members));
            object.insert("machines".to_owned(), self.members(members));
            object.insert("edges".to_owned(), self.edges(members));
        }
        Some(shown)
    }

    /// A swarm's machines, with their maps and peers.
    #[must_use]
    pub fn members(&self, members: &[Member<'_>]) -> Value {
        let shown = members.iter().map(|member| {
            let machine = &member.machine;
            let mut object = self.transfer(member.transfer);
            let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
            put("name", machine.name.into());
            put("vhost", machine.vhost.into());
            put("role", machine.role.as_str().into());
            put("swarm_id", machine.swarm_id.into());
            put("address", machine.address.into());
            put("told_ms_ago", machine.told_ms_ago.into());
            Value::Object(object)
        });
        shown.collect()
    }

    /// Who served whom, by the larger of both ends' words.
    #[must_use]
    pub fn edges(&self, members: &[Member<'_>]) -> Value {
        let mut edges: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for member in members {
            let own = self.name(member.machine.swarm_id);
            for peer in &member.transfer.peers {
                let other = self.name(&peer.swarm_id);
                let received = (peer.down_bytes, peer.down_rate);
                let sent = (peer.up_bytes, peer.up_rate);
                for (from, to, (bytes, rate)) in [(other, own, received), (own, other, sent)] {
                    if bytes > 0 {
                        let edge = edges.entry((from, to)).or_default();
                        *edge = (edge.0.max(bytes), edge.1.max(rate));
                    }
                }
            }
        }
        let shown = edges.into_iter().map(|((from, to), (bytes, rate))| {
            json!({ "from": from, "to": to, "bytes": bytes, "rate": rate })
        });
        shown.collect()
    }

    /// A machine's name, or the first digits of its id.
    fn name<'b>(&'b self, swarm_id: &'b str) -> &'b str {
        let digits = swarm_id.get(..NAME_DIGITS).unwrap_or(swarm_id);
        self.names.get(swarm_id).copied().unwrap_or(digits)
    }

    fn transfer_with_payload(&self, transfer: &TransferReport) -> Map<String, Value> {
        let mut object = self.transfer(transfer);
        let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
        put("id", transfer.payload_id.as_str().into());
        put("name", transfer.payload_id.as_str().into());
        put("size_bytes", transfer.size_bytes.into());
        put("piece_bytes", transfer.piece_bytes.into());
        object
    }

    fn transfer(&self, transfer: &TransferReport) -> Map<String, Value> {
        let peers = transfer.peers.iter();
        let peers = peers.map(|peer| self.peer(peer, transfer.piece_count));
        let value = json!({
            "state": transfer.state.as_str(),
            "origin": transfer.origin,
            "pieces_held": transfer.pieces_held,
            "piece_count": transfer.piece_count,
            "progress": fraction(transfer.pieces_held, transfer.piece_count),
            "map": transfer.map,
            "down_rate": transfer.down_rate,
            "up_rate": transfer.up_rate,
            "down_bytes": transfer.down_bytes,
            "up_bytes": transfer.up_bytes,
            "pieces_fetched": transfer.pieces_fetched,
            "duplicate_bytes": transfer.duplicate_bytes,
            "bad_bytes": transfer.bad_bytes,
            "bad_pieces": transfer.bad_pieces,
            "up_limit": transfer.up_limit,
            "down_limit": transfer.down_limit,
            "priority": transfer.priority,
            "peers": peers.collect::<Value>(),
        });
        match value {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    fn peer(&self, peer: &PeerReport, piece_count: u32) -> Value {
        json!({
            "swarm_id": peer.swarm_id,
            "name": self.names.get(peer.swarm_id.as_str()),
            "connected": peer.connected,
            "address": peer.address,
            "pieces_held": peer.pieces_held,
            "fraction": fraction(peer.pieces_held, piece_count),
            "down_rate": peer.down_rate,
            "up_rate": peer.up_rate,
            "down_bytes": peer.down_bytes,
            "up_bytes": peer.up_bytes,
            "requests": peer.requests,
            "window_bytes": peer.window_bytes,
            "pieces": peer.pieces,
            "duplicate_bytes": peer.duplicate_bytes,
            "stalls": peer.stalls,
        })
    }
}

/// A swarm without its machines.
#[must_use]
pub fn swarm(id: &str, members: &[Member<'_>], views: &BTreeMap<String, View>) -> Value {
    let transfers = || members.iter().map(|member| member.transfer);
    let first = transfers().next();
    let sum =
        |field: fn(&TransferReport) -> u64| transfers().map(field).fold(0, u64::saturating_add);
    let size_bytes = first.map_or(0, |it| it.size_bytes);
    let up_bytes = sum(|it| it.up_bytes);
    let files = views.values().flat_map(|view| view.files().values());
    let mut names: Vec<&str> = files
        .filter(|file| file.payload_id == id)
        .map(|file| file.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let fetchers: Vec<f64> = transfers()
        .filter(|it| it.state == ReportState::Fetching || it.pieces_fetched > 0)
        .map(|it| fraction(it.pieces_held, it.piece_count))
        .collect();
    let progress = match fetchers.len() {
        0 => 1.0,
        count => fetchers.iter().sum::<f64>() / count as f64,
    };
    let origin = members
        .iter()
        .find(|member| member.transfer.origin)
        .map(|member| {
            let own_bytes = member.transfer.up_bytes;
            json!({
                "name": member.machine.name,
                "up_bytes": own_bytes,
                "copies": (size_bytes > 0).then(|| own_bytes as f64 / size_bytes as f64),
                "share": (up_bytes > 0).then(|| own_bytes as f64 / up_bytes as f64),
            })
        });
    json!({
        "id": id,
        "name": names.first().copied().unwrap_or(id),
        "names": names,
        "size_bytes": size_bytes,
        "piece_bytes": first.map_or(0, |it| it.piece_bytes),
        "piece_count": first.map_or(0, |it| it.piece_count),
        "members": members.len(),
        "seeds": transfers().filter(|it| it.state == ReportState::Complete).count(),
        "fetching": transfers().filter(|it| it.state == ReportState::Fetching).count(),
        "progress": progress,
        "down_rate": sum(|it| it.down_rate),
        "up_rate": sum(|it| it.up_rate),
        "down_bytes": sum(|it| it.down_bytes),
        "up_bytes": up_bytes,
        "duplicate_bytes": sum(|it| it.duplicate_bytes),
        "bad_bytes": sum(|it| it.bad_bytes),
        "bad_pieces": sum(|it| u64::from(it.bad_pieces)),
        "stalls": sum(|it| it.peers.iter().map(|peer| u64::from(peer.stalls)).sum()),
        "origin": origin,
    })
}

/// How many machines hold each piece: base64 of one octet for each.
#[must_use]
pub fn availability(members: &[Member<'_>]) -> Value {
    let piece_count = members
        .first()
        .map_or(0, |member| member.transfer.piece_count);
    // What a machine told is not trusted: no payload has more pieces.
    let mut holders = vec![0_u8; usize::try_from(piece_count.min(65_536)).unwrap_or(0)];
    for member in members {
        let map = member.transfer.map.as_ref();
        let Some(map) = map.and_then(|map| BASE64.decode(map).ok()) else {
            continue;
        };
        for (index, count) in holders.iter_mut().enumerate() {
            let octet = map.get(index / 8).copied().unwrap_or(0);
            if octet & (0x80 >> (index % 8)) != 0 {
                *count = count.saturating_add(1);
            }
        }
    }
    BASE64.encode(holders).into()
}

/// A time in milliseconds.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn fraction(part: u32, whole: u32) -> f64 {
    match whole {
        0 => 1.0,
        whole => f64::from(part.min(whole)) / f64::from(whole),
    }
}
