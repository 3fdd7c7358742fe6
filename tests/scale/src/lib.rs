//! The made-up network of `tests/sim` at sizes that take optimised code: a package of its own, since the project's
//! tests are compiled without, and since the cores alone are compiled quickly.
//!
//! ```text
//! cargo test --manifest-path tests/scale/Cargo.toml
//! ```
#![cfg(test)]
#![allow(clippy::disallowed_methods)]

#[path = "../../sim/hostile.rs"]
#[allow(dead_code)]
mod hostile;
#[path = "../../sim/network.rs"]
#[allow(dead_code)]
mod network;
mod report;
mod scale;
#[path = "../../sim/trace.rs"]
mod trace;
