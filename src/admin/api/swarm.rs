//! `/swarm`: payloads, swarms, transfers, nodes and files; trying a failed file again.
//!
//! Owns: the routes and the forms of payloads, nodes, files and receipts. Who holds and serves what in a swarm is
//! put together in `machines`. No access key is ever part of an answer.
//! Bounds: those of the accounts (`node::view`), and [`NODES_ASKED_MAX`].
//! Spec: `docs/swarm-api.md`.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::http::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, paging, route};
use crate::admin::observer::{text, waiting};
use crate::broker::Vhost;
use crate::node::message::{FileState, NodeName};
use crate::node::report::Retry;
use crate::node::tune::Tune;
use crate::node::view::machines::{self, Machines, millis};
use crate::node::view::{FileView, NodeView, StateView, View};
use crate::payload::ScopeId;
use crate::payload::store::{PayloadInfo, Presence};
use crate::swarm::TransferStats;

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/swarm", Level::Monitoring, overview),
    route(Method::GET, "/swarm/payloads", Level::Monitoring, payloads),
    route(
        Method::GET,
        "/swarm/payloads/{id}",
        Level::Monitoring,
        payload,
    ),
    route(Method::GET, "/swarm/swarms", Level::Monitoring, swarms),
    route(Method::GET, "/swarm/swarms/{id}", Level::Monitoring, swarm),
    route(
        Method::PUT,
        "/swarm/swarms/{id}/limits",
        Level::Administrator,
        limits,
    ),
    route(
        Method::GET,
        "/swarm/transfers",
        Level::Monitoring,
        transfers,
    ),
    route(
        Method::GET,
        "/swarm/transfers/{id}",
        Level::Monitoring,
        transfer,
    ),
    route(Method::GET, "/swarm/nodes", Level::Monitoring, nodes),
    route(
        Method::GET,
        "/swarm/nodes/{vhost}/{name}",
        Level::Monitoring,
        node,
    ),
    route(Method::GET, "/swarm/files", Level::Monitoring, files),
    route(
        Method::GET,
        "/swarm/files/{vhost}/{id}",
        Level::Monitoring,
        file,
    ),
    route(
        Method::POST,
        "/swarm/files/{vhost}/{id}/retry",
        Level::Administrator,
        retry,
    ),
    route(Method::GET, "/swarm/receipts", Level::Monitoring, receipts),
];

/// Nodes that one request may ask to try a file again.
const NODES_ASKED_MAX: usize = 4_096;

/// Runs `show` on what is known of all vhosts and of this process, as machines.
fn with_machines<T>(
    call: &Call,
    show: impl FnOnce(&BTreeMap<String, View>, &Machines<'_>) -> T,
) -> T {
    let own_name = &call.api.facts.node;
    call.api.observer.look(call.now, |views, own| {
        show(views, &Machines::of(views, own, own_name, call.now))
    })
}

fn overview(call: &Call) -> Answer {
    let swarm = call.api.observer.swarm();
    let usage = call.api.store.usage();
    let stats = swarm.stats();
    let sum = |field: fn(&TransferStats) -> u64| stats.iter().map(field).sum::<u64>();
    let facts = &call.api.facts;
    Ok(Reply::Json(with_machines(call, |views, machines| {
        let swarms = machines.by_payload();
        let fetching = swarms
            .values()
            .filter(|members| members.iter().any(|member| member.is_fetching()))
            .count();
        let nodes = || views.values().flat_map(|view| view.nodes().values());
        let online = nodes().filter(|node| node.is_online(call.now)).count();
        let mut files = BTreeMap::from([("complete", 0_u64), ("failed", 0), ("running", 0)]);
        for view in views.values() {
            for file in view.files().values() {
                *files
                    .entry(view.counts(file, call.now).state())
                    .or_default() += 1;
            }
        }
        json!({
            "node": facts.node,
            "version": env!("CARGO_PKG_VERSION"),
            "peer_address": swarm.local_addr().map(|address| address.to_string()),
            "connections": swarm.connection_count(),
            "banned": swarm.banned_count(),
            "payloads": {
                "count": usage.payload_count,
                "stored_bytes": usage.stored_bytes,
                "reserved_bytes": usage.reserved_bytes,
                "idle_bytes": usage.idle_bytes,
            },
            "swarms": { "count": swarms.len(), "fetching": fetching },
            "nodes": { "online": online, "offline": nodes().count() - online },
            "files": {
                "count": files.values().sum::<u64>(),
                "running": files["running"],
                "complete": files["complete"],
                "failed": files["failed"],
            },
            "down_rate": sum(|it| it.down_bytes_per_second),
            "up_rate": sum(|it| it.up_bytes_per_second),
            "down_bytes": sum(|it| it.counts.down_bytes),
            "up_bytes": sum(|it| it.counts.up_bytes),
        })
    })))
}

fn payloads(call: &Call) -> Answer {
    let shown = shown_payloads(call, |_| true);
    paging::list(call, shown)
}

fn payload(call: &Call) -> Answer {
    let id = call.name("id").to_ascii_lowercase();
    let shown = shown_payloads(call, |info| info.id.to_string() == id);
    match shown.is_empty() {
        true => Err(ApiError::not_found()),
        false => paging::list(call, shown),
    }
}

fn shown_payloads(call: &Call, is_meant: impl Fn(&PayloadInfo) -> bool) -> Vec<Value> {
    let vhosts = call.broker().vhosts();
    let vhosts: BTreeMap<ScopeId, String> = vhosts
        .iter()
        .map(|vhost| (vhost.scope(), text(vhost.name())))
        .collect();
    let stats = call.api.observer.swarm().stats();
    let retention_ms = millis(call.api.store.retention());
    let listed = call.api.store.list().into_iter().filter(is_meant);
    let shown = listed.map(|info| {
        let transfer = stats.iter().find(|it| it.payload == info.id);
        let idle = info.idle_since.filter(|_| info.reference_count == 0 && !info.is_pinned);
        json!({
            "id": info.id.to_string(),
            "name": info.id.to_string(),
            "vhost": vhosts.get(&info.scope),
            "size_bytes": info.geometry.size_bytes(),
            "piece_bytes": info.geometry.piece_bytes().get(),
            "piece_count": info.geometry.piece_count(),
            "state": match info.presence {
                Presence::Adopted => "adopted",
                Presence::Complete => "complete",
                Presence::Partial => "partial",
            },
            "references": info.reference_count,
            "pinned": info.is_pinned,
            "idle_ms": idle.map(|at| millis(call.now.saturating_duration_since(at))),
            "retention_ms": retention_ms,
            "transfer": transfer.map(|it| crate::node::report::ReportState::from(it.state).as_str()),
            "peers": transfer.map_or(0, |it| it.peers.len()),
        })
    });
    shown.collect()
}

fn swarms(call: &Call) -> Answer {
    let shown = with_machines(call, |views, machines| {
        let swarms = machines.by_payload();
        let shown = swarms
            .iter()
            .map(|(id, members)| machines::swarm(id, members, views));
        shown.collect()
    });
    paging::list(call, shown)
}

fn swarm(call: &Call) -> Answer {
    let id = call.name("id").to_ascii_lowercase();
    let shown = with_machines(call, |views, machines| machines.whole(&id, views));
    paging::one(call, shown.ok_or_else(ApiError::not_found)?)
}

fn transfers(call: &Call) -> Answer {
    let shown = with_machines(call, |_, machines| machines.own_transfers());
    paging::list(call, shown)
}

fn transfer(call: &Call) -> Answer {
    let id = call.name("id").to_ascii_lowercase();
    let mut shown = with_machines(call, |_, machines| machines.own_transfers());
    shown.retain(|it| it.get("id").and_then(Value::as_str) == Some(id.as_str()));
    match shown.is_empty() {
        true => Err(ApiError::not_found()),
        false => paging::list(call, shown),
    }
}

fn nodes(call: &Call) -> Answer {
    let vhosts = call.broker().vhosts();
    let shown = with_machines(call, |views, _| {
        let mut shown = Vec::new();
        for vhost in &vhosts {
            let name = text(vhost.name());
            let Some(view) = views.get(&name) else {
                continue;
            };
            let counts = files_of_nodes(view);
            let nodes = view.nodes().iter();
            shown.extend(nodes.map(|(node, it)| shown_node(vhost, node, it, &counts, call.now)));
        }
        shown
    });
    paging::list(call, shown)
}

fn node(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let shown = with_machines(call, |views, machines| {
        let view = views.get(&text(vhost.name()))?;
        let name: NodeName = call.name("name").parse().ok()?;
        let node = view.nodes().get(&name)?;
        let mut shown = shown_node(&vhost, &name, node, &files_of_nodes(view), call.now);
        if let Some(object) = shown.as_object_mut() {
            let transfers = machines.transfers_of(&text(vhost.name()), name.as_str());
            object.insert("transfers".to_owned(), transfers);
        }
        Some(shown)
    });
    paging::one(call, shown.ok_or_else(ApiError::not_found)?)
}

/// How many files run, are complete and failed on each node.
fn files_of_nodes(view: &View) -> BTreeMap<&NodeName, [u64; 3]> {
    let mut counts: BTreeMap<&NodeName, [u64; 3]> = BTreeMap::new();
    for file in view.files().values() {
        for (node, state) in &file.nodes {
            let [running, complete, failed] = counts.entry(node).or_default();
            let count = match state.state {
                FileState::Announced | FileState::Accepted | FileState::Fetching => running,
                FileState::Complete => complete,
                FileState::Failed => failed,
            };
            *count += 1;
        }
    }
    counts
}

fn shown_node(
    vhost: &Vhost,
    name: &NodeName,
    node: &NodeView,
    counts: &BTreeMap<&NodeName, [u64; 3]>,
    now: Instant,
) -> Value {
    let [running, complete, failed] = counts.get(name).copied().unwrap_or_default();
    let groups: Vec<&str> = node.groups.iter().map(|group| group.as_str()).collect();
    let transfers = node.transfers(now);
    json!({
        "name": name.as_str(),
        "vhost": text(vhost.name()),
        "role": node.role.as_str(),
        "online": node.is_online(now),
        "groups": groups,
        "version": node.version,
        "addresses": node.addresses,
        "swarm_id": Some(&node.swarm_id).filter(|id| !id.is_empty()),
        "free_bytes": node.free_bytes,
        "fetching": transfers
            .iter()
            .filter(|it| it.state == crate::node::report::ReportState::Fetching)
            .count(),
        "seen_unix_ms": Some(node.seen_unix_ms).filter(|seen| *seen > 0),
        "seen_ms_ago": node.heard.map(|at| millis(now.saturating_duration_since(at))),
        "waiting": waiting(vhost, name),
        "files": { "running": running, "complete": complete, "failed": failed },
        "down_rate": transfers.iter().map(|it| it.down_rate).sum::<u64>(),
        "up_rate": transfers.iter().map(|it| it.up_rate).sum::<u64>(),
    })
}

fn files(call: &Call) -> Answer {
    let mut shown: Vec<(u64, Value)> = with_machines(call, |views, _| {
        let files = views.iter().flat_map(|(vhost, view)| {
            let files = view.files().iter();
            files.map(move |(id, file)| {
                let at = file.sent_unix_ms.unwrap_or(file.changed_unix_ms);
                (at, shown_file(vhost, id, file, view, call.now))
            })
        });
        files.collect()
    });
    shown.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    paging::list(call, shown.into_iter().map(|(_, file)| file).collect())
}

fn file(call: &Call) -> Answer {
    let vhost = call.name("vhost");
    let shown = with_machines(call, |views, _| {
        let view = views.get(vhost)?;
        let (id, file) = view.files().get_key_value(call.name("id"))?;
        let mut shown = shown_file(vhost, id, file, view, call.now);
        let told = file.nodes.iter();
        let told = told.map(|(node, state)| shown_state(file, node, Some(state), view, call.now));
        let silent = view.silent(file, call.now);
        let silent = silent.map(|node| shown_state(file, node, None, view, call.now));
        if let Some(object) = shown.as_object_mut() {
            object.insert("nodes".to_owned(), told.chain(silent).collect());
        }
        Some(shown)
    });
    paging::one(call, shown.ok_or_else(ApiError::not_found)?)
}

fn shown_file(vhost: &str, id: &str, file: &FileView, view: &View, now: Instant) -> Value {
    let counts = view.counts(file, now);
    let shares = file
        .nodes
        .iter()
        .map(|(node, state)| share(file, node, state, view, now));
    let progress = match counts.expected {
        0 => 0.0,
        expected => shares.sum::<f64>() / expected as f64,
    };
    json!({
        "id": id,
        "vhost": vhost,
        "name": file.name,
        "payload_id": file.payload_id,
        "size_bytes": file.size_bytes,
        "piece_count": file.piece_count,
        "group": file.group.as_ref().map(|group| group.as_str()),
        "way": if file.piece_count > 0 { "swarm" } else { "message" },
        "sender": file.sender.as_ref().map(NodeName::as_str),
        "sent_unix_ms": file.sent_unix_ms,
        "state": counts.state(),
        "expected": counts.expected,
        "accepted": counts.accepted,
        "fetching": counts.fetching,
        "complete": counts.complete,
        "failed": counts.failed,
        "progress": progress,
    })
}

/// The part of a file that a node holds, 0 to 1.
fn share(file: &FileView, node: &NodeName, state: &StateView, view: &View, now: Instant) -> f64 {
    match (state.state, file.piece_count) {
        (FileState::Complete, _) => 1.0,
        (_, 0) => 0.0,
        (_, count) => {
            f64::from(view.pieces_done(file, node, state, now).min(count)) / f64::from(count)
        }
    }
}

fn shown_state(
    file: &FileView,
    node: &NodeName,
    state: Option<&StateView>,
    view: &View,
    now: Instant,
) -> Value {
    let online = view.nodes().get(node).is_some_and(|it| it.is_online(now));
    json!({
        "node": node.as_str(),
        "online": online,
        "state": state.map_or(FileState::Announced, |it| it.state).as_str(),
        "pieces_done": state.map_or(0, |it| view.pieces_done(file, node, it, now)),
        "piece_count": file.piece_count,
        "progress": state.map_or(0.0, |it| share(file, node, it, view, now)),
        "reason": state.and_then(|it| it.reason.as_deref()),
        "attempt": state.map_or(0, |it| it.attempt),
        "since_unix_ms": state.map(|it| it.since_unix_ms),
        "ended_unix_ms": state.and_then(|it| it.ended_unix_ms),
    })
}

fn receipts(call: &Call) -> Answer {
    let mut shown: Vec<(u64, Value)> = with_machines(call, |views, _| {
        let receipts = views.iter().flat_map(|(vhost, view)| {
            view.receipts().iter().rev().map(move |it| {
                let receipt = &it.receipt;
                let shown = json!({
                    "vhost": vhost,
                    "node": receipt.node.as_str(),
                    "file": it.file,
                    "name": receipt.name,
                    "payload_id": receipt.payload_id,
                    "state": receipt.state.as_str(),
                    "pieces_done": receipt.pieces_done,
                    "piece_count": receipt.piece_count,
                    "reason": receipt.reason,
                    "attempt": receipt.attempt,
                    "at_unix_ms": it.at_unix_ms,
                });
                (it.at_unix_ms, shown)
            })
        });
        receipts.collect()
    });
    shown.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    paging::list(call, shown.into_iter().map(|(_, it)| it).collect())
}

/// Gives a payload other limits, or another priority, on the machines that move it.
// req: CONTROL-28
fn limits(call: &Call) -> Answer {
    let mut wish = call.object()?;
    let id = call.name("id").to_ascii_lowercase();
    wish.insert("payload_id".to_owned(), Value::from(id.as_str()));
    let refused = |problem: &dyn std::fmt::Display| ApiError::bad_request(problem.to_string());
    let tune: Tune =
        serde_json::from_value(Value::Object(wish)).map_err(|error| refused(&error))?;
    let (payload, _) = tune.checked().map_err(|error| refused(&error))?;
    let members = with_machines(call, |_, machines| {
        let swarms = machines.by_payload();
        swarms.get(id.as_str()).map(|members| members.len())
    });
    let stats = call.api.observer.swarm().stats();
    if members.is_none() && !stats.iter().any(|it| it.payload == payload) {
        return Err(ApiError::not_found());
    }
    let changed = call.api.observer.tune(&tune, call.now);
    tracing::info!(user = %call.user()?.name(), payload = id, "limits changed");
    Ok(Reply::Json(json!({ "changed_here": changed })))
}

/// Asks nodes on which a file failed to try it again.
// req: CONTROL-26
fn retry(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let object = call.object()?;
    let wanted: Option<Vec<NodeName>> = match object.get("nodes") {
        None | Some(Value::Null) => None,
        Some(Value::Array(nodes)) if nodes.len() <= NODES_ASKED_MAX => {
            let names = nodes.iter().map(|node| node.as_str()?.parse().ok());
            let names: Option<Vec<NodeName>> = names.collect();
            Some(names.ok_or_else(|| ApiError::bad_request("nodes are not names of nodes"))?)
        }
        Some(_) => return Err(ApiError::bad_request("nodes is not a list of names")),
    };
    let found = with_machines(call, |views, _| {
        let view = views.get(&text(vhost.name()))?;
        let file = view.files().get(call.name("id"))?;
        let failed = |node: &NodeName| {
            let state = file.nodes.get(node);
            state.is_some_and(|it| it.state == FileState::Failed)
        };
        let all = || {
            file.nodes
                .keys()
                .filter(|node| failed(node))
                .cloned()
                .collect()
        };
        let wanted: Vec<NodeName> = wanted.unwrap_or_else(all);
        let (failed, not_failed): (Vec<_>, Vec<_>) = wanted.into_iter().partition(failed);
        let requests = failed.into_iter().map(|node| Retry {
            node,
            message_id: file.message_id.clone(),
            payload_id: file.payload_id.clone(),
            name: file.name.clone(),
        });
        Some((requests.collect::<Vec<_>>(), not_failed))
    });
    let (requests, not_failed) = found.ok_or_else(ApiError::not_found)?;
    let (mut asked, mut offline) = (Vec::new(), Vec::new());
    for request in requests {
        match call.api.observer.ask_again(&vhost, &request, call.now) {
            Ok(true) => asked.push(request.node),
            Ok(false) => offline.push(request.node),
            Err(error) => return Err(ApiError::bad_request(error.to_string())),
        }
    }
    tracing::info!(user = %call.user()?.name(), file = call.name("id"), nodes = asked.len(), "asked to try a file again");
    let names =
        |nodes: &[NodeName]| -> Vec<String> { nodes.iter().map(NodeName::to_string).collect() };
    Ok(Reply::Json(json!({
        "asked": names(&asked),
        "offline": names(&offline),
        "not_failed": names(&not_failed),
    })))
}
