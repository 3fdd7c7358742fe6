//! Limits and priority of one payload, changed from outside while it moves.
//!
//! Owns: the form of `warren.limit`, and whom it is for. It changes transfers that run, and is not kept.
//! Bound: [`MACHINES_MAX`] machines are named.
//! Spec: `spec/control-plane.md` CONTROL-28.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::message::{ControlMessage, NodeName};
use crate::amqp::field::ShortString;
use crate::config::RATE_BYTES_MIN;
use crate::payload::{PayloadId, Priority, ScopeId};
use crate::server::peer::{LimitsChange, SwarmHandle};

/// Routing key of changed limits.
pub const LIMIT_KEY: ShortString = ShortString::from_static("limit");
/// Most machines that one message names; one that names more is dropped.
pub const MACHINES_MAX: usize = 4_096;
const TYPE_LIMIT: ShortString = ShortString::from_static("warren.limit");

/// What is to change of a payload's limits; what is absent stays as it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tune {
    /// Which payload, 64 hexadecimal digits.
    pub payload_id: String,
    /// Who is meant; everybody if nobody is named.
    #[serde(default)]
    pub machines: Vec<NodeName>,
    /// Block bytes sent per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_rate: Option<RateWish>,
    /// Block bytes asked for per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_rate: Option<RateWish>,
    /// Its share where payloads compete, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

/// A limit as it stands in JSON: bytes per second, or the word `unlimited`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RateWish {
    /// So many bytes per second.
    Bytes(NonZeroU64),
    /// No limit.
    Word(Unlimited),
}

/// The word for no limit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Unlimited {
    /// No limit.
    #[serde(rename = "unlimited")]
    Unlimited,
}

/// Why a wish cannot be heeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// It names no payload.
    #[error("payload_id is not 64 hexadecimal digits")]
    Payload,
    /// The priority is none.
    #[error("priority is not a number from 1 to 100")]
    Priority,
    /// A limit is so low that nothing would move.
    #[error("a rate is at least {RATE_BYTES_MIN} bytes per second, or \"unlimited\"")]
    Rate,
    /// It names too many machines.
    #[error("more than {MACHINES_MAX} machines are named")]
    TooManyMachines,
}

impl RateWish {
    /// No limit.
    pub const UNLIMITED: Self = Self::Word(Unlimited::Unlimited);

    fn checked(self) -> Result<Option<NonZeroU64>, TuneError> {
        match self {
            Self::Bytes(bytes) if bytes.get() < RATE_BYTES_MIN => Err(TuneError::Rate),
            Self::Bytes(bytes) => Ok(Some(bytes)),
            Self::Word(Unlimited::Unlimited) => Ok(None),
        }
    }
}

impl ControlMessage for Tune {
    const TYPE: ShortString = TYPE_LIMIT;
    const IS_PERSISTENT: bool = false;
}

impl Tune {
    /// Which payload it is about and what is to change, if it can be.
    ///
    /// # Errors
    /// What cannot be.
    pub fn checked(&self) -> Result<(PayloadId, LimitsChange), TuneError> {
        let payload = self.payload_id.parse().map_err(|_| TuneError::Payload)?;
        if self.machines.len() > MACHINES_MAX {
            return Err(TuneError::TooManyMachines);
        }
        let priority = self
            .priority
            .map(|value| Priority::new(value).ok_or(TuneError::Priority));
        let change = LimitsChange {
            up: self.up_rate.map(RateWish::checked).transpose()?,
            down: self.down_rate.map(RateWish::checked).transpose()?,
            priority: priority.transpose()?,
        };
        Ok((payload, change))
    }

    /// Whether it is for the machine of this name.
    #[must_use]
    pub fn is_for(&self, machine: &str) -> bool {
        self.machines.is_empty() || self.machines.iter().any(|name| name.as_str() == machine)
    }

    /// Heeds it, if it is for `machine`, for payloads of `scope` only if one is given; answers how many transfers have
    /// changed.
    // req: CONTROL-28
    pub fn apply(&self, machine: &str, swarm: &SwarmHandle, scope: Option<ScopeId>) -> usize {
        if !self.is_for(machine) {
            return 0;
        }
        match self.checked() {
            Ok((payload, change)) => {
                let changed = swarm.change_limits(scope, payload, &change);
                if changed > 0 {
                    tracing::info!(payload = %format_args!("{payload:.10}"), ?change, "limits changed");
                }
                changed
            }
            Err(error) => {
                tracing::warn!(%error, "a wish for other limits is not heeded");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Tune> {
        serde_json::from_str(text).ok()
    }

    /// What is absent stays, `unlimited` lifts, and what cannot be is refused, 0 too.
    // req: CONTROL-28
    #[test]
    fn wishes_are_read_and_checked() {
        let id = "ab".repeat(32);
        let wish = read(&format!(
            r#"{{"payload_id": "{id}", "machines": ["edge1"], "up_rate": 50000, "down_rate": "unlimited"}}"#
        ));
        let wish = wish.expect("well formed");
        let (payload, change) = wish.checked().expect("possible");
        assert_eq!(payload.to_string(), id);
        assert_eq!(change.up, Some(NonZeroU64::new(50_000)));
        assert_eq!(change.down, Some(None));
        assert_eq!(change.priority, None);
        assert!(wish.is_for("edge1") && !wish.is_for("edge2"));
        let text = serde_json::to_string(&wish).expect("JSON");
        assert_eq!(read(&text), Some(wish));
        for refused in [r#""up_rate": 0"#, r#""up_rate": "none""#, r#""speed": 1"#] {
            let text = format!(r#"{{"payload_id": "{id}", {refused}}}"#);
            assert_eq!(read(&text), None, "{refused}");
        }
        for (odd, error) in [
            (r#""up_rate": 1"#, TuneError::Rate),
            (r#""priority": 0"#, TuneError::Priority),
            (r#""priority": 101"#, TuneError::Priority),
        ] {
            let text = format!(r#"{{"payload_id": "{id}", {odd}}}"#);
            let wish = read(&text).expect("well formed");
            assert_eq!(wish.checked().err(), Some(error), "{odd}");
        }
    }
}
