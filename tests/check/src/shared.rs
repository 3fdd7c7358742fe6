//! What all workers of a run share: the address, the history, which life the broker is in.
//!
//! Owns: the numbering of lives, sessions and consumers, and the rule of which end of a connection is
//! the checker's doing and which is the broker's fault.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{ClientError, Connection};
use crate::history::{Event, History};

/// Pause between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(3);
/// Pause of a worker after the broker broke the protocol: it will likely do so again.
const BROKEN_PAUSE: Duration = Duration::from_millis(100);

/// The queues that messages go to; they live as long as the run.
pub(crate) const QUEUES: [&str; 4] = ["check.0", "check.1", "check.2", "check.3"];
/// Exchange and key of each route, and the numbers of its queues.
pub(crate) const ROUTES: [(&str, &str, &[u16]); 6] = [
    ("check.direct", "0", &[0]),
    ("check.direct", "1", &[1]),
    ("check.direct", "2", &[2]),
    ("check.direct", "3", &[3]),
    ("check.fanout", "", &[0, 1, 2, 3]),
    ("", "check.0", &[0]),
];

/// What all workers of a run share.
pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) seed: u64,
    pub(crate) history: History,
    /// Number of the life that the broker is in; 0 while there is no process.
    life: AtomicU32,
    /// Number of the last life that the checker ended or is ending.
    ending: AtomicU32,
    pub(crate) stop_publishing: AtomicBool,
    pub(crate) stop_consuming: AtomicBool,
    sessions: AtomicU32,
    consumers: AtomicU32,
    pub(crate) confirmed: AtomicU64,
    pub(crate) broken: AtomicU64,
}

impl Shared {
    /// A run that has not begun.
    pub(crate) fn new(address: SocketAddr, seed: u64, history: History) -> Self {
        Self {
            address,
            seed,
            history,
            life: AtomicU32::new(0),
            ending: AtomicU32::new(0),
            stop_publishing: AtomicBool::new(false),
            stop_consuming: AtomicBool::new(false),
            sessions: AtomicU32::new(0),
            consumers: AtomicU32::new(0),
            confirmed: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        }
    }

    /// Called before the process of this life is started.
    pub(crate) fn begin_life(&self, life: u32) {
        self.history.add(&Event::Life { life });
        self.life.store(life, Ordering::SeqCst);
    }

    /// Called before the process is signalled.
    pub(crate) fn announce_end(&self) {
        self.ending
            .store(self.life.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Called when the process is gone.
    pub(crate) fn end_life(&self) {
        self.life.store(0, Ordering::SeqCst);
    }

    /// A number for a publisher's channel.
    pub(crate) fn next_session(&self) -> u32 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number for a consumer.
    pub(crate) fn next_consumer(&self) -> u32 {
        self.consumers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A connection and the life it belongs to; none once `stop` is set.
    pub(crate) fn connect(&self, stop: &AtomicBool) -> Option<(Connection, u32)> {
        while !stop.load(Ordering::SeqCst) {
            let life = self.life.load(Ordering::SeqCst);
            if life != 0 {
                match Connection::open(self.address) {
                    // A connection made while lives changed could be of either; it is not used.
                    Ok(connection) if self.life.load(Ordering::SeqCst) == life => {
                        return Some((connection, life));
                    }
                    // Refused or cut off: not there yet, or not any more.
                    Ok(_) | Err(ClientError::Gone | ClientError::ConnectionClosed { .. }) => {}
                    Err(error) => self.blame("a connection being made", life, &error),
                }
            }
            thread::sleep(RECONNECT_PAUSE);
        }
        None
    }

    /// Writes down what is the broker's fault; an end that the checker caused is nobody's.
    pub(crate) fn blame(&self, who: &str, life: u32, error: &ClientError) {
        // A worker that got no processor may tell only when a later life is ending or has ended.
        let is_ending = life <= self.ending.load(Ordering::SeqCst);
        let text = match error {
            ClientError::Gone | ClientError::ConnectionClosed { .. } if is_ending => return,
            ClientError::Gone => format!("{who}: the socket was closed without a word"),
            ClientError::ChannelClosed { code, text } => {
                format!("{who}: channel closed: {code} {text}")
            }
            ClientError::ConnectionClosed { code, text } => {
                format!("{who}: connection closed: {code} {text}")
            }
            ClientError::Silent(what) => format!("{who}: {what}"),
            ClientError::Violation(what) => format!("{who}: {what}"),
        };
        self.broken(&format!("{text} (life {life})"));
        thread::sleep(BROKEN_PAUSE);
    }

    /// Writes down a broken protocol.
    pub(crate) fn broken(&self, text: &str) {
        if self.broken.fetch_add(1, Ordering::Relaxed) < 20 {
            eprintln!("broken: {text}");
        }
        self.history.add(&Event::Broken(text.to_owned()));
    }
}
