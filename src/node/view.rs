//! What somebody who looks on knows of a broker's nodes: presence, files and their receipts, transfers.
//!
//! Owns: the rules by which messages of the control plane change that, and what is forgotten. Knows no connection
//! and no clock; time comes in. A sender's own account is `board`.
//! Bounds: [`NODES_MAX`], [`FILES_MAX`], [`STATES_MAX`], [`RECEIPTS_MAX`], [`MAP_BYTES_MAX`]; beyond each the oldest goes.
//! Spec: `spec/control-plane.md` CONTROL-13, CONTROL-14, CONTROL-25, CONTROL-27.

pub mod machines;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::board::{NODES_MAX, group_matches};
use super::message::{FileState, Group, NodeName, Presence, PresenceEvent, Receipt, Registry};
use super::presence::GONE_AFTER;
use super::report::{MachineRole, Report, Sent, TransferReport};

/// Most files that are kept account of.
pub const FILES_MAX: usize = 1_000;
/// Most states of files on nodes, over all files.
pub const STATES_MAX: usize = 200_000;
/// Receipts that are kept as they came.
pub const RECEIPTS_MAX: usize = 1_000;
/// Base64 of piece maps of all nodes together, in bytes; a report that would exceed it loses its maps.
pub const MAP_BYTES_MAX: usize = 64 << 20;
/// Longest name, reason or address that is kept, in bytes; a longer one is cut.
const TEXT_BYTES_MAX: usize = 1_024;
/// Groups of one node that are kept.
const GROUPS_MAX: usize = 64;

/// One machine as it was last heard of.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// What it is.
    pub role: MachineRole,
    /// The groups that it belongs to.
    pub groups: Vec<Group>,
    /// Its version.
    pub version: String,
    /// Where its peers reach it.
    pub addresses: Vec<String>,
    /// Its id in swarms; empty if it has not told.
    pub swarm_id: String,
    /// Free space on the disk of its inbox, in bytes, if it was heard of.
    pub free_bytes: Option<u64>,
    /// Payloads that it fetches or serves.
    pub fetching: u32,
    /// When it was last heard of by this view.
    pub heard: Option<Instant>,
    /// The same, or what the registry says, in milliseconds since 1970.
    pub seen_unix_ms: u64,
    /// Whether it has said goodbye since.
    pub has_left: bool,
    /// Its last report, and when it came.
    pub report: Option<(Report, Instant)>,
    /// Bytes of the report's maps.
    map_bytes: usize,
}

impl NodeView {
    /// Whether it was heard of within a minute, and has not gone since.
    // req: CONTROL-14
    #[must_use]
    pub fn is_online(&self, now: Instant) -> bool {
        !self.has_left
            && self
                .heard
                .is_some_and(|heard| now.saturating_duration_since(heard) < GONE_AFTER)
    }

    /// Its transfers, if it told of them lately.
    #[must_use]
    pub fn transfers(&self, now: Instant) -> &[TransferReport] {
        match &self.report {
            Some((report, at)) if now.saturating_duration_since(*at) < GONE_AFTER => {
                &report.transfers
            }
            Some(_) | None => &[],
        }
    }
}

/// One file on one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateView {
    /// What became of it.
    pub state: FileState,
    /// Pieces verified and on disk.
    pub pieces_done: u32,
    /// Why it failed.
    pub reason: Option<String>,
    /// How often the node was asked to try it again.
    pub attempt: u32,
    /// The node's first word on it, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended_unix_ms: Option<u64>,
}

/// One file that was sent: what one message is about.
#[derive(Clone, Debug, Default)]
pub struct FileView {
    /// Its name.
    pub name: String,
    /// BLAKE3 of its bytes, 64 hexadecimal digits.
    pub payload_id: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Pieces; 0 for a file that is a message.
    pub piece_count: u32,
    /// The group, if the sender told.
    pub group: Option<Group>,
    /// The sender, if it told.
    pub sender: Option<NodeName>,
    /// When it was sent, if the sender told; milliseconds since 1970.
    pub sent_unix_ms: Option<u64>,
    /// The id of its message; `None` for a message without one.
    pub message_id: Option<String>,
    /// When anybody last said anything of it, in milliseconds since 1970.
    pub changed_unix_ms: u64,
    /// By node.
    pub nodes: BTreeMap<NodeName, StateView>,
}

/// How a file stands on all its nodes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileCounts {
    /// Nodes that should have it.
    pub expected: usize,
    /// Nodes that have journaled its message.
    pub accepted: usize,
    /// Nodes that fetch it.
    pub fetching: usize,
    /// Nodes that have it.
    pub complete: usize,
    /// Nodes on which it failed.
    pub failed: usize,
}

impl FileCounts {
    /// Nodes that have not ended it.
    #[must_use]
    pub fn running(&self) -> usize {
        self.expected.saturating_sub(self.complete + self.failed)
    }

    /// `running`, `complete` or `failed`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.running(), self.failed) {
            (0, 0) => "complete",
            (0, _) => "failed",
            (_, _) => "running",
        }
    }
}

/// A receipt as it came.
#[derive(Clone, Debug)]
pub struct ReceiptView {
    /// The file's id in [`View::files`].
    pub file: String,
    /// What it says.
    pub receipt: Receipt,
    /// When it came, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// All nodes and files of one vhost.
#[derive(Clone, Debug, Default)]
pub struct View {
    nodes: BTreeMap<NodeName, NodeView>,
    files: BTreeMap<String, FileView>,
    receipts: VecDeque<ReceiptView>,
    state_count: usize,
    map_bytes: usize,
}

impl View {
    /// Nodes and senders by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeName, NodeView> {
        &self.nodes
    }

    /// Files by the id of their message.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, FileView> {
        &self.files
    }

    /// The latest receipts, the latest last.
    #[must_use]
    pub fn receipts(&self) -> &VecDeque<ReceiptView> {
        &self.receipts
    }

    /// Takes a node's word about itself, and its latest files if it tells them.
    pub fn take_presence(&mut self, presence: Presence, now: Instant, unix_ms: u64) {
        let node = presence.node.clone();
        let Some(seen) = self.heard(&node, now, unix_ms) else {
            return;
        };
        seen.role = MachineRole::Node;
        seen.has_left = presence.event == PresenceEvent::Leave;
        seen.groups = presence.groups.into_iter().take(GROUPS_MAX).collect();
        seen.version = cut(presence.version);
        seen.addresses = presence.peers.into_iter().take(16).map(cut).collect();
        if !presence.swarm_id.is_empty() {
            seen.swarm_id = cut(presence.swarm_id);
        }
        seen.free_bytes = Some(presence.free_bytes);
        seen.fetching = presence.fetching;
        if seen.has_left {
            self.drop_report(&node);
        }
        for receipt in presence.files {
            // A node speaks of its own files.
            if receipt.node == node {
                let message_id = receipt.message_id.clone();
                let at = receipt.at_unix_ms.unwrap_or(unix_ms).min(unix_ms);
                self.apply(message_id, receipt, at);
            }
        }
    }

    /// Takes a receipt that came by itself.
    pub fn take_receipt(
        &mut self,
        message_id: Option<String>,
        receipt: Receipt,
        now: Instant,
        unix_ms: u64,
    ) {
        if self.heard(&receipt.node, now, unix_ms).is_none() {
            return;
        }
        let at = receipt.at_unix_ms.unwrap_or(unix_ms).min(unix_ms);
        let Some(file) = self.apply(message_id, receipt.clone(), at) else {
            return;
        };
        if self.receipts.len() >= RECEIPTS_MAX {
            self.receipts.pop_front();
        }
        self.receipts.push_back(ReceiptView {
            file,
            receipt: Receipt {
                name: cut(receipt.name),
                reason: receipt.reason.map(cut),
                ..receipt
            },
            at_unix_ms: at,
        });
    }

    /// Takes a sender's word that it has sent a file.
    // req: CONTROL-25
    pub fn take_sent(&mut self, sent: Sent, unix_ms: u64) {
        let id = sent.message_id.clone();
        if id.is_empty() || id.len() > TEXT_BYTES_MAX {
            return;
        }
        let file = self.files.entry(id.clone()).or_default();
        file.name = cut(sent.name);
        file.payload_id = cut(sent.payload_id);
        file.size_bytes = sent.size_bytes;
        file.piece_count = sent.piece_count;
        file.group = Some(sent.group);
        file.sender = Some(sent.sender);
        file.sent_unix_ms = Some(sent.sent_unix_ms.min(unix_ms));
        file.message_id = Some(id);
        file.changed_unix_ms = unix_ms;
        self.forget_files();
    }

    /// Takes how a machine's transfers stand.
    // req: CONTROL-23
    pub fn take_report(&mut self, mut report: Report, now: Instant, unix_ms: u64) {
        let node = report.node.clone();
        self.drop_report(&node);
        report.transfers.truncate(super::report::TRANSFERS_MAX);
        report.swarm_id = cut(report.swarm_id);
        report.address = report.address.map(cut);
        for transfer in &mut report.transfers {
            transfer.payload_id = cut(std::mem::take(&mut transfer.payload_id));
            transfer.peers.truncate(super::report::PEERS_MAX);
            for peer in &mut transfer.peers {
                peer.swarm_id = cut(std::mem::take(&mut peer.swarm_id));
                peer.address = peer.address.take().map(cut);
            }
        }
        let maps = |report: &Report| -> usize {
            let maps = report.transfers.iter().filter_map(|it| it.map.as_ref());
            maps.map(String::len).sum()
        };
        let mut map_bytes = maps(&report);
        if self.map_bytes + map_bytes > MAP_BYTES_MAX {
            report.transfers.iter_mut().for_each(|it| it.map = None);
            map_bytes = 0;
        }
        let Some(seen) = self.heard(&node, now, unix_ms) else {
            return;
        };
        seen.role = report.role;
        seen.swarm_id = report.swarm_id.clone();
        if let (Some(address), true) = (&report.address, seen.addresses.is_empty()) {
            seen.addresses.push(cut(address.clone()));
        }
        seen.report = Some((report, now));
        seen.map_bytes = map_bytes;
        self.map_bytes += map_bytes;
    }

    /// Takes what the broker's registry knows.
    // req: CONTROL-16
    pub fn take_registry(&mut self, registry: Registry) {
        for (name, registered) in registry.nodes {
            if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&name) {
                continue;
            }
            let seen = self.nodes.entry(name).or_default();
            if seen.heard.is_none() {
                seen.groups = registered.groups.into_iter().take(GROUPS_MAX).collect();
                seen.version = cut(registered.version);
                seen.seen_unix_ms = seen.seen_unix_ms.max(registered.seen_unix_ms);
            }
        }
    }

    /// Forgets senders that are gone, and reports that are old.
    pub fn tidy(&mut self, now: Instant) {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= GONE_AFTER;
        let old: Vec<NodeName> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.report.as_ref().is_some_and(|(_, at)| is_old(at)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in old {
            self.drop_report(&name);
        }
        self.nodes
            .retain(|_, node| node.role == MachineRole::Node || node.is_online(now));
    }

    /// How a file stands, counting the nodes of its group that are on line.
    #[must_use]
    pub fn counts(&self, file: &FileView, now: Instant) -> FileCounts {
        let mut counts = FileCounts::default();
        for state in file.nodes.values() {
            match state.state {
                FileState::Announced => {}
                FileState::Accepted => counts.accepted += 1,
                FileState::Fetching => counts.fetching += 1,
                FileState::Complete => counts.complete += 1,
                FileState::Failed => counts.failed += 1,
            }
        }
        counts.expected = file.nodes.len() + self.silent(file, now).count();
        counts
    }

    /// Nodes of the file's group that are on line and have said nothing of it.
    pub fn silent<'a>(
        &'a self,
        file: &'a FileView,
        now: Instant,
    ) -> impl Iterator<Item = &'a NodeName> {
        let members = self.nodes.iter().filter(move |(name, node)| {
            let is_meant = |group: &Group| {
                node.groups
                    .iter()
                    .any(|bound| group_matches(bound.as_str(), group.as_str()))
            };
            !file.nodes.contains_key(*name)
                && file.group.as_ref().is_some_and(is_meant)
                && node.is_online(now)
        });
        members.map(|(name, _)| name)
    }

    /// Pieces of a file that a node holds, by its last report if that says more than its receipts.
    #[must_use]
    pub fn pieces_done(
        &self,
        file: &FileView,
        node: &NodeName,
        state: &StateView,
        now: Instant,
    ) -> u32 {
        let reported = self.nodes.get(node).into_iter();
        let reported = reported
            .flat_map(|node| node.transfers(now))
            .find(|transfer| transfer.payload_id == file.payload_id)
            .map_or(0, |transfer| transfer.pieces_held);
        match state.state {
            FileState::Complete => file.piece_count.max(state.pieces_done),
            FileState::Failed => state.pieces_done,
            FileState::Announced | FileState::Accepted | FileState::Fetching => {
                reported.max(state.pieces_done)
            }
        }
    }

    /// The account of a node that has just said something; `None` if there are too many.
    fn heard(&mut self, node: &NodeName, now: Instant, unix_ms: u64) -> Option<&mut NodeView> {
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(node) {
            let silent = self.nodes.iter().filter(|(_, node)| !node.is_online(now));
            let oldest = silent.min_by_key(|(_, node)| node.seen_unix_ms);
            let oldest = oldest.map(|(name, _)| name.clone())?;
            self.drop_report(&oldest);
            self.nodes.remove(&oldest);
        }
        let seen = self.nodes.entry(node.clone()).or_default();
        seen.heard = Some(now);
        seen.seen_unix_ms = unix_ms;
        seen.has_left = false;
        Some(seen)
    }

    fn drop_report(&mut self, node: &NodeName) {
        if let Some(node) = self.nodes.get_mut(node) {
            self.map_bytes -= std::mem::take(&mut node.map_bytes);
            node.report = None;
        }
    }

    /// Puts a receipt into its file's account; gives the file's id, if anything changed.
    // req: CONTROL-13
    // req: CONTROL-27
    fn apply(
        &mut self,
        message_id: Option<String>,
        receipt: Receipt,
        at_unix_ms: u64,
    ) -> Option<String> {
        let message_id = message_id.filter(|id| !id.is_empty() && id.len() <= TEXT_BYTES_MAX);
        let Receipt {
            node,
            payload_id,
            name,
            state,
            pieces_done,
            piece_count,
            reason,
            attempt,
            size_bytes,
            ..
        } = receipt;
        let (name, payload_id) = (cut(name), cut(payload_id));
        // A message without an id is known by its content and name.
        let id = message_id
            .clone()
            .unwrap_or_else(|| format!("{payload_id}:{name}"));
        let file = self.files.entry(id.clone()).or_insert_with(|| FileView {
            name,
            payload_id: payload_id.clone(),
            message_id,
            ..FileView::default()
        });
        if file.payload_id != payload_id {
            return None;
        }
        file.size_bytes = file.size_bytes.max(size_bytes);
        file.piece_count = file.piece_count.max(piece_count);
        file.changed_unix_ms = file.changed_unix_ms.max(at_unix_ms);
        let earlier = file.nodes.get(&node);
        let undoes = earlier.is_some_and(|earlier| {
            attempt < earlier.attempt
                || (attempt == earlier.attempt && earlier.state.is_final() && !state.is_final())
        });
        if undoes {
            return None;
        }
        let since_unix_ms = earlier
            .filter(|earlier| earlier.attempt == attempt)
            .map_or(at_unix_ms, |earlier| earlier.since_unix_ms.min(at_unix_ms));
        let next = StateView {
            state,
            pieces_done,
            reason: reason.map(cut),
            attempt,
            since_unix_ms,
            ended_unix_ms: state.is_final().then_some(at_unix_ms),
        };
        let before = file.nodes.insert(node, next.clone());
        self.state_count += usize::from(before.is_none());
        self.forget_files();
        (before.as_ref() != Some(&next)).then_some(id)
    }

    /// Lets go of the files that changed longest ago while there are too many.
    fn forget_files(&mut self) {
        while self.files.len() > FILES_MAX
            || (self.state_count > STATES_MAX && self.files.len() > 1)
        {
            let oldest = self
                .files
                .iter()
                .min_by_key(|(_, file)| file.changed_unix_ms);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            if let Some(file) = self.files.remove(&oldest) {
                self.state_count -= file.nodes.len();
            }
        }
    }
}

/// A text, cut to what is kept.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests;
