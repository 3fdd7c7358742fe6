//! Where peers of one payload may be found, and when to try them again.
//!
//! Owns: the known addresses of one payload, from the manifest and from peers.
//! Bound: 64 addresses; hints from peers are forgotten when they fail.
//! Spec: `spec/peer-protocol.md` PEER-14, section 4.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::swarm::limits::{
    ADDRESSES_PER_PAYLOAD_MAX, DIAL_PAUSE_FIRST, DIAL_PAUSE_MAX, DIAL_PAUSE_SHORT, DIALS_SHORT,
    HINT_FAILURES_MAX,
};
use crate::swarm::proof::mix;

/// Who told of an address.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Source {
    /// The manifest: trusted as far as the manifest is.
    Manifest,
    /// A proven peer: a hint.
    Peer,
}

/// Idle ──dial──> Dialling ──connected, proven──> InUse ──left──> Idle; failures only lengthen the pause. They are
/// forgotten when the peer has told what it holds: one without a place proves the payload, too, before it says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Idle,
    Dialling,
    InUse,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    source: Source,
    state: State,
    failures: u32,
    not_before: Instant,
}

/// The addresses of one payload.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    entries: BTreeMap<SocketAddr, Entry>,
    /// So that nodes which failed together do not try again together.
    salt: u64,
}

impl AddressBook {
    /// Nothing known; `salt` is this node's own.
    pub(crate) fn new(salt: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            salt,
        }
    }

    /// Notes an address; ignored when it is known or the book is full.
    pub(crate) fn learn(&mut self, address: SocketAddr, source: Source, now: Instant) {
        let useless =
            address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast();
        if useless || self.entries.contains_key(&address) {
            return;
        }
        if self.entries.len() >= ADDRESSES_PER_PAYLOAD_MAX {
            // A hint that failed makes room; one that was never tried does not.
            let failed = self
                .entries
                .iter()
                .filter(|(_, entry)| {
                    entry.source == Source::Peer && entry.state == State::Idle && entry.failures > 0
                })
                .map(|(address, _)| *address)
                .next();
            let Some(failed) = failed else { return };
            self.entries.remove(&failed);
        }
        let entry = Entry {
            source,
            state: State::Idle,
            failures: 0,
            not_before: now,
        };
        self.entries.insert(address, entry);
    }

    /// The address to try next: one that failed least; `salt` chooses among equals.
    pub(crate) fn next(&self, salt: u64, now: Instant) -> Option<SocketAddr> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.state == State::Idle && entry.not_before <= now)
            .enumerate()
            .min_by_key(|(number, (_, entry))| (entry.failures, mix(salt ^ *number as u64)))
            .map(|(_, (address, _))| *address)
    }

    /// When the first of those that are neither dialled nor in use may be tried.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let idle = self.entries.values();
        let idle = idle.filter(|entry| entry.state == State::Idle);
        idle.map(|entry| entry.not_before).min()
    }

    /// How many dials are under way.
    pub(crate) fn dialling_count(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| entry.state == State::Dialling)
            .count()
    }

    pub(crate) fn is_dialling(&self, address: SocketAddr) -> bool {
        self.entries
            .get(&address)
            .is_some_and(|entry| entry.state == State::Dialling)
    }

    pub(crate) fn dialling(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Dialling;
        }
    }

    /// A peer at this address has proven the payload.
    pub(crate) fn in_use(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::InUse;
        }
    }

    /// The peer at this address has taken this node among its neighbours.
    pub(crate) fn settled(&mut self, address: SocketAddr) {
        // req: SWARM-9
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.failures = 0;
        }
    }

    /// The peer at this address left, or has no place: it is there, so the next pause stays short.
    pub(crate) fn left(&mut self, address: SocketAddr, now: Instant) {
        // req: SWARM-9
        self.pause(address, DIALS_SHORT, now);
    }

    /// One failure more, of those that count up to `most`.
    fn pause(&mut self, address: SocketAddr, most: u32, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Idle;
            entry.failures = entry.failures.saturating_add(1).min(most);
            let most = pause(entry.failures);
            let salt = mix(self.salt ^ u64::from(entry.failures) ^ u64::from(address.port()));
            // Between half of it and all.
            let part = most.as_secs_f64() * (salt >> 11) as f64 / (1_u64 << 53) as f64;
            entry.not_before = now + most / 2 + Duration::from_secs_f64(part / 2.0);
        }
    }

    /// Nobody answered there, or nobody with the key.
    pub(crate) fn failed(&mut self, address: SocketAddr, now: Instant) {
        self.pause(address, u32::MAX, now);
        let hopeless = self.entries.get(&address).is_some_and(|entry| {
            entry.source == Source::Peer && entry.failures >= HINT_FAILURES_MAX
        });
        if hopeless {
            self.entries.remove(&address);
        }
    }

    /// That is ourselves, or somebody not to be met again.
    pub(crate) fn forget(&mut self, address: SocketAddr) {
        self.entries.remove(&address);
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let most = match failures {
        0..=DIALS_SHORT => DIAL_PAUSE_SHORT,
        _ => DIAL_PAUSE_MAX,
    };
    (DIAL_PAUSE_FIRST * 2_u32.pow(doublings)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The pause doubles; a hint is forgotten at its third failure, a manifest's address never.
    #[test]
    fn failing_hint_is_forgotten_and_manifest_address_is_kept() {
        let mut now = Instant::now();
        let mut book = AddressBook::default();
        book.learn(address(1), Source::Manifest, now);
        book.learn(address(2), Source::Peer, now);
        for _ in 0..HINT_FAILURES_MAX {
            book.failed(address(2), now);
            assert_eq!(book.next(0, now), Some(address(1)));
            now += DIAL_PAUSE_MAX;
        }
        for _ in 0..20 {
            book.failed(address(1), now);
            assert_eq!(book.next(0, now), None);
            now += DIAL_PAUSE_MAX;
            assert_eq!(book.next(0, now), Some(address(1)));
        }
        book.forget(address(1));
        assert_eq!(book.next(0, now), None);
    }

    /// Hints beyond the bound are ignored, and so are addresses that cannot be dialled.
    // req: PEER-14
    #[test]
    fn hints_are_bounded() {
        let now = Instant::now();
        let mut book = AddressBook::default();
        book.learn(address(0), Source::Peer, now);
        book.learn(SocketAddr::from(([0, 0, 0, 0], 5)), Source::Peer, now);
        assert_eq!(book.next(0, now), None);
        for port in 1..=1_000 {
            book.learn(address(port), Source::Peer, now);
        }
        assert_eq!(book.entries.len(), ADDRESSES_PER_PAYLOAD_MAX);
    }
}
