//! One account, or whoever a token speaks for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::definitions::UserRecord;
use super::super::events::INTERNAL_USER;
use super::super::name::Name;
use super::password::PasswordHash;
use super::token::{Token, TokenRights};

/// An account.
#[derive(Clone, Debug)]
pub struct User {
    pub(super) name: Name,
    pub(super) tags: Vec<String>,
    pub(super) password: Option<PasswordHash>,
    pub(super) limits: Limits,
    /// What its token allows, if it came with one: then the account of this name, if there is any, gives no right.
    pub(super) token: Option<Arc<TokenRights>>,
}

impl User {
    /// Who acts when nobody asked for it; cannot log in.
    #[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
    pub(crate) fn internal() -> Self {
        Self {
            name: Name::from(INTERNAL_USER),
            tags: Vec::new(),
            password: None,
            limits: Limits::default(),
            token: None,
        }
    }

    /// Whoever a good token speaks for.
    pub(super) fn of_token(token: &Token) -> Self {
        Self {
            name: Name::from(token.user.as_str()),
            tags: token.tags(),
            password: None,
            limits: Limits::default(),
            token: Some(Arc::new(TokenRights::new(token))),
        }
    }

    /// Until when its token holds, in seconds since 1970; none without a token, or for ever.
    #[must_use]
    pub fn expires_unix_s(&self) -> Option<u64> {
        self.token.as_ref()?.expires_unix_s()
    }

    /// Whether it logged in by a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The name it logs in with.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What it may do outside vhosts: `administrator`, `monitoring`, `policymaker`, `management`,
    /// `impersonator`, or anything else.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The hash of its password; without one it cannot log in with a password.
    #[must_use]
    pub fn password(&self) -> Option<&PasswordHash> {
        self.password.as_ref()
    }

    /// How many connections and channels it may have.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }
}

/// How many connections, channels or queues there may be; `None` is no limit.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// `max-connections`, of a user or a vhost.
    pub connection_count_max: Option<u64>,
    /// `max-channels`, of a user.
    pub channel_count_max: Option<u64>,
    /// `max-queues`, of a vhost.
    pub queue_count_max: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&User> for UserRecord {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.as_bytes().to_vec(),
            tags: user.tags.clone(),
            password: user.password.as_ref().map(|hash| hash.as_bytes().to_vec()),
        }
    }
}
