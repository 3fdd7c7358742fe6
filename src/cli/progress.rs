//! Progress bars of a sender: one for each node, on a terminal only.
//!
//! Bound: [`BARS_MAX`] bars; beyond it one bar counts nodes.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::node::board::{Board, FileBoard};
use crate::node::message::{FileState, NodeName};

/// Most bars that a screen is filled with.
const BARS_MAX: usize = 40;

/// Bars on standard error; nothing at all if that is no terminal.
pub(super) struct Bars {
    screen: Option<MultiProgress>,
    bars: BTreeMap<NodeName, ProgressBar>,
    total: Option<ProgressBar>,
}

impl Bars {
    pub(super) fn on_terminal() -> Self {
        let screen = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self {
            screen,
            bars: BTreeMap::new(),
            total: None,
        }
    }

    /// Draws what the board says.
    pub(super) fn show(&mut self, board: &Board) {
        let Some(screen) = &self.screen else { return };
        let mut nodes: Vec<&NodeName> = board
            .files
            .iter()
            .flat_map(|file| file.nodes.keys())
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.len() > BARS_MAX {
            self.bars.clear();
            let total = self.total.get_or_insert_with(|| {
                screen.add(
                    ProgressBar::new(0).with_style(style("{bar:40} {pos}/{len} nodes {elapsed}")),
                )
            });
            let is_done = |node: &&&NodeName| {
                board.files.iter().all(|file| {
                    file.nodes
                        .get(**node)
                        .is_some_and(|file| file.state.is_final())
                })
            };
            total.set_length(nodes.len() as u64);
            total.set_position(nodes.iter().filter(is_done).count() as u64);
            return;
        }
        for node in nodes {
            let bar = self.bars.entry(node.clone()).or_insert_with(|| {
                let bar = ProgressBar::new(0)
                    .with_style(style("{prefix:24} {bar:40} {bytes}/{total_bytes} {msg}"));
                bar.set_prefix(node.to_string());
                screen.add(bar)
            });
            let files = board.files.iter();
            let (done, size) = files.fold((0, 0), |(done, size), file| {
                (done + done_bytes(file, node), size + file.size_bytes)
            });
            bar.set_length(size);
            bar.set_position(done);
            bar.set_message(words(board, node));
        }
    }

    /// Takes the bars away, for what is printed after them.
    pub(super) fn clear(&mut self) {
        for bar in self.bars.values().chain(&self.total) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Bytes of the file that the node has verified, to the piece.
fn done_bytes(file: &FileBoard, node: &NodeName) -> u64 {
    let Some(on_node) = file.nodes.get(node) else {
        return 0;
    };
    match on_node.state {
        FileState::Complete => file.size_bytes,
        FileState::Fetching => {
            let pieces = u64::from(on_node.piece_count.max(1));
            (file.size_bytes / pieces).saturating_mul(on_node.pieces_done.into())
        }
        FileState::Announced | FileState::Accepted | FileState::Failed => 0,
    }
}

fn words(board: &Board, node: &NodeName) -> String {
    let states: Vec<_> = board
        .files
        .iter()
        .filter_map(|file| file.nodes.get(node))
        .collect();
    if let Some(failed) = states
        .iter()
        .find(|on_node| on_node.state == FileState::Failed)
    {
        return failed.reason.clone().unwrap_or_else(|| "failed".to_owned());
    }
    let slowest = states.iter().map(|on_node| on_node.state).min();
    slowest.map_or_else(String::new, |state| state.as_str().to_owned())
}
