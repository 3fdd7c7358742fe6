//! The HTTP interface: health, payloads, figures for Prometheus, the management API and the page beside them.
#![allow(clippy::disallowed_methods)]

mod api;
pub mod http;
mod log_control;
pub mod log_tail;
mod logins;
mod metrics;
mod observer;
mod page;
mod payloads;
mod range;
mod serve;
mod tls_listener;

#[cfg(feature = "cli")]
pub(crate) use api::percent_encode;
pub use log_control::LogControl;
