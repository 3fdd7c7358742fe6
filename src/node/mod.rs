//! The edge node and the distributor: files to groups of nodes, over any AMQP 0-9-1 broker.
//!
//! Owns: what joins manifests with swarms, and swarms with files. `edge` is the node that receives,
//! `distributor` the sender, `watch` the sender's loop; `message` has the forms that they exchange.
//! Spec: `spec/control-plane.md`.
#![allow(clippy::disallowed_methods)]

use std::time::SystemTime;

pub mod board;
pub mod distributor;
mod early;
pub mod edge;
mod fetch;
mod folder_events;
mod inbox;
pub mod ledger;
pub mod look;
pub mod manifest_file;
pub mod message;
pub mod place;
pub mod presence;
mod receipt;
mod registry;
pub mod report;
mod reporting;
mod retry;
pub mod send;
pub mod state;
pub mod status;
pub mod tune;
mod upstream;
pub mod view;
pub mod watch;

pub use edge::{Node, NodeError, NodeHandle, NodeSettings};

/// Milliseconds since 1970, for display and for the order of records.
fn unix_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
