//! What a sender knows: which nodes are there, and how each file fares on each of them.
//!
//! Owns: the rules by which receipts and presence change that, and when a file is done. Knows no
//! connection; time comes in.
//! Bound: [`NODES_MAX`] nodes; receipts of further ones are dropped.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::message::{FileState, Group, NodeName, Presence, PresenceEvent, Receipt};
use super::presence::GONE_AFTER;

/// Most nodes that a sender keeps account of.
pub const NODES_MAX: usize = 4_096;

/// One node as the sender last heard of it.
#[derive(Clone, Debug)]
pub struct NodeSeen {
    /// The groups that it belongs to.
    pub groups: Vec<Group>,
    /// When it last said anything.
    pub heard: Instant,
    /// Whether it has said goodbye since.
    pub has_left: bool,
    /// Its version.
    pub version: String,
}

/// One file on one node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NodeFile {
    /// What became of it.
    pub state: FileState,
    /// Pieces verified and on disk.
    pub pieces_done: u32,
    /// Pieces of the payload; 0 for a small file.
    pub piece_count: u32,
    /// Why it failed.
    pub reason: Option<String>,
}

/// One file that was sent.
#[derive(Clone, Debug)]
pub struct FileBoard {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes, 64 hexadecimal digits.
    pub payload_id: String,
    /// Whether it went as a manifest.
    pub is_payload: bool,
    /// The group that it was sent to.
    pub group: Group,
    /// The id of its message: receipts bear it as correlation id.
    pub message_id: String,
    /// What is known of it, by node.
    pub nodes: BTreeMap<NodeName, NodeFile>,
}

/// All files and nodes of one sender.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Nodes by name.
    pub nodes: BTreeMap<NodeName, NodeSeen>,
    /// Files in the order of sending.
    pub files: Vec<FileBoard>,
}

impl Board {
    /// Takes a receipt; answers which file changed, if any did.
    // req: CONTROL-13
    pub fn take_receipt(
        &mut self,
        message_id: &str,
        receipt: Receipt,
        now: Instant,
    ) -> Option<usize> {
        if let Some(node) = self.nodes.get_mut(&receipt.node) {
            node.heard = now;
        }
        let index = self
            .files
            .iter()
            .position(|file| file.message_id == message_id)?;
        let file = self.files.get_mut(index)?;
        if file.payload_id != receipt.payload_id {
            return None;
        }
        let room = file.nodes.len() < NODES_MAX || file.nodes.contains_key(&receipt.node);
        let earlier = file.nodes.get(&receipt.node);
        let undoes_final =
            earlier.is_some_and(|earlier| earlier.state.is_final() && !receipt.state.is_final());
        if undoes_final || !room {
            return None;
        }
        let Receipt {
            node,
            state,
            pieces_done,
            piece_count,
            reason,
            ..
        } = receipt;
        let next = NodeFile {
            state,
            pieces_done,
            piece_count,
            reason,
        };
        (file.nodes.insert(node, next.clone()).as_ref() != Some(&next)).then_some(index)
    }

    /// Takes a node's word about itself.
    // req: CONTROL-14
    pub fn take_presence(&mut self, presence: &Presence, now: Instant) {
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&presence.node) {
            return;
        }
        let seen = NodeSeen {
            groups: presence.groups.clone(),
            heard: now,
            has_left: presence.event == PresenceEvent::Leave,
            version: presence.version.clone(),
        };
        self.nodes.insert(presence.node.clone(), seen);
    }

    /// Whether the node is on line: heard of within a minute, and not gone since.
    #[must_use]
    pub fn is_online(&self, node: &NodeName, now: Instant) -> bool {
        let seen = self.nodes.get(node);
        seen.is_some_and(|seen| {
            !seen.has_left && now.saturating_duration_since(seen.heard) < GONE_AFTER
        })
    }

    /// The nodes that the file is for and that are on line, or have answered it.
    #[must_use]
    pub fn expected(&self, file: &FileBoard, now: Instant) -> Vec<NodeName> {
        let members = self.nodes.iter().filter(|(_, seen)| {
            seen.groups
                .iter()
                .any(|group| group_matches(group.as_str(), file.group.as_str()))
        });
        let mut expected: Vec<_> = members
            .map(|(name, _)| name)
            .filter(|name| self.is_online(name, now))
            .chain(file.nodes.iter().filter_map(|(name, on_node)| {
                let is_gone = self.nodes.contains_key(name) && !self.is_online(name, now);
                (on_node.state.is_final() || !is_gone).then_some(name)
            }))
            .cloned()
            .collect();
        expected.sort_unstable();
        expected.dedup();
        expected
    }

    /// How many nodes hold a verified copy of the file.
    #[must_use]
    pub fn complete_count(file: &FileBoard) -> usize {
        file.nodes
            .values()
            .filter(|node| node.state == FileState::Complete)
            .count()
    }

    /// Whether the file's fate is decided, and well: at least `wanted` nodes are complete, or without
    /// a number all that are expected have ended. `None` while it is open.
    // req: CONTROL-19
    #[must_use]
    pub fn verdict(&self, file: &FileBoard, wanted: Option<usize>, now: Instant) -> Option<bool> {
        if let Some(wanted) = wanted {
            return (Self::complete_count(file) >= wanted).then_some(true);
        }
        let expected = self.expected(file, now);
        let states: Vec<_> = expected
            .iter()
            .map(|node| file.nodes.get(node).map(|node| node.state))
            .collect();
        if states
            .iter()
            .any(|state| !state.is_some_and(FileState::is_final))
        {
            return None;
        }
        Some(
            !states.is_empty()
                && states
                    .iter()
                    .all(|state| *state == Some(FileState::Complete)),
        )
    }
}

/// Whether a binding key of a topic exchange takes this routing key.
///
/// `*` stands for one word, `#` for any number of words. The work is bounded by the product of the
/// words of both, which are short.
#[must_use]
pub fn group_matches(pattern: &str, key: &str) -> bool {
    let words: Vec<_> = key.split('.').collect();
    // reached[i]: the pattern so far can have taken the first i words.
    let mut reached = vec![false; words.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for part in pattern.split('.') {
        let mut next = vec![false; reached.len()];
        let mut any_before = false;
        for (index, slot) in next.iter_mut().enumerate() {
            let here = reached.get(index).copied().unwrap_or(false);
            any_before |= here;
            let word = index.checked_sub(1).and_then(|before| words.get(before));
            let after_word = index
                .checked_sub(1)
                .is_some_and(|before| reached.get(before).copied().unwrap_or(false));
            *slot = match part {
                "#" => any_before,
                "*" => after_word,
                part => after_word && word == Some(&part),
            };
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().expect("a name")
    }

    fn board(now: Instant, nodes: &[(&str, &str)]) -> Board {
        let mut board = Board::default();
        for (node, group) in nodes {
            let presence = Presence {
                node: name(node),
                event: PresenceEvent::Join,
                groups: vec![group.parse().expect("a group")],
                peers: Vec::new(),
                version: String::new(),
                free_bytes: 0,
                fetching: 0,
                swarm_id: String::new(),
                files: Vec::new(),
            };
            board.take_presence(&presence, now);
        }
        board.files.push(FileBoard {
            name: "f".to_owned(),
            size_bytes: 1,
            payload_id: "id".to_owned(),
            is_payload: true,
            group: "g.1".parse().expect("a group"),
            message_id: "m".to_owned(),
            nodes: BTreeMap::new(),
        });
        board
    }

    fn receipt(node: &str, state: FileState) -> Receipt {
        Receipt {
            node: name(node),
            payload_id: "id".to_owned(),
            name: "f".to_owned(),
            state,
            pieces_done: 0,
            piece_count: 4,
            reason: None,
            attempt: 0,
            size_bytes: 0,
            at_unix_ms: None,
            message_id: None,
        }
    }

    /// A hint never undoes a final state; receipts for other messages or payloads change nothing.
    // req: CONTROL-13
    #[test]
    fn final_state_stays() {
        let now = Instant::now();
        let mut board = board(now, &[("a", "g.1")]);
        assert_eq!(
            board.take_receipt("m", receipt("a", FileState::Fetching), now),
            Some(0)
        );
        assert_eq!(
            board.take_receipt("m", receipt("a", FileState::Complete), now),
            Some(0)
        );
        assert_eq!(
            board.take_receipt("m", receipt("a", FileState::Fetching), now),
            None
        );
        assert_eq!(
            board.take_receipt("x", receipt("b", FileState::Failed), now),
            None
        );
        let other = Receipt {
            payload_id: "other".to_owned(),
            ..receipt("a", FileState::Failed)
        };
        assert_eq!(board.take_receipt("m", other, now), None);
        assert_eq!(Board::complete_count(&board.files[0]), 1);
    }

    /// Without a number every node of the group that is on line must end; with one, so many suffice.
    // req: CONTROL-19
    #[test]
    fn file_is_done_when_its_nodes_are() {
        let now = Instant::now();
        let mut board = board(now, &[("a", "g.*"), ("b", "#"), ("c", "other")]);
        let verdict = |board: &Board, wanted| board.verdict(&board.files[0], wanted, now);
        assert_eq!(board.expected(&board.files[0], now), [name("a"), name("b")]);
        assert_eq!(verdict(&board, None), None);
        board.take_receipt("m", receipt("a", FileState::Complete), now);
        assert_eq!(verdict(&board, None), None);
        assert_eq!(verdict(&board, Some(1)), Some(true));
        assert_eq!(verdict(&board, Some(2)), None);
        board.take_receipt("m", receipt("b", FileState::Failed), now);
        assert_eq!(verdict(&board, None), Some(false));
        board.take_receipt("m", receipt("b", FileState::Complete), now);
        assert_eq!(verdict(&board, None), Some(true));
    }

    /// A node that left, or was silent for a minute, is not waited for.
    // req: CONTROL-14
    #[test]
    fn gone_node_is_not_waited_for() {
        let now = Instant::now();
        let mut board = board(now, &[("a", "g.1"), ("b", "g.1")]);
        board.take_receipt("m", receipt("a", FileState::Complete), now);
        board.take_receipt("m", receipt("b", FileState::Fetching), now);
        assert_eq!(board.verdict(&board.files[0], None, now), None);
        let later = now + Duration::from_secs(61);
        assert!(!board.is_online(&name("b"), later));
        assert_eq!(board.verdict(&board.files[0], None, later), Some(true));
    }

    /// Groups match as the broker's topic exchange matches them.
    #[test]
    fn groups_match_as_topics_do() {
        for (pattern, key, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#", "anything.at.all", true),
            ("#.c", "a.b.c", true),
            ("#.c", "c", true),
            ("a.#.c", "a.c", true),
            ("*.b.#", "a.b", true),
            ("*.b.#", "b", false),
        ] {
            assert_eq!(group_matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
