//! Short and long strings, field values, tables and arrays.
//!
//! Owns: the field grammar with every type that RabbitMQ knows. Tables and arrays are checked once
//! when they are decoded and stay the octets they came as ([`FieldTable`]), so that decoding one
//! costs no memory, whatever it claims to hold.
//! Bounds: [`TABLE_DEPTH_MAX`], [`TABLE_ELEMENTS_MAX`], [`TABLE_BYTES_MAX`].
//! Spec: AMQP 0-9-1 §4.2.1, §4.2.5; `spec/amqp.md` FIELD-1 to FIELD-8.
//!
//! [`TABLE_DEPTH_MAX`]: crate::amqp::limits::TABLE_DEPTH_MAX
//! [`TABLE_ELEMENTS_MAX`]: crate::amqp::limits::TABLE_ELEMENTS_MAX
//! [`TABLE_BYTES_MAX`]: crate::amqp::limits::TABLE_BYTES_MAX

mod parse;
mod secret;
mod short_string;
mod table;
mod value;

pub use parse::FieldError;
pub use secret::Secret;
pub use short_string::{ShortString, ShortStringTooLong};
pub use table::{ArrayIter, FieldArray, FieldTable, TableIter};
pub use value::FieldValue;

pub(super) use parse::{Field, octets, short_bytes, table_elements};

#[cfg(test)]
pub(super) mod strategy;

#[cfg(test)]
mod tests;
