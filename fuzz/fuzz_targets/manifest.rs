//! Any message as a manifest: refused, or true to its id and the same after another round trip.
//!
//! * Reading costs memory in proportion to the message, whatever sizes it claims.
//! * A manifest that is taken has one hash for each piece, and they merge to its id.
//! * The id of the hashes makes a manifest of a message that only lacked the right id.
//!
//! The first two bytes say how many that follow are property flags and properties; the rest is the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use warren::amqp::field::{FieldValue, ShortString};
use warren::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use warren::payload::hash::merge;
use warren::payload::{Manifest, ManifestError, PieceHash};
use warrenmq_fuzz::{CountingAllocator, assert_memory_bounded, peak_bytes_of};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// req: MANIFEST-2
// req: MANIFEST-3
// req: MANIFEST-7
fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let split = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (raw, body) = rest.split_at(split);
    let header = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: body.len() as u64,
        raw: Bytes::copy_from_slice(raw),
    };
    let Ok(mut properties) = header.properties() else {
        return;
    };
    let (outcome, peak_bytes) = peak_bytes_of(|| Manifest::from_message(&properties, body));
    assert_memory_bounded(peak_bytes, input.len());
    match outcome {
        Ok(manifest) => check(&manifest, &properties),
        Err(ManifestError::IdMismatch { merged, .. }) => {
            let mut headers = properties.headers.take().expect("it had an id");
            let id = FieldValue::LongString(Bytes::from(merged.to_string()));
            headers.insert(ShortString::from_static("x-payload-id"), id);
            properties.headers = Some(headers);
            let manifest = Manifest::from_message(&properties, body).expect("the id is right now");
            assert_eq!(manifest.id(), merged);
            check(&manifest, &properties);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check(manifest: &Manifest, properties: &Properties) {
    let geometry = manifest.geometry();
    assert_eq!(
        manifest.piece_hashes().len(),
        geometry.piece_count() as usize
    );
    assert_eq!(merge(manifest.piece_hashes()), manifest.id());
    let total_bytes: u64 = geometry
        .pieces()
        .map(|p| u64::from(geometry.piece_len_bytes(p)))
        .sum();
    assert_eq!(total_bytes, geometry.size_bytes());
    let (again, body) = manifest.to_message(properties);
    let again = Manifest::from_message(&again, &body).expect("what we write we read");
    assert_eq!(again.id(), manifest.id());
    assert_eq!(again.key(), manifest.key());
    assert_eq!(again.peers(), manifest.peers());
    assert_eq!(again.name(), manifest.name());
    let swapped: Vec<PieceHash> = manifest.piece_hashes().iter().rev().copied().collect();
    assert!(swapped == manifest.piece_hashes() || merge(&swapped) != manifest.id());
}
