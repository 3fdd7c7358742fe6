//! The eight octets that a client sends first.
//!
//! Spec: AMQP 0-9-1 §4.2.2; `spec/amqp.md` FRAME-9.

/// A protocol header that opens a connection: `"AMQP" | 0 | major | minor | revision`, or what
/// clients of 0-8 and 0-9 sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProtocolHeader {
    /// `AMQP 1 1 8 0`, or `AMQP 1 1 9 1` as the 0-8 document has it: 0-8; the server's
    /// `connection.start` says version 8.0.
    Amqp08,
    /// `AMQP 1 1 0 9`: 0-9, treated as 0-9-1.
    Amqp09,
    /// `AMQP 0 0 9 1`: 0-9-1.
    Amqp091,
}

/// Not the start of an AMQP connection that we speak: answer with [`ProtocolHeader::ANSWER`] and
/// close the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("protocol header {octets:02x?} is not AMQP 0-9-1")]
pub struct ProtocolHeaderError {
    /// What came in its place.
    pub octets: [u8; ProtocolHeader::LEN_BYTES],
}

impl ProtocolHeader {
    /// Length of a protocol header, in bytes.
    pub const LEN_BYTES: usize = 8;

    /// What a client of 0-9-1 sends, and what a server answers to any other header.
    pub const ANSWER: [u8; Self::LEN_BYTES] = *b"AMQP\x00\x00\x09\x01";

    /// Reads a protocol header; `None` if fewer than eight bytes are there.
    ///
    /// # Errors
    /// If these are eight other octets.
    // req: FRAME-9
    pub fn parse(input: &[u8]) -> Option<Result<Self, ProtocolHeaderError>> {
        let octets = input.first_chunk::<{ Self::LEN_BYTES }>()?;
        Some(match octets {
            b"AMQP\x00\x00\x09\x01" => Ok(Self::Amqp091),
            b"AMQP\x01\x01\x00\x09" => Ok(Self::Amqp09),
            b"AMQP\x01\x01\x08\x00" | b"AMQP\x01\x01\x09\x01" => Ok(Self::Amqp08),
            octets => Err(ProtocolHeaderError { octets: *octets }),
        })
    }
}
