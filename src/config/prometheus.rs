//! Settings of the figures for Prometheus.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Figures for Prometheus.
pub const PROMETHEUS_PORT: u16 = 15692;

/// Where Prometheus finds figures, and which.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrometheusSettings {
    /// Whether there is a listener for it. The HTTP listener has the same pages.
    pub enabled: bool,
    /// Its address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `/metrics` names each queue, channel and connection, as `/metrics/per-object` does.
    pub per_object: bool,
    /// Only users who may watch (tag `monitoring` or `administrator`) get an answer.
    pub authentication: bool,
}

impl Default for PrometheusSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PROMETHEUS_PORT),
            per_object: false,
            authentication: false,
        }
    }
}
