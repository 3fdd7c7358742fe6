//! Networks of IP addresses, as in `10.0.0.0/8`.
//!
//! Owns: how one is written and what is in it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    /// How many bits are the same.
    prefix_bits: u32,
}

/// Why a text is no network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("'{0}' is no address and no network, as in 10.0.0.7 or 10.0.0.0/8")]
pub struct NetworkError(String);

impl Network {
    /// Whether the address is in it. An IPv4 address in an IPv6 one's clothes is an IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let own = bits(self.address);
        let (other, bit_count) = bits(address.to_canonical());
        let ignored = bit_count - self.prefix_bits.min(bit_count);
        let begin = |bits: u128| bits.checked_shr(ignored).unwrap_or(0);
        own.1 == bit_count && begin(own.0) == begin(other)
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let (_, bit_count) = bits(address);
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| error())?,
            None => bit_count,
        };
        match prefix_bits <= bit_count {
            true => Ok(Self {
                address,
                prefix_bits,
            }),
            false => Err(error()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits count from the left; a bare address is itself alone, and families do not mix.
    #[test]
    fn networks_hold_what_begins_as_they_do() {
        let check = |network: &str, inside: &[&str], outside: &[&str]| {
            let network: Network = network.parse().expect(network);
            let contains = |address: &str| network.contains(address.parse().expect(address));
            assert!(inside.iter().all(|address| contains(address)), "{network}");
            assert!(
                !outside.iter().any(|address| contains(address)),
                "{network}"
            );
        };
        check(
            "10.0.0.0/8",
            &["10.1.2.3", "::ffff:10.1.2.3"],
            &["11.0.0.0", "::1"],
        );
        check("10.0.0.7", &["10.0.0.7"], &["10.0.0.6"]);
        check("0.0.0.0/0", &["1.2.3.4"], &["::1"]);
        check("::/0", &["::1", "2001:db8::1"], &["1.2.3.4"]);
        check("2001:db8::/32", &["2001:db8:1::"], &["2001:db9::"]);
        for wrong in ["", "10.0.0.0/33", "10.0.0.0/x", "10.0.0/8", "::1/129"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
