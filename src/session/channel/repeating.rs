//! Publishing again: a message that differs from the channel's last ones in its body only.
//!
//! Owns: what is learned of such a publish, so that the next ones are told by comparing octets, and go to
//! their queues in runs. What they may do and where they go was found out for the first of them; a run is
//! only taken while that holds: the same channel, the same exchange, key, flags and properties, and a vhost
//! in which nothing changed that a route or a right depends on.
//! Bounds: [`RUN_COUNT_MAX`] messages at once, [`LEARNED_BYTES_MAX`] octets to compare.

use bytes::Bytes;

use crate::amqp::frame::{self, FrameKind};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader};
use crate::amqp::limits::{FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use crate::amqp::method::Method;
use crate::broker::{Message, MessageTraits, RunOutcome, Template, User, may_have_more_keys};

use super::{Channel, Context, Mode};
use crate::session::failure::{Failure, MethodId};
use crate::session::properties;
use crate::session::transmit::BODY_SIZE_AT;

/// Most messages of one run.
const RUN_COUNT_MAX: usize = 256;
/// Longest method and content header that are learned together, in bytes.
const LEARNED_BYTES_MAX: usize = 4 * 1024;
const BODY_SIZE_BYTES: usize = size_of::<u64>();

/// What a channel's publishes have in common.
#[derive(Debug)]
pub(in crate::session) struct Repeated {
    channel: u16,
    /// The frames of method and content header, as they came.
    octets: Vec<u8>,
    /// Where in them the body's size is.
    size_at: usize,
    mandatory: bool,
    template: Template,
}

/// What a connection keeps for publishes that repeat themselves.
#[derive(Debug, Default)]
pub(in crate::session) struct Repeats {
    /// The frames of method and content header that came last, if they may be learned when they come again.
    candidate: Vec<u8>,
    learned: Option<Box<Repeated>>,
    messages: Vec<Message>,
    outcome: RunOutcome,
}

/// The first two frames of a publish, if it is whole, and its body is one frame.
struct Publication<'a> {
    channel: u16,
    method: &'a [u8],
    /// The content header's payload.
    header: &'a [u8],
    /// Both frames.
    octets: &'a [u8],
    size_at: usize,
}

impl<'a> Publication<'a> {
    fn parse(rest: &'a [u8], frame_bytes_max: u32) -> Option<Self> {
        let frame_at = |at: usize| {
            frame::parse(rest.get(at..)?, frame_bytes_max)
                .ok()
                .flatten()
        };
        let method = frame_at(0).filter(|frame| frame.kind == FrameKind::Method)?;
        let header =
            frame_at(method.frame_bytes).filter(|frame| frame.kind == FrameKind::Header)?;
        let head_bytes = method.frame_bytes + header.frame_bytes;
        let body = frame_at(head_bytes).filter(|frame| frame.kind == FrameKind::Body)?;
        let is_of_one = [header.channel, body.channel] == [method.channel; 2];
        (is_of_one && head_bytes <= LEARNED_BYTES_MAX).then_some(())?;
        Some(Self {
            channel: method.channel,
            method: method.payload,
            header: header.payload,
            octets: rest.get(..head_bytes)?,
            size_at: method.frame_bytes + BODY_SIZE_AT,
        })
    }
}

/// Whether two publishes differ in nothing but the body's size, which is at `size_at`.
#[inline]
fn is_same(octets: &[u8], other: &[u8], size_at: usize) -> bool {
    let behind = size_at + BODY_SIZE_BYTES;
    octets.get(..size_at) == other.get(..size_at) && octets.get(behind..) == other.get(behind..)
}

impl Repeats {
    /// The channel whose publishes are known.
    #[inline]
    pub(in crate::session) fn channel(&self) -> Option<u16> {
        self.learned.as_ref().map(|repeated| repeated.channel)
    }

    /// Whether `rest` begins as the publishes that are known.
    #[inline]
    pub(in crate::session) fn knows(&self, rest: &[u8]) -> bool {
        let Some(repeated) = &self.learned else {
            return false;
        };
        let octets = &repeated.octets;
        rest.get(..octets.len())
            .is_some_and(|rest| is_same(octets, rest, repeated.size_at))
    }

    /// Looks at a publish that is not known: one that comes the second time is, from now on, if nothing in it
    /// must be looked at each time. Gives its channel then.
    pub(in crate::session) fn learn(
        &mut self,
        owner: &Bytes,
        rest: &[u8],
        frame_bytes_max: u32,
        user: &User,
    ) -> Option<u16> {
        let publication = Publication::parse(rest, frame_bytes_max)?;
        let (octets, size_at) = (publication.octets, publication.size_at);
        if self.candidate.len() != octets.len() || !is_same(&self.candidate, octets, size_at) {
            self.candidate.clear();
            self.candidate.extend_from_slice(octets);
            return None;
        }
        // Once is enough to find out that it cannot be learned.
        self.candidate.clear();
        let repeated = Repeated::of(owner, &publication, user)?;
        self.learned = Some(Box::new(repeated));
        Some(publication.channel)
    }
}

impl Repeated {
    /// What to compare the next publishes with; none if there is more to one of these than its body.
    fn of(owner: &Bytes, publication: &Publication<'_>, user: &User) -> Option<Self> {
        let Ok(Method::BasicPublish(publish)) = Method::decode_in(owner, publication.method) else {
            return None;
        };
        let header = ContentHeader::decode_in(owner, publication.header).ok()?;
        let properties = header.properties_ref().ok()?;
        properties::check_user_id(&properties, user).ok()?;
        properties::check_time(&properties).ok()?;
        properties::check_delivery_mode(&properties).ok()?;
        let is_plain = !publish.immediate
            && header.class_id == CLASS_ID_BASIC
            && properties.reply_to.is_none()
            && !properties.headers.is_some_and(may_have_more_keys);
        is_plain.then(|| Self {
            channel: publication.channel,
            octets: publication.octets.to_vec(),
            size_at: publication.size_at,
            mandatory: publish.mandatory,
            template: Template::new(
                publish.exchange.as_bytes(),
                publish.routing_key.as_bytes(),
                &header.raw,
                MessageTraits::of(&properties),
            ),
        })
    }

    /// The body of the publish that `rest` begins with, if it is one of these and its body is one frame of at
    /// most `body_bytes_max`; and how long the publish is, in bytes.
    #[inline]
    fn body<'a>(&self, rest: &'a [u8], body_bytes_max: usize) -> Option<(&'a [u8], usize)> {
        let head_bytes = self.octets.len();
        let (head, rest) = rest.split_at_checked(head_bytes)?;
        if !is_same(&self.octets, head, self.size_at) {
            return None;
        }
        let size = head.get(self.size_at..)?.first_chunk()?;
        let size = usize::try_from(u64::from_be_bytes(*size)).ok()?;
        if size == 0 || size > body_bytes_max {
            return None;
        }
        let expected = frame::frame_head(FrameKind::Body, self.channel, u32::try_from(size).ok()?);
        let (body_head, rest) = rest.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let body = rest.get(..size)?;
        let is_whole = *body_head == expected && rest.get(size) == Some(&FRAME_END);
        is_whole.then_some((body, head_bytes + size + FRAME_OVERHEAD_BYTES as usize))
    }
}

impl Channel {
    /// Publishes what `rest`, which lies in `owner`, begins with, as far as it is known; gives how many octets
    /// it took. None means that the first of them must be looked at as any other.
    pub(in crate::session) fn publish_known(
        &mut self,
        owner: &Bytes,
        rest: &[u8],
        repeats: &mut Repeats,
        cx: &mut Context<'_>,
    ) -> (usize, Result<(), Failure>) {
        let Repeats {
            learned: Some(repeated),
            messages,
            outcome,
            ..
        } = repeats
        else {
            return (0, Ok(()));
        };
        if !self.content.is_idle() || matches!(self.mode, Mode::Transaction(_)) {
            return (0, Ok(()));
        }
        let vhost = cx.connection.vhost();
        let template = &mut repeated.template;
        let (exchange, key) = (template.exchange(), template.routing_key());
        let Some(route) = vhost.way_of_run(&mut self.publisher, exchange, key) else {
            return (0, Ok(()));
        };
        let mut body_bytes_max = cx.rules.inline_bytes_max();
        if route.queues.len() > 1 {
            // Of a long body the queues share one copy, which is made for the first that keeps it.
            body_bytes_max = body_bytes_max.min(template.packed_body_bytes_max());
        }
        let mut taken_bytes = 0;
        while messages.len() < RUN_COUNT_MAX
            && let Some(rest) = rest.get(taken_bytes..)
            && let Some((body, bytes)) = repeated.body(rest, body_bytes_max)
        {
            messages.push(repeated.template.message(owner, body));
            taken_bytes += bytes;
        }
        if messages.is_empty() {
            return (0, Ok(()));
        }
        let published_count = messages.len() as u64;
        self.breakdown
            .publish_at(repeated.template.exchange(), self.tally.counts());
        let counts = self.tally.counts_mut();
        for message in messages.iter() {
            counts.receive(message.size_bytes());
        }
        let result = vhost.publish_run(route, messages, cx.now, cx.wakes, outcome);
        // What no queue took is still there.
        let lost_count = messages.len() as u64;
        counts.routed += published_count.saturating_sub(lost_count);
        match repeated.mandatory {
            true => counts.returned += lost_count,
            false => counts.dropped += lost_count,
        }
        if let Mode::Confirm(confirms) = &mut self.mode {
            counts.received_confirm += published_count;
            for outcome in outcome.outcomes() {
                counts.refused += u64::from(confirms.published(outcome));
            }
        }
        for message in messages.drain(..) {
            if repeated.mandatory {
                self.give_back(&message, cx);
            }
        }
        let refused = |error| Failure::broker(&error, MethodId::PUBLISH);
        (taken_bytes, result.map_err(refused))
    }
}
