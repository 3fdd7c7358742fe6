//! Publishers wait while memory or disk is short: the connection is not read from.
//!
//! Owns: when a connection is blocked, and what its client hears of it. All that the client sends waits,
//! its acknowledgements and its `connection.close` too, as in RabbitMQ; what is delivered to it and
//! heartbeats towards it go on, and its own silence means nothing. Who does not publish notices nothing.
//! Spec: RabbitMQ's `connection.blocked`; `spec/amqp.md` ALARM-1 to ALARM-4.

use std::time::Instant;

use crate::amqp::field::ShortString;
use crate::amqp::frame;
use crate::amqp::method::connection;

use super::Session;

impl Session {
    /// Blocks the connection behind a frame of content while an alarm is on.
    // req: ALARM-1
    #[inline]
    pub(super) fn block_if_short(&mut self) {
        if self.broker.alarms().is_any_on() && self.blocked.is_none() {
            self.block();
        }
    }

    #[cold]
    fn block(&mut self) {
        let alarms = self.broker.alarms();
        let Some(reason) = alarms.reason() else {
            return;
        };
        self.blocked = alarms.wake_when_over(&self.waker);
        if self.blocked.is_none() {
            return;
        }
        tracing::info!(reason, "a publisher waits");
        // req: ALARM-2
        if self.client.connection_blocked {
            let reason = ShortString::from_static(reason);
            frame::put_method(self.transmit.frames(0), 0, &connection::Blocked { reason });
        }
    }

    /// Lets the client publish again if all alarms were off since it was blocked.
    // req: ALARM-3
    pub(super) fn unblock_if_over(&mut self, now: Instant) {
        let Some(wait) = self.blocked else { return };
        if !self.broker.alarms().is_over(wait) {
            return;
        }
        self.blocked = None;
        // Its silence was ours.
        self.heartbeat.received(now);
        if self.client.connection_blocked {
            frame::put_method(self.transmit.frames(0), 0, &connection::Unblocked {});
        }
        self.read_on(now);
        self.finish_batch(now);
    }
}
