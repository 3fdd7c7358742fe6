//! Frames: limits, errors with RabbitMQ's texts, and cuts of the stream.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::amqp::limits::FRAME_BYTES_MIN;
use crate::amqp::reply::ReplyCode;

/// A frame of any type, payload and end octet.
fn raw_frame(type_number: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
    let mut frame = vec![type_number];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(end);
    frame
}

/// The error text for a frame, as RabbitMQ prints it.
fn error_text(type_number: u8, payload: &[u8], end: u8) -> String {
    let mut input = BytesMut::from(raw_frame(type_number, 1, payload, end).as_slice());
    let error = decode(&mut input, FRAME_BYTES_MIN).expect_err("the frame is wrong");
    assert_eq!(error.reply_code(), ReplyCode::FrameError);
    error.to_string()
}

// req: FRAME-1
#[test]
fn frame_comes_back_with_its_parts() {
    let mut input = BytesMut::from(raw_frame(3, 258, b"abc", FRAME_END).as_slice());
    input.extend_from_slice(b"\x08");
    let frame = decode(&mut input, FRAME_BYTES_MIN).unwrap().unwrap();
    let body = Bytes::from_static(b"abc");
    assert_eq!(
        frame,
        Frame {
            kind: FrameKind::Body,
            channel: 258,
            payload: body
        }
    );
    assert_eq!(input.as_ref(), b"\x08", "what is behind the frame stays");
}

// req: FRAME-2
#[test]
fn heartbeat_and_method_and_header_are_told_apart() {
    for (number, payload, kind) in [
        (1, &b"\0\x0A\0\x33"[..], FrameKind::Method),
        (2, &[0; 14][..], FrameKind::Header),
        (3, b"", FrameKind::Body),
        (8, b"", FrameKind::Heartbeat),
    ] {
        let input = raw_frame(number, 0, payload, FRAME_END);
        let frame = parse(&input, FRAME_BYTES_MIN).unwrap().unwrap();
        assert_eq!((frame.kind, frame.payload), (kind, payload));
        assert_eq!(frame.frame_bytes, input.len());
        assert_eq!(kind.number(), number);
    }
}

// req: FRAME-3
#[test]
fn incomplete_frame_is_waited_for() {
    let whole = raw_frame(1, 1, b"\0\x0A\0\x33", FRAME_END);
    for length in 0..whole.len() {
        let cut = whole.get(..length).unwrap();
        assert_eq!(parse(cut, FRAME_BYTES_MIN), Ok(None), "{length} bytes");
    }
}

/// Payloads around frame-max: 8 bytes more than fit are tolerated, the ninth is refused before the
/// payload is there.
// req: FRAME-4
// req: FRAME-5
#[test]
fn payload_may_be_as_long_as_frame_max_and_no_longer() {
    for (payload_bytes, accepted) in [(4_088, true), (4_096, true), (4_097, false)] {
        let mut input = BytesMut::from(&b"\x03\x00\x01"[..]);
        input.extend_from_slice(&u32::to_be_bytes(payload_bytes));
        match decode(&mut input, 4_096) {
            Ok(frame) => assert!(accepted && frame.is_none(), "{payload_bytes}"),
            Err(error) => {
                assert!(!accepted, "{payload_bytes}");
                let expected = "type 3, all octets = <<>>: {frame_too_large,4097,4088}";
                assert_eq!(error.to_string(), expected);
            }
        }
    }
}

// req: FRAME-4
#[test]
fn two_gigabytes_are_refused_by_their_frame_header() {
    let mut input = BytesMut::from(&b"\x01\x00\x01\x7f\xff\xff\xff"[..]);
    let error = decode(&mut input, 131_072).unwrap_err();
    let expected = "type 1, all octets = <<>>: {frame_too_large,2147483647,131064}";
    assert_eq!(error.to_string(), expected);
}

// req: FRAME-6
#[test]
fn wrong_end_octet_is_named_in_erlangs_words() {
    let qos = b"\0<\0\n\0\0\0\0\0\x01\0";
    assert_eq!(
        error_text(1, qos, 205),
        format!(
            "type 1, all octets = <<0,60,0,10,0,0,0,0,0,1,0>>: {{invalid_frame_end_marker,\n{}205}}",
            " ".repeat(51)
        )
    );
    assert_eq!(
        error_text(1, &[0; 11], 205),
        "type 1, all octets = <<0,0,0,0,0,0,0,0,0,0,0>>: {invalid_frame_end_marker,205}"
    );
}

// req: FRAME-7
#[test]
fn unknown_frames_are_quoted() {
    assert_eq!(
        error_text(9, b"abc", FRAME_END),
        "type 9, all octets = <<\"abc\">>: unknown_frame"
    );
    assert_eq!(
        error_text(0, b"", FRAME_END),
        "type 0, all octets = <<>>: unknown_frame"
    );
    assert_eq!(
        error_text(8, b"abc", FRAME_END),
        "type 8, all octets = <<\"abc\">>: unknown_frame"
    );
    assert_eq!(
        error_text(1, b"\x00\x32\x00", FRAME_END),
        "type 1, all octets = <<0,50,0>>: unknown_frame"
    );
    assert_eq!(
        error_text(2, &[0; 11], FRAME_END),
        "type 2, all octets = <<0,0,0,0,0,0,0,0,0,0,0>>: unknown_frame"
    );
}

// req: FRAME-7
#[test]
fn long_payloads_are_quoted_by_their_first_16_octets() {
    assert_eq!(
        error_text(7, b"abcdefghijklmnopq", FRAME_END),
        "type 7, first 16 octets = <<\"abcdefghijklmnop\">>: unknown_frame"
    );
    assert_eq!(
        error_text(7, b"abcdefghijklm\n\t\"", FRAME_END),
        "type 7, all octets = <<\"abcdefghijklm\\n\\t\\\"\">>: unknown_frame"
    );
}

#[test]
fn description_of_an_unexpected_frame_is_rabbitmqs() {
    let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let payload = Bytes::copy_from_slice(&header);
    let frame = Frame {
        kind: FrameKind::Header,
        channel: 0,
        payload,
    };
    assert_eq!(
        frame.description().to_string(),
        "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>"
    );
}

// req: FRAME-9
#[test]
fn protocol_headers_of_three_versions_are_known() {
    for (octets, version) in [
        (b"AMQP\x00\x00\x09\x01", ProtocolHeader::Amqp091),
        (b"AMQP\x01\x01\x00\x09", ProtocolHeader::Amqp09),
        (b"AMQP\x01\x01\x08\x00", ProtocolHeader::Amqp08),
        (b"AMQP\x01\x01\x09\x01", ProtocolHeader::Amqp08),
    ] {
        assert_eq!(ProtocolHeader::parse(octets), Some(Ok(version)));
    }
    for octets in [
        b"GET / HT",
        b"AMQP\x00\x00\x09\x02",
        b"AMQP\x00\x01\x00\x00",
    ] {
        let error = ProtocolHeader::parse(octets).unwrap().unwrap_err();
        assert_eq!(&error.octets, octets);
    }
    assert_eq!(ProtocolHeader::parse(b"AMQP\x00\x00\x09"), None);
}
