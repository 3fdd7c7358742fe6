//! Delivering again: a message that differs from the channel's last one in its body only.
//!
//! Owns: the frames in front of a body as they were sent last. Where exchange, key, properties and consumer are
//! the same, only the delivery tag, the flag and the body's size are set anew, and all goes out in one copy.
//! Bound: [`KNOWN_BYTES_MAX`].

use bytes::{BufMut, BytesMut};

use crate::amqp::frame::{self, FrameKind};
use crate::amqp::limits::{FRAME_END, FRAME_OVERHEAD_BYTES};
use crate::broker::Message;

use super::Context;
use super::consuming::{Deliver, TAG_LENGTH_AT, put_deliver};
use crate::session::transmit::{BODY_SIZE_AT, put_header};

/// Longest head of a message that is kept, in bytes.
const KNOWN_BYTES_MAX: usize = 4 * 1024;

/// What was delivered last on a channel.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// What the message has in front of its body, as it is kept in memory.
    head: Vec<u8>,
    /// The frames of method and content header.
    frames: BytesMut,
    /// Where in them the content header's begins.
    header_at: usize,
    tag_bytes: usize,
}

impl Delivered {
    /// Sends a delivery if its message is short and nothing that is being streamed is in its way; false if it
    /// must go the long way.
    #[inline]
    pub(super) fn put(
        &mut self,
        channel: u16,
        deliver: &Deliver<'_>,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> bool {
        let known = message.body_behind(&self.head).filter(|_| {
            let tag = self
                .frames
                .get(TAG_LENGTH_AT + 1..TAG_LENGTH_AT + 1 + self.tag_bytes);
            tag == Some(deliver.consumer_tag)
        });
        let body = match known {
            Some(body) => body,
            None => match self.learn(channel, deliver, message) {
                Some(body) => body,
                None => return false,
            },
        };
        let Ok(body_size) = u32::try_from(body.len()) else {
            return false;
        };
        if body.is_empty() || !cx.transmit.takes_whole(body_size) {
            return false;
        }
        let tag_at = TAG_LENGTH_AT + 1 + self.tag_bytes;
        let size_at = self.header_at + BODY_SIZE_AT;
        set(
            &mut self.frames,
            tag_at,
            &deliver.delivery_tag.to_be_bytes(),
        );
        set(
            &mut self.frames,
            tag_at + 8,
            &[u8::from(deliver.redelivered)],
        );
        set(
            &mut self.frames,
            size_at,
            &u64::from(body_size).to_be_bytes(),
        );
        let output = cx.transmit.frames(channel);
        output.reserve(self.frames.len() + body.len() + FRAME_OVERHEAD_BYTES as usize);
        output.put_slice(&self.frames);
        output.put_slice(&frame::frame_head(FrameKind::Body, channel, body_size));
        output.put_slice(body);
        output.put_u8(FRAME_END);
        true
    }

    /// Keeps the frames in front of a message's body, and gives the body; none if it is not kept in one piece.
    fn learn<'a>(
        &mut self,
        channel: u16,
        deliver: &Deliver<'_>,
        message: &'a Message,
    ) -> Option<&'a [u8]> {
        let (head, body) = message.head_and_body()?;
        if head.len() > KNOWN_BYTES_MAX {
            return None;
        }
        self.head.clear();
        self.head.extend_from_slice(head);
        self.tag_bytes = deliver.consumer_tag.len();
        self.frames.clear();
        put_deliver(&mut self.frames, channel, deliver, message);
        self.header_at = self.frames.len();
        put_header(&mut self.frames, channel, message.header(), 0);
        Some(body)
    }
}

/// Sets octets that are there.
#[inline]
fn set(frames: &mut [u8], at: usize, octets: &[u8]) {
    if let Some(place) = frames.get_mut(at..at + octets.len()) {
        place.copy_from_slice(octets);
    }
}
