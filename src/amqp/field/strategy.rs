//! Arbitrary fields for property tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::strategy::BoxedStrategy;

use super::{FieldArray, FieldTable, FieldValue, Secret, ShortString};

/// A value of which any can be made.
pub(in crate::amqp) trait Any: Sized {
    /// All of its values, with a preference for small ones.
    fn any() -> BoxedStrategy<Self>;
}

/// All values of a type, with a preference for small ones.
pub(in crate::amqp) fn any<T: Any>() -> BoxedStrategy<T> {
    T::any()
}

/// Types that proptest knows by itself.
macro_rules! any_by_proptest {
    ($($type:ty),+) => {
        $(
            impl Any for $type {
                fn any() -> BoxedStrategy<Self> {
                    proptest::prelude::any::<Self>().boxed()
                }
            }
        )+
    };
}

any_by_proptest!(bool, u8, u16, u32, u64);

impl Any for ShortString {
    fn any() -> BoxedStrategy<Self> {
        let bytes = prop_oneof![
            3 => vec(proptest::prelude::any::<u8>(), 0..=12),
            1 => vec(proptest::prelude::any::<u8>(), 0..=255),
        ];
        bytes
            .prop_map(|bytes| Self::try_from(bytes.as_slice()).expect("at most 255"))
            .boxed()
    }
}

impl Any for Bytes {
    fn any() -> BoxedStrategy<Self> {
        vec(proptest::prelude::any::<u8>(), 0..300)
            .prop_map(Self::from)
            .boxed()
    }
}

impl Any for Secret {
    fn any() -> BoxedStrategy<Self> {
        any::<Bytes>().prop_map(Self::from).boxed()
    }
}

impl Any for FieldTable {
    fn any() -> BoxedStrategy<Self> {
        vec((any::<ShortString>(), any::<FieldValue>()), 0..6)
            .prop_map(Self::from_iter)
            .boxed()
    }
}

impl Any for FieldValue {
    fn any() -> BoxedStrategy<Self> {
        use proptest::prelude::any as native;
        let plain = prop_oneof![
            native::<bool>().prop_map(Self::Boolean),
            native::<i8>().prop_map(Self::ShortShortInt),
            native::<u8>().prop_map(Self::ShortShortUint),
            native::<i16>().prop_map(Self::ShortInt),
            native::<u16>().prop_map(Self::ShortUint),
            native::<i32>().prop_map(Self::LongInt),
            native::<u32>().prop_map(Self::LongUint),
            native::<i64>().prop_map(Self::LongLongInt),
            native::<u32>().prop_map(|bits| Self::Float(f32::from_bits(bits))),
            native::<u64>().prop_map(|bits| Self::Double(f64::from_bits(bits))),
            (native::<u8>(), native::<u32>())
                .prop_map(|(scale, value)| Self::Decimal { scale, value }),
            any::<Bytes>().prop_map(Self::LongString),
            native::<u64>().prop_map(Self::Timestamp),
            Just(Self::Void),
            any::<Bytes>().prop_map(Self::ByteArray),
        ];
        plain
            .prop_recursive(4, 24, 5, |inner| {
                let named = vec((any::<ShortString>(), inner.clone()), 0..5);
                prop_oneof![
                    vec(inner, 0..5).prop_map(|values| Self::Array(FieldArray::from_iter(values))),
                    named.prop_map(|values| Self::Table(FieldTable::from_iter(values))),
                ]
            })
            .boxed()
    }
}

/// A value inside that many arrays and tables, in turn.
pub(in crate::amqp) fn nested(levels: u32) -> FieldValue {
    (0..levels).fold(FieldValue::Void, |inner, level| {
        if level % 2 == 0 {
            FieldValue::Array(FieldArray::from_iter([inner]))
        } else {
            FieldValue::Table(FieldTable::from([("in", inner)]))
        }
    })
}
