//! How eagerly peers are asked: more by a node that holds less than they do.
//!
//! Spec: `spec/peer-protocol.md` SWARM-5, SWARM-41.

use std::time::{Duration, Instant};

use super::Transfer;
use crate::swarm::limits::{
    LAG_PEERS_MIN, LAG_TIME, LEAD_FREE, QUEUE_FACTOR_LEAST, QUEUE_FACTOR_MOST, QUEUE_TIME,
    QUEUE_TIME_IN_ORDER, REST_MAX,
};
use crate::swarm::picker::Order;

impl Transfer {
    /// How long requests may wait at a peer: longer for a node that holds less than its peers do, shorter for one that
    /// holds more, so that all finish together. Who reads in order waits for what comes next and never asks for much.
    pub(super) fn queue_time(&self, now: Instant) -> Duration {
        // req: SWARM-5
        if self.order == Order::InOrder {
            return QUEUE_TIME_IN_ORDER;
        }
        let factor = 1.0 + self.lag_s(now) / LAG_TIME.as_secs_f64();
        QUEUE_TIME.mul_f64(factor.clamp(QUEUE_FACTOR_LEAST, QUEUE_FACTOR_MOST))
    }

    /// How long a peer rests whose last answer was slow and that is asked for nothing: not at all unless this node is ahead.
    pub(super) fn rest_time(&self, now: Instant) -> Duration {
        // req: SWARM-41
        let lead_s = -self.lag_s(now) - LEAD_FREE.as_secs_f64();
        Duration::from_secs_f64(lead_s.clamp(0.0, REST_MAX.as_secs_f64()))
    }

    /// Time, in seconds, that this node is behind what its peers hold in the mean, at the rate at which pieces come;
    /// negative if it is ahead.
    fn lag_s(&self, now: Instant) -> f64 {
        let (mut held, mut count) = (0.0, 0);
        for member in self.members.values() {
            if let Some(have) = &member.have
                && !member.giving
                && !have.is_full()
            {
                held += f64::from(have.held_count());
                count += 1;
            }
        }
        if count < LAG_PEERS_MIN {
            return 0.0;
        }
        let pieces = held / f64::from(count) - f64::from(self.have.held_count());
        let rate = self.down_rate.bytes_per_second(now).max(1) as f64;
        pieces * f64::from(self.geometry.piece_bytes().get()) / rate
    }
}
