//! Fields: round trips, bounds, and what a table gives back.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::parse::Field;
use super::strategy::{any, nested};
use super::*;
use crate::amqp::limits::{TABLE_BYTES_MAX, TABLE_DEPTH_MAX, TABLE_ELEMENTS_MAX};

/// Writes a field, reads it again, and gives what was read and what was left.
fn round_trip<T: Field>(field: &T) -> (T, usize) {
    let mut output = BytesMut::new();
    field.put(&mut output);
    let octets = output.freeze();
    let (rest, field) = T::parse(&octets, &octets).expect("what was written can be read");
    (field, rest.len())
}

/// Reads a table of these elements.
fn table_of(elements: &[u8]) -> Result<FieldTable, FieldError> {
    let mut octets = BytesMut::new();
    octets.put_u32(u32::try_from(elements.len()).unwrap());
    octets.put_slice(elements);
    let octets = octets.freeze();
    FieldTable::parse(&octets, &octets)
        .map(|(_, table)| table)
        .map_err(FieldError::from)
}

proptest! {
    // req: FIELD-1
    // req: FIELD-2
    #[test]
    fn fields_come_back_as_they_were(
        short in any::<ShortString>(), long in any::<Bytes>(), table in any::<FieldTable>()
    ) {
        prop_assert_eq!(round_trip(&short), (short, 0));
        prop_assert_eq!(round_trip(&long), (long, 0));
        prop_assert_eq!(round_trip(&table), (table, 0));
    }

    /// Values taken out one by one make the same table again, octet by octet.
    // req: FIELD-6
    #[test]
    fn table_is_the_sum_of_its_values(table in any::<FieldTable>()) {
        let again: FieldTable = table.iter().collect();
        prop_assert_eq!(again.elements(), table.elements());
        prop_assert_eq!(table.iter().count(), table.len());
    }

    /// What is cut off anywhere is an error, and never a panic.
    // req: FIELD-3
    #[test]
    fn cut_table_is_an_error(table in any::<FieldTable>(), cut in 0_usize..400) {
        let mut output = BytesMut::new();
        table.put(&mut output);
        output.truncate(output.len().saturating_sub(1 + cut % output.len()));
        let octets = output.freeze();
        prop_assert!(FieldTable::parse(&octets, &octets).is_err());
    }

    /// Whatever octets a table is made of, it is refused, or gives its values back.
    // req: FIELD-3
    #[test]
    fn any_octets_are_refused_or_understood(octets in any::<Bytes>()) {
        if let Ok(table) = FieldTable::from_elements(octets) {
            let again: FieldTable = table.iter().collect();
            prop_assert_eq!(again, table);
        }
    }
}

// req: FIELD-1
#[test]
fn short_string_holds_255_bytes_and_no_more() {
    assert_eq!(ShortString::try_from("x".repeat(255)).unwrap().len(), 255);
    assert_eq!(
        ShortString::try_from("x".repeat(256)),
        Err(ShortStringTooLong { got_bytes: 256 })
    );
}

// req: FIELD-1
#[test]
fn short_string_need_not_be_text() {
    let octets = Bytes::from_static(b"\x03\xff\x00\xfe");
    let (rest, short) = ShortString::parse(&octets, &octets).unwrap();
    assert!(rest.is_empty());
    assert_eq!(short.as_bytes(), b"\xff\x00\xfe");
    assert_eq!(short.as_str(), None);
}

/// One octet form of each type, with RabbitMQ's letters.
// req: FIELD-2
#[test]
fn every_type_letter_is_rabbitmqs() {
    let cases: [(&[u8], FieldValue, &str); 18] = [
        (b"t\x01", FieldValue::Boolean(true), "bool"),
        (b"b\xfb", FieldValue::ShortShortInt(-5), "byte"),
        (b"B\xc8", FieldValue::ShortShortUint(200), "unsignedbyte"),
        (b"s\xfe\xd4", FieldValue::ShortInt(-300), "short"),
        (b"u\xea\x60", FieldValue::ShortUint(60_000), "unsignedshort"),
        (b"I\xff\xff\xff\xff", FieldValue::LongInt(-1), "signedint"),
        (
            b"i\xff\xff\xff\xff",
            FieldValue::LongUint(u32::MAX),
            "unsignedint",
        ),
        (
            b"l\xff\xff\xff\xff\xff\xff\xff\xfe",
            FieldValue::LongLongInt(-2),
            "long",
        ),
        (
            b"L\xff\xff\xff\xff\xff\xff\xff\xfe",
            FieldValue::LongLongInt(-2),
            "long",
        ),
        (b"f\x3f\xc0\x00\x00", FieldValue::Float(1.5), "float"),
        (
            b"d\x40\x02\x00\x00\x00\x00\x00\x00",
            FieldValue::Double(2.25),
            "double",
        ),
        (
            b"D\x02\x00\x00\x01\x3a",
            FieldValue::Decimal {
                scale: 2,
                value: 314,
            },
            "decimal",
        ),
        (b"S\x00\x00\x00\x02hi", FieldValue::from("hi"), "longstr"),
        (
            b"A\x00\x00\x00\x01V",
            FieldArray::from_iter([FieldValue::Void]).into(),
            "array",
        ),
        (
            b"T\x00\x00\x00\x00\x3b\x9a\xca\x00",
            FieldValue::Timestamp(1_000_000_000),
            "timestamp",
        ),
        (
            b"F\x00\x00\x00\x00",
            FieldValue::Table(FieldTable::EMPTY),
            "table",
        ),
        (b"V", FieldValue::Void, "void"),
        (
            b"x\x00\x00\x00\x01\x00",
            FieldValue::ByteArray(Bytes::from_static(b"\0")),
            "binary",
        ),
    ];
    for (octets, value, type_name) in cases {
        let table = table_of(&[b"\x01k", octets].concat()).unwrap();
        assert_eq!(table.get("k"), Some(value.clone()));
        assert_eq!(value.type_name(), type_name);
    }
}

// req: FIELD-2
#[test]
fn any_octet_but_zero_is_true() {
    assert_eq!(
        table_of(b"\x01kt\x07").unwrap().get("k"),
        Some(FieldValue::Boolean(true))
    );
    assert_eq!(
        table_of(b"\x01kt\x00").unwrap().get("k"),
        Some(FieldValue::Boolean(false))
    );
}

// req: FIELD-2
#[test]
fn unknown_type_letter_is_named() {
    assert_eq!(
        table_of(b"\x01kz\x00"),
        Err(FieldError::UnknownType { letter: b'z' })
    );
    let inside = b"\x01kA\x00\x00\x00\x01z";
    assert_eq!(
        table_of(inside),
        Err(FieldError::UnknownType { letter: b'z' })
    );
}

// req: FIELD-3
#[test]
fn inner_length_beyond_the_outer_one_is_refused() {
    assert_eq!(
        table_of(b"\x01kA\x00\x00\x00\x09V"),
        Err(FieldError::Truncated)
    );
    assert_eq!(
        table_of(b"\x01kS\xff\xff\xff\xff"),
        Err(FieldError::Truncated)
    );
    assert_eq!(table_of(b"\xffk"), Err(FieldError::Truncated));
    assert_eq!(table_of(b"\x01k"), Err(FieldError::Truncated));
}

/// The outermost table is level 1, so that values may lie in 16 tables and arrays.
// req: FIELD-4
#[test]
fn sixteen_levels_are_read_and_seventeen_refused() {
    for (levels, accepted) in [(TABLE_DEPTH_MAX - 1, true), (TABLE_DEPTH_MAX, false)] {
        let table = FieldTable::from([("top", nested(levels))]);
        let result = FieldTable::from_elements(table.elements().clone());
        assert_eq!(
            result,
            if accepted {
                Ok(table)
            } else {
                Err(FieldError::TooDeep)
            }
        );
    }
}

/// Ten thousand levels take no more stack than seventeen.
// req: FIELD-4
#[test]
fn bomb_of_nested_arrays_is_refused() {
    let mut elements = BytesMut::new();
    for left in (0..10_000_u32).rev() {
        elements.put_u8(b'A');
        elements.put_u32(left * 5);
    }
    let named = [b"\x01k", elements.as_ref()].concat();
    assert_eq!(table_of(&named), Err(FieldError::TooDeep));
}

/// Elements of inner tables count too, so that many small ones are no way around the bound.
// req: FIELD-5
#[test]
fn elements_are_counted_through_all_levels() {
    let most = usize::try_from(TABLE_ELEMENTS_MAX).unwrap();
    for (inner_count, accepted) in [(most - 1, true), (most, false)] {
        let inner = FieldArray::from_iter((0..inner_count).map(|_| FieldValue::Void));
        let elements = FieldTable::from([("k", inner.into())]).elements().clone();
        let result = FieldTable::from_elements(elements).map(|table| table.len());
        assert_eq!(
            result,
            if accepted {
                Ok(1)
            } else {
                Err(FieldError::TooManyElements)
            }
        );
    }
}

// req: FIELD-5
#[test]
fn table_is_at_most_64_kib_long() {
    let overhead_bytes = "k".len() + 1 + 1 + 4;
    for (text_bytes, accepted) in [
        (TABLE_BYTES_MAX - overhead_bytes, true),
        (TABLE_BYTES_MAX - overhead_bytes + 1, false),
    ] {
        let table = FieldTable::from([("k", FieldValue::from("x".repeat(text_bytes)))]);
        let got_bytes = table.elements().len();
        let result = table_of(table.elements()).map(|table| table.len());
        assert_eq!(
            result,
            if accepted {
                Ok(1)
            } else {
                Err(FieldError::TableTooLong { got_bytes })
            }
        );
    }
}

// req: FIELD-6
#[test]
fn first_of_two_equal_names_counts() {
    let table = FieldTable::from([("k", 1.into()), ("j", 2.into()), ("k", 3.into())]);
    assert_eq!(table.get("k"), Some(FieldValue::LongInt(1)));
    assert_eq!(table.get("nothing"), None);
    assert_eq!(table.len(), 3);
}

#[test]
fn insert_replaces_in_place_or_appends() {
    let mut table = FieldTable::from([("a", 1.into()), ("b", 2.into())]);
    table.insert(ShortString::from_static("a"), "new");
    table.insert(ShortString::from_static("c"), true);
    let expected = FieldTable::from([("a", "new".into()), ("b", 2.into()), ("c", true.into())]);
    assert_eq!(table, expected);
    table.remove("b");
    assert_eq!(
        table,
        FieldTable::from([("a", "new".into()), ("c", true.into())])
    );
}

/// Two spellings of the same values are equal, and hash alike: a boolean's octet may be any but 0.
// req: FIELD-7
#[test]
fn tables_are_compared_by_their_values() {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let hash_of = |table: &FieldTable| {
        let mut hasher = DefaultHasher::new();
        table.hash(&mut hasher);
        hasher.finish()
    };
    let one = table_of(b"\x01kt\x01").unwrap();
    let seven = table_of(b"\x01kt\x07").unwrap();
    assert_ne!(one.elements(), seven.elements());
    assert_eq!(one, seven);
    assert_eq!(hash_of(&one), hash_of(&seven));
    assert_ne!(one, table_of(b"\x01kt\x00").unwrap());
    assert_ne!(one, table_of(b"\x01jt\x01").unwrap());
}

/// A detached value no longer shares the buffer that it was read from.
#[test]
fn detached_values_let_the_read_buffer_go() {
    let octets = Bytes::from(b"\x01q\x00\x00\x00\x02\x00V".to_vec());
    let (rest, short) = ShortString::parse(&octets, &octets).unwrap();
    let (_, table) = FieldTable::parse(rest, &octets).unwrap();
    assert!(!octets.is_unique(), "a decoded value shares its buffer");
    let (kept_short, kept_table) = (short.detached(), table.detached());
    drop((short, table));
    assert!(octets.is_unique());
    assert_eq!(kept_short, "q");
    assert_eq!(kept_table.get(""), Some(FieldValue::Void));
}

#[test]
fn integers_of_all_widths_are_numbers() {
    for value in [
        FieldValue::ShortShortInt(7),
        FieldValue::ShortShortUint(7),
        FieldValue::ShortInt(7),
        FieldValue::ShortUint(7),
        FieldValue::LongInt(7),
        FieldValue::LongUint(7),
        FieldValue::LongLongInt(7),
    ] {
        assert_eq!(value.as_integer(), Some(7));
    }
    assert_eq!(FieldValue::from("7").as_integer(), None);
    assert_eq!(FieldValue::Timestamp(7).as_integer(), None);
}
