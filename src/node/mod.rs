//! The edge node and the distributor.
#![allow(clippy::disallowed_methods)]

pub mod place;
