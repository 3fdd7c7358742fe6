//! A producer's messages as frames, made once and stamped for each message.
//!
//! Owns: the publish method of each key, and one content that all share but for its stamp.
//! Bound: 60 bytes or so for each key, and one frame.

use bytes::{BufMut as _, BytesMut};

use super::check::{FILLING_PART_BYTES_MAX, Filling, STAMP_BYTES, Stamp};
use crate::amqp::field::ShortString;
use crate::amqp::frame::{FrameKind, put_body, put_frame_head, put_header, put_method};
use crate::amqp::header::{ContentHeader, Properties};
use crate::amqp::limits::{FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use crate::amqp::method::basic;
use crate::cli::bench::wire::CHANNEL;

/// Bytes of small messages that are written at a time.
const BATCH_BYTES: u64 = 128 * 1024;
/// Most messages that are written at a time.
const BATCH_MESSAGES_MAX: u64 = 1_024;
/// Bytes of one large message that are written at a time.
const PART_BYTES: usize = 256 * 1024;

/// Makes the frames of one producer.
pub(super) struct Encoder {
    sender: u16,
    /// All publish methods, one behind the other; each ends at its place in `ends`.
    methods: BytesMut,
    ends: Vec<usize>,
    /// Header and, if it fits into one, body frame.
    content: BytesMut,
    header_bytes: usize,
    body_bytes: u64,
    frame_payload_bytes_max: usize,
}

impl Encoder {
    /// For a sender that uses `keys` in turn.
    pub(super) fn new(
        sender: u16,
        exchange: &ShortString,
        keys: &[ShortString],
        properties: &Properties,
        body_bytes: u64,
        frame_bytes_max: u32,
        filling: &Filling,
    ) -> Self {
        let mut methods = BytesMut::new();
        let mut ends = Vec::with_capacity(keys.len());
        for key in keys {
            let publish = basic::Publish {
                exchange: exchange.clone(),
                routing_key: key.clone(),
                mandatory: false,
                immediate: false,
            };
            put_method(&mut methods, CHANNEL, &publish);
            ends.push(methods.len());
        }
        let mut content = BytesMut::new();
        put_header(
            &mut content,
            CHANNEL,
            &ContentHeader::new(body_bytes, properties),
        );
        let header_bytes = content.len();
        let frame_payload_bytes_max =
            ((frame_bytes_max - FRAME_OVERHEAD_BYTES) as usize).min(FILLING_PART_BYTES_MAX);
        if body_bytes <= frame_payload_bytes_max as u64 {
            put_body(&mut content, CHANNEL, filling.part(0, body_bytes as usize));
        }
        Self {
            sender,
            methods,
            ends,
            content,
            header_bytes,
            body_bytes,
            frame_payload_bytes_max,
        }
    }

    /// How many messages are best written at a time; 1 if a message takes several writes.
    pub(super) fn batch(&self) -> u64 {
        let message_bytes = self.content.len() as u64 + 64;
        match self.is_streamed() {
            true => 1,
            false => (BATCH_BYTES / message_bytes).clamp(1, BATCH_MESSAGES_MAX),
        }
    }

    /// Whether a message has more than one body frame and is to be made by [`put_part`](Self::put_part).
    pub(super) fn is_streamed(&self) -> bool {
        self.body_bytes > self.frame_payload_bytes_max as u64
    }

    fn stamp(&self, sequence: u64, intended_ns: u64) -> [u8; STAMP_BYTES] {
        let sender = self.sender;
        Stamp {
            sender,
            sequence,
            intended_ns,
        }
        .encode()
    }

    fn method(&self, sequence: u64) -> &[u8] {
        let key = (sequence % self.ends.len().max(1) as u64) as usize;
        let start = key.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(key);
        let range = start.copied().unwrap_or(0)..end.copied().unwrap_or(0);
        self.methods.get(range).unwrap_or_default()
    }

    /// Appends a whole message of one body frame.
    pub(super) fn put(&self, sequence: u64, intended_ns: u64, out: &mut BytesMut) {
        debug_assert!(!self.is_streamed(), "its body has one frame");
        out.put_slice(self.method(sequence));
        let at = out.len() + self.header_bytes + FRAME_HEADER_BYTES;
        out.put_slice(&self.content);
        if let Some(place) = out.get_mut(at..at + STAMP_BYTES) {
            place.copy_from_slice(&self.stamp(sequence, intended_ns));
        }
    }

    /// Appends the next part of a streamed message, of which `done` bytes of the body were put before; gives how
    /// many are then.
    pub(super) fn put_part(
        &self,
        sequence: u64,
        intended_ns: u64,
        mut done: u64,
        filling: &Filling,
        out: &mut BytesMut,
    ) -> u64 {
        if done == 0 {
            out.put_slice(self.method(sequence));
            out.put_slice(&self.content);
        }
        let start = out.len();
        while done < self.body_bytes && out.len() - start < PART_BYTES {
            let rest = self.body_bytes - done;
            let length = usize::try_from(rest)
                .unwrap_or(usize::MAX)
                .min(self.frame_payload_bytes_max);
            put_frame_head(out, FrameKind::Body, CHANNEL, length as u32);
            let at = out.len();
            out.put_slice(filling.part(done, length));
            if done == 0
                && let Some(place) = out.get_mut(at..at + STAMP_BYTES)
            {
                place.copy_from_slice(&self.stamp(sequence, intended_ns));
            }
            out.put_u8(FRAME_END);
            done += length as u64;
        }
        done
    }

    /// Length of a body, in bytes.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::frame;

    /// Frames of a message of any size are a publish with the key in turn, a header and the body as it is checked.
    #[test]
    fn messages_are_frames_that_the_check_believes() {
        let filling = Filling::default();
        let keys = [
            ShortString::from_static("a"),
            ShortString::from_static("bb"),
        ];
        for body_bytes in [16_u64, 1_000, 131_064, 131_065, 700_000] {
            let encoder = Encoder::new(
                3,
                &ShortString::from_static("x"),
                &keys,
                &Properties::default(),
                body_bytes,
                131_072,
                &filling,
            );
            for sequence in 0..3 {
                let mut out = BytesMut::new();
                if encoder.is_streamed() {
                    let mut done = 0;
                    while done < body_bytes {
                        done = encoder.put_part(sequence, 99, done, &filling, &mut out);
                    }
                } else {
                    encoder.put(sequence, 99, &mut out);
                }
                let mut body = Vec::new();
                let mut kinds = Vec::new();
                while let Some(found) = frame::decode(&mut out, 131_072).expect("frames") {
                    kinds.push(found.kind);
                    match found.kind {
                        FrameKind::Method => {
                            let key: &[u8] = if sequence % 2 == 0 {
                                b"\x01a"
                            } else {
                                b"\x02bb"
                            };
                            assert!(found.payload.windows(key.len()).any(|part| part == key));
                        }
                        FrameKind::Header => {
                            assert_eq!(found.payload[4..12], body_bytes.to_be_bytes())
                        }
                        FrameKind::Body => body.extend_from_slice(&found.payload),
                        FrameKind::Heartbeat => panic!("no heartbeat was put"),
                    }
                }
                assert!(out.is_empty(), "{body_bytes}");
                assert_eq!(kinds[..2], [FrameKind::Method, FrameKind::Header]);
                assert_eq!(body.len() as u64, body_bytes);
                assert!(filling.matches(0, &body));
                let stamp = Stamp::decode(*body.first_chunk().expect("a stamp"));
                assert_eq!(
                    (stamp.sender, stamp.sequence, stamp.intended_ns),
                    (3, sequence, 99)
                );
            }
        }
    }
}
