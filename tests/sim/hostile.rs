//! How nodes behave, and what the hostile ones say in place of what their engine means.

use bytes::Bytes;
use warren::payload::Bitfield;
use warren::swarm::Message;
use warren::swarm::wire::{RawBlock, Slot};

use crate::network::{BAD, Network, address};

/// How a node behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Conduct {
    /// As the protocol wants it.
    Honest,
    /// Every block it sends is wrong.
    WrongBytes,
    /// It takes requests and never answers.
    Stalls,
    /// It claims to hold everything.
    Lies,
    /// It has another key.
    WrongKey,
    /// It has another key, and shows proofs that it heard from others.
    Replays,
    /// It claims to hold everything and sends a block every few seconds.
    Trickles,
    /// It hangs up when it is asked for something.
    Vanishes,
    /// It repeats what it says a hundred times and asks for all blocks at once.
    Floods,
    /// It sends blocks that nobody asked for.
    Unasked,
    /// Its bitfield is too long.
    Oversized,
    /// It names pieces that there are not, offers what it has not, and says everything out of turn.
    Garbage,
    /// It tells of addresses where nobody is, and of victims outside the swarm.
    Poisons,
}

impl Network {
    /// What a host really sends where its engine means `message`.
    pub(crate) fn distort(&mut self, host: usize, message: Message) -> Vec<Message> {
        let full = Bytes::from(Bitfield::full(&self.geometry).to_bytes());
        let all = |slot| Message::Bitfield {
            slot,
            giving: false,
            choked: false,
            bits: full.clone(),
        };
        match (self.hosts[host].conduct, message) {
            (
                Conduct::Lies
                | Conduct::WrongBytes
                | Conduct::Stalls
                | Conduct::Trickles
                | Conduct::Vanishes,
                Message::Bitfield { slot, .. },
            ) => vec![all(slot)],
            (
                Conduct::Replays,
                Message::Join {
                    slot,
                    payload,
                    proof,
                },
            ) => {
                let pick = self.random() as usize;
                let heard = self.heard_proofs.get(pick % self.heard_proofs.len().max(1));
                let proof = heard.copied().unwrap_or(proof);
                vec![Message::Join {
                    slot,
                    payload,
                    proof,
                }]
            }
            (Conduct::Floods, Message::Bitfield { slot, .. }) => {
                let requests = self.geometry.pieces().take(100).map(|piece| {
                    let block = self.geometry.blocks(piece).next().expect("a block");
                    let block = RawBlock {
                        piece: piece.get(),
                        offset_bytes: 0,
                        len_bytes: block.len_bytes(),
                    };
                    Message::Request { slot, block }
                });
                let haves = (0..100).map(|_| Message::Have {
                    slot,
                    pieces: (0..self.geometry.piece_count()).collect(),
                });
                [all(slot)]
                    .into_iter()
                    .chain(haves)
                    .chain(requests)
                    .collect()
            }
            (Conduct::Floods, message) => vec![message, Message::Ping, Message::Ping],
            (Conduct::Unasked, Message::Bitfield { slot, .. }) => vec![
                all(slot),
                Message::Block {
                    slot,
                    piece: 0,
                    offset_bytes: 0,
                    bytes: Bytes::from_static(&BAD[..16 * 1024]),
                },
            ],
            (Conduct::Oversized, Message::Bitfield { slot, .. }) => vec![Message::Bitfield {
                slot,
                giving: false,
                choked: false,
                bits: Bytes::from(vec![0xff; 8192]),
            }],
            (Conduct::Garbage, Message::Bitfield { slot, .. }) => {
                let beyond = vec![self.geometry.piece_count() + 7];
                match self.random() % 4 {
                    0 => vec![Message::Have {
                        slot,
                        pieces: vec![0],
                    }],
                    1 => vec![
                        all(slot),
                        Message::Offer {
                            slot,
                            pieces: beyond,
                        },
                    ],
                    2 => vec![all(slot), all(slot)],
                    _ => vec![
                        all(slot),
                        Message::Have {
                            slot: Slot(4_711),
                            pieces: beyond,
                        },
                    ],
                }
            }
            (Conduct::Poisons, Message::Bitfield { slot, .. }) => {
                let mut addresses = Vec::new();
                for number in 0..16 {
                    let nobody = 2_000 + (self.random() % 60_000) as usize;
                    addresses.push(address(nobody + number));
                }
                let told = |slot| Message::Peers {
                    slot,
                    addresses: addresses.clone(),
                };
                vec![all(slot), told(slot), told(slot)]
            }
            (_, message) => vec![message],
        }
    }
}
