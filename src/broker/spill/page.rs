//! One page: waiting messages in the order of their queue, to bytes and back.
//!
//! Owns: the byte map. A message that the journal has is written as a reference to it, any other whole.
//! Payloads stay referred to by whoever keeps the page; their messages are marked in it.
//! Bound: what was put in; nothing is allocated for a length that is not there.
//! Spec: `spec/spill.md`, "Page: byte map".

use crate::journal::{Location, Lsn};

use super::super::queue::expiry::Deadline;
use super::super::queue::{Entry, MessageSeq};

/// Checksum, number of messages, and the first one's number in the queue, in bytes.
const HEAD_BYTES: usize = 16;
/// What a reference takes at most, in bytes.
const REFERENCE_BYTES_MAX: usize = 1 + 5 * VARINT_BYTES_MAX + 6;
const VARINT_BYTES_MAX: usize = 10;

const FLAG_REDELIVERED: u8 = 1;
const FLAG_REFERENCE: u8 = 2;
const FLAG_PAYLOAD: u8 = 4;
const FLAG_RETURNED: u8 = 8;
const FLAG_EXPIRES: u8 = 16;
const FLAGS_KNOWN: u8 =
    FLAG_REDELIVERED | FLAG_REFERENCE | FLAG_PAYLOAD | FLAG_RETURNED | FLAG_EXPIRES;

/// A message of a page that was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PageEntry<'a> {
    pub(crate) seq: MessageSeq,
    pub(crate) redelivered: bool,
    pub(crate) return_count: u32,
    pub(crate) deadline: Deadline,
    /// Whether its body is the next of the payloads that are kept with the page.
    pub(crate) has_payload: bool,
    pub(crate) content: Content<'a>,
}

/// Where the message itself is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Content<'a> {
    /// In the journal.
    Journal { lsn: Lsn, location: Location },
    /// Here: see [`Message::from_image`](super::super::message::Message::from_image).
    Whole(&'a [u8]),
}

/// Encodes a page, in order of the entries.
///
/// Head: `crc32c u32 of what follows | count u32 | seq u64 of the first`. An entry: `flags u8 |
/// seq less that before | times it came back, if any | deadline, 6, if any`, then of a reference `lsn, segment and offset/8, each less that before`, of a
/// whole message `length | image`. Numbers are varints, differences that may be negative zigzag.
// req: SPILL-2
pub(crate) fn encode<'a>(
    entries: impl Iterator<Item = (MessageSeq, &'a Entry)>,
    size_hint_bytes: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + size_hint_bytes);
    out.resize(HEAD_BYTES, 0);
    let mut count = 0_u32;
    let mut first = None;
    let mut before = Before::default();
    for (seq, entry) in entries {
        count += 1;
        if first.is_none() {
            first = Some(seq);
            before.seq = seq.0;
        }
        let mut flags = u8::from(entry.redelivered) * FLAG_REDELIVERED;
        if entry.message.payload().is_some() {
            flags |= FLAG_PAYLOAD;
        }
        if entry.return_count != 0 {
            flags |= FLAG_RETURNED;
        }
        if entry.deadline != Deadline::NEVER {
            flags |= FLAG_EXPIRES;
        }
        if entry.lsn != Lsn::ZERO {
            flags |= FLAG_REFERENCE;
        }
        out.reserve(REFERENCE_BYTES_MAX);
        out.push(flags);
        put_varint(&mut out, before.seq(seq));
        if entry.return_count != 0 {
            put_varint(&mut out, entry.return_count.into());
        }
        if entry.deadline != Deadline::NEVER {
            out.extend_from_slice(&entry.deadline.to_bytes());
        }
        if entry.lsn == Lsn::ZERO {
            let (front, back) = entry.message.image();
            put_varint(&mut out, (front.len() + back.len()) as u64);
            out.extend_from_slice(front);
            out.extend_from_slice(back);
        } else {
            let Location { segment, offset } = entry.location;
            let place = [entry.lsn.0, segment.into(), u64::from(offset) / 8];
            for (before, now) in before.place.iter_mut().zip(place) {
                put_varint(&mut out, zigzag(now.wrapping_sub(*before)));
                *before = now;
            }
        }
    }
    let first = first.map_or(0, |MessageSeq(first)| first);
    out[4..8].copy_from_slice(&count.to_le_bytes());
    out[8..HEAD_BYTES].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The page's messages in order, or nothing if it is not whole.
pub(crate) fn decode(page: &[u8]) -> Option<Vec<PageEntry<'_>>> {
    let mut input = Input(page);
    let crc = input.u32()?;
    if crc32c::crc32c(input.0) != crc {
        return None;
    }
    let count = input.u32()? as usize;
    let mut before = Before {
        seq: input.u64()?,
        place: [0; 3],
    };
    // A message takes three bytes at least.
    let mut entries = Vec::with_capacity(count.min(page.len() / 3));
    for _ in 0..count {
        entries.push(input.entry(&mut before)?);
    }
    input.0.is_empty().then_some(entries)
}

/// What an entry's numbers are told from.
#[derive(Default)]
struct Before {
    seq: u64,
    /// Number, segment and offset in the journal.
    place: [u64; 3],
}

impl Before {
    fn seq(&mut self, MessageSeq(seq): MessageSeq) -> u64 {
        let step = seq.wrapping_sub(self.seq);
        self.seq = seq;
        step
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn entry(&mut self, before: &mut Before) -> Option<PageEntry<'a>> {
        let [flags] = *self.bytes(1)? else {
            return None;
        };
        if flags & !FLAGS_KNOWN != 0 {
            return None;
        }
        before.seq = before.seq.checked_add(self.varint()?)?;
        let return_count = match flags & FLAG_RETURNED {
            0 => 0,
            _ => u32::try_from(self.varint()?).ok()?,
        };
        let deadline = match flags & FLAG_EXPIRES {
            0 => Deadline::NEVER,
            _ => Deadline::from_bytes(self.bytes(6)?.try_into().ok()?),
        };
        let content = if flags & FLAG_REFERENCE == 0 {
            let len = usize::try_from(self.varint()?).ok()?;
            Content::Whole(self.bytes(len)?)
        } else {
            for before in &mut before.place {
                *before = before.wrapping_add(unzigzag(self.varint()?));
            }
            let [lsn, segment, offset] = before.place;
            Content::Journal {
                lsn: Lsn(lsn),
                location: Location {
                    segment: u32::try_from(segment).ok()?,
                    offset: u32::try_from(offset.checked_mul(8)?).ok()?,
                },
            }
        };
        Some(PageEntry {
            seq: MessageSeq(before.seq),
            redelivered: flags & FLAG_REDELIVERED != 0,
            return_count,
            deadline,
            has_payload: flags & FLAG_PAYLOAD != 0,
            content,
        })
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for at in 0..VARINT_BYTES_MAX as u32 {
            let (octet, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(octet & 0x7f).checked_shl(7 * at)?;
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A difference as a number that is small if it is near 0 on either side.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ 0_u64.wrapping_sub(difference >> 63)
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ 0_u64.wrapping_sub(value & 1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::super::message::{Body, Message, MessageTraits, Persistence};
    use super::*;

    fn entry(body_bytes: usize, lsn: u64, location: Location, redelivered: bool) -> Entry {
        let traits = MessageTraits {
            persistence: Persistence::Transient,
            priority: 3,
            expiration: None,
        };
        let body = Body::Inline(Bytes::from(vec![b'x'; body_bytes]));
        Entry {
            message: Message::new(b"logs", b"a.b", &[0, 0], traits, body),
            lsn: Lsn(lsn),
            location,
            redelivered,
            return_count: u32::from(redelivered) * 300,
            deadline: match body_bytes % 2 {
                0 => Deadline::NEVER,
                _ => Deadline::from_bytes([1, 2, 3, 4, 5, 6]),
            },
        }
    }

    proptest! {
        /// What was put in comes out, references and whole messages, in any order of places.
        // req: SPILL-2
        #[test]
        fn a_page_gives_back_what_was_put_in(
            made in prop::collection::vec(
                (1..50_u64, 0..9_000_usize, any::<bool>(), 0..=u64::MAX / 2, any::<(u32, u32)>()),
                0..40,
            ),
        ) {
            let mut seq = u64::from(u32::MAX);
            let entries: Vec<_> = made.iter().map(|(step, body, redelivered, lsn, place)| {
                seq += step;
                let (segment, offset) = (place.0, place.1 & !7);
                let lsn = if step % 2 == 0 { 0 } else { *lsn };
                let location = Location { segment, offset };
                (MessageSeq(seq), entry(*body, lsn, location, *redelivered))
            }).collect();
            let page = encode(entries.iter().map(|(seq, entry)| (*seq, entry)), 0);
            let decoded = decode(&page).unwrap();
            prop_assert_eq!(decoded.len(), entries.len());
            for (found, (seq, entry)) in decoded.iter().zip(&entries) {
                prop_assert_eq!(found.seq, *seq);
                prop_assert_eq!(found.redelivered, entry.redelivered);
                prop_assert_eq!(found.return_count, entry.return_count);
                prop_assert_eq!(found.deadline, entry.deadline);
                prop_assert!(!found.has_payload);
                match found.content {
                    Content::Journal { lsn, location } => {
                        prop_assert_eq!((lsn, location), (entry.lsn, entry.location));
                    }
                    Content::Whole(image) => {
                        prop_assert_eq!(entry.lsn, Lsn::ZERO);
                        let (front, back) = entry.message.image();
                        prop_assert_eq!(image, [front, back].concat());
                        let message = Message::from_image(image, None).unwrap();
                        prop_assert_eq!(message.traits(), entry.message.traits());
                    }
                }
            }
        }

        /// A page with a changed octet, or cut short, is none.
        #[test]
        fn a_damaged_page_is_none(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let location = Location { segment: 3, offset: 80 };
            let entries = [entry(10, 0, location, false), entry(10, 5, location, true)];
            let numbered = entries.iter().enumerate();
            let numbered = numbered.map(|(at, entry)| (MessageSeq(at as u64), entry));
            let mut page = encode(numbered, 0);
            let at = at.index(page.len());
            prop_assert!(decode(&page[..at]).is_none());
            page[at] ^= 1 << bit;
            prop_assert!(decode(&page).is_none());
        }

        /// Octets that anybody could have written never panic, also behind a right checksum.
        #[test]
        fn any_octets_are_a_page_or_none(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&octets);
            let mut page = crc32c::crc32c(&octets).to_le_bytes().to_vec();
            page.extend_from_slice(&octets);
            let _ = decode(&page);
        }
    }

    /// Messages that follow each other in the journal take a few bytes each.
    #[test]
    fn references_that_follow_each_other_are_short() {
        let entries: Vec<_> = (0..1_000)
            .map(|at| {
                let offset = 1_000 + at * 152;
                entry(
                    10,
                    500 + u64::from(at),
                    Location { segment: 9, offset },
                    false,
                )
            })
            .collect();
        let numbered = entries.iter().enumerate();
        let numbered = numbered.map(|(at, entry)| (MessageSeq(at as u64), entry));
        assert!(encode(numbered, 0).len() < 6_100);
    }
}
