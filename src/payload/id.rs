//! Names of payloads and pieces: 32-byte hashes with their hexadecimal form, scopes and access keys.
//!
//! Owns: the four newtypes that must never be swapped with one another.
//! Spec: `spec/manifest.md` MANIFEST-1, MANIFEST-8.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// Length of a hash and of an access key, in bytes.
pub const HASH_BYTES: usize = 32;
/// Length of the hexadecimal form of a hash, in characters.
pub const HASH_HEX_CHARS: usize = 2 * HASH_BYTES;

/// The name of a payload: the BLAKE3 hash that `b3sum` prints of the same bytes.
///
/// Displays as 64 lower-case hexadecimal digits; `{:.10}` shows the first ten, as logs want it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PayloadId([u8; HASH_BYTES]);

/// The BLAKE3 chaining value of one piece as a subtree of its payload.
///
/// A payload of one piece has no subtrees: there it equals the payload id. Spec: PIECE-4.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PieceHash([u8; HASH_BYTES]);

/// Where a payload belongs: a vhost's number on a broker, 0 on an edge node.
///
/// Equal payloads are stored once inside a scope and never shared between two. Spec: STORE-2.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScopeId(u32);

/// The secret that a peer must prove to know before it is served one payload of one scope.
///
/// Has no `Display` and its `Debug` shows nothing, so that no log, trace or metric can hold it;
/// compared in constant time.
#[derive(Clone)]
pub struct AccessKey([u8; HASH_BYTES]);

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {HASH_HEX_CHARS} hexadecimal digits")]
pub struct ParseHexError;

impl PayloadId {
    /// The id made of these hash bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The hash bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl PieceHash {
    /// The piece hash made of these bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The hash bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl ScopeId {
    /// The only scope of an edge node.
    pub const NODE: Self = Self(0);

    /// The scope with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl AccessKey {
    /// A key of these bytes, which must come from a secure random source.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The secret bytes: for the manifest and for keyed hashes, never for output.
    pub const fn expose(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// The secret in hexadecimal, as a manifest's header and a payload URL carry it.
    pub fn expose_hex(&self) -> String {
        let mut text = String::with_capacity(HASH_HEX_CHARS);
        for byte in self.0 {
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 0x0f));
        }
        text
    }
}

impl PartialEq for AccessKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AccessKey {}

impl fmt::Debug for AccessKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // req: MANIFEST-8
        formatter.write_str("AccessKey(..)")
    }
}

impl FromStr for AccessKey {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        parse_hex(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for PayloadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for PayloadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PayloadId({self:.10})")
    }
}

impl FromStr for PayloadId {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        parse_hex(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for PieceHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for PieceHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PieceHash({self:.10})")
    }
}

impl FromStr for PieceHash {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        parse_hex(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Writes lower-case digits; a precision limits how many.
fn write_hex(bytes: &[u8; HASH_BYTES], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let digit_count = formatter.precision().unwrap_or(HASH_HEX_CHARS);
    let digits = bytes
        .iter()
        .flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0x0f)]);
    for digit in digits.take(digit_count) {
        fmt::Write::write_char(formatter, digit)?;
    }
    Ok(())
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn parse_hex(text: &[u8]) -> Result<[u8; HASH_BYTES], ParseHexError> {
    if text.len() != HASH_HEX_CHARS {
        return Err(ParseHexError);
    }
    let mut bytes = [0; HASH_BYTES];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        for digit in digits {
            let value = char::from(*digit).to_digit(16).ok_or(ParseHexError)?;
            *byte = (*byte << 4) | u8::try_from(value).map_err(|_| ParseHexError)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hexadecimal form goes both ways, in either case of letters.
    // req: MANIFEST-1
    #[test]
    fn hex_form_round_trips() {
        let id = PayloadId::from_bytes(*blake3::hash(b"warren").as_bytes());
        assert_eq!(id.to_string(), blake3::hash(b"warren").to_hex().to_string());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(format!("{id:.10}"), id.to_string()[..10]);
    }

    /// Text of another length or with other characters names no payload.
    // req: MANIFEST-1
    #[test]
    fn text_that_is_not_64_digits_is_refused() {
        let digits = "0".repeat(HASH_HEX_CHARS);
        assert!(digits.parse::<PayloadId>().is_ok());
        for text in [
            "",
            &digits[1..],
            &format!("{digits}0"),
            &digits.replace('0', "g"),
        ] {
            assert_eq!(text.parse::<PayloadId>(), Err(ParseHexError), "{text}");
        }
        let two_byte_characters = "é".repeat(HASH_BYTES);
        assert_eq!(two_byte_characters.parse::<PieceHash>(), Err(ParseHexError));
    }

    /// No formatting of a key shows any of it.
    // req: MANIFEST-8
    #[test]
    fn key_does_not_show_in_debug_output() {
        let key = AccessKey::from_bytes([0xab; HASH_BYTES]);
        assert_eq!(format!("{key:?}"), "AccessKey(..)");
        assert_eq!(key.expose_hex().parse::<AccessKey>(), Ok(key));
    }
}
