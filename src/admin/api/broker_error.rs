//! What the broker refuses, as an answer of the API.

use crate::amqp::reply::ReplyCode;
use crate::broker::Error;

use super::error::ApiError;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        match error.reply_code() {
            ReplyCode::NotFound => Self::missing(reason),
            ReplyCode::AccessRefused => Self::access_refused(),
            ReplyCode::InternalError => Self::storage(reason),
            _ => match error {
                Error::VhostNotFound { .. } => Self::missing("vhost_not_found"),
                Error::VhostAccessRefused { .. } => Self::access_refused(),
                Error::VhostProtected { .. } => Self::precondition_failed(reason),
                _ => Self::bad_request(reason),
            },
        }
    }
}
