//! How channels and connections end: because of a failure, or because all is said.
//!
//! Owns: what is sent last, and what is given back to queues then.
//! Spec: AMQP 0-9-1 §2.2.4 (reply codes); which failures end what, as in RabbitMQ.

use std::time::Instant;

use bytes::Bytes;

use crate::amqp::field::ShortString;
use crate::amqp::frame;
use crate::amqp::method::{channel as channel_method, connection};
use crate::amqp::reply::ReplyCode;

use super::channel::Channel;
use super::failure::{Failure, MethodId, Reach};
use super::{CLOSE_OK_WAIT, Frames, Session, Slot, State, context, events};

impl Session {
    /// Gives what a channel holds back to the broker.
    pub(super) fn end_channel(&mut self, channel: Channel, now: Instant) {
        let Some(mut cx) = context(
            &self.state,
            &self.settings,
            &mut self.wakes,
            &mut self.transmit,
            &mut self.actions,
            &mut self.upload_next,
            self.broker.time(now),
        ) else {
            return;
        };
        events::channel_ended(cx.connection, channel.number());
        if let Err(error) = channel.close(&mut cx) {
            tracing::error!(%error, "cannot note the end of a channel");
        }
    }

    /// Ends a channel or the connection because of a failure.
    pub(super) fn fail(&mut self, number: u16, failure: Failure, now: Instant) {
        let Failure {
            reach,
            code,
            text,
            method,
        } = failure;
        match reach {
            Reach::Channel => {
                tracing::info!(chan = number, text = %text, "channel error");
                // Confirms of what went before are still due.
                if let Some((channel, mut cx)) = self.channel(number, now) {
                    channel.flush_settled(&mut cx);
                    channel.flush_confirms(&mut cx);
                }
                if let Some(Slot::Open(channel)) = self.channels.insert(number, Slot::Closing) {
                    self.end_channel(*channel, now);
                }
                let close = channel_method::Close {
                    reply_code: code.number(),
                    reply_text: text,
                    class_id: method.class_id,
                    method_id: method.method_id,
                };
                frame::put_method(self.transmit.frames(number), number, &close);
            }
            Reach::Connection => {
                tracing::warn!(chan = number, text = %text, "connection error");
                if matches!(self.state, State::Closing { .. } | State::Closed) {
                    return;
                }
                self.end(now);
                // What was asked before is answered before.
                self.transmit.promise_last(0);
                self.put_close(code, text, method);
                self.state = State::Closing {
                    deadline: now + CLOSE_OK_WAIT,
                    frames: Frames::Intact,
                    is_answered: false,
                };
            }
            Reach::Socket => {
                tracing::warn!(chan = number, text = %text, "the socket is closed");
                self.transmit.drop_promises();
                self.end(now);
            }
        }
    }

    /// Tells the client that its connection ends, and why.
    pub(super) fn put_close(&mut self, code: ReplyCode, text: ShortString, method: MethodId) {
        let close = connection::Close {
            reply_code: code.number(),
            reply_text: text,
            class_id: method.class_id,
            method_id: method.method_id,
        };
        frame::put_method(self.transmit.frames(0), 0, &close);
    }

    /// Gives everything back to the broker; nothing more is read. Answers that wait for the disk still go out.
    pub(super) fn end(&mut self, now: Instant) {
        self.deliver_pending(now);
        let channels = std::mem::take(&mut self.channels);
        for slot in channels.into_values() {
            if let Slot::Open(channel) = slot {
                self.end_channel(*channel, now);
            }
        }
        self.storing = None;
        self.blocked = None;
        self.choked = false;
        self.close_waits = false;
        self.unread = Bytes::new();
        self.secret_waits = false;
        if let State::Running(connection) = std::mem::replace(&mut self.state, State::Closed) {
            let (vhost, now) = (connection.vhost(), self.broker.time(now));
            if let Err(error) = vhost.disconnect(&connection, now, &mut self.wakes) {
                tracing::error!(%error, "cannot note the end of a connection");
            }
            self.connection_ended(&connection);
        }
        self.wakes.wake_all();
    }
}
