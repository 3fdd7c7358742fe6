//! Any bytes as a stream of frames: nothing panics, and what is understood holds these properties.
//!
//! * However the stream is cut, the same frames come out, and the same error.
//! * A method or content header that is understood is the same after encoding and decoding again.
//! * Decoding takes memory in proportion to the input, whatever it claims.
//!
//! The first byte says how the stream is cut; the rest is the stream.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use warren::amqp::frame::{self, Frame, FrameError, FrameKind};
use warren::amqp::header::ContentHeader;
use warren::amqp::method::{Encode, Method};
use warrenmq_fuzz::{CountingAllocator, assert_memory_bounded, peak_bytes_of};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Frame-max of the fuzzed connection, small enough for the fuzzer to pass it.
const FRAME_BYTES_MAX: u32 = 4_096;

// req: FRAME-3
// req: METHOD-1
// req: CONTENT-2
fuzz_target!(|input: &[u8]| {
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let (whole, end) = frames_of(&[stream]);
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(cut) + 1).collect();
    assert_eq!(
        frames_of(&pieces),
        (whole.clone(), end),
        "cuts change what is understood"
    );
    check_shared_walk(stream, &whole);
    for frame in &whole {
        match frame.kind {
            FrameKind::Method => check_method(&frame.payload),
            FrameKind::Header => check_header(&frame.payload),
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
});

/// All frames of a stream that arrives in these pieces, and how it ends.
fn frames_of(pieces: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match frame::decode(&mut input, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}

/// The same frames are found by walking one shared buffer.
fn check_shared_walk(stream: &[u8], frames: &[Frame]) {
    let mut rest = &stream[..frame::complete_bytes(stream, FRAME_BYTES_MAX)];
    for expected in frames {
        let found = frame::parse(rest, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(
            (found.kind, found.channel),
            (expected.kind, expected.channel)
        );
        assert_eq!(found.payload, expected.payload);
        rest = &rest[found.frame_bytes..];
    }
}

fn check_method(payload: &Bytes) {
    let (result, peak_bytes) = peak_bytes_of(|| Method::decode(payload));
    assert_memory_bounded(peak_bytes, payload.len());
    match result {
        Ok(method) => {
            let mut output = BytesMut::new();
            method.encode(&mut output);
            assert_eq!(Method::decode(&output.freeze()), Ok(method));
        }
        Err(error) => {
            let text = error.reply_code().map(|code| code.text(&error));
            assert!(text.is_none_or(|text| text.as_str().is_some()));
        }
    }
}

fn check_header(payload: &Bytes) {
    let (result, peak_bytes) = peak_bytes_of(|| {
        ContentHeader::decode(payload)
            .and_then(|header| header.properties().map(|properties| (header, properties)))
    });
    assert_memory_bounded(peak_bytes, payload.len());
    if let Ok((header, properties)) = result {
        let again = ContentHeader {
            raw: properties.encode(),
            ..header
        };
        assert_eq!(again.properties(), Ok(properties));
    }
}
