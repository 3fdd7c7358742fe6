//! Simulations: many cores, a lying disk and a lying network, all from a seed.
//!
//! A failure prints the seed that repeats it; `WARREN_SEED` sets it. Spec: RELIABILITY, "Test plan".
#![allow(clippy::disallowed_methods)]

mod churn;
mod crash;
mod hostile;
mod joint;
mod journal_model;
mod limits;
mod network;
mod payload_crash;
mod payload_model;
mod reach;
#[cfg(feature = "sabotage")]
mod sabotage;
mod stale;
mod swarm;
mod trace;
mod zones;
