//! The address of a web seed, and which hosts an operator allows.
//!
//! Spec: `spec/peer-protocol.md` section 7, WEB-1 to WEB-3.

use std::net::IpAddr;

use crate::config::WebSeedHost;

/// Why a web seed is not asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    #[error("its address may not be asked")]
    Address,
    #[error("the operator has not named its host")]
    Host,
    #[error("it is no plain URL of HTTP")]
    Url,
}

/// A URL that the operator allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct WebUrl {
    pub(super) is_tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, from the slash on.
    pub(super) target: String,
    /// The operator means this very machine, or this very address.
    is_literal: bool,
}

impl WebUrl {
    /// Reads a URL, if `allowed` names its host and port.
    pub(super) fn new(url: &str, allowed: &[WebSeedHost]) -> Result<Self, Refused> {
        // req: WEB-1
        // req: WEB-3
        let (is_tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(Refused::Url),
        };
        let is_plain = rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        if !is_plain || rest.contains('#') {
            return Err(Refused::Url);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        let (host, port) = split_authority(authority).ok_or(Refused::Url)?;
        let default_port = if is_tls { 443 } else { 80 };
        let port = port.unwrap_or(default_port);
        let is_allowed = |entry: &&WebSeedHost| {
            entry.matches(&host) && port == entry.port().unwrap_or(default_port)
        };
        let entry = allowed.iter().find(is_allowed).ok_or(Refused::Host)?;
        Ok(Self {
            is_tls,
            is_literal: entry.is_literal(),
            host,
            port,
            target,
        })
    }

    /// Whether an address that its name stands for may be asked.
    pub(super) fn check_address(&self, ip: IpAddr) -> Result<(), Refused> {
        // req: WEB-2
        let ip = ip.to_canonical();
        let is_refused = match ip {
            IpAddr::V4(v4) => {
                v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local()
            }
            IpAddr::V6(v6) => {
                v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()
            }
        };
        if is_refused || (ip.is_loopback() && !self.is_literal) {
            return Err(Refused::Address);
        }
        Ok(())
    }

    /// As the head `Host` says it.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`, in lower case; `None` for anything else, a user name too.
fn split_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (
                host,
                after
                    .strip_prefix(':')
                    .or_else(|| after.is_empty().then_some("")),
            )
        }
        None => {
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(is_name) {
                return None;
            }
            (host, Some(port))
        }
    };
    let port = match port? {
        "" => None,
        port => Some(port.parse().ok().filter(|port| *port != 0)?),
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Vec<WebSeedHost> {
        [
            "files.example",
            "*.mirror.example",
            "other.example:8080",
            "127.0.0.1:81",
            "[::1]:82",
        ]
        .map(|entry| entry.parse().expect("an entry"))
        .into()
    }

    /// Only named hosts and their ports are asked; whatever makes a URL mean another host is refused.
    // req: WEB-1
    // req: WEB-3
    #[test]
    fn only_named_hosts_are_asked() {
        for (url, host, port, target) in [
            ("http://files.example/a/b?c", "files.example", 80, "/a/b?c"),
            ("https://FILES.example", "files.example", 443, "/"),
            (
                "http://a.b.mirror.example/x",
                "a.b.mirror.example",
                80,
                "/x",
            ),
            ("http://other.example:8080?q", "other.example", 8080, "/?q"),
            ("http://127.0.0.1:81/", "127.0.0.1", 81, "/"),
            ("http://[::1]:82/", "::1", 82, "/"),
        ] {
            let read = WebUrl::new(url, &allowed()).expect(url);
            assert_eq!((read.host.as_str(), read.port), (host, port), "{url}");
            assert_eq!(read.target, target, "{url}");
        }
        for url in [
            "http://files.example:8080/",
            "https://files.example:80/",
            "http://mirror.example/",
            "http://evilmirror.example/",
            "http://files.example.evil/",
            "http://other.example/",
            "http://127.0.0.1/",
            "http://2130706433:81/",
            "http://[::1]/",
        ] {
            assert_eq!(WebUrl::new(url, &allowed()), Err(Refused::Host), "{url}");
        }
        for url in [
            "ftp://files.example/",
            "http://user@files.example/",
            "http://files.example:80@evil/",
            "http://files.example\\@evil/",
            "http://files.example/#x",
            "http://files.example/a b",
            "http://files.example:99999/",
            "http://files.example:0/",
            "http://[::1/",
            "http:///etc/passwd",
        ] {
            assert_eq!(WebUrl::new(url, &allowed()), Err(Refused::Url), "{url}");
        }
        assert_eq!(
            WebUrl::new("http://files.example/", &[]),
            Err(Refused::Host)
        );
    }

    /// Where a name leads is checked, however the address is written.
    // req: WEB-2
    #[test]
    fn addresses_are_checked() {
        let named = WebUrl::new("http://files.example/", &allowed()).expect("allowed");
        let literal = WebUrl::new("http://127.0.0.1:81/", &allowed()).expect("allowed");
        let check = |url: &WebUrl, ip: &str| url.check_address(ip.parse().expect("an address"));
        for ip in ["192.0.2.7", "10.1.2.3", "2001:db8::1"] {
            assert_eq!(check(&named, ip), Ok(()), "{ip}");
        }
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(&named, ip), Err(Refused::Address), "{ip}");
            assert_eq!(check(&literal, ip), Ok(()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
        ] {
            assert_eq!(check(&named, ip), Err(Refused::Address), "{ip}");
            assert_eq!(check(&literal, ip), Err(Refused::Address), "{ip}");
        }
    }
}
