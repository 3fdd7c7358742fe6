//! What ends a channel or the connection: one value with all that the close method carries.
//!
//! Owns: the mapping from broker, codec and protocol errors to reply code, text, class and method.
//! Spec: AMQP 0-9-1 §4.8; texts and scopes as measured from RabbitMQ 3.10.8.

use std::fmt;

use crate::amqp::field::ShortString;
use crate::amqp::frame::FrameError;
use crate::amqp::header::HeaderError;
use crate::amqp::method::DecodeError;
use crate::amqp::reply::ReplyCode;
use crate::broker::Error as BrokerError;

/// Class and method id of the method at fault; 0 and 0 where no method is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct MethodId {
    pub(super) class_id: u16,
    pub(super) method_id: u16,
}

impl MethodId {
    /// `basic.publish`, which content belongs to.
    pub(super) const PUBLISH: Self = Self {
        class_id: 60,
        method_id: 40,
    };
}

/// How far a failure reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// The channel is closed, the connection goes on.
    Channel,
    /// The connection is closed.
    Connection,
    /// The socket is closed without a word, as RabbitMQ does where it fails itself.
    Socket,
}

/// Why a channel or the connection ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    pub(super) reach: Reach,
    pub(super) code: ReplyCode,
    pub(super) text: ShortString,
    pub(super) method: MethodId,
}

impl Failure {
    /// A failure whose code tells how far it reaches.
    pub(super) fn new(code: ReplyCode, explanation: impl fmt::Display, method: MethodId) -> Self {
        let reach = if code.is_connection_error() {
            Reach::Connection
        } else {
            Reach::Channel
        };
        Self {
            reach,
            code,
            text: code.text(explanation),
            method,
        }
    }

    /// A failure of the whole connection, whatever its code.
    pub(super) fn connection(
        code: ReplyCode,
        explanation: impl fmt::Display,
        method: MethodId,
    ) -> Self {
        Self {
            reach: Reach::Connection,
            ..Self::new(code, explanation, method)
        }
    }

    /// The socket goes without a word; `explanation` is for the log.
    pub(super) fn socket(explanation: impl fmt::Display) -> Self {
        let code = ReplyCode::InternalError;
        Self {
            reach: Reach::Socket,
            ..Self::new(code, explanation, MethodId::default())
        }
    }

    /// 505 with RabbitMQ's words.
    pub(super) fn unexpected_frame(explanation: impl fmt::Display, method: MethodId) -> Self {
        Self::new(ReplyCode::UnexpectedFrame, explanation, method)
    }

    /// 541 without a word more, as RabbitMQ does where it fails on what a client sent.
    pub(super) fn internal() -> Self {
        Self::new(ReplyCode::InternalError, "", MethodId::default())
    }

    /// A short string of a method that is not UTF-8, which RabbitMQ takes in `basic.publish` alone.
    #[cold]
    pub(super) fn not_text(method: MethodId) -> Self {
        let explanation = "Malformed UTF-8 in shortstr";
        Self::connection(ReplyCode::FrameError, explanation, method)
    }

    /// What the broker refused, on behalf of `method`.
    pub(super) fn broker(error: &BrokerError, method: MethodId) -> Self {
        Self::new(error.reply_code(), error, method)
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Self::connection(error.reply_code(), error, MethodId::default())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let method = MethodId {
            class_id: error.class_id(),
            method_id: error.method_id(),
        };
        match error.reply_code() {
            Some(code) => Self::connection(code, error, method),
            None => Self::socket(error),
        }
    }
}

impl From<HeaderError> for Failure {
    fn from(error: HeaderError) -> Self {
        match error.reply_code() {
            ReplyCode::InternalError => Self::internal(),
            code => Self::connection(code, error, MethodId::PUBLISH),
        }
    }
}
