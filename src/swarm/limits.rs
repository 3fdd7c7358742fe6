//! Every bound of the piece protocol, and the settings of one node's engine.
//!
//! Spec: `spec/peer-protocol.md` sections 1, 4 and 5; RELIABILITY section 6.

use std::time::Duration;

use crate::config::Zone;
use crate::payload::geometry::{BLOCK_BYTES_MAX, PIECE_COUNT_MAX};
use crate::swarm::flow::Limits;
use crate::swarm::quota::UploadQuota;

/// Longest wait for `Hello` after connecting. Beyond it: close.
pub const HELLO_WAIT: Duration = Duration::from_secs(5);
/// A connection without a message, or without a proven payload, for this long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// A side that has sent nothing for this long sends `Ping`.
pub const PING_AFTER: Duration = Duration::from_secs(10);
/// A connection this old is closed; both sides may dial again.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// Piece numbers in one `Have`. More: close.
pub const HAVE_PIECES_MAX: usize = 1024;
/// Piece numbers in one `Offer`. More: close.
pub const OFFER_PIECES_MAX: usize = 64;
/// Addresses in one `Peers`, and per peer and minute. More in one message: close; a minute: ignored.
pub const PEERS_ADDRESSES_MAX: usize = 16;
/// Bytes of the bits in a `Bitfield`.
pub const BITFIELD_BYTES_MAX: usize = PIECE_COUNT_MAX as usize / 8;
/// Bytes of the largest message, its length field included.
pub const MESSAGE_BYTES_MAX: usize = 4 + 1 + 10 + BLOCK_BYTES_MAX as usize;

/// Payloads joined at once on one connection. More: close.
pub const JOINS_PER_CONNECTION_MAX: usize = 256;
/// Joins that one connection may have refused before it is closed.
pub const JOINS_REFUSED_MAX: u32 = 8;
/// The most that a `Hello` may allow as unanswered requests per payload.
pub const REQUESTS_ALLOWED_MAX: u16 = 64;

/// A piece given to a peer that does not have it after this long counts as not given.
pub const GIVE_STALL: Duration = Duration::from_secs(10);
/// An asked peer that makes no progress for this long has stalled.
pub const STALL_AFTER: Duration = Duration::from_secs(10);
/// Over this long, less than [`SLOW_BYTES_PER_SECOND`] makes a peer slow.
pub const SLOW_WINDOW: Duration = Duration::from_secs(30);
/// A peer that sends less, in bytes per second, is asked for one block at a time.
pub const SLOW_BYTES_PER_SECOND: u64 = 16 * 1024;
/// Queueing time, beyond the least round trip, up to which the bytes asked of a peer grow, for a node that holds as
/// much as its peers: short, so that what is asked for is bound late.
pub const QUEUE_TIME: Duration = Duration::from_millis(50);
/// The same for a transfer that is read in order while it comes: what is asked for next should come next.
pub const QUEUE_TIME_IN_ORDER: Duration = Duration::from_millis(80);
/// A node that is behind its peers by this time lets requests wait twice as long, and so on.
pub const LAG_TIME: Duration = Duration::from_millis(100);
/// [`QUEUE_TIME`] is multiplied by this at least, for a node that is ahead,
pub const QUEUE_FACTOR_LEAST: f64 = 0.5;
/// and by this at most.
pub const QUEUE_FACTOR_MOST: f64 = 8.0;
/// Peers in the middle of the payload that it takes to be ahead or behind.
pub const LAG_PEERS_MIN: u32 = 2;
/// A node that is ahead by this is as good as level: announcements take as long.
pub const LEAD_FREE: Duration = Duration::from_millis(100);
/// A node that is ahead gives a busy peer this long a rest at most.
pub const REST_MAX: Duration = Duration::from_secs(1);
/// A peer is asked for as many pieces at once as come in this time from all peers: where that is less than two, each
/// piece is passed on as soon as it is there; where it is more, what a request costs is shared by them.
pub const RUN_TIME: Duration = Duration::from_millis(8);
/// Parts of a payload, at least, that nodes of a zone share among them what they import by.
pub const RUNS_MIN: u64 = 256;
/// Parts, at least, into which the origin cuts what it gives ahead.
pub const GIVE_RUNS_MIN: u64 = 32;
/// The origin offers what its uplink moves in this time ahead of what was asked for.
pub const GIVE_AHEAD_TIME: Duration = Duration::from_millis(150);
/// When every piece went out once, the origin gives again only if the swarm would otherwise need longer
/// than this for the rest.
pub const REST_TIME: Duration = Duration::from_secs(1);
/// And only if its uplink is at least this part of what the swarm moves, or nothing moves at all.
pub const ORIGIN_SHARE_MIN: f64 = 0.15;
/// A peer that gained nothing for this long is in want of the origin.
pub const STARVED_AFTER: Duration = Duration::from_millis(1_000);
/// A block handed to a socket that has not left after this long no longer counts for the uplink.
pub const SEND_STUCK_AFTER: Duration = Duration::from_secs(1);
/// Pieces announced are gathered for this long at least, unless nothing was announced before.
pub const HAVE_DELAY_MIN: Duration = Duration::from_millis(20);
/// And for this long at most, if the peer lacks one of them.
pub const HAVE_DELAY_MAX: Duration = Duration::from_millis(80);
/// Pieces that the peer holds itself are announced after this long.
pub const HAVE_DELAY_HELD: Duration = Duration::from_millis(250);
/// Pieces that are gathered into one `Have` if they come fast enough: this part of a payload's,
pub const HAVE_PIECES_PART: u32 = 32;
/// but at least so many,
pub const HAVE_PIECES_AIM_MIN: u32 = 4;
/// and at most so many.
pub const HAVE_PIECES_AIM_MAX: u32 = 24;
/// A request that nothing came for is taken back in favour of an idle peer when it is older than that peer's last
/// answer took by this much.
pub const MOVE_AFTER: Duration = Duration::from_millis(50);
/// How often the longest served peer makes room, when more peers want than there are slots.
pub const CHOKE_INTERVAL: Duration = Duration::from_secs(10);
/// In the endgame, the least age of a request before a second peer is asked for the same piece.
pub const ENDGAME_AGE_MIN: Duration = Duration::from_millis(100);

/// A node that says that a piece from here is bad is heard again after so long.
pub const ACCUSER_PAUSE: Duration = Duration::from_secs(3600);
/// A second bad piece within this time bans.
pub const BAD_PIECE_MEMORY: Duration = Duration::from_secs(3600);
/// First ban; each further one is twice as long, up to [`BAN_MAX`].
pub const BAN_FIRST: Duration = Duration::from_secs(3600);
/// Longest ban.
pub const BAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Nodes whose bad pieces are remembered, and nodes whose accusations are; beyond it the one longest quiet is forgotten.
pub const BLAMED_NODES_MAX: usize = 4096;

/// Addresses known for one payload; beyond it hints are ignored.
pub const ADDRESSES_PER_PAYLOAD_MAX: usize = 64;
/// First pause after a failed dial or a refusal; doubles up to [`DIAL_PAUSE_MAX`].
pub const DIAL_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause after the first [`DIALS_SHORT`] failures: who found a swarm too busy to answer is not to wait for
/// longer than that takes.
pub const DIAL_PAUSE_SHORT: Duration = Duration::from_secs(1);
/// Failures in a row up to which the pause stays short; it always does for who answers but has no place.
pub const DIALS_SHORT: u32 = 12;
/// Longest pause between two dials of one address.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Peers that found no place in a swarm and whose connections are kept, to name them to those who come after them.
pub const PARKED_MAX: usize = 64;
/// Failed dials after which a hint is forgotten; addresses of the manifest are kept.
pub const HINT_FAILURES_MAX: u32 = 3;
/// Two complete peers part after this long, so that others find a place.
pub const DONE_LINGER: Duration = Duration::from_secs(2);
/// Peers of other zones that are kept when one of the own zone comes and all places are taken.
pub const FAR_NEIGHBOURS: usize = 3;
/// A piece that nobody near holds may be asked of a far peer by one more node after each turn: twice as long as
/// imports took of late and an announcement, within these bounds.
pub const IMPORT_TURN_MIN: Duration = Duration::from_millis(250);
/// The other bound.
pub const IMPORT_TURN_MAX: Duration = Duration::from_secs(2);
/// And by anyone, also if somebody near holds it, after this long.
pub const IMPORT_FREE: Duration = Duration::from_secs(6);
/// Pieces looked at for one decision about a far peer.
pub const IMPORT_SCAN_MAX: usize = 256;
/// Period of the housekeeping that looks for stalls, idle connections and missing neighbours.
pub const TICK: Duration = Duration::from_millis(250);

const _: () = assert!(BITFIELD_BYTES_MAX + 3 < MESSAGE_BYTES_MAX);
const _: () = assert!(PING_AFTER.as_secs() * 2 < IDLE_MAX.as_secs());
const _: () = assert!(BAN_FIRST.as_secs() <= BAN_MAX.as_secs());
const _: () = assert!(QUEUE_TIME.as_millis() < STALL_AFTER.as_millis());

/// What one node allows and wants; the defaults are those of `spec/peer-protocol.md`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port that other nodes can dial; `None` for a node that only dials out.
    pub listen_port: Option<u16>,
    /// Whether this node speaks TLS; a plain connection to another that does, too, is closed.
    pub takes_tls: bool,
    /// Peers of one swarm up to which this node dials.
    pub neighbours_aim: usize,
    /// Peers of one swarm beyond which others are turned away.
    pub neighbours_max: usize,
    /// Connections of the node; more are closed at once.
    pub connections_max: usize,
    /// Connections of one remote address; more are closed at once.
    pub connections_per_address_max: usize,
    /// Dials going on at a time.
    pub dials_max: usize,
    /// Unanswered requests that a peer may have with us, per payload.
    pub requests_max: u16,
    /// Peers served at a time, over all payloads.
    pub upload_slots: usize,
    /// Bytes of blocks handed to all sockets and not yet sent.
    pub uplink_bytes_max: u64,
    /// Bytes of blocks handed to one socket and not yet sent.
    pub uplink_bytes_per_peer_max: u64,
    /// Bytes asked for or being verified, over all payloads. Bounds memory.
    pub download_bytes_max: u64,
    /// Bytes per second of the node; [`crate::swarm::Engine::set_limits`] changes them.
    pub limits: Limits,
    /// Bytes that the node sends; [`crate::swarm::Engine::set_quota`] changes it.
    pub quota: UploadQuota,
    /// What is near; `None` for a node without a zone.
    pub zone: Option<Zone>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen_port: None,
            takes_tls: false,
            neighbours_aim: 8,
            neighbours_max: 16,
            connections_max: 256,
            connections_per_address_max: 32,
            dials_max: 8,
            requests_max: 16,
            upload_slots: 64,
            uplink_bytes_max: 1024 * 1024,
            uplink_bytes_per_peer_max: 512 * 1024,
            download_bytes_max: 16 * 1024 * 1024,
            limits: Limits::default(),
            quota: UploadQuota::default(),
            zone: None,
        }
    }
}
