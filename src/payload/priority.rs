//! A payload's share of a busy line.
//!
//! Spec: `spec/manifest.md` MANIFEST-9, `spec/peer-protocol.md` SWARM-31.

use std::fmt;
use std::str::FromStr;

/// 1 to 100: payloads share a busy uplink in proportion. 10 where nobody says otherwise.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Priority(u8);

/// A number that is no priority.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a payload's priority is 1 to 100")]
pub struct PriorityError;

impl Priority {
    /// The greatest share.
    pub const MAX: Self = Self(100);

    /// The priority of this number; `None` unless it is 1 to 100.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        // req: MANIFEST-9
        match value {
            1..=100 => Some(Self(value)),
            _ => None,
        }
    }

    /// The number, 1 to 100.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(10)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Priority {
    type Err = PriorityError;

    fn from_str(text: &str) -> Result<Self, PriorityError> {
        let value = text.trim().parse().map_err(|_| PriorityError)?;
        Self::new(value).ok_or(PriorityError)
    }
}
