//! The short string: at most 255 bytes of any kind, cheap to clone.
//!
//! Spec: AMQP 0-9-1 §4.2.5.3; `spec/amqp.md` FIELD-1.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::{BufMut, Bytes, BytesMut};

use crate::amqp::limits::SHORT_STRING_BYTES_MAX;

/// A name, a routing key or a text of at most 255 bytes, which need not be UTF-8.
///
/// One of up to 38 bytes, as nearly all names are, lies in the value itself: decoding and cloning it
/// counts no reference, which matters where one message goes to many connections. A longer one
/// shares its bytes, and one that was decoded is a slice of the read buffer: call
/// [`detached`](Self::detached) before keeping it for long.
#[derive(Clone)]
pub struct ShortString(Storage);

#[derive(Clone)]
enum Storage {
    /// The length octet and the bytes, as on the wire; the rest is zero.
    Inline([u8; 1 + INLINE_BYTES_MAX]),
    /// Any other, at most 255 bytes.
    Shared(Bytes),
}

/// Longest string that lies in the value itself, in bytes: what fits beside the bytes' own handle.
const INLINE_BYTES_MAX: usize = 38;

const _: () = assert!(size_of::<ShortString>() == 40);

/// More bytes than a short string can hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{got_bytes} bytes are too many for a short string of at most 255")]
pub struct ShortStringTooLong {
    /// How many bytes were given.
    pub got_bytes: usize,
}

impl ShortString {
    /// The empty string.
    pub const EMPTY: Self = Self(Storage::Inline([0; 1 + INLINE_BYTES_MAX]));

    /// A string known when compiling; one that is too long does not compile in a constant.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(
            text.len() <= SHORT_STRING_BYTES_MAX,
            "a short string has at most 255 bytes"
        );
        Self(Storage::Shared(Bytes::from_static(text.as_bytes())))
    }

    /// The first 255 bytes of `text`, cut between two characters.
    pub fn truncated(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(SHORT_STRING_BYTES_MAX));
        Self::from_length_checked(text.as_bytes(), || Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Takes bytes whose length came from one octet; `share` gives the same bytes as a handle, which
    /// only a long string needs.
    #[inline]
    pub(in crate::amqp) fn from_length_checked(
        bytes: &[u8],
        share: impl FnOnce() -> Bytes,
    ) -> Self {
        debug_assert!(bytes.len() <= SHORT_STRING_BYTES_MAX);
        let mut inline = [0; 1 + INLINE_BYTES_MAX];
        let [length, rest @ ..] = &mut inline;
        match (u8::try_from(bytes.len()), rest.get_mut(..bytes.len())) {
            (Ok(byte_count), Some(place)) => {
                *length = byte_count;
                place.copy_from_slice(bytes);
                Self(Storage::Inline(inline))
            }
            _ => Self(Storage::Shared(share())),
        }
    }

    /// Length in bytes, at most 255.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Storage::Inline([length, ..]) => usize::from(*length),
            Storage::Shared(bytes) => bytes.len(),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as they stand on the wire.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Storage::Inline([length, bytes @ ..]) => {
                bytes.get(..usize::from(*length)).unwrap_or_default()
            }
            Storage::Shared(bytes) => bytes,
        }
    }

    /// Appends the length octet and the bytes.
    #[inline]
    pub(super) fn put(&self, output: &mut BytesMut) {
        match &self.0 {
            Storage::Inline(octets) => {
                output.put_slice(octets.get(..1 + self.len()).unwrap_or_default());
            }
            Storage::Shared(bytes) => {
                let length = u8::try_from(bytes.len());
                output.put_u8(length.expect("a short string has at most 255 bytes"));
                output.put_slice(bytes);
            }
        }
    }

    /// The text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// The same string in memory of its own, so that it keeps no read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self::from_length_checked(self.as_bytes(), || Bytes::copy_from_slice(self.as_bytes()))
    }
}

impl Default for ShortString {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for ShortString {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ShortString {}

impl Hash for ShortString {
    /// As the bytes hash, so that a map can be asked with a slice.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for ShortString {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortString {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl AsRef<[u8]> for ShortString {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<[u8]> for ShortString {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
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
        let slice: &[u8] = &bytes;
        Ok(Self::from_length_checked(slice, || bytes.clone()))
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
        Ok(Self::from_length_checked(bytes, || {
            Bytes::copy_from_slice(bytes)
        }))
    }
}

impl From<ShortString> for Bytes {
    fn from(text: ShortString) -> Self {
        match text.0 {
            Storage::Inline(_) => Self::copy_from_slice(text.as_bytes()),
            Storage::Shared(bytes) => bytes,
        }
    }
}
