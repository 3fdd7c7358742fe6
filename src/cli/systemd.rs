//! What systemd and a service have to do with each other: the service takes sockets that listen already (socket
//! activation), and tells how it fares (`Type=notify`): that it is ready, reads its settings again, or stops.
//!
//! Owns: the sockets that `LISTEN_FDS` counts, and the messages to the socket that `NOTIFY_SOCKET` names. Without these,
//! nobody gave or asked anything.
//! Spec: sd_listen_fds(3), sd_notify(3).

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::server::InheritedSockets;

/// The sockets of TCP that were handed over; what is none is for the log only.
pub(super) fn sockets() -> InheritedSockets {
    let mut passed = listenfd::ListenFd::from_env();
    let taken = (0..passed.len()).filter_map(|at| match passed.take_tcp_listener(at) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "what was handed over cannot be used");
            None
        }
    });
    InheritedSockets::new(taken.collect())
}

/// What is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Notice {
    /// It does its work, from now on or again.
    Ready,
    /// It reads its settings; [`Notice::Ready`] follows.
    Reloading,
    /// It ends.
    Stopping,
}

impl Notice {
    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
                format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")
            }
            Self::Stopping => "STOPPING=1".to_owned(),
        }
    }
}

/// Tells it, if anybody asked. That nobody listens is for the log only: the service works without.
pub(super) fn notify(notice: Notice) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(path.as_encoded_bytes(), notice)
    {
        tracing::warn!(%error, ?notice, "systemd is not told");
    }
}

/// A path that begins with `@` is a name without a file.
fn send(path: &[u8], notice: Notice) -> io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => {
            use std::os::unix::ffi::OsStrExt as _;
            SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?
        }
    };
    let sent = UnixDatagram::unbound()?.send_to_addr(notice.text().as_bytes(), &address)?;
    debug_assert!(sent > 0, "a notice is never empty");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer).expect("a notice");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Each notice reaches a socket with a file and one without, in systemd's words.
    #[test]
    fn notices_reach_both_kinds_of_sockets() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let path = path.as_os_str().as_encoded_bytes();
        send(path, Notice::Ready).expect("sent");
        assert_eq!(received(&socket), "READY=1");
        send(path, Notice::Reloading).expect("sent");
        let reloading = received(&socket);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(
            time.and_then(|time| time.parse::<u64>().ok())
                .is_some_and(|time| time > 0)
        );
        let name = format!("warren-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        send(format!("@{name}").as_bytes(), Notice::Stopping).expect("sent");
        assert_eq!(received(&socket), "STOPPING=1");
        assert!(send(b"/nowhere/at/all", Notice::Ready).is_err());
    }
}
