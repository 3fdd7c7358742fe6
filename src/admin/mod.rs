//! The HTTP interface: health, payloads, figures for Prometheus, the management API and the page beside them.
#![allow(clippy::disallowed_methods)]

mod api;
pub mod http;
pub mod log_tail;
mod observer;
mod metrics;
mod page;
mod payloads;
mod process;
mod range;
mod tls_listener;

pub(crate) use api::percent_encode;
