//! Frames: limits, errors with RabbitMQ's texts, and cuts of the stream.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::{BoxedStrategy, Just, Strategy};
use proptest::prelude::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::amqp::field::ShortString;
use crate::amqp::field::strategy::any;
use crate::amqp::header::{ContentHeader, Properties};
use crate::amqp::limits::FRAME_BYTES_MIN;
use crate::amqp::method::{Encode, Method, basic};
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

/// Streams of frames, of which some are wrong.
fn streams() -> BoxedStrategy<Vec<u8>> {
    let kind = prop_oneof![8 => Just(1_u8), 8 => Just(2), 8 => Just(3), 4 => Just(8), 1 => any()];
    let payload = prop_oneof![2 => Just(Vec::new()), 8 => vec(any::<u8>(), 4..40)];
    let end = prop_oneof![40 => Just(FRAME_END), 1 => any::<u8>()];
    let frame = (kind, any::<u16>(), payload, end)
        .prop_map(|(kind, channel, payload, end)| raw_frame(kind, channel, &payload, end));
    vec(frame, 0..8).prop_map(|frames| frames.concat()).boxed()
}

/// All that comes out of a stream: frames, then how it ends.
fn decode_all(input: &mut BytesMut, into: &mut Vec<Frame>) -> Result<(), FrameError> {
    while let Some(frame) = decode(input, FRAME_BYTES_MIN)? {
        into.push(frame);
    }
    Ok(())
}

proptest! {
    /// However the stream is cut into reads, the same frames come out, and the same error.
    // req: FRAME-3
    #[test]
    fn cuts_of_the_stream_change_nothing(stream in streams(), cuts in vec(1_usize..30, 1..20)) {
        let mut expected = Vec::new();
        let mut whole = BytesMut::from(stream.as_slice());
        let expected_end = decode_all(&mut whole, &mut expected);

        let (mut frames, mut input, mut end) = (Vec::new(), BytesMut::new(), Ok(()));
        let mut rest = stream.as_slice();
        for length in cuts.iter().copied().cycle() {
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            input.extend_from_slice(piece);
            rest = behind;
            end = decode_all(&mut input, &mut frames);
            if end.is_err() || rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(frames, expected);
        prop_assert_eq!(end, expected_end);
    }

    /// Walking one shared buffer gives the same frames as taking each out.
    #[test]
    fn complete_bytes_end_behind_the_last_whole_frame(stream in streams(), cut in 0_usize..60) {
        let stream = stream.get(..stream.len().saturating_sub(cut)).unwrap();
        let complete = complete_bytes(stream, FRAME_BYTES_MIN);
        let mut rest = stream.get(..complete).unwrap();
        let mut frames = Vec::new();
        let mut failed = false;
        while !rest.is_empty() {
            match parse(rest, FRAME_BYTES_MIN) {
                Ok(frame) => {
                    let frame = frame.expect("only whole frames are among the complete bytes");
                    frames.push((frame.kind, frame.channel, frame.payload));
                    rest = rest.get(frame.frame_bytes..).unwrap();
                }
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        let mut expected = Vec::new();
        let end = decode_all(&mut BytesMut::from(stream), &mut expected);
        prop_assert_eq!(end.is_err(), failed);
        prop_assert_eq!(frames.len(), expected.len());
        for (frame, expected) in frames.into_iter().zip(&expected) {
            prop_assert_eq!(frame, (expected.kind, expected.channel, expected.payload.as_ref()));
        }
    }

    /// A content of any length comes back from its frames, none above the receiver's frame-max.
    // req: CONTENT-4
    // req: CONTENT-5
    #[test]
    fn body_is_cut_by_the_receivers_frame_max(
        body_bytes in prop_oneof![Just(0_usize), Just(4_088), Just(4_089), 0..20_000_usize],
        channel in any::<u16>()
    ) {
        let body: Vec<u8> = (0..=250_u8).cycle().take(body_bytes).collect();
        let header = ContentHeader::new(body_bytes as u64, &Properties::default());
        let deliver = basic::Deliver { delivery_tag: 7, ..Default::default() };
        let mut output = BytesMut::new();
        put_method_with_content(&mut output, channel, &deliver, &header, &body, FRAME_BYTES_MIN);

        let mut frames = Vec::new();
        prop_assert_eq!(decode_all(&mut output, &mut frames), Ok(()));
        prop_assert!(output.is_empty());
        prop_assert!(frames.iter().all(|frame| frame.channel == channel));
        let mut frames = frames.into_iter();
        let method = frames.next().unwrap();
        prop_assert_eq!(Method::decode(&method.payload), Ok(Method::from(deliver)));
        prop_assert_eq!(ContentHeader::decode(&frames.next().unwrap().payload), Ok(header));
        let pieces: Vec<_> = frames.collect();
        prop_assert_eq!(pieces.len(), body_bytes.div_ceil(4_088));
        prop_assert!(pieces.iter().all(|frame| frame.kind == FrameKind::Body));
        prop_assert!(pieces.iter().all(|frame| frame.payload.len() <= 4_088));
        let joined: Vec<u8> = pieces.iter().flat_map(|frame| frame.payload.to_vec()).collect();
        prop_assert_eq!(joined, body);
    }

    #[test]
    fn method_frames_carry_the_method(method in any::<Method>(), channel in any::<u16>()) {
        let mut output = BytesMut::new();
        put_method(&mut output, channel, &method);
        let mut payload = BytesMut::new();
        method.encode(&mut payload);
        let expected = Frame { kind: FrameKind::Method, channel, payload: payload.freeze() };
        prop_assert_eq!(decode(&mut output, u32::MAX), Ok(Some(expected)));
        prop_assert!(output.is_empty());
    }
}

/// A header that is longer than the receiver's frame-max goes out as one frame.
// req: FRAME-8
#[test]
fn long_header_is_not_split() {
    let properties = Properties {
        headers: Some(
            [(ShortString::EMPTY, "s".repeat(10_000).into())]
                .into_iter()
                .collect(),
        ),
        ..Default::default()
    };
    let header = ContentHeader::new(1, &properties);
    let mut output = BytesMut::new();
    put_content(&mut output, 1, &header, b"x", FRAME_BYTES_MIN);
    let frame = decode(&mut output, u32::MAX).unwrap().unwrap();
    assert_eq!(frame.kind, FrameKind::Header);
    assert_eq!(ContentHeader::decode(&frame.payload), Ok(header));
}

#[test]
fn heartbeat_is_eight_octets() {
    let mut output = BytesMut::new();
    put_heartbeat(&mut output);
    assert_eq!(output.as_ref(), b"\x08\x00\x00\x00\x00\x00\x00\xce");
}

/// A body frame without payload, and a heartbeat, keep no hold on the read buffer.
#[test]
fn empty_payload_does_not_share_the_buffer() {
    let mut input = BytesMut::new();
    put_heartbeat(&mut input);
    put_body(&mut input, 1, b"");
    input.put_slice(b"rest");
    let heartbeat = decode(&mut input, FRAME_BYTES_MIN).unwrap().unwrap();
    let body = decode(&mut input, FRAME_BYTES_MIN).unwrap().unwrap();
    let rest = input.freeze();
    assert!(rest.is_unique());
    assert!(heartbeat.payload.is_empty() && body.payload.is_empty());
}
