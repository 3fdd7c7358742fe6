//! Turns a list of fields into a method: its struct, and reading and writing it.
//!
//! ```text
//! method! {
//!     /// What it asks for.
//!     Name = class id, method id, "class.name" {
//!         _: u16,                       reserved fields at the front, read over, written as zero
//!         field: ShortString,           fields in the order of the wire
//!         [first_bit, second_bit]       bits packed into one octet, the first is the lowest
//!         field: FieldTable,            fields behind the bits
//!         ; ShortString, u8             reserved fields at the end
//!     }
//! }
//! ```
//! No method of 0-9-1 has more than eight bits, or two groups of them.

use bytes::Bytes;
use nom::IResult;

use crate::amqp::field::FieldError;

/// The arguments of a method: what is behind class and method id.
pub(super) trait Arguments: Sized {
    /// Reads the arguments; strings and tables become slices of `owner`, in which `input` lies.
    fn parse<'a>(input: &'a [u8], owner: &Bytes) -> IResult<&'a [u8], Self, FieldError>;
}

/// Defines one method; the module's documentation has the form.
// req: METHOD-1
// req: METHOD-5
macro_rules! method {
    (
        $(#[$meta:meta])*
        $name:ident = $class_id:literal, $method_id:literal, $text:literal {
            $(_: $head:ty,)*
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
            $(
                [$($(#[$bit_meta:meta])* $bit:ident),+ $(,)?]
                $($(#[$last_meta:meta])* $last:ident: $last_type:ty,)*
            )?
            $(; $($tail:ty),+)?
        }
    ) => {
        $(#[$meta])*
        #[doc = concat!("\n\n`", $text, "`, class ", $class_id, ", method ", $method_id, ".")]
        #[derive(Clone, Debug, Default, Eq, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            $(
                $($(#[$bit_meta])* pub $bit: bool,)+
                $($(#[$last_meta])* pub $last: $last_type,)*
            )?
        }

        impl $name {
            /// Class id.
            pub const CLASS_ID: u16 = $class_id;
            /// Method id within the class.
            pub const METHOD_ID: u16 = $method_id;
            /// Name as in the standard.
            pub const NAME: &'static str = $text;
            /// The first four octets of the payload.
            pub(super) const ID: u32 = $class_id << 16 | $method_id;

            /// Whether all of its short strings are UTF-8.
            #[inline]
            pub(super) fn is_text(&self) -> bool {
                $(
                    if !$crate::amqp::field::Field::is_text(&self.$field) {
                        return false;
                    }
                )*
                $($(
                    if !$crate::amqp::field::Field::is_text(&self.$last) {
                        return false;
                    }
                )*)?
                true
            }
        }

        impl $crate::amqp::method::Arguments for $name {
            #[inline]
            fn parse<'a>(
                input: &'a [u8],
                owner: &bytes::Bytes,
            ) -> nom::IResult<&'a [u8], Self, $crate::amqp::field::FieldError> {
                let _ = owner;
                $(let (input, _) = <$head as $crate::amqp::field::Field>::parse(input, owner)?;)*
                $(
                    let (input, $field) =
                        <$type as $crate::amqp::field::Field>::parse(input, owner)?;
                )*
                $(
                    let (input, mut bits) = <u8 as $crate::amqp::field::Field>::parse(input, owner)?;
                    $(let $bit = $crate::amqp::method::definition::take_bit(&mut bits);)+
                    $(
                        let (input, $last) =
                            <$last_type as $crate::amqp::field::Field>::parse(input, owner)?;
                    )*
                )?
                $($(
                    let (input, _) = <$tail as $crate::amqp::field::Field>::parse(input, owner)?;
                )+)?
                Ok((input, Self { $($field,)* $($($bit,)+ $($last,)*)? }))
            }
        }

        impl $crate::amqp::method::Encode for $name {
            #[inline]
            fn encode(&self, output: &mut bytes::BytesMut) {
                use $crate::amqp::field::Field as _;
                Self::ID.put(output);
                $(<$head>::default().put(output);)*
                $(self.$field.put(output);)*
                $(
                    $crate::amqp::method::definition::pack_bits(&[$(self.$bit),+]).put(output);
                    $(self.$last.put(output);)*
                )?
                $($(<$tail>::default().put(output);)+)?
            }
        }

        #[cfg(test)]
        impl $crate::amqp::field::strategy::Any for $name {
            fn any() -> proptest::strategy::BoxedStrategy<Self> {
                use proptest::strategy::{Just, Strategy as _};
                // A tuple of at least one strategy, also for a method without fields.
                let fields = (
                    Just(()),
                    $($crate::amqp::field::strategy::any::<$type>(),)*
                    $($($crate::amqp::method::definition::any_bit(stringify!($bit)),)+ $($crate::amqp::field::strategy::any::<$last_type>(),)*)?
                );
                fields
                    .prop_map(|((), $($field,)* $($($bit,)+ $($last,)*)?)| Self {
                        $($field,)* $($($bit,)+ $($last,)*)?
                    })
                    .boxed()
            }
        }
    };
}
pub(super) use method;

/// The lowest bit, which is taken away.
#[inline]
pub(super) fn take_bit(bits: &mut u8) -> bool {
    let bit = *bits & 1 != 0;
    *bits >>= 1;
    bit
}

/// Up to eight bits in one octet, the first one lowest.
#[inline]
pub(super) fn pack_bits(bits: &[bool]) -> u8 {
    debug_assert!(bits.len() <= 8);
    bits.iter()
        .rev()
        .fold(0, |octet, bit| octet << 1 | u8::from(*bit))
}

/// A bit of a method in property tests; the name only stands for the repetition.
#[cfg(test)]
pub(super) fn any_bit(_name: &str) -> proptest::strategy::BoxedStrategy<bool> {
    crate::amqp::field::strategy::any()
}
