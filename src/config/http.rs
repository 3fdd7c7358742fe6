//! Settings of the HTTP listeners.

use std::time::Duration;

/// What HTTP connections may cost (RELIABILITY section 6).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpSettings {
    /// Longest wait for the head of a request, also of the next one on a connection that stays open.
    pub head_wait: Duration,
    /// Longest head of a request, in bytes; beyond it 431.
    pub head_bytes_max: usize,
    /// Longest wait for a request's body.
    pub body_wait: Duration,
    /// Most HTTP connections.
    pub connection_count_max: usize,
    /// Most HTTP connections from one address.
    pub connections_per_address_max: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            head_wait: Duration::from_secs(10),
            head_bytes_max: 64 * 1024,
            body_wait: Duration::from_secs(120),
            connection_count_max: 1024,
            connections_per_address_max: 256,
        }
    }
}
