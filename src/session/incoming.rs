//! Frames that come in: cut out of the stream, and led to the connection or to a channel.
//!
//! Owns: what is legal where, and what is left of a stream whose frames were lost.
//! Spec: AMQP 0-9-1 §4.2; scopes and texts of errors as measured from RabbitMQ 3.10.8.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use crate::amqp::frame::{self, FrameError, FrameHeader, FrameKind, FrameRef};
use crate::amqp::limits::FRAME_HEADER_BYTES;
use crate::amqp::method::{Method, basic, channel as channel_method, connection};
use crate::amqp::reply::ReplyCode;
use crate::broker::{AUDIT, Tally};

use super::channel::Channel;
use super::failure::{Failure, MethodId};
use super::qos::ChannelQos;
use super::{
    Action, CLOSE_OK_FRAME, Frames, Session, Slot, State, UNSENT_BYTES_MAX, context, events, id_of,
};

impl Session {
    /// Takes all complete frames out of `input` and handles them.
    pub(super) fn take_frames(&mut self, input: &mut BytesMut, now: Instant) {
        if matches!(
            self.state,
            State::Closing {
                frames: Frames::Lost,
                ..
            }
        ) {
            return self.take_last_words(input);
        }
        let frame_bytes_max = self.frame_bytes_max();
        let complete_bytes = frame::complete_bytes(input, frame_bytes_max);
        if complete_bytes > 0 {
            let frames = input.split_to(complete_bytes).freeze();
            self.handle_frames(&frames, now);
        }
        // A frame that is too large is refused as soon as its header is there.
        if !self.is_waiting()
            && matches!(self.state, State::Running(_))
            && let Err(error) = frame::parse(input, frame_bytes_max)
        {
            self.lose_frames(error, now);
            self.take_last_words(input);
        }
    }

    /// A frame is wrong: the connection is closed, and what comes cannot be cut into frames any more.
    fn lose_frames(&mut self, error: FrameError, now: Instant) {
        self.fail(0, Failure::from(error), now);
        if let State::Closing { frames, .. } = &mut self.state {
            *frames = Frames::Lost;
        }
    }

    /// Looks for `connection.close-ok` in what cannot be cut into frames, and drops all but what may be
    /// its beginning.
    fn take_last_words(&mut self, input: &mut BytesMut) {
        if holds_close_ok(input) {
            self.close_when_told();
        }
        let kept = input.len().min(CLOSE_OK_FRAME.len() - 1);
        input.advance(input.len() - kept);
    }

    /// Handles complete frames; stops where a body must be stored first, answers be made durable, the
    /// client take what is unsent, or an alarm be over.
    pub(super) fn handle_frames(&mut self, frames: &Bytes, now: Instant) {
        let frame_bytes_max = self.frame_bytes_max();
        let mut start = 0;
        while let Some(rest) = frames.get(start..).filter(|rest| !rest.is_empty()) {
            match &self.state {
                State::Running(_) => {}
                State::Closing { .. } => {
                    self.handle_closing_frames(rest, frame_bytes_max);
                    return;
                }
                State::Opening(_) | State::Closed => return,
            }
            let known_bytes = self.publish_known(frames, rest, now);
            start += known_bytes;
            if known_bytes == 0 {
                let frame = match frame::parse(rest, frame_bytes_max) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return,
                    Err(error) => {
                        self.lose_frames(error, now);
                        if holds_close_ok(rest) {
                            self.close_when_told();
                        }
                        return;
                    }
                };
                if self.transmit.has_promise() && begins_with(rest, &CONNECTION_CLOSE) {
                    self.close_waits = true;
                    self.unread = frames.slice(start..);
                    return;
                }
                start += frame.frame_bytes;
                if let Err(failure) = self.handle_frame(frames, &frame, now) {
                    self.fail(frame.channel, failure, now);
                }
            }
            if self.transmit.unsent_bytes() >= UNSENT_BYTES_MAX {
                self.choked = true;
            }
            if self.is_waiting() {
                self.unread = frames.slice(start..);
                return;
            }
        }
    }

    /// Publishes what `rest`, a part of `frames`, begins with, if it is like what came before; gives how many
    /// octets that took.
    #[inline]
    fn publish_known(&mut self, frames: &Bytes, rest: &[u8], now: Instant) -> usize {
        if !begins_with(rest, &PUBLISH) || self.broker.alarms().is_any_on() {
            return 0;
        }
        let State::Running(connection) = &self.state else {
            return 0;
        };
        let number = match self.repeats.knows(rest) {
            true => self.repeats.channel(),
            false => {
                let frame_bytes_max = self.frame_bytes_max();
                let user = connection.user();
                self.repeats.learn(frames, rest, frame_bytes_max, user)
            }
        };
        let Some(number) = number else { return 0 };
        let Some(Slot::Open(channel)) = self.channels.get_mut(&number) else {
            return 0;
        };
        let cx = context(
            &self.state,
            &self.settings,
            &mut self.wakes,
            &mut self.transmit,
            &mut self.actions,
            &mut self.upload_next,
            now,
        );
        let Some(mut cx) = cx else { return 0 };
        let (bytes, result) = channel.publish_known(frames, rest, &mut self.repeats, &mut cx);
        if bytes > 0 {
            self.touch(number);
            self.block_if_short();
        }
        if let Err(failure) = result {
            self.fail(number, failure, now);
        }
        bytes
    }

    /// Looks for the answer to `connection.close` and drops all else.
    fn handle_closing_frames(&mut self, mut rest: &[u8], frame_bytes_max: u32) {
        while let Ok(Some(frame)) = frame::parse(rest, frame_bytes_max) {
            if frame.kind == FrameKind::Method && frame.channel == 0 {
                match Method::decode(&Bytes::copy_from_slice(frame.payload)) {
                    Ok(Method::ConnectionCloseOk(_)) => self.close_when_told(),
                    Ok(Method::ConnectionClose(_)) => {
                        frame::put_method(self.transmit.frames(0), 0, &connection::CloseOk {});
                        self.close_when_told();
                    }
                    _ => {}
                }
            }
            rest = rest.get(frame.frame_bytes..).unwrap_or_default();
        }
    }

    /// Both sides have ended the connection: it is closed once no answer waits for the journal, at its deadline otherwise.
    pub(super) fn close_when_told(&mut self) {
        match &mut self.state {
            State::Closing { is_answered, .. } if self.transmit.has_promise() => {
                *is_answered = true
            }
            state => *state = State::Closed,
        }
    }

    #[inline]
    fn handle_frame(
        &mut self,
        owner: &Bytes,
        frame: &FrameRef<'_>,
        now: Instant,
    ) -> Result<(), Failure> {
        let number = frame.channel;
        match (number, frame.kind) {
            (0, FrameKind::Heartbeat) => Ok(()),
            (0, FrameKind::Method) => {
                let method = Method::decode_in(owner, frame.payload)?;
                if !method.is_text() {
                    return Err(Failure::not_text(id_of(&method)));
                }
                self.connection_method(&method, now)
            }
            (0, _) | (_, FrameKind::Heartbeat) => {
                let frame = frame::Frame {
                    kind: frame.kind,
                    channel: number,
                    payload: owner.slice_ref(frame.payload),
                };
                Err(Failure::unexpected_frame(
                    frame.description(),
                    MethodId::default(),
                ))
            }
            (_, FrameKind::Method) => {
                let method = Method::decode_in(owner, frame.payload)?;
                // req: METHOD-6
                if !matches!(method, Method::BasicPublish(_)) && !method.is_text() {
                    return Err(Failure::not_text(MethodId::default()));
                }
                self.channel_method(number, method, now)
            }
            (_, FrameKind::Header | FrameKind::Body) => {
                self.touch(number);
                let Some((channel, mut cx)) = self.channel(number, now) else {
                    return self.content_without_channel(number);
                };
                channel.handle_content(owner, frame, &mut cx)?;
                if let Some(Action::PayloadEnd { upload }) = self.actions.back() {
                    self.storing = Some(*upload);
                }
                self.block_if_short();
                Ok(())
            }
        }
    }

    /// Content for a channel that is closing is dropped; for one that never was, it is an error.
    fn content_without_channel(&self, number: u16) -> Result<(), Failure> {
        if self.channels.contains_key(&number) {
            return Ok(());
        }
        Err(Failure::unexpected_frame(
            "expected method frame, got non method frame instead",
            MethodId::default(),
        ))
    }

    /// A method on channel 0.
    fn connection_method(&mut self, method: &Method, now: Instant) -> Result<(), Failure> {
        match method {
            Method::ConnectionClose(_) => {
                self.end(now);
                frame::put_method(self.transmit.frames(0), 0, &connection::CloseOk {});
                Ok(())
            }
            Method::ConnectionUpdateSecret(update) => self.update_secret(update, now),
            method => Err(Failure::new(
                ReplyCode::ChannelError,
                "unexpected method in connection state running",
                id_of(method),
            )),
        }
    }

    /// The client renews its token; who has a password has nothing to renew.
    // req: OAUTH-5
    fn update_secret(
        &mut self,
        update: &connection::UpdateSecret,
        now: Instant,
    ) -> Result<(), Failure> {
        if let State::Running(connection) = &self.state {
            let user = Arc::clone(connection.user());
            let users = self.broker.users();
            if let Err(error) = users.renew(&user, update.new_secret.expose()) {
                tracing::warn!(target: AUDIT, user = %user.name(), %error, "a new secret is refused");
                let explanation = "New secret was refused by one of the backends";
                let id = MethodId {
                    class_id: connection::UpdateSecret::CLASS_ID,
                    method_id: connection::UpdateSecret::METHOD_ID,
                };
                return Err(Failure::connection(ReplyCode::NotAllowed, explanation, id));
            }
            self.watch_token(&user, now);
        }
        frame::put_method(self.transmit.frames(0), 0, &connection::UpdateSecretOk {});
        Ok(())
    }

    #[inline]
    fn channel_method(&mut self, number: u16, method: Method, now: Instant) -> Result<(), Failure> {
        match (&method, self.channels.get(&number)) {
            (_, Some(Slot::Open(channel))) if !channel.expects_method() => {
                return Err(channel.method_unexpected());
            }
            (Method::ChannelOpen(_), None) => return self.open_channel(number),
            (Method::ChannelOpen(_), Some(_)) => {
                let explanation = "second 'channel.open' seen";
                return Err(Failure::new(
                    ReplyCode::ChannelError,
                    explanation,
                    id_of(&method),
                ));
            }
            (_, None) if means_last_queue(&method) => {
                // RabbitMQ looks for the queue before it looks whether the channel is open.
                let explanation = "no previously declared queue";
                return Err(Failure::new(
                    ReplyCode::NotFound,
                    explanation,
                    id_of(&method),
                ));
            }
            (_, None) => {
                let explanation = "expected 'channel.open'";
                return Err(Failure::new(
                    ReplyCode::ChannelError,
                    explanation,
                    id_of(&method),
                ));
            }
            (Method::ChannelCloseOk(_), Some(Slot::Closing)) => {
                self.channels.remove(&number);
                return Ok(());
            }
            (Method::ChannelClose(_), Some(Slot::Closing)) => {
                let close_ok = channel_method::CloseOk {};
                frame::put_method(self.transmit.frames(number), number, &close_ok);
                return Ok(());
            }
            (_, Some(Slot::Closing)) => return Ok(()),
            (Method::ChannelClose(_), Some(Slot::Open(_))) => {
                return self.close_channel(number, now);
            }
            (_, Some(Slot::Open(_))) => {}
        }
        self.touch(number);
        if let Method::BasicCancel(cancel) = &method {
            if let Some((channel, mut cx)) = self.channel(number, now) {
                channel.cancel(cancel, &mut cx)?;
            }
            self.deliver_pending(now);
            if let Some((channel, mut cx)) = self.channel(number, now) {
                channel.cancelled(cancel, &mut cx);
            }
            return Ok(());
        }
        if let Method::TxCommit(_) = &method {
            return self.commit_channel(number, now);
        }
        let consumes = matches!(method, Method::BasicConsume(_) | Method::BasicGet(_));
        if let Some((channel, mut cx)) = self.channel(number, now) {
            channel.handle_method(method, &mut cx)?;
        }
        if consumes {
            self.arm_timeout_check(now);
        }
        Ok(())
    }

    /// Commits a channel's transaction; what its client consumes of it comes before the answer.
    fn commit_channel(&mut self, number: u16, now: Instant) -> Result<(), Failure> {
        let Some((channel, mut cx)) = self.channel(number, now) else {
            return Ok(());
        };
        let wait_for = channel.tx_commit(&mut cx)?;
        self.deliver_pending(now);
        if let Some((channel, mut cx)) = self.channel(number, now) {
            channel.tx_committed(wait_for, &mut cx);
        }
        Ok(())
    }

    fn open_channel(&mut self, number: u16) -> Result<(), Failure> {
        let count_max = usize::from(self.settings.connection.channel_count_max);
        if self.channels.len() >= count_max {
            let id = MethodId {
                class_id: channel_method::Open::CLASS_ID,
                method_id: channel_method::Open::METHOD_ID,
            };
            let explanation = format_args!(
                "number of channels opened ({}) has reached the negotiated channel_max ({count_max})",
                self.channels.len()
            );
            return Err(Failure::new(ReplyCode::NotAllowed, explanation, id));
        }
        let place = match &self.state {
            State::Running(connection) => Some(connection.open_channel()),
            State::Opening(_) | State::Closing { .. } | State::Closed => None,
        };
        let place = place.transpose().map_err(|error| {
            let id = MethodId {
                class_id: channel_method::Open::CLASS_ID,
                method_id: channel_method::Open::METHOD_ID,
            };
            Failure::broker(&error, id)
        })?;
        let of_vhost = self.client_statistics().map(Arc::clone);
        let statistics = Arc::clone(self.broker.statistics());
        let tally = Tally::new(statistics, of_vhost.unwrap_or_default());
        let qos = ChannelQos::new(&self.settings.connection, &self.introduction.properties);
        let channel = Channel::new(number, place, qos, tally);
        self.channels.insert(number, Slot::Open(Box::new(channel)));
        if let State::Running(connection) = &self.state {
            events::channel_opened(connection, number);
        }
        frame::put_method(
            self.transmit.frames(number),
            number,
            &channel_method::OpenOk {},
        );
        Ok(())
    }

    /// The client closes a channel.
    fn close_channel(&mut self, number: u16, now: Instant) -> Result<(), Failure> {
        // What the client did before counts, and is answered before.
        self.with_channel(number, now, |channel, cx| {
            channel.flush_settled(cx);
            channel.flush_confirms(cx);
            Ok(())
        });
        if let Some(Slot::Open(channel)) = self.channels.remove(&number) {
            self.end_channel(*channel, now);
        }
        frame::put_method(
            self.transmit.frames(number),
            number,
            &channel_method::CloseOk {},
        );
        Ok(())
    }
}

/// Whether there is a frame of `connection.update-secret` among these, or what looks like its beginning.
pub(super) fn holds_secret(mut frames: &[u8]) -> bool {
    while let Some(header) = FrameHeader::parse(frames) {
        if begins_with(frames, &UPDATE_SECRET) {
            return true;
        }
        let payload = frames.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let size = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        frames = payload.get(size.saturating_add(1)..).unwrap_or_default();
    }
    false
}

/// Whether the first frame is of this method.
#[inline]
fn begins_with(frames: &[u8], method: &[u8; 4]) -> bool {
    let payload = frames.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    frames.first() == Some(&FrameKind::Method.number()) && payload.first_chunk() == Some(method)
}

const PUBLISH: [u8; 4] = method_ids(basic::Publish::CLASS_ID, basic::Publish::METHOD_ID);
const CONNECTION_CLOSE: [u8; 4] =
    method_ids(connection::Close::CLASS_ID, connection::Close::METHOD_ID);
const UPDATE_SECRET: [u8; 4] = method_ids(
    connection::UpdateSecret::CLASS_ID,
    connection::UpdateSecret::METHOD_ID,
);

/// What the payload of a method frame begins with.
const fn method_ids(class_id: u16, method_id: u16) -> [u8; 4] {
    (((class_id as u32) << 16) | method_id as u32).to_be_bytes()
}

/// Whether the answer to `connection.close` is somewhere in these octets.
fn holds_close_ok(octets: &[u8]) -> bool {
    octets
        .windows(CLOSE_OK_FRAME.len())
        .any(|window| window == CLOSE_OK_FRAME)
}

/// Whether a method has an empty queue name, which stands for the queue last declared on its channel.
fn means_last_queue(method: &Method) -> bool {
    match method {
        Method::QueueBind(bind) => bind.queue.is_empty(),
        Method::QueueUnbind(unbind) => unbind.queue.is_empty(),
        Method::QueuePurge(purge) => purge.queue.is_empty(),
        Method::QueueDelete(delete) => delete.queue.is_empty(),
        Method::BasicGet(get) => get.queue.is_empty(),
        Method::BasicConsume(consume) => consume.queue.is_empty(),
        _ => false,
    }
}
