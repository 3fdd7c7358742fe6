//! Warren: an AMQP 0-9-1 message broker with a peer-to-peer overlay for large payloads.
//!
//! The layers, each of which may use those above it and none below (`tests/tidy.rs` checks it):
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`disk`] | file access as a trait |
//! | [`sabotage`] | deliberate faults for the crash tests; nothing in a release |
//! | [`config`] | settings as values, with defaults and units |
//! | [`amqp`] | the wire: frames, methods, field tables, content headers |
//! | [`payload`] | BLAKE3 pieces, manifests, the content-addressed store |
//! | [`journal`] | the durable log |
//! | [`broker`] | vhosts, exchanges, queues, consumers; synchronous |
//! | [`session`] | one AMQP connection as a state machine |
//! | [`swarm`] | the piece protocol: events in, actions out |
//! | `trust` | certificates and keys from PEM files |
//! | `client` | a small asynchronous AMQP client, for the node and the distributor |
//! | `server` | sockets, tasks and timers that drive sessions and the swarm |
//! | `node` | the edge node and the distributor |
//! | `admin` | the HTTP interface |
//! | `embed` | the same broker and node inside another program |
//! | `cli` | the `warren` command |
//!
//! # Inside another program
//!
//! [`Broker::builder`] and [`Node::builder`] start them in this process; see [`embed`].

pub mod amqp;
pub mod broker;
pub mod config;
pub mod disk;
pub mod journal;
pub mod payload;
pub mod sabotage;
pub mod session;
pub mod swarm;

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod embed;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod trust;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "server")]
pub use embed::{Broker, BrokerBuilder, Node, NodeBuilder};

#[cfg(feature = "testing")]
pub mod testing;
