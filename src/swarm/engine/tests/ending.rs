//! What a transfer does that asks for no more, and what is made of accusations.

use super::*;

fn index(block: RawBlock) -> PieceIndex {
    geometry().piece_index(block.piece).expect("inside")
}

/// What is asked of the scripted peer and not answered; a piece is one block here.
fn under_way(scripted: &Scripted) -> Vec<RawBlock> {
    let pieces = scripted.engine.transfers[&scripted.id].attempts.keys();
    let blocks = pieces.filter_map(|piece| geometry().blocks(*piece).next());
    blocks.map(raw).collect()
}

/// What was asked when no more is wanted is not asked again: not when it is refused, cannot be kept or cannot be read
/// back; and what is given up is cancelled.
// req: EARLY-6
#[test]
fn nothing_is_asked_again_after_the_end() {
    for ends in [false, true] {
        let mut scripted = Scripted::member(none(), false);
        scripted.bitfield(&full());
        scripted.serve(6);
        let [refused, not_kept, lost, ..] = under_way(&scripted)[..] else {
            panic!("too little is asked for to lose some");
        };
        let held = scripted.engine.stats(scripted.now)[0].pieces_held;
        if ends {
            scripted.engine.want_no_more(scripted.id);
        }
        scripted.say(Message::Reject {
            slot: Slot(5),
            block: refused,
        });
        scripted.say(Message::Have {
            slot: Slot(5),
            pieces: vec![refused.piece],
        });
        let again = scripted.requests();
        assert_eq!(again.is_empty(), ends, "{again:?}");

        scripted.block(not_kept);
        scripted
            .engine
            .handle_not_kept(scripted.id, index(not_kept));
        scripted.block(lost);
        scripted
            .engine
            .handle_verified(scripted.id, &[index(lost)], scripted.now);
        let block = geometry().blocks(index(lost)).next().expect("one");
        scripted
            .engine
            .handle_read_failed(NEAR, scripted.id, block, scripted.now);
        scripted.wait(Duration::from_secs(2));
        scripted.engine.check().expect("invariants hold");
        let again = scripted.requests();
        assert_eq!(again.is_empty(), ends, "{again:?}");

        let held_now = scripted.engine.stats(scripted.now)[0].pieces_held;
        assert_eq!(held_now, held, "neither was kept");
        let asked = under_way(&scripted);
        scripted.sent.clear();
        scripted.engine.abandon(scripted.id);
        scripted.gather();
        scripted.engine.check().expect("invariants hold");
        assert_eq!(scripted.engine.under_way_count(scripted.id), 0);
        let is_cancel = |message: &&Message| matches!(message, Message::Cancel { .. });
        assert_eq!(scripted.sent.iter().filter(is_cancel).count(), asked.len());
    }
}

/// Joins anew and leaves for a bad piece, after asking for one block if it `asks`; answers whether that counts.
fn accuse(scripted: &mut Scripted, slot: u16, asks: bool) -> bool {
    let proof = scripted.proof();
    scripted.say(Message::Join {
        slot: Slot(slot),
        payload: PAYLOAD,
        proof,
    });
    leave_accusing(scripted, slot, asks)
}

fn leave_accusing(scripted: &mut Scripted, slot: u16, asks: bool) -> bool {
    let slot = Slot(slot);
    scripted.say(Message::Bitfield {
        slot,
        giving: false,
        choked: false,
        bits: none().to_bytes().into(),
    });
    if asks {
        let block = RawBlock {
            piece: 0,
            offset_bytes: 0,
            len_bytes: 16 * 1024,
        };
        scripted.say(Message::Request { slot, block });
        scripted.engine.handle_block_sent(NEAR, scripted.now);
    }
    scripted.say(Message::Leave {
        slot,
        reason: Reason::BadPiece,
    });
    scripted.engine.poll_accused() == Some(scripted.id)
}

/// Only who was sent a block can say that it is bad, and once an hour.
// req: SWARM-38
#[test]
fn accusations_count_once_an_hour_from_who_was_served() {
    let mut scripted = Scripted::member(full(), false);
    assert!(
        !leave_accusing(&mut scripted, 5, false),
        "it was sent nothing"
    );
    assert!(accuse(&mut scripted, 6, true), "it may be right");
    assert!(!accuse(&mut scripted, 7, true), "again");
    assert!(!accuse(&mut scripted, 8, false), "and again");
    // The connection would not last so long in silence.
    scripted.now += crate::swarm::limits::ACCUSER_PAUSE;
    assert!(accuse(&mut scripted, 9, true), "an hour later");
}
