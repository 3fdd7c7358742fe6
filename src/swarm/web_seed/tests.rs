//! An engine that fetches from a web seed alone, with its bytes made up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::*;
use crate::payload::{PieceBytes, Priority};
use crate::swarm::{Action, ConnId, Engine, Limits, Order, Settings, TransferId, Want};

const SEED: ConnId = ConnId(7);
const URL: &str = "http://files.example/a";

struct Bench {
    engine: Engine,
    id: TransferId,
    seed: WebSeed,
    now: Instant,
    /// Fetched ranges, in order.
    ranges: Vec<Range<u64>>,
    completed: bool,
    closed: bool,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let piece_bytes = PieceBytes::new(512 * 1024).expect("valid");
        let geometry = Geometry::new(512 * 1024 * 5 + 100, piece_bytes).expect("valid");
        let key = AccessKey::from_bytes([42; 32]);
        let payload = PayloadId::from_bytes([7; 32]);
        let mut engine = Engine::new(settings, NodeId::from_bytes([1; 32]), [1; 32], now);
        let want = Want {
            payload,
            geometry,
            key: key.clone(),
            have: Bitfield::empty(&geometry),
            peers: Vec::new(),
            origin: false,
            order: Order::RarestFirst,
            limits: Limits::default(),
            priority: Priority::default(),
        };
        let id = engine.want(want, now).expect("new");
        engine.handle_web_seed(SEED, now);
        Self {
            engine,
            id,
            seed: WebSeed::new(URL, key, payload, geometry),
            now,
            ranges: Vec::new(),
            completed: false,
            closed: false,
        }
    }

    /// Runs until nothing is left to do; `answer` is what the server makes of a range, and whether it is right.
    fn run(&mut self, answer: impl Fn(&Range<u64>) -> Option<bool>) {
        let mut steps = VecDeque::new();
        loop {
            while let Some(action) = self.engine.poll_action() {
                match action {
                    Action::Send { message, .. } => steps.extend(self.seed.handle(message)),
                    Action::Write {
                        transfer,
                        piece,
                        blocks,
                    } => {
                        let good = blocks.iter().all(|block| block.first() == Some(&1));
                        if good {
                            self.engine.handle_verified(transfer, &[piece], self.now);
                        } else {
                            self.engine.handle_bad(transfer, piece, self.now);
                        }
                    }
                    Action::Completed { .. } => self.completed = true,
                    Action::Close { .. } => self.closed = true,
                    Action::Banned { .. } | Action::Dial { .. } | Action::SendBlock { .. } => {}
                }
            }
            self.engine.check().expect("invariants");
            match steps.pop_front() {
                Some(WebStep::Say(message)) => self.engine.handle_message(SEED, message, self.now),
                Some(WebStep::Fetch(request)) => {
                    self.ranges.push(request.bytes.clone());
                    let len = usize::try_from(request.bytes.end - request.bytes.start);
                    let len = len.expect("a block");
                    let answer = match answer(&request.bytes) {
                        Some(is_right) => {
                            let bytes = vec![u8::from(is_right); len];
                            self.seed.fetched(&request, bytes.into())
                        }
                        None => self.seed.not_fetched(&request),
                    };
                    self.engine.handle_message(SEED, answer, self.now);
                }
                Some(WebStep::End) => self.closed = true,
                None => return,
            }
        }
    }
}

/// A node that speaks TLS with its peers has its web seeds too, which prove for a plain connection.
// req: PEER-17
#[test]
fn a_node_that_speaks_tls_takes_web_seeds() {
    let mut bench = Bench::with(Settings {
        takes_tls: true,
        ..Settings::default()
    });
    bench.run(|_| Some(true));
    assert!(bench.completed);
}

/// A server of ranges alone is enough: every byte is asked for once, in blocks that lie inside the payload.
// req: WEB-5
#[test]
fn engine_completes_from_a_web_seed() {
    let mut bench = Bench::new();
    bench.run(|_| Some(true));
    assert!(bench.completed);
    let mut ranges = bench.ranges.clone();
    ranges.sort_by_key(|range| range.start);
    let mut next = 0;
    for range in ranges {
        assert_eq!(range.start, next, "asked once, without a gap");
        next = range.end;
    }
    assert_eq!(next, 512 * 1024 * 5 + 100);
    bench.now += Duration::from_secs(5);
    bench.engine.handle_timeout(bench.now);
    bench.run(|_| None);
    assert!(bench.closed, "two that have everything part");
}

/// A server that sends other bytes is left after one piece; nothing of it is kept.
// req: WEB-5
#[test]
fn web_seed_with_wrong_bytes_is_left() {
    let mut bench = Bench::new();
    bench.run(|_| Some(false));
    assert!(!bench.completed && bench.closed);
    let stats = bench.engine.transfer_stats(bench.id, bench.now);
    let stats = stats.expect("running");
    assert_eq!(stats.pieces_held, 0);
    assert!(stats.counts.bad_pieces <= 1, "{:?}", stats.counts);
    assert!(stats.peers.is_empty());
    // The same server again is not taken.
    bench.engine.handle_disconnected(SEED, bench.now);
    bench.closed = false;
    let before = bench.ranges.len();
    bench.engine.handle_web_seed(SEED, bench.now);
    bench.run(|_| Some(true));
    assert_eq!(bench.ranges.len(), before);
}

/// No more than two blocks wait at the server.
// req: WEB-6
#[test]
fn few_blocks_are_asked_at_a_time() {
    let mut bench = Bench::new();
    let mut waiting = 0_u16;
    let mut steps = VecDeque::new();
    loop {
        while let Some(action) = bench.engine.poll_action() {
            if let Action::Send { message, .. } = action {
                steps.extend(bench.seed.handle(message));
            }
        }
        match steps.pop_front() {
            Some(WebStep::Say(message)) => bench.engine.handle_message(SEED, message, bench.now),
            Some(WebStep::Fetch(_)) => waiting += 1,
            Some(WebStep::End) | None => break,
        }
    }
    assert!((1..=WEB_REQUESTS_MAX).contains(&waiting), "{waiting}");
}
