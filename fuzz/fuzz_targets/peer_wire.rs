//! Any bytes as a stream of peer messages: nothing panics, and what is understood holds these properties.
//!
//! * However the stream is cut, the same messages come out, and the same error.
//! * Every message that is understood encodes to the bytes that it came from.
//!
//! The first byte says how the stream is cut; the rest is the stream.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use warren::swarm::wire::{self, Message, WireError};

// req: PEER-1
// req: PEER-5
fuzz_target!(|input: &[u8]| {
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let (messages, end) = messages_of(&[stream]);
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(cut) + 1).collect();
    assert_eq!(
        messages_of(&pieces),
        (messages.clone(), end),
        "cuts change what is understood"
    );
    let mut again = BytesMut::new();
    for message in &messages {
        wire::encode(message, &mut again);
    }
    assert_eq!(stream.get(..again.len()), Some(&again[..]));
    let _ = wire::decode_block_header(&mut BytesMut::from(stream));
});

/// All messages of a stream that arrives in these pieces, and how it ends.
fn messages_of(pieces: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let mut input = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match wire::decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
