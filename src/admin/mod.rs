//! The HTTP interface: health and payloads now; the management API and the page come beside them.
#![allow(clippy::disallowed_methods)]

mod api;
pub mod http;
mod payloads;
mod range;
mod tls_listener;

pub(crate) use api::percent_encode;
