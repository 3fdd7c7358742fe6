//! Payloads whose pieces become known one after the other, while somebody is still publishing them.
//!
//! Owns: nothing; the pieces' states are the transfer's. To peers such a swarm is like any other.
//! Spec: `spec/early.md` EARLY-5, EARLY-6.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Action, Engine, EngineError, Known, Want};
use crate::payload::PieceIndex;
use crate::swarm::requests::TransferId;

impl Engine {
    /// As [`Engine::want`], but no piece is asked for before [`Engine::reveal`] names it; an origin gives pieces as
    /// [`Engine::gain`] names them.
    pub fn want_early(&mut self, want: Want, now: Instant) -> Result<TransferId, EngineError> {
        self.take_part(want, Known::Later, now)
    }

    /// These pieces can be asked for from now on.
    pub fn reveal(&mut self, id: TransferId, pieces: &[PieceIndex], now: Instant) {
        // req: EARLY-5
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.reveal(pieces);
            transfer.fill_all(&mut self.shared, now);
        }
    }

    /// An origin's own pieces, which have come from elsewhere and are right: they can be given from now on.
    pub fn gain(&mut self, id: TransferId, pieces: &[PieceIndex], now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(&id)
            && transfer.is_origin
            && transfer.gain(pieces)
        {
            let done = Action::Completed { transfer: id };
            self.shared.actions.push_back(done);
        }
        self.upload(now);
    }

    /// Asks for no further piece; those that are under way may still come.
    pub fn want_no_more(&mut self, id: TransferId) {
        // req: EARLY-6
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.want_no_more();
        }
    }

    /// Gives up what is under way, but for pieces that have come whole.
    pub fn abandon(&mut self, id: TransferId) {
        // req: EARLY-6
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.abandon_all(&mut self.shared);
        }
    }

    /// A piece matched its hash, and whoever was to keep it does not any more: it is not held.
    pub fn handle_not_kept(&mut self, id: TransferId, piece: PieceIndex) {
        // req: SWARM-11
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.not_kept(piece, &mut self.shared);
        }
    }

    /// Pieces that are being received or verified.
    pub fn under_way_count(&self, id: TransferId) -> usize {
        let transfer = self.transfers.get(&id);
        transfer.map_or(0, |transfer| transfer.attempts.len())
    }

    /// Where the peers of a payload can be dialled.
    pub fn peer_addresses(&self, id: TransferId) -> Vec<SocketAddr> {
        let transfer = self.transfers.get(&id);
        let members = transfer.into_iter().flat_map(|it| it.members.values());
        members.filter_map(|member| member.address).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::payload::{AccessKey, Bitfield, Geometry, PayloadId, PieceBytes, Priority};
    use crate::swarm::{ChannelBinding, ConnId, Limits, Message, NodeId, Order, Role, Settings};

    const CONN: ConnId = ConnId(1);
    const ORIGIN: usize = 0;
    const NODE: usize = 1;

    fn geometry() -> Geometry {
        let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
        Geometry::new(16 * 1024 * 10, piece_bytes).expect("valid")
    }

    fn pieces(numbers: std::ops::Range<u32>) -> Vec<PieceIndex> {
        let geometry = geometry();
        let pieces = numbers.map(|number| geometry.piece_index(number).expect("inside"));
        pieces.collect()
    }

    /// An origin and a node that know no piece yet, connected.
    struct Pair {
        engines: [Engine; 2],
        ids: [TransferId; 2],
        now: Instant,
        asked: Vec<u32>,
    }

    impl Pair {
        fn new() -> Self {
            let now = Instant::now();
            let mut engines = [1, 2].map(|number| {
                let node = NodeId::from_bytes([number; 32]);
                let settings = Settings {
                    listen_port: Some(5690),
                    ..Settings::default()
                };
                Engine::new(settings, node, [number; 32], now)
            });
            let host = |number| SocketAddr::from(([10, 0, 0, number], 5690));
            let mut begin = |which: usize| {
                let want = Want {
                    payload: PayloadId::from_bytes([7; 32]),
                    geometry: geometry(),
                    key: AccessKey::from_bytes([42; 32]),
                    have: Bitfield::empty(&geometry()),
                    peers: if which == NODE {
                        vec![host(1)]
                    } else {
                        Vec::new()
                    },
                    origin: which == ORIGIN,
                    order: Order::RarestFirst,
                    limits: Limits::default(),
                    priority: Priority::default(),
                };
                engines[which].want_early(want, now).expect("new")
            };
            let ids = [begin(ORIGIN), begin(NODE)];
            let plain = ChannelBinding::default;
            engines[NODE].handle_connected(CONN, Role::Dialler, host(1), plain(), now);
            engines[ORIGIN].handle_connected(CONN, Role::Listener, host(2), plain(), now);
            let mut pair = Self {
                engines,
                ids,
                now,
                asked: Vec::new(),
            };
            pair.carry();
            pair
        }

        /// Carries messages and blocks until nobody has anything to say.
        fn carry(&mut self) {
            let mut is_moving = true;
            while std::mem::take(&mut is_moving) {
                for (from, to) in [(ORIGIN, NODE), (NODE, ORIGIN)] {
                    while let Some(action) = self.engines[from].poll_action() {
                        is_moving = true;
                        self.act(from, to, action);
                    }
                    self.engines[from].check().expect("invariants hold");
                }
            }
        }

        fn act(&mut self, from: usize, to: usize, action: Action) {
            match action {
                Action::Send { message, .. } => {
                    if let Message::Request { block, .. } = &message {
                        let count = block.len_bytes.div_ceil(geometry().piece_bytes().get());
                        self.asked.extend(block.piece..block.piece + count);
                    }
                    self.engines[to].handle_message(CONN, message, self.now);
                }
                Action::SendBlock { slot, block, .. } => {
                    let bytes = vec![0; block.len_bytes() as usize];
                    let message = Message::Block {
                        slot,
                        piece: block.piece().get(),
                        offset_bytes: block.offset_bytes(),
                        bytes: Bytes::from(bytes),
                    };
                    self.engines[to].handle_message(CONN, message, self.now);
                    self.engines[from].handle_block_sent(CONN, self.now);
                }
                Action::Write {
                    transfer,
                    piece,
                    blocks,
                } => {
                    let len: usize = blocks.iter().map(Bytes::len).sum();
                    let count = len.div_ceil(geometry().piece_bytes().get() as usize);
                    let written = geometry().pieces().skip(piece.as_usize()).take(count);
                    let written: Vec<PieceIndex> = written.collect();
                    self.engines[from].handle_verified(transfer, &written, self.now);
                }
                Action::Close { reason, .. } => panic!("{reason}"),
                Action::Banned { .. } | Action::Completed { .. } | Action::Dial { .. } => {}
            }
        }
    }

    /// A piece is asked for when the origin has it and the node knows its hash, in whichever order that comes; the
    /// last one completes both.
    // req: EARLY-5
    #[test]
    fn pieces_travel_as_they_become_known() {
        let mut pair = Pair::new();
        pair.engines[ORIGIN].gain(pair.ids[ORIGIN], &pieces(0..4), pair.now);
        pair.carry();
        assert!(pair.asked.is_empty(), "asked for what it cannot check");
        pair.engines[NODE].reveal(pair.ids[NODE], &pieces(0..6), pair.now);
        pair.carry();
        pair.asked.sort_unstable();
        assert_eq!(pair.asked, [0, 1, 2, 3], "what the origin has, and no more");
        pair.engines[ORIGIN].gain(pair.ids[ORIGIN], &pieces(4..10), pair.now);
        pair.carry();
        pair.engines[NODE].reveal(pair.ids[NODE], &pieces(6..10), pair.now);
        pair.carry();
        assert_eq!(pair.asked.len(), 10, "each once: {:?}", pair.asked);
        for (engine, id) in pair.engines.iter().zip(pair.ids) {
            let stats = engine.transfer_stats(id, pair.now).expect("there");
            assert_eq!(stats.pieces_held, 10);
        }
    }

    /// What is under way when no more is wanted comes and is kept, and what is revealed after that is not asked for.
    // req: EARLY-6
    #[test]
    fn what_is_under_way_comes_after_the_end() {
        let mut pair = Pair::new();
        pair.engines[ORIGIN].gain(pair.ids[ORIGIN], &pieces(0..10), pair.now);
        pair.carry();
        pair.engines[NODE].reveal(pair.ids[NODE], &pieces(0..3), pair.now);
        let under_way = pair.engines[NODE].under_way_count(pair.ids[NODE]);
        assert!(under_way > 0, "some is asked for at once");
        pair.engines[NODE].want_no_more(pair.ids[NODE]);
        pair.engines[NODE].reveal(pair.ids[NODE], &pieces(3..10), pair.now);
        pair.carry();
        assert_eq!(pair.engines[NODE].under_way_count(pair.ids[NODE]), 0);
        assert_eq!(pair.asked.len(), under_way, "{:?}", pair.asked);
        let stats = pair.engines[NODE].transfer_stats(pair.ids[NODE], pair.now);
        let held = stats.expect("there").pieces_held;
        assert_eq!(held as usize, under_way);
        assert_eq!(
            pair.engines[NODE].peer_addresses(pair.ids[NODE]),
            [SocketAddr::from(([10, 0, 0, 1], 5690))]
        );
    }
}
