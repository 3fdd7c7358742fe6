//! The short string: at most 255 bytes of any kind, cheap to clone.
//!
//! Spec: AMQP 0-9-1 §4.2.5.3; `spec/amqp.md` FIELD-1.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;

use crate::amqp::limits::SHORT_STRING_BYTES_MAX;

/// A name, a routing key or a text of at most 255 bytes, which need not be UTF-8.
///
/// Cloning shares the bytes. One that was decoded is a slice of the read buffer: call
/// [`detached`](Self::detached) before keeping it for long.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShortString(Bytes);

/// More bytes than a short string can hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{got_bytes} bytes are too many for a short string of at most 255")]
pub struct ShortStringTooLong {
    /// How many bytes were given.
    pub got_bytes: usize,
}

impl ShortString {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::new());

    /// A string known when compiling; one that is too long does not compile in a constant.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(
            text.len() <= SHORT_STRING_BYTES_MAX,
            "a short string has at most 255 bytes"
        );
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The first 255 bytes of `text`, cut between two characters.
    pub fn truncated(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(SHORT_STRING_BYTES_MAX));
        Self(Bytes::from(text))
    }

    /// Takes bytes whose length came from one octet.
    pub(super) fn from_length_checked(bytes: Bytes) -> Self {
        debug_assert!(bytes.len() <= SHORT_STRING_BYTES_MAX);
        Self(bytes)
    }

    /// Length in bytes, at most 255.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as they stand on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The same string in memory of its own, so that it keeps no read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<[u8]> for ShortString {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for ShortString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<str> for ShortString {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for ShortString {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<[u8]> for ShortString {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl TryFrom<Bytes> for ShortString {
    type Error = ShortStringTooLong;

    fn try_from(bytes: Bytes) -> Result<Self, ShortStringTooLong> {
        if bytes.len() > SHORT_STRING_BYTES_MAX {
            return Err(ShortStringTooLong {
                got_bytes: bytes.len(),
            });
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for ShortString {
    type Error = ShortStringTooLong;

    fn try_from(text: String) -> Result<Self, ShortStringTooLong> {
        Self::try_from(Bytes::from(text))
    }
}

impl TryFrom<&str> for ShortString {
    type Error = ShortStringTooLong;

    fn try_from(text: &str) -> Result<Self, ShortStringTooLong> {
        Self::try_from(text.as_bytes())
    }
}

impl TryFrom<&[u8]> for ShortString {
    type Error = ShortStringTooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, ShortStringTooLong> {
        if bytes.len() > SHORT_STRING_BYTES_MAX {
            return Err(ShortStringTooLong {
                got_bytes: bytes.len(),
            });
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

impl From<ShortString> for Bytes {
    fn from(text: ShortString) -> Self {
        text.0
    }
}
