//! What a session does because time passed: heartbeats, tokens that run out, consumers that do not acknowledge.
//!
//! Owns: nothing; [`Session::poll_timeout`] says when to come back.

use std::time::Instant;

use crate::amqp::frame;
use crate::broker::AUDIT;

use super::{Session, Slot, State, TIMEOUT_CHECK_MAX, TIMEOUT_CHECK_MIN};

impl Session {
    /// Whoever logged in with a token that is over may do nothing any more, as in RabbitMQ; the connection stays, for
    /// another token.
    // req: OAUTH-4
    pub(super) fn expire_token(&mut self, now: Instant) {
        if self.token_expires_at.is_none_or(|at| at > now) {
            return;
        }
        self.token_expires_at = None;
        if let State::Running(connection) = &self.state {
            let user = connection.user();
            tracing::info!(target: AUDIT, user = %user.name(), "the token of a connection has expired");
            self.broker.users().expire(user);
        }
    }

    /// Closes channels whose client does not acknowledge in time.
    pub(super) fn check_timeouts(&mut self, now: Instant) {
        let usual = self.settings.connection.consumer_timeout;
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            // What it sent and was not read yet may be the acknowledgement.
            if self.is_busy() {
                break;
            }
            // It may not have been sent what it should acknowledge.
            if self.transmit.is_promised(number) {
                continue;
            }
            self.with_channel(number, now, |channel, cx| {
                channel.check_timeout(usual, cx.now)
            });
        }
        self.timeout_check_at = None;
        self.arm_timeout_check(now);
        self.wakes.wake_all();
    }

    /// Sees to it that channels are looked through, if any wait ends.
    pub(super) fn arm_timeout_check(&mut self, now: Instant) {
        if self.timeout_check_at.is_some() {
            return;
        }
        let of_channels = self.channels.values().filter_map(|slot| match slot {
            Slot::Open(channel) => channel.timeout_min(),
            Slot::Closing => None,
        });
        let usual = self.settings.connection.consumer_timeout;
        let least = of_channels.chain(usual).min();
        self.timeout_check_at = least.map(|least| {
            let interval = (least / 4).clamp(TIMEOUT_CHECK_MIN, TIMEOUT_CHECK_MAX);
            now + interval
        });
    }

    /// Sends a heartbeat when it is time; ends the session of a client that sent none for too long.
    pub(super) fn beat(&mut self, now: Instant) {
        // Nothing is read while we are busy, so silence then means nothing.
        if self.is_busy() {
            self.heartbeat.received(now);
        }
        if self.heartbeat.is_missed(now) {
            tracing::warn!("the client missed its heartbeats");
            self.transmit.drop_promises();
            self.end(now);
        } else if self.heartbeat.is_due(now) {
            frame::put_heartbeat(self.transmit.frames(0));
            self.heartbeat.sent(now);
        }
    }
}
