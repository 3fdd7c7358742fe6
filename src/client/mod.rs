//! A small asynchronous AMQP 0-9-1 client: what the node and the distributor speak to a broker with.
//!
//! Owns: one connection and its channels. Knows nothing of files, swarms or of what messages mean;
//! coming back after a failure is its users' business.
//! Spec: AMQP 0-9-1; `spec/control-plane.md`.
#![allow(clippy::disallowed_methods)]

pub mod uri;

pub use uri::{AmqpUri, UriError};
