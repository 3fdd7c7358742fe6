//! Tests over real sockets, filed by behaviour; one binary, since each file alone would be linked alone.
#![allow(clippy::disallowed_methods)]

mod broker;
mod confirm;
mod consume;
mod handshake;
mod lapin_patterns;
mod limits;
mod malformed;
mod publish;
mod swarm;
mod wire;
