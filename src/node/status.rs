//! What a broker's nodes are doing: who is there, who is not, and how their files fare.
//!
//! Owns: putting together the registry, the nodes' answers, and what waits in the queues of those that
//! do not answer. Bound: the wait for answers is the caller's.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout_at;

use super::distributor::{Distributor, DistributorSettings, News, SendError};
use super::message::{Group, NodeName, Presence, PresenceEvent, Receipt};

/// One node, on line or not.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Whether it answered.
    pub online: bool,
    /// The groups that it belongs to.
    pub groups: Vec<Group>,
    /// The version that it runs, or ran last.
    pub version: String,
    /// When it last joined or left, in milliseconds since 1970; `null` if the registry lost it.
    pub seen_unix_ms: Option<u64>,
    /// Where its peers reach it.
    pub peers: Vec<String>,
    /// Free space on the disk of its inbox, in bytes; `null` for a node off line.
    pub free_bytes: Option<u64>,
    /// Messages that wait for it at the broker.
    pub waiting: Option<u32>,
    /// Its latest files; empty for a node off line.
    pub files: Vec<Receipt>,
}

/// All nodes of a broker.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// By name.
    pub nodes: Vec<NodeStatus>,
}

/// Asks everybody, and listens for `wait`, or until every registered node has answered.
///
/// # Errors
/// Why the broker is not reached.
pub async fn status(settings: DistributorSettings, wait: Duration) -> Result<Status, SendError> {
    let mut distributor = Distributor::connect(settings).await?;
    let registry = distributor.registry().await?;
    let mut answers: Vec<Presence> = Vec::new();
    let deadline = Instant::now() + wait;
    // A node answers the request once; what it tells at its interval has no files.
    let all_known = |answers: &[Presence]| {
        let answered = |name: &NodeName| answers.iter().any(|presence| presence.node == *name);
        !registry.nodes.is_empty() && registry.nodes.keys().all(answered)
    };
    while !all_known(&answers) {
        match timeout_at(deadline.into(), distributor.news()).await {
            Err(_) => break,
            Ok(news) => {
                if let News::Node(presence) = news? {
                    let earlier = answers
                        .iter_mut()
                        .find(|earlier| earlier.node == presence.node);
                    match earlier {
                        Some(earlier) if presence.files.is_empty() => {
                            earlier.event = presence.event
                        }
                        Some(earlier) => *earlier = presence,
                        None => answers.push(presence),
                    }
                }
            }
        }
    }
    let mut names: Vec<NodeName> = registry.nodes.keys().cloned().collect();
    names.extend(answers.iter().map(|presence| presence.node.clone()));
    names.sort_unstable();
    names.dedup();
    let mut nodes = Vec::with_capacity(names.len());
    for name in names {
        let waiting = distributor.backlog(&name).await?;
        let registered = registry.nodes.get(&name);
        let answer = answers.iter().find(|presence| presence.node == name);
        let online = answer.is_some_and(|presence| presence.event != PresenceEvent::Leave);
        let known_groups = registered
            .map(|node| node.groups.clone())
            .unwrap_or_default();
        let known_version = registered
            .map(|node| node.version.clone())
            .unwrap_or_default();
        nodes.push(NodeStatus {
            online,
            groups: answer.map_or(known_groups, |presence| presence.groups.clone()),
            version: answer.map_or(known_version, |presence| presence.version.clone()),
            seen_unix_ms: registered.map(|node| node.seen_unix_ms),
            peers: answer
                .map(|presence| presence.peers.clone())
                .unwrap_or_default(),
            free_bytes: answer
                .filter(|_| online)
                .map(|presence| presence.free_bytes),
            waiting,
            files: answer
                .map(|presence| presence.files.clone())
                .unwrap_or_default(),
            name,
        });
    }
    distributor.close().await;
    Ok(Status { nodes })
}
