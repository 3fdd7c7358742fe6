//! Message bodies: made from the message's name, and told apart by their prints.

use crate::history::{BodyPrint, MessageKey};
use crate::judge::LARGE_BYTES;
use crate::random::Random;

/// Large bodies repeat after so many of a publisher, so that a broker that stores equal ones once
/// must count its references right.
const LARGE_DISTINCT: u32 = 16;

/// The body of a message: bytes without a pattern, the same on each call.
pub(crate) fn make(seed: u64, message: MessageKey, bytes: u32) -> Vec<u8> {
    let name = if bytes >= LARGE_BYTES {
        u64::from(message.sequence % LARGE_DISTINCT)
    } else {
        u64::from(message.publisher) << 32 | u64::from(message.sequence)
    };
    let mut random = Random::new(seed ^ name.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    let bytes = bytes as usize;
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        body.extend_from_slice(&random.next().to_le_bytes());
    }
    body.truncate(bytes);
    body
}

/// The print of a body.
pub(crate) fn print(body: &[u8]) -> BodyPrint {
    let hash = blake3::hash(body);
    let first = hash.as_bytes().first_chunk().copied();
    BodyPrint {
        // The client takes no body of more than 1 GiB.
        bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
        hash: u64::from_be_bytes(first.expect("a hash has 32 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body has its length, comes out the same again, and one changed bit changes its print.
    #[test]
    fn bodies_repeat_and_prints_tell_them_apart() {
        let message = MessageKey {
            publisher: 1,
            sequence: 9,
        };
        for bytes in [0, 1, 8, 1_001, LARGE_BYTES + 3] {
            let mut body = make(5, message, bytes);
            assert_eq!(body.len(), bytes as usize);
            assert_eq!(body, make(5, message, bytes));
            let before = print(&body);
            if let Some(last) = body.last_mut() {
                *last ^= 1;
                assert_ne!(print(&body), before);
            }
        }
    }
}
