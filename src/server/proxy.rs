//! The PROXY protocol, versions 1 and 2: a proxy in front says where the client really is.
//!
//! Owns: the header in front of a connection, which only trusted sources may send and must send.
//! Bounds: 107 octets of version 1, [`V2_BYTES_MAX`] behind the head of version 2; nothing is read beyond the
//! header, since TLS or AMQP follows at once.
//! Spec: HAProxy, "The PROXY protocol", versions 1 and 2.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::session::Addresses;

/// Longest line of version 1, in bytes, with its end.
const V1_BYTES_MAX: usize = 107;
/// Most octets of addresses and what comes with them in version 2.
const V2_BYTES_MAX: usize = 536;
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("no PROXY protocol header: {0}")]
    Malformed(&'static str),
    #[error("the connection broke before its PROXY protocol header: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads the header; gives the ends of the connection to the proxy, or `None` where the proxy speaks for itself
/// (as when it looks whether somebody is there).
// req: PROXY-1
pub(super) async fn read_header(
    socket: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Addresses>, ProxyError> {
    let mut begin = [0; V2_SIGNATURE.len()];
    socket.read_exact(&mut begin).await?;
    if begin == V2_SIGNATURE {
        let mut head = [0; 4];
        socket.read_exact(&mut head).await?;
        let [version, family, high, low] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > V2_BYTES_MAX {
            return Err(ProxyError::Malformed("its addresses are too long"));
        }
        let mut addresses = [0; V2_BYTES_MAX];
        let (addresses, _) = addresses.split_at_mut(length);
        socket.read_exact(addresses).await?;
        return parse_v2(version, family, addresses);
    }
    if !begin.starts_with(b"PROXY ") {
        return Err(ProxyError::Malformed("it begins otherwise"));
    }
    let mut line = Vec::with_capacity(V1_BYTES_MAX);
    line.extend_from_slice(&begin);
    while !line.ends_with(b"\r\n") {
        if line.len() >= V1_BYTES_MAX {
            return Err(ProxyError::Malformed("its line is too long"));
        }
        line.push(socket.read_u8().await?);
    }
    parse_v1(&line)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 5672\r\n`.
fn parse_v1(line: &[u8]) -> Result<Option<Addresses>, ProxyError> {
    let malformed = || ProxyError::Malformed("its line cannot be read");
    let line = std::str::from_utf8(line).map_err(|_| malformed())?;
    let line = line.strip_suffix("\r\n").ok_or_else(malformed)?;
    let fields: Vec<_> = line.split(' ').collect();
    let [_, family, rest @ ..] = &fields[..] else {
        return Err(malformed());
    };
    let is_v6 = match *family {
        "UNKNOWN" => return Ok(None),
        "TCP4" => false,
        "TCP6" => true,
        _ => return Err(malformed()),
    };
    let [peer, local, peer_port, local_port] = rest else {
        return Err(malformed());
    };
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
        let port = port.parse().map_err(|_| malformed())?;
        match ip.is_ipv6() == is_v6 {
            true => Ok(SocketAddr::new(ip, port)),
            false => Err(malformed()),
        }
    };
    Ok(Some(Addresses {
        peer: address(peer, peer_port)?,
        local: address(local, local_port)?,
    }))
}

/// Version and command, family and transport, and what is behind the head: both addresses, both ports, and
/// further values that mean nothing here.
fn parse_v2(version: u8, family: u8, rest: &[u8]) -> Result<Option<Addresses>, ProxyError> {
    match version {
        // LOCAL: the proxy itself.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed("its version or command is unknown")),
    }
    let ends = match family {
        0x11 => ends::<4>(rest),
        0x21 => ends::<16>(rest),
        // Neither TCP over IPv4 nor over IPv6: the addresses say nothing here.
        _ => return Ok(None),
    };
    ends.map(Some)
        .ok_or(ProxyError::Malformed("its addresses are cut off"))
}

fn ends<const IP_BYTES: usize>(rest: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; IP_BYTES]>,
{
    let (peer, rest) = rest.split_first_chunk::<IP_BYTES>()?;
    let (local, rest) = rest.split_first_chunk::<IP_BYTES>()?;
    let (peer_port, rest) = rest.split_first_chunk()?;
    let (local_port, _) = rest.split_first_chunk()?;
    let address = |ip: &[u8; IP_BYTES], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some(Addresses {
        peer: address(peer, peer_port),
        local: address(local, local_port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and what stays for TLS or AMQP.
    async fn read(mut octets: &[u8]) -> (Result<Option<(String, String)>, String>, Vec<u8>) {
        let header = read_header(&mut octets).await;
        let header =
            header.map(|ends| ends.map(|ends| (ends.peer.to_string(), ends.local.to_string())));
        (header.map_err(|error| error.to_string()), octets.to_vec())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut octets = V2_SIGNATURE.to_vec();
        octets.extend([command, family]);
        octets.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
        octets.extend(rest);
        octets.extend(b"AMQP");
        octets
    }

    /// Both versions and both families give both ends, and not an octet too many is taken.
    // req: PROXY-1
    #[tokio::test]
    async fn the_ends_are_read_and_nothing_behind_them() {
        let ends = |peer: &str, local: &str| Ok(Some((peer.to_owned(), local.to_owned())));
        for (octets, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5672\r\nAMQP".to_vec(),
                ends("192.0.2.1:56324", "192.0.2.2:5672"),
            ),
            (
                b"PROXY TCP6 ::1 2001:db8::2 1 2\r\nAMQP".to_vec(),
                ends("[::1]:1", "[2001:db8::2]:2"),
            ),
            (b"PROXY UNKNOWN\r\nAMQP".to_vec(), Ok(None)),
            (
                v2(
                    0x21,
                    0x11,
                    &[192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 0x16, 0x28, 4, 0, 1, 9],
                ),
                ends("192.0.2.1:56324", "192.0.2.2:5672"),
            ),
            (v2(0x20, 0, &[]), Ok(None)),
            (v2(0x21, 0x31, &[0; 216]), Ok(None)),
        ] {
            assert_eq!(read(&octets).await, (expected, b"AMQP".to_vec()));
        }
    }

    /// What is no header is refused, however it is cut or long.
    // req: PROXY-1
    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for octets in [
            b"AMQP\x00\x00\x09\x01AMQP".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n".to_vec(),
            [b"PROXY ".to_vec(), vec![b'x'; 200]].concat(),
            b"PROXY".to_vec(),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x21, &[0; 12]),
            v2(0x21, 0x11, &[0; 600]),
        ] {
            let (header, _) = read(&octets).await;
            assert!(header.is_err(), "{octets:?}");
        }
    }
}
