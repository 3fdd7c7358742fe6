//! AMQP 0-9-1 octets, as little of them as the checker needs, shared with no broker.
//!
//! Owns: nothing; functions between bytes and values. An error means that the broker sent what the
//! standard does not allow, and is reported as a violation. Spec: AMQP 0-9-1 §4.2.

use std::io::{self, Read};

/// What a client sends first. Spec: §4.2.2.
pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Ends each frame. Spec: §4.2.3.
const FRAME_END: u8 = 0xCE;
/// Type, channel, size and end octet around each frame's content, in bytes.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 8;
/// Largest frame taken from a broker, in bytes, whatever was negotiated.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Frame types. Spec: §4.2.3.
pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;

/// Class and method numbers, as one name each.
pub(crate) type MethodId = (u16, u16);
pub(crate) const CONNECTION_START: MethodId = (10, 10);
pub(crate) const CONNECTION_START_OK: MethodId = (10, 11);
pub(crate) const CONNECTION_TUNE: MethodId = (10, 30);
pub(crate) const CONNECTION_TUNE_OK: MethodId = (10, 31);
pub(crate) const CONNECTION_OPEN: MethodId = (10, 40);
pub(crate) const CONNECTION_OPEN_OK: MethodId = (10, 41);
pub(crate) const CONNECTION_CLOSE: MethodId = (10, 50);
pub(crate) const CONNECTION_CLOSE_OK: MethodId = (10, 51);
pub(crate) const CHANNEL_OPEN: MethodId = (20, 10);
pub(crate) const CHANNEL_OPEN_OK: MethodId = (20, 11);
pub(crate) const CHANNEL_CLOSE: MethodId = (20, 40);
pub(crate) const CHANNEL_CLOSE_OK: MethodId = (20, 41);
pub(crate) const EXCHANGE_DECLARE: MethodId = (40, 10);
pub(crate) const EXCHANGE_DECLARE_OK: MethodId = (40, 11);
pub(crate) const EXCHANGE_DELETE: MethodId = (40, 20);
pub(crate) const EXCHANGE_DELETE_OK: MethodId = (40, 21);
pub(crate) const QUEUE_DECLARE: MethodId = (50, 10);
pub(crate) const QUEUE_DECLARE_OK: MethodId = (50, 11);
pub(crate) const QUEUE_BIND: MethodId = (50, 20);
pub(crate) const QUEUE_BIND_OK: MethodId = (50, 21);
pub(crate) const QUEUE_PURGE: MethodId = (50, 30);
pub(crate) const QUEUE_PURGE_OK: MethodId = (50, 31);
pub(crate) const QUEUE_DELETE: MethodId = (50, 40);
pub(crate) const QUEUE_DELETE_OK: MethodId = (50, 41);
pub(crate) const QUEUE_UNBIND: MethodId = (50, 50);
pub(crate) const QUEUE_UNBIND_OK: MethodId = (50, 51);
pub(crate) const BASIC_QOS: MethodId = (60, 10);
pub(crate) const BASIC_QOS_OK: MethodId = (60, 11);
pub(crate) const BASIC_CONSUME: MethodId = (60, 20);
pub(crate) const BASIC_CONSUME_OK: MethodId = (60, 21);
pub(crate) const BASIC_PUBLISH: MethodId = (60, 40);
pub(crate) const BASIC_RETURN: MethodId = (60, 50);
pub(crate) const BASIC_DELIVER: MethodId = (60, 60);
pub(crate) const BASIC_GET: MethodId = (60, 70);
pub(crate) const BASIC_GET_OK: MethodId = (60, 71);
pub(crate) const BASIC_GET_EMPTY: MethodId = (60, 72);
pub(crate) const BASIC_ACK: MethodId = (60, 80);
pub(crate) const BASIC_REJECT: MethodId = (60, 90);
pub(crate) const BASIC_NACK: MethodId = (60, 120);
pub(crate) const TX_SELECT: MethodId = (90, 10);
pub(crate) const TX_SELECT_OK: MethodId = (90, 11);
pub(crate) const TX_COMMIT: MethodId = (90, 20);
pub(crate) const TX_COMMIT_OK: MethodId = (90, 21);
pub(crate) const TX_ROLLBACK: MethodId = (90, 30);
pub(crate) const TX_ROLLBACK_OK: MethodId = (90, 31);
pub(crate) const CONFIRM_SELECT: MethodId = (85, 10);
pub(crate) const CONFIRM_SELECT_OK: MethodId = (85, 11);
/// `connection.blocked` and `connection.unblocked`: how a broker slows publishers down.
pub(crate) const CONNECTION_BLOCKED: MethodId = (10, 60);
pub(crate) const CONNECTION_UNBLOCKED: MethodId = (10, 61);

/// One frame as it came.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads one frame. `InvalidData` is the broker's fault, anything else is the connection's end.
pub(crate) fn read_frame(source: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0_u8; 7];
    source.read_exact(&mut head)?;
    let [kind, c1, c0, s3, s2, s1, s0] = head;
    let size = u32::from_be_bytes([s3, s2, s1, s0]) as usize;
    if size > FRAME_BYTES_MAX {
        return Err(malformed("frame size over 16 MiB"));
    }
    let mut payload = vec![0_u8; size];
    source.read_exact(&mut payload)?;
    let mut end = [0_u8; 1];
    source.read_exact(&mut end)?;
    if end != [FRAME_END] {
        return Err(malformed("frame without its end octet"));
    }
    let channel = u16::from_be_bytes([c1, c0]);
    Ok(Frame {
        kind,
        channel,
        payload,
    })
}

/// Appends one frame: `type u8 | channel u16 | size u32 | payload | 0xCE`.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    let size = u32::try_from(payload.len()).expect("the checker's frames are below 4 GiB");
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// Builds a method's arguments in their order.
pub(crate) struct Args(Vec<u8>);

impl Args {
    /// Begins the method.
    pub(crate) fn of(id: MethodId) -> Self {
        let mut bytes = id.0.to_be_bytes().to_vec();
        bytes.extend_from_slice(&id.1.to_be_bytes());
        Self(bytes)
    }

    /// Begins with nothing: what a field table holds.
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A short string: the checker's own names, all below 256 bytes.
    pub(crate) fn short(mut self, value: &str) -> Self {
        let length = u8::try_from(value.len()).expect("the checker's names are short");
        self.0.push(length);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn long(mut self, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).expect("the checker's strings are below 4 GiB");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// The method's payload.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes values off the front of a payload.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (front, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| malformed("arguments end too early"))?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn u64(&mut self) -> io::Result<u64> {
        let high = self.u32()?;
        let low = self.u32()?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    pub(crate) fn short(&mut self) -> io::Result<String> {
        let length = usize::from(self.u8()?);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    pub(crate) fn long(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }
}

/// A method's numbers and its arguments.
pub(crate) fn split_method(payload: &[u8]) -> io::Result<(MethodId, &[u8])> {
    let mut fields = Fields(payload);
    let id = (fields.u16()?, fields.u16()?);
    Ok((id, fields.0))
}

/// The properties that the checker sets and looks at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Properties {
    /// 1 transient, 2 persistent; 0 where absent.
    pub(crate) delivery_mode: u8,
    /// Empty where absent.
    pub(crate) message_id: String,
}

/// Which property is present, by its bit. Spec: §4.2.6.1 and the order of the class's fields.
const FLAG_CONTENT_TYPE: u16 = 1 << 15;
const FLAG_CONTENT_ENCODING: u16 = 1 << 14;
const FLAG_HEADERS: u16 = 1 << 13;
const FLAG_DELIVERY_MODE: u16 = 1 << 12;
const FLAG_PRIORITY: u16 = 1 << 11;
const FLAG_CORRELATION_ID: u16 = 1 << 10;
const FLAG_REPLY_TO: u16 = 1 << 9;
const FLAG_EXPIRATION: u16 = 1 << 8;
const FLAG_MESSAGE_ID: u16 = 1 << 7;

/// A content header's payload: class, weight, body size, flags, properties.
pub(crate) fn content_header(body_bytes: u64, properties: &Properties) -> Vec<u8> {
    Args(60_u16.to_be_bytes().to_vec())
        .u16(0)
        .u64(body_bytes)
        .u16(FLAG_CONTENT_TYPE | FLAG_DELIVERY_MODE | FLAG_MESSAGE_ID)
        .short("application/octet-stream")
        .u8(properties.delivery_mode)
        .short(&properties.message_id)
        .bytes()
}

/// A content header's body size and the properties of interest.
pub(crate) fn parse_content_header(payload: &[u8]) -> io::Result<(u64, Properties)> {
    let mut fields = Fields(payload);
    fields.u16()?;
    fields.u16()?;
    let body_bytes = fields.u64()?;
    let flags = fields.u16()?;
    let mut properties = Properties::default();
    for flag in [FLAG_CONTENT_TYPE, FLAG_CONTENT_ENCODING] {
        if flags & flag != 0 {
            fields.short()?;
        }
    }
    if flags & FLAG_HEADERS != 0 {
        fields.long()?;
    }
    if flags & FLAG_DELIVERY_MODE != 0 {
        properties.delivery_mode = fields.u8()?;
    }
    if flags & FLAG_PRIORITY != 0 {
        fields.u8()?;
    }
    for flag in [FLAG_CORRELATION_ID, FLAG_REPLY_TO, FLAG_EXPIRATION] {
        if flags & flag != 0 {
            fields.short()?;
        }
    }
    if flags & FLAG_MESSAGE_ID != 0 {
        properties.message_id = fields.short()?;
    }
    Ok((body_bytes, properties))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header that the checker writes is read back; a broker's longer one is skipped through.
    #[test]
    fn content_header_survives_the_round_trip() {
        let properties = Properties {
            delivery_mode: 2,
            message_id: "3.17".to_owned(),
        };
        let payload = content_header(1_234_567, &properties);
        let parsed = parse_content_header(&payload).expect("own header");
        assert_eq!(parsed, (1_234_567, properties));
        assert!(parse_content_header(&payload[..payload.len() - 1]).is_err());
    }

    /// A frame without its end octet, and one that stops early, are told apart.
    #[test]
    fn bad_frames_are_the_brokers_fault_and_short_ones_the_connections() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, METHOD, 1, b"abc");
        let frame = read_frame(&mut bytes.as_slice()).expect("own frame");
        assert_eq!(
            (frame.kind, frame.channel, frame.payload.as_slice()),
            (METHOD, 1, &b"abc"[..])
        );
        let kind = |bytes: &[u8]| read_frame(&mut &*bytes).err().map(|error| error.kind());
        assert_eq!(
            kind(&bytes[..bytes.len() - 1]),
            Some(io::ErrorKind::UnexpectedEof)
        );
        *bytes.last_mut().expect("not empty") = 0;
        assert_eq!(kind(&bytes), Some(io::ErrorKind::InvalidData));
    }
}
