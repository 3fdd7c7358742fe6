//! A message to publish.

use std::time::Duration;

use bytes::Bytes;

use super::EmbedError;
use crate::amqp::field::{FieldValue, ShortString};
use crate::amqp::header::Properties;

/// Longest expiration, in milliseconds: ten years, as over AMQP.
const EXPIRATION_MS_MAX: u64 = 315_360_000_000;

/// A body with its properties.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub(super) body: Bytes,
    pub(super) properties: Properties,
    pub(super) mandatory: bool,
}

impl Message {
    /// A transient message without properties. A body at or above the broker's payload threshold is stored as a
    /// payload, as over AMQP.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// In a durable queue it survives a restart.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.properties.delivery_mode = Some(2);
        self
    }

    /// If no queue takes it, publishing is an error.
    #[must_use]
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// It waits no longer than this in a queue, to the millisecond.
    #[must_use]
    pub fn expires_after(mut self, wait: Duration) -> Self {
        let text = wait.as_millis().to_string();
        self.properties.expiration = Some(ShortString::truncated(text));
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        let headers = self.properties.headers.get_or_insert_default();
        headers.insert(ShortString::from_static(name), value);
        self
    }

    /// With these properties in the place of all that were set.
    #[must_use]
    pub fn with_properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// Refuses properties that a client over AMQP would be refused for.
    pub(super) fn check(&self, user: &[u8]) -> Result<(), EmbedError> {
        let invalid = |what: String| Err(EmbedError::Invalid(what));
        let properties = &self.properties;
        if let Some(claimed) = &properties.user_id
            && claimed.as_bytes() != user
        {
            return invalid(format!("the user id '{claimed}' is another's"));
        }
        if let Some(mode) = properties.delivery_mode
            && !matches!(mode, 1 | 2)
        {
            return invalid(format!("there is no delivery mode {mode}"));
        }
        if let Some(text) = &properties.expiration {
            let ms = std::str::from_utf8(text.as_bytes())
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            if ms.is_none_or(|ms| ms > EXPIRATION_MS_MAX) {
                return invalid(format!(
                    "the expiration '{text}' is no time in milliseconds"
                ));
            }
        }
        Ok(())
    }
}
