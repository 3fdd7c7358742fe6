//! Names of vhosts, exchanges, queues, users and consumers, and routing keys.
//!
//! Owns: the bytes of one name. Names come octet by octet from clients and need not be UTF-8.
//! Bound: 255 bytes, what a short string can carry (AMQP 0-9-1 §4.2.5.3).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::limits::NAME_BYTES_MAX;

/// A name of at most 255 octets; cheap to clone, compared octet by octet.
///
/// It is copied out of whatever it came in, so that keeping it does not keep a read buffer.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Copies `bytes`; what goes beyond 255 octets is cut off, which no name from the wire has.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let length = bytes.len().min(NAME_BYTES_MAX);
        Self(Arc::from(bytes.get(..length).unwrap_or(bytes)))
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has no octets, as the default exchange's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_octets_that_are_no_text() {
        let name = Name::new(&[0xff, b'a']);
        assert_eq!(name.as_bytes(), &[0xff, b'a']);
        assert_eq!(name.to_string(), "\u{fffd}a");
    }

    #[test]
    fn a_name_never_exceeds_a_short_string() {
        assert_eq!(Name::new(&[b'x'; 300]).as_bytes().len(), 255);
    }
}
