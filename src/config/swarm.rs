//! Settings of a node's part in swarms that may change while it runs: limits and quota.
//!
//! Owns: values and defaults; without a word from the operator nothing is limited.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

/// Least rate that can be set, in bytes per second: below it one block takes longer than a peer waits.
pub const RATE_BYTES_MIN: u64 = 32 * 1024;

/// What a node's swarms may cost its network.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrafficSettings {
    /// Most bytes of pieces sent per second; `None` is no limit.
    pub up_bytes_per_second: Option<NonZeroU64>,
    /// Most bytes of pieces asked for per second; `None` is no limit.
    pub down_bytes_per_second: Option<NonZeroU64>,
    /// Most bytes of pieces sent in a day; then peers are choked until it is over.
    pub up_day_bytes_max: Option<u64>,
    /// Most bytes of pieces sent since the data folder was made; then peers are choked.
    pub up_total_bytes_max: Option<u64>,
    /// What is near: nodes of one zone prefer each other. Counts from the start on.
    pub zone: Option<Zone>,
    /// Hosts that web seeds of manifests may be asked of; none by default. Counts from the start on.
    pub web_seed_hosts: Vec<WebSeedHost>,
}

/// Longest label of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 32;

/// A label for what is near: 1 to 32 letters, digits, `-`, `_` and `.`. Spec: PEER-15.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Zone(Arc<str>);

/// A text that is no zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a zone is 1 to {ZONE_BYTES_MAX} letters, digits, '-', '_' and '.'")]
pub struct ZoneError;

impl Zone {
    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        // req: PEER-15
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=ZONE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(ZoneError)
        }
    }
}

/// A host that web seeds may be asked of: `name`, `*.domain` or an address, with or without a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebSeedHost {
    text: String,
    /// In lower case, without brackets; of a domain, what follows the star.
    host: String,
    is_domain: bool,
    port: Option<u16>,
}

/// A text that names no host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a host of web seeds is a name, *.domain or an address, and may have a port")]
pub struct WebSeedHostError;

impl WebSeedHost {
    /// The only port that is asked, if one is named.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether a host, in lower case and without brackets, is meant.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        // req: WEB-1
        if self.is_domain {
            let name = host.strip_suffix(self.host.as_str());
            name.is_some_and(|name| !name.is_empty())
        } else {
            host == self.host
        }
    }

    /// Whether the operator means this very machine, or this very address.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok()
    }
}

impl fmt::Display for WebSeedHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(formatter)
    }
}

impl FromStr for WebSeedHost {
    type Err = WebSeedHostError;

    fn from_str(text: &str) -> Result<Self, WebSeedHostError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(WebSeedHostError)?,
            None => match text.find(':') {
                Some(at) => text.split_at(at),
                None => (text, ""),
            },
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().map_err(|_| WebSeedHostError)?),
            None if port.is_empty() => None,
            None => return Err(WebSeedHostError),
        };
        let host = host.to_ascii_lowercase();
        let domain = host.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        let (is_domain, host) = match domain {
            Some(domain) => (true, domain.to_owned()),
            None => (false, host),
        };
        let is_address = text.starts_with('[') && host.parse::<std::net::Ipv6Addr>().is_ok();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_host = is_address || (!text.starts_with('[') && host.bytes().all(is_name));
        if host.len() < 2 || !is_host || port == Some(0) {
            return Err(WebSeedHostError);
        }
        Ok(Self {
            text: text.to_owned(),
            host,
            is_domain,
            port,
        })
    }
}

/// Why a rate could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "'{text}' is not a rate of at least 32KiB/s: write bytes per second, as in 500KB/s or 2MiB"
)]
pub struct RateError {
    text: String,
}

/// Reads bytes per second as people write them: `500KB/s`, `2MiB`.
///
/// # Errors
/// [`RateError`] when it is no size, or less than [`RATE_BYTES_MIN`].
pub fn parse_rate(text: &str) -> Result<NonZeroU64, RateError> {
    let error = || RateError {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let size = trimmed.strip_suffix("/s").unwrap_or(trimmed);
    let bytes = super::parse_size(size).map_err(|_| error())?;
    NonZeroU64::new(bytes)
        .filter(|rate| rate.get() >= RATE_BYTES_MIN)
        .ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host is a name, a domain or an address.
    // req: WEB-1
    #[test]
    fn hosts_are_names_domains_and_addresses() {
        let host = |text: &str| text.parse::<WebSeedHost>();
        let domain = host("*.Example.org:81").expect("a domain");
        assert!(domain.matches("a.example.org") && domain.port() == Some(81));
        assert!(!domain.matches("example.org") && !domain.matches("aexample.org"));
        assert!(host("[::1]").is_ok_and(|host| host.matches("::1") && host.is_literal()));
        assert!(host("localhost").is_ok_and(|host| host.is_literal()));
        for bad in [
            "", "*", "*.", "a b", "http://a", "a:0", "a:x", "[::1", "[a]", "*.*.b",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    /// A rate is a size per second, and not so small that it looks like a stall.
    #[test]
    fn rates_are_sizes_per_second() {
        for (text, expected) in [("500KB/s", 500_000), ("2MiB", 2 << 20), ("32KiB/s", 32_768)] {
            assert_eq!(parse_rate(text).map(NonZeroU64::get), Ok(expected));
        }
        for text in ["0", "31KiB/s", "x", "1MB/h"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
