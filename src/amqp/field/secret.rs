//! Octets that no log may show.

use std::fmt;

use bytes::Bytes;

/// A password, a token or a challenge: a long string whose `Debug` shows only its length.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(Bytes);

impl Secret {
    /// The octets themselves; whoever takes them must not log them.
    pub fn expose(&self) -> &Bytes {
        &self.0
    }
}

impl From<Bytes> for Secret {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
