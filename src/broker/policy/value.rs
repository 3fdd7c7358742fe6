//! One value of a policy's definition: what JSON can say.
//!
//! Owns: its forms, and how RabbitMQ's texts show it, which is as an Erlang term.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value in a definition.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum PolicyValue {
    /// `null`
    Null,
    /// `true` or `false`
    Flag(bool),
    /// A number without a fraction.
    Integer(i64),
    /// Another number, in decimal digits.
    Decimal(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Map(Vec<(String, Self)>),
}

impl PolicyValue {
    /// The integer, if it is one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// As Erlang prints it.
impl fmt::Display for PolicyValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Flag(flag) => write!(formatter, "{flag}"),
            Self::Integer(integer) => write!(formatter, "{integer}"),
            Self::Decimal(digits) => formatter.write_str(digits),
            Self::Text(text) => write!(formatter, "<<\"{text}\">>"),
            Self::List(values) => {
                formatter.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(formatter, "{comma}{value}")?;
                }
                formatter.write_str("]")
            }
            Self::Map(pairs) => {
                formatter.write_str("#{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(formatter, "{comma}<<\"{key}\">> => {value}")?;
                }
                formatter.write_str("}")
            }
        }
    }
}
