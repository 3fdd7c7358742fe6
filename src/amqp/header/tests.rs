//! Content headers: round trips, and what RabbitMQ calls an internal error.

use bytes::{Bytes, BytesMut};
use proptest::option;
use proptest::prelude::{BoxedStrategy, Strategy, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::amqp::field::FieldValue;
use crate::amqp::field::strategy::any;

/// Any properties.
fn properties() -> BoxedStrategy<Properties> {
    let short = || option::of(any::<ShortString>());
    let first = (
        short(),
        short(),
        option::of(any::<FieldTable>()),
        option::of(any::<u8>()),
    );
    let second = (option::of(any::<u8>()), short(), short(), short(), short());
    let third = (option::of(any::<u64>()), short(), short(), short(), short());
    (first, second, third)
        .prop_map(|(first, second, third)| {
            let (content_type, content_encoding, headers, delivery_mode) = first;
            let (priority, correlation_id, reply_to, expiration, message_id) = second;
            let (timestamp, message_type, user_id, app_id, cluster_id) = third;
            Properties {
                content_type,
                content_encoding,
                headers,
                delivery_mode,
                priority,
                correlation_id,
                reply_to,
                expiration,
                message_id,
                timestamp,
                message_type,
                user_id,
                app_id,
                cluster_id,
            }
        })
        .boxed()
}

/// The payload of a header frame.
fn encoded(header: &ContentHeader) -> Bytes {
    let mut output = BytesMut::new();
    header.encode(&mut output);
    output.freeze()
}

/// A header whose flags and properties are these octets.
fn header_of(raw: &'static [u8]) -> ContentHeader {
    ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: Bytes::from_static(raw),
    }
}

proptest! {
    // req: CONTENT-1
    // req: CONTENT-2
    #[test]
    fn header_comes_back_as_it_was(properties in properties(), body_bytes in any::<u64>()) {
        let header = ContentHeader::new(body_bytes, &properties);
        let payload = encoded(&header);
        prop_assert_eq!(payload.len(), header.payload_bytes());
        let again = ContentHeader::decode(&payload).unwrap();
        prop_assert_eq!(&again, &header);
        prop_assert_eq!(again.properties(), Ok(properties.clone()));
        prop_assert_eq!(again.headers(), properties.headers);
        prop_assert_eq!(again.message_id(), properties.message_id);
        prop_assert_eq!(again.is_persistent(), properties.delivery_mode == Some(2));
    }

    // req: CONTENT-3
    #[test]
    fn cut_or_extended_properties_are_an_error(properties in properties(), cut in 1_usize..400) {
        let raw = properties.encode();
        let cut = 1 + cut % (raw.len() - 1);
        let shorter = ContentHeader { raw: raw.slice(..raw.len() - cut), ..header_of(b"") };
        prop_assert!(shorter.properties_ref().is_err());
        let longer = [raw.as_ref(), b"z"].concat().into();
        let longer = ContentHeader { raw: longer, ..header_of(b"") };
        prop_assert_eq!(
            longer.properties_ref(),
            Err(HeaderError::TrailingOctets { octet_count: 1 })
        );
    }

    /// Whatever octets stand for properties, they are refused, or encoded again as they were.
    // req: CONTENT-3
    #[test]
    fn any_octets_are_refused_or_understood(raw in any::<Bytes>()) {
        let header = ContentHeader { raw, ..header_of(b"") };
        if let Ok(properties) = header.properties() {
            let again = ContentHeader { raw: properties.encode(), ..header };
            prop_assert_eq!(again.properties(), Ok(properties));
        }
    }
}

// req: CONTENT-1
#[test]
fn header_has_the_octets_of_the_standard() {
    let properties = Properties {
        content_type: Some(ShortString::from_static("text")),
        headers: Some(FieldTable::from([("k", FieldValue::Void)])),
        delivery_mode: Some(2),
        ..Default::default()
    };
    let header = ContentHeader::new(258, &properties);
    let octets = b"\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\xb0\x00\
        \x04text\x00\x00\x00\x03\x01kV\x02";
    assert_eq!(encoded(&header).as_ref(), octets);
    assert!(header.is_persistent());
}

/// An empty headers table is not the same as none.
// req: CONTENT-2
#[test]
fn empty_headers_table_stays_one() {
    let header = header_of(b"\x20\x00\x00\x00\x00\x00");
    assert_eq!(header.headers(), Some(FieldTable::EMPTY));
    assert_eq!(header_of(b"\x00\x00").headers(), None);
}

// req: CONTENT-2
#[test]
fn lowest_two_flags_mean_nothing() {
    assert_eq!(
        header_of(b"\x00\x03").properties(),
        Ok(Properties::default())
    );
}

// req: CONTENT-3
#[test]
fn malformed_properties_are_an_internal_error() {
    for raw in [
        &b"\x80\x00"[..],
        b"\x00\x00zz",
        b"\x00",
        b"",
        b"\x20\x00\x00\x00\x00\x03\x01kz",
    ] {
        let error = header_of(raw).properties_ref().unwrap_err();
        assert_eq!(error.reply_code(), ReplyCode::InternalError, "{raw:?}");
    }
}

// req: CONTENT-3
#[test]
fn headers_beyond_the_bounds_of_tables_are_a_syntax_error() {
    let elements = b"\x00V".repeat(4_097);
    let length = u32::try_from(elements.len()).unwrap().to_be_bytes();
    let raw = Bytes::from([&b"\x20\x00"[..], &length, &elements].concat());
    let header = ContentHeader {
        raw,
        ..header_of(b"")
    };
    let error = header.properties_ref().unwrap_err();
    assert_eq!(error, HeaderError::Property(FieldError::TooManyElements));
    assert_eq!(error.reply_code(), ReplyCode::SyntaxError);
}

/// RabbitMQ does not take a header with a weight for one.
// req: CONTENT-1
#[test]
fn weight_other_than_zero_is_an_unexpected_frame() {
    let payload = Bytes::from_static(b"\x00\x3c\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
    let error = ContentHeader::decode(&payload).unwrap_err();
    assert_eq!(error, HeaderError::Weight { weight: 1 });
    assert_eq!(error.reply_code(), ReplyCode::UnexpectedFrame);
}

#[test]
fn short_payload_is_cut_off() {
    let payload = Bytes::from_static(b"\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00");
    assert_eq!(ContentHeader::decode(&payload), Err(HeaderError::Truncated));
}
