//! The piece protocol: nodes fetch the pieces of payloads from each other. Events in, actions out.
//!
//! Owns: the wire (`wire`), proofs (`proof`), what peers hold and ask (`peer`, `uploads`), which piece comes
//! next from whom (`picker`, `giver`, `requests`, `transfer`), and all of one node together (`engine`). Knows no
//! socket, file, clock or random source; `server::peer` drives it on TCP, `tests/sim` on a made-up network.
//! Spec: `spec/peer-protocol.md`.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod addresses;
pub mod availability;
mod blame;
pub mod engine;
mod flow;
mod giver;
pub mod limits;
mod peer;
pub mod picker;
mod proof;
mod quota;
mod rate;
mod requests;
mod slots;
mod transfer;
mod uploads;
pub mod web_seed;
mod window;
pub mod wire;

pub use engine::{Action, Engine, EngineError, PeerStats, TransferStats, Want};
pub use flow::Limits;
pub use limits::Settings;
pub use peer::{PeerCounts, PeerError};
pub use picker::Order;
pub use proof::{ChannelBinding, Role};
pub use quota::{QuotaUse, UploadQuota};
pub use requests::{ConnId, TransferId};
pub use transfer::{TransferCounts, TransferState};
pub use wire::{Message, NodeId};
