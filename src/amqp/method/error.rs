//! Why a method frame cannot be decoded, and what RabbitMQ does about it.

use std::fmt;

use bytes::Bytes;

use crate::amqp::field::FieldError;
use crate::amqp::frame::write_numbers;
use crate::amqp::reply::ReplyCode;

/// A method that cannot be decoded; the connection ends, see [`reply_code`](Self::reply_code).
///
/// `Display` is the explanation of the reply text, as RabbitMQ prints it where it does.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A table beyond one of its bounds: 502.
    #[error("{limit}")]
    Limit {
        /// Class of the method.
        class_id: u16,
        /// The method.
        method_id: u16,
        /// Which bound.
        limit: FieldError,
    },
    /// Octets behind the last argument: 501.
    #[error("cannot decode {}", Numbers(arguments))]
    TrailingOctets {
        /// Class of the method.
        class_id: u16,
        /// The method.
        method_id: u16,
        /// All arguments, as they came.
        arguments: Bytes,
    },
    /// The octets end within an argument, or within a table: 501.
    #[error("cannot decode {}", Numbers(arguments))]
    Truncated {
        /// Class of the method; 0 if not even that is there.
        class_id: u16,
        /// The method; 0 if not even that is there.
        method_id: u16,
        /// All arguments, as they came.
        arguments: Bytes,
    },
    /// A type letter in a table that RabbitMQ does not know either: it just closes the socket.
    #[error("unknown field type {letter:#04x} in method {class_id}.{method_id}")]
    UnknownFieldType {
        /// Class of the method.
        class_id: u16,
        /// The method.
        method_id: u16,
        /// The octet in the place of the type letter.
        letter: u8,
    },
    /// A class or method id that does not exist: RabbitMQ just closes the socket.
    #[error("unknown method {class_id}.{method_id}")]
    UnknownMethod {
        /// Class id as it came.
        class_id: u16,
        /// Method id as it came.
        method_id: u16,
    },
}

impl DecodeError {
    /// The code with which the connection is closed; `None` if the socket is to be closed without a
    /// word, as RabbitMQ does.
    // req: METHOD-2
    // req: METHOD-3
    // req: METHOD-4
    pub fn reply_code(&self) -> Option<ReplyCode> {
        match self {
            Self::Limit { .. } => Some(ReplyCode::SyntaxError),
            Self::TrailingOctets { .. } | Self::Truncated { .. } => Some(ReplyCode::FrameError),
            Self::UnknownFieldType { .. } | Self::UnknownMethod { .. } => None,
        }
    }

    /// Class id of the method that `connection.close` must name.
    pub fn class_id(&self) -> u16 {
        self.ids().class_id
    }

    /// Method id of the method that `connection.close` must name.
    pub fn method_id(&self) -> u16 {
        self.ids().method_id
    }

    fn ids(&self) -> MethodIds {
        match *self {
            Self::Limit {
                class_id,
                method_id,
                ..
            }
            | Self::TrailingOctets {
                class_id,
                method_id,
                ..
            }
            | Self::Truncated {
                class_id,
                method_id,
                ..
            }
            | Self::UnknownFieldType {
                class_id,
                method_id,
                ..
            }
            | Self::UnknownMethod {
                class_id,
                method_id,
            } => MethodIds {
                class_id,
                method_id,
            },
        }
    }

    /// A payload too short for class and method id.
    #[cold]
    pub(super) fn no_method(payload: &[u8], owner: &Bytes) -> Self {
        Self::Truncated {
            class_id: 0,
            method_id: 0,
            arguments: owner.slice_ref(payload),
        }
    }

    /// No method has this id.
    #[cold]
    pub(super) fn unknown_method(id: u32) -> Self {
        let MethodIds {
            class_id,
            method_id,
        } = MethodIds::from_id(id);
        Self::UnknownMethod {
            class_id,
            method_id,
        }
    }

    /// The method's fields end before its octets do.
    #[cold]
    pub(super) fn trailing(id: u32, arguments: &[u8], owner: &Bytes) -> Self {
        let MethodIds {
            class_id,
            method_id,
        } = MethodIds::from_id(id);
        Self::TrailingOctets {
            class_id,
            method_id,
            arguments: owner.slice_ref(arguments),
        }
    }

    /// A field of the method could not be read.
    #[cold]
    pub(super) fn from_field(error: FieldError, id: u32, arguments: &[u8], owner: &Bytes) -> Self {
        let MethodIds {
            class_id,
            method_id,
        } = MethodIds::from_id(id);
        match error {
            FieldError::Truncated => Self::Truncated {
                class_id,
                method_id,
                arguments: owner.slice_ref(arguments),
            },
            FieldError::UnknownType { letter } => Self::UnknownFieldType {
                class_id,
                method_id,
                letter,
            },
            FieldError::TableTooLong { .. } | FieldError::TooDeep | FieldError::TooManyElements => {
                Self::Limit {
                    class_id,
                    method_id,
                    limit: error,
                }
            }
        }
    }
}

/// Class and method id of one method.
#[derive(Clone, Copy)]
struct MethodIds {
    class_id: u16,
    method_id: u16,
}

impl MethodIds {
    /// From the first four octets of a method's payload.
    fn from_id(id: u32) -> Self {
        let [c1, c0, m1, m0] = id.to_be_bytes();
        Self {
            class_id: u16::from_be_bytes([c1, c0]),
            method_id: u16::from_be_bytes([m1, m0]),
        }
    }
}

/// Octets as `<<1,2,3>>`, no more than a reply text can hold.
struct Numbers<'a>(&'a [u8]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// An octet takes two characters or more, so these overflow a reply text of 255 bytes, and
        /// the cut hides that the rest is missing.
        const OCTETS_MAX: usize = 128;
        write_numbers(self.0.get(..OCTETS_MAX).unwrap_or(self.0), f)
    }
}
