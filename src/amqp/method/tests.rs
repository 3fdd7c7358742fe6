//! Methods: the golden octets, errors with RabbitMQ's texts, and round trips.

use bytes::{Bytes, BytesMut};
use proptest::prelude::{prop_assert_eq, proptest};

use super::*;
use crate::amqp::field::strategy::any;
use crate::amqp::field::{FieldError, FieldTable, FieldValue, ShortString};
use crate::amqp::reply::ReplyCode;

/// The octets of a method.
fn encoded(method: &impl Encode) -> Bytes {
    let mut output = BytesMut::new();
    method.encode(&mut output);
    output.freeze()
}

/// The error of a payload that cannot be decoded.
fn error_of(payload: &[u8]) -> DecodeError {
    Method::decode(&Bytes::copy_from_slice(payload)).expect_err("the payload is wrong")
}

proptest! {
    // req: METHOD-1
    // req: METHOD-5
    #[test]
    fn methods_come_back_as_they_were(method in any::<Method>()) {
        let payload = encoded(&method);
        prop_assert_eq!(Method::decode(&payload), Ok(method));
    }

    /// What is cut off anywhere is an error, and so is an octet too many.
    // req: METHOD-3
    #[test]
    fn cut_or_extended_methods_are_an_error(method in any::<Method>(), cut in 0_usize..400) {
        let payload = encoded(&method);
        let cut = 1 + cut % payload.len();
        let shorter = Method::decode(&payload.slice(..payload.len() - cut)).unwrap_err();
        prop_assert_eq!(shorter.reply_code(), Some(ReplyCode::FrameError));
        let longer = Method::decode(&[payload.as_ref(), b"z"].concat().into()).unwrap_err();
        prop_assert_eq!(longer.reply_code(), Some(ReplyCode::FrameError));
        prop_assert_eq!(longer.class_id(), method.class_id());
        prop_assert_eq!(longer.method_id(), method.method_id());
    }

    /// Whatever octets stand behind a method's ids, they are refused, or understood and then the
    /// same when they are written and read again.
    #[test]
    fn any_octets_are_refused_or_understood(method in any::<Method>(), octets in any::<Bytes>()) {
        let ids = encoded(&method).slice(..4);
        let payload = Bytes::from([ids.as_ref(), octets.as_ref()].concat());
        if let Ok(method) = Method::decode(&payload) {
            prop_assert_eq!(Method::decode(&encoded(&method)), Ok(method));
        }
    }

    /// A method decoded within a larger buffer is the same.
    #[test]
    fn payload_may_lie_in_a_larger_buffer(method in any::<Method>()) {
        let payload = encoded(&method);
        let owner = Bytes::from([b"before", payload.as_ref(), b"behind"].concat());
        let inside = owner.get(6..6 + payload.len()).unwrap();
        prop_assert_eq!(Method::decode_in(&owner, inside), Ok(method));
    }
}

/// Every method is among the arbitrary ones, so that the properties above hold for all.
#[test]
fn arbitrary_methods_have_the_listed_names_and_content() {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = any::<Method>();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3_000 {
        let method = strategy.new_tree(&mut runner).unwrap().current();
        let known = (method.class_id(), method.method_id(), method.name());
        assert!(Method::ALL.contains(&known), "{known:?}");
        let with_content = [
            "basic.publish",
            "basic.return",
            "basic.deliver",
            "basic.get-ok",
        ];
        assert_eq!(method.has_content(), with_content.contains(&method.name()));
        seen.insert(known);
    }
    assert_eq!(seen.len(), Method::ALL.len());
}

// req: METHOD-1
#[test]
fn publish_has_the_octets_of_the_standard() {
    let publish = basic::Publish {
        exchange: ShortString::from_static("x"),
        routing_key: ShortString::from_static("key"),
        mandatory: true,
        immediate: false,
    };
    assert_eq!(
        encoded(&publish).as_ref(),
        b"\x00\x3c\x00\x28\x00\x00\x01x\x03key\x01"
    );
    assert_eq!(
        Method::decode(&encoded(&publish)),
        Ok(Method::BasicPublish(publish))
    );
}

/// Five bits in one octet, the first lowest, and the table behind them.
// req: METHOD-1
#[test]
fn queue_declare_packs_its_bits() {
    let declare = queue::Declare {
        queue: ShortString::from_static("q"),
        durable: true,
        auto_delete: true,
        arguments: FieldTable::from([("x", FieldValue::LongInt(1))]),
        ..Default::default()
    };
    let octets = b"\x00\x32\x00\x0a\x00\x00\x01q\x0a\x00\x00\x00\x07\x01xI\x00\x00\x00\x01";
    assert_eq!(encoded(&declare).as_ref(), octets);
    assert_eq!(
        Method::decode(&Bytes::from_static(octets)),
        Ok(Method::QueueDeclare(declare))
    );
}

// req: METHOD-1
#[test]
fn bits_without_a_field_are_ignored() {
    let payload = b"\x00\x3c\x00\x0a\x00\x00\x00\x00\x00\x01\xfe";
    let qos = basic::Qos {
        prefetch_count: 1,
        ..Default::default()
    };
    assert_eq!(
        Method::decode(&Bytes::from_static(payload)),
        Ok(Method::BasicQos(qos))
    );
}

/// The broker writes the reserved strings of open-ok, channel.open-ok and get-empty: empty, not
/// absent.
// req: METHOD-5
#[test]
fn reserved_fields_are_written_as_zero_and_read_over() {
    assert_eq!(
        encoded(&connection::OpenOk {}).as_ref(),
        b"\x00\x0a\x00\x29\x00"
    );
    assert_eq!(
        encoded(&channel::OpenOk {}).as_ref(),
        b"\x00\x14\x00\x0b\x00\x00\x00\x00"
    );
    assert_eq!(
        encoded(&basic::GetEmpty {}).as_ref(),
        b"\x00\x3c\x00\x48\x00"
    );
    let open = Method::decode(&Bytes::from_static(b"\x00\x0a\x00\x28\x01/\x03abc\x01")).unwrap();
    let virtual_host = ShortString::from_static("/");
    assert_eq!(
        open,
        Method::ConnectionOpen(connection::Open { virtual_host })
    );
}

// req: METHOD-2
#[test]
fn unknown_methods_close_the_socket() {
    for (payload, class_id, method_id) in [
        (&b"\x00\x63\x00\x0a"[..], 99, 10),
        (b"\x00\x32\x00\x63", 50, 99),
    ] {
        let error = error_of(payload);
        assert_eq!(
            error,
            DecodeError::UnknownMethod {
                class_id,
                method_id
            }
        );
        assert_eq!(error.reply_code(), None);
    }
}

// req: METHOD-2
#[test]
fn unknown_type_letter_in_a_table_closes_the_socket() {
    let error = error_of(b"\x00\x32\x00\x0a\x00\x00\x01q\x00\x00\x00\x00\x04\x01kz\x00");
    assert_eq!(
        error,
        DecodeError::UnknownFieldType {
            class_id: 50,
            method_id: 10,
            letter: b'z'
        }
    );
    assert_eq!(error.reply_code(), None);
}

// req: METHOD-3
#[test]
fn wrong_arguments_are_quoted_in_a_501() {
    for (payload, ids, text) in [
        // queue.declare cut off in its queue name
        (
            &b"\x00\x32\x00\x0a\x00\x00\x05he"[..],
            (50, 10),
            "<<0,0,5,104,101>>",
        ),
        // two octets behind basic.qos
        (
            b"\x00\x3c\x00\x0a\x00\x00\x00\x00\x00\x01\x00zz",
            (60, 10),
            "<<0,0,0,0,0,1,0,122,122>>",
        ),
        // a table that claims 255 octets and has four
        (
            b"\x00\x32\x00\x0a\x00\x00\x01q\x00\x00\x00\x00\xff\x01kt\x01",
            (50, 10),
            "<<0,0,1,113,0,0,0,0,255,1,107,116,1>>",
        ),
        // basic.ack without its bits
        (
            b"\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01",
            (60, 80),
            "<<0,0,0,0,0,0,0,1>>",
        ),
    ] {
        let error = error_of(payload);
        assert_eq!(error.reply_code(), Some(ReplyCode::FrameError));
        assert_eq!((error.class_id(), error.method_id()), ids);
        assert_eq!(error.to_string(), format!("cannot decode {text}"));
    }
}

/// However many octets there are, the text is bounded, and cut where RabbitMQ cuts it.
// req: METHOD-3
#[test]
fn text_about_a_huge_method_is_bounded() {
    let mut payload = b"\x00\x3c\x00\x0a".to_vec();
    payload.resize(100_000, 0);
    let text = ReplyCode::FrameError.text(error_of(&payload));
    let expected = format!("FRAME_ERROR - cannot decode <<{}", "0,".repeat(111));
    assert_eq!(
        text,
        format!("{}...", expected.get(..252).unwrap()).as_str()
    );
}

// req: METHOD-4
#[test]
fn table_beyond_its_bounds_is_a_502() {
    let mut payload = b"\x00\x32\x00\x0a\x00\x00\x01q\x00".to_vec();
    let elements = b"\x00V".repeat(4_097);
    payload.extend(u32::try_from(elements.len()).unwrap().to_be_bytes());
    payload.extend(elements);
    let error = error_of(&payload);
    let limit = FieldError::TooManyElements;
    assert_eq!(
        error,
        DecodeError::Limit {
            class_id: 50,
            method_id: 10,
            limit
        }
    );
    assert_eq!(error.reply_code(), Some(ReplyCode::SyntaxError));
}

#[test]
fn payload_without_ids_is_cut_off() {
    let error = error_of(b"\x00\x32");
    assert_eq!((error.class_id(), error.method_id()), (0, 0));
    assert_eq!(error.reply_code(), Some(ReplyCode::FrameError));
}

#[test]
fn secrets_do_not_show() {
    let response = Bytes::from_static(b"\0guest\0swordfish").into();
    let start_ok = connection::StartOk {
        response,
        ..Default::default()
    };
    let shown = format!("{:?}", Method::from(start_ok));
    assert!(!shown.contains("swordfish"), "{shown}");
    assert!(shown.contains("Secret(16 bytes)"), "{shown}");
}

#[test]
fn all_methods_stand_in_order_and_once() {
    assert_eq!(Method::ALL.len(), 66);
    assert!(Method::ALL.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
}
