//! Users, their passwords and what they may do.
//!
//! Owns: accounts, permissions, topic permissions and limits of the whole broker, how they change, and who is let in.
//! A right is decided in one place, `access/rights.rs` ([`Users::authorize`], and [`Users::authorize_topic`] for routing
//! keys). Knows no queue; a right is about names. What is a pattern is `access/pattern.rs`' business.
//! Spec: RabbitMQ's model: per user and vhost one pattern each for configure, write and read.
//! Bounds: [`USERS_MAX`]; a user has at most one entry per vhost, and [`TOPIC_PERMISSIONS_MAX`] for topics.

mod authorizer;
mod password;
mod pattern;
mod permissions;
mod proof;
mod restore;
mod rights;
mod token;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::RwLock;

use super::definitions::{DefinitionStore, PermissionRecord, TopicPermissionRecord, UserRecord};
use super::error::Error;
use super::limits::NAME_BYTES_MAX;
use super::name::Name;
use super::usage::Usage;
use proof::Proofs;

pub use authorizer::{AccessObject, AccessRequest, Authorizer, Verdict};
pub use password::{HashAlgorithm, PasswordHash, SALT_BYTES};
pub use pattern::{PATTERN_BYTES_MAX, Pattern, PatternError};
pub use permissions::{Access, Permissions, TopicPermissions};
pub use token::{Token, TokenAuthority, TokenError};
pub use user::{Limits, User};

/// Accounts of one broker; beyond it no more can be made.
pub(crate) const USERS_MAX: usize = 100_000;
/// Topic permissions of one broker; beyond it no more can be made.
pub(crate) const TOPIC_PERMISSIONS_MAX: usize = 100_000;
/// Tags of one account.
pub const TAGS_MAX: usize = 32;

/// Where a login comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// This machine's loopback addresses.
    Loopback,
    /// Anywhere else.
    Remote,
}

/// Why a login is refused. Whoever tried must not learn which it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// No such user, or not this password.
    #[error("unknown user or wrong password")]
    BadCredentials,
    /// The user may log in from this machine only.
    #[error("user can only connect via localhost")]
    LoopbackOnly,
    /// A token took the place of the password, and is not good.
    #[error("{0}")]
    BadToken(TokenError),
}

/// All accounts and permissions.
#[derive(Debug)]
pub struct Users {
    state: RwLock<State>,
    /// What each user that ever connected has open.
    usage: DashMap<Name, Arc<Usage>>,
    /// Counts changes, so that what was once decided can be remembered.
    generation: AtomicU64,
    /// Users who may log in from this machine only.
    loopback_only: Vec<Name>,
    proofs: Proofs,
    /// Asked before the permissions, if there is one.
    authorizer: Option<Arc<dyn Authorizer>>,
    /// Who knows which tokens are good.
    tokens: RwLock<Option<Arc<dyn TokenAuthority>>>,
    store: DefinitionStore,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<Name, Arc<User>>,
    /// By user, then by vhost.
    permissions: BTreeMap<(Name, Name), Arc<Permissions>>,
    /// By user, then by vhost, then by exchange.
    topics: BTreeMap<(Name, Name, Name), Arc<TopicPermissions>>,
}

/// What a user may do at one topic exchange of a vhost.
#[derive(Clone, Debug)]
pub struct TopicPermissionEntry {
    /// The user.
    pub user: Name,
    /// The vhost.
    pub vhost: Name,
    /// The topic exchange.
    pub exchange: Name,
    /// The patterns of routing keys.
    pub permissions: Arc<TopicPermissions>,
}

impl Users {
    /// `seed` is secret; what is remembered of passwords is keyed with it.
    pub(crate) fn new(loopback_only: Vec<Name>, seed: &[u8; 32], store: DefinitionStore) -> Self {
        Self {
            state: RwLock::default(),
            usage: DashMap::new(),
            generation: AtomicU64::new(0),
            loopback_only,
            proofs: Proofs::new(seed),
            authorizer: None,
            tokens: RwLock::new(None),
            store,
        }
    }

    /// The same, with somebody who is asked before the permissions.
    pub(crate) fn with_authorizer(self, authorizer: Option<Arc<dyn Authorizer>>) -> Self {
        Self { authorizer, ..self }
    }

    /// Checks a login. That takes tens of milliseconds for a password that was hashed with argon2id and is
    /// not yet proven; a task that others wait for should not be the one that calls.
    pub fn authenticate(
        &self,
        name: &[u8],
        password: &[u8],
        origin: Origin,
    ) -> Result<Arc<User>, AuthError> {
        // req: OAUTH-1
        // req: OAUTH-7
        if let Some(verified) = self.verify(password) {
            let token = verified.map_err(AuthError::BadToken)?;
            let user = Arc::new(User::of_token(&token));
            return match user.name.as_bytes().len() <= NAME_BYTES_MAX {
                true => self.check_origin(user, origin),
                false => Err(AuthError::BadCredentials),
            };
        }
        let user = self.state.read().users.get(name).cloned();
        let user = user.ok_or(AuthError::BadCredentials)?;
        let is_right = user
            .password
            .as_ref()
            .is_some_and(|hash| self.proofs.check(&user.name, hash, password));
        if password.is_empty() || !is_right {
            return Err(AuthError::BadCredentials);
        }
        self.check_origin(user, origin)
    }

    /// Whether [`Self::authenticate`] may take tens of milliseconds for this login, or wait for another machine.
    #[must_use]
    pub(crate) fn takes_long(&self, name: &[u8], password: &[u8]) -> bool {
        if self.tokens.read().is_some() {
            return true;
        }
        self.user(name).is_some_and(|user| {
            let hash = user.password.as_ref();
            hash.is_some_and(|hash| self.proofs.takes_long(&user.name, hash, password))
        })
    }

    /// Says from now on which tokens are good; without anybody who does, tokens are passwords.
    pub fn set_token_authority(&self, authority: Option<Arc<dyn TokenAuthority>>) {
        *self.tokens.write() = authority;
    }

    /// What stands in the place of a password, if it is a token.
    fn verify(&self, token: &[u8]) -> Option<Result<Token, TokenError>> {
        let authority = self.tokens.read().clone()?;
        authority.verify(token)
    }

    /// Another token takes the place of the one that `user` logged in with. Whoever has none keeps its password.
    ///
    /// # Errors
    /// If it is not good, or somebody else's.
    // req: OAUTH-5
    pub fn renew(&self, user: &User, token: &[u8]) -> Result<(), AuthError> {
        let Some(rights) = &user.token else {
            return Ok(());
        };
        let verified = self.verify(token);
        let verified = verified.ok_or(AuthError::BadCredentials)?;
        let token = verified.map_err(AuthError::BadToken)?;
        if token.user.as_bytes() != user.name.as_bytes() {
            return Err(AuthError::BadCredentials);
        }
        rights.renew(&token);
        self.changed();
        Ok(())
    }

    /// The time of the token is over that `user` logged in with: it gives no right any more.
    // req: OAUTH-4
    pub fn expire(&self, user: &User) {
        if let Some(rights) = &user.token {
            rights.expire();
            self.changed();
        }
    }

    /// Lets a user in whose identity something else than a password has shown.
    pub fn admit(&self, name: &[u8], origin: Origin) -> Result<Arc<User>, AuthError> {
        let user = self.user(name).ok_or(AuthError::BadCredentials)?;
        self.check_origin(user, origin)
    }

    fn check_origin(&self, user: Arc<User>, origin: Origin) -> Result<Arc<User>, AuthError> {
        if origin == Origin::Remote && self.loopback_only.contains(&user.name) {
            return Err(AuthError::LoopbackOnly);
        }
        Ok(user)
    }

    /// The account of this name.
    #[must_use]
    pub fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.state.read().users.get(name).cloned()
    }

    /// What a user has open, and how much it may have.
    pub(crate) fn usage(&self, name: &Name) -> (Arc<Usage>, Limits) {
        let limits = self.user(name.as_bytes());
        let limits = limits.map(|user| user.limits().clone()).unwrap_or_default();
        let usage = Arc::clone(&self.usage.entry(name.clone()).or_default());
        (usage, limits)
    }

    /// All accounts, by name.
    #[must_use]
    pub fn users(&self) -> Vec<Arc<User>> {
        self.state.read().users.values().cloned().collect()
    }

    /// Creates or changes an account. Without a hash it cannot log in with a password.
    pub fn put_user(
        &self,
        name: &Name,
        password: Option<PasswordHash>,
        tags: Vec<String>,
    ) -> Result<(), Error> {
        let mut state = self.state.write();
        let before = state.users.get(name);
        if before.is_none() && state.users.len() >= USERS_MAX {
            return Err(Error::AccountLimitReached {
                limited: "user",
                count_max: USERS_MAX,
            });
        }
        let user = User {
            name: name.clone(),
            tags,
            password,
            limits: before.map(|user| user.limits.clone()).unwrap_or_default(),
            token: None,
        };
        self.store.put_user(&UserRecord::from(&user))?;
        self.tell_of_user(before.map(|before| &**before), &user);
        state.users.insert(name.clone(), Arc::new(user));
        self.changed();
        Ok(())
    }

    /// RabbitMQ's events for what changed of a user.
    fn tell_of_user(&self, before: Option<&User>, user: &User) {
        let name = user.name.as_bytes();
        match before {
            None => self.store.tell("user.created", |headers| {
                headers.text("name", name);
            }),
            Some(before) if before.password != user.password => {
                let event = match user.password {
                    Some(_) => "user.password.changed",
                    None => "user.password.cleared",
                };
                self.store.tell(event, |headers| {
                    headers.text("name", name);
                });
            }
            Some(_) => {}
        }
        if before.map_or(!user.tags.is_empty(), |before| before.tags != user.tags) {
            self.store.tell("user.tags.set", |headers| {
                headers.text("name", name).texts("tags", &user.tags);
            });
        }
    }

    /// Sets how many connections and channels a user may have; false if there is no such user.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_user_limits(&self, name: &[u8], limits: Limits) -> Result<bool, Error> {
        let mut state = self.state.write();
        let Some(before) = state.users.get(name) else {
            return Ok(false);
        };
        let user = User {
            limits,
            ..User::clone(before)
        };
        self.store.put_user_limits(&user.name, &user.limits)?;
        state.users.insert(user.name.clone(), Arc::new(user));
        Ok(true)
    }

    /// Deletes an account with its permissions; false if there is none.
    pub fn delete_user(&self, name: &[u8]) -> Result<bool, Error> {
        let mut state = self.state.write();
        let Some(user) = state.users.get(name).cloned() else {
            return Ok(false);
        };
        self.store.delete_user(user.name())?;
        state.users.remove(name);
        self.usage.remove(name);
        self.proofs.forget(user.name());
        let gone: Vec<_> = state
            .permissions
            .keys()
            .filter(|(user, _)| user.as_bytes() == name)
            .cloned()
            .collect();
        for key in gone {
            self.store.delete_permissions(&key.0, &key.1)?;
            state.permissions.remove(&key);
        }
        self.forget_topics_in(&mut state, |(user, _, _)| user.as_bytes() == name)?;
        if !user.limits.is_empty() {
            self.store.delete_user_limits(&user.name)?;
        }
        self.store.tell("user.deleted", |headers| {
            headers.text("name", name);
        });
        self.changed();
        Ok(true)
    }

    /// Sets what a user may do in a vhost.
    pub fn put_permissions(
        &self,
        user: &Name,
        vhost: &Name,
        permissions: Permissions,
    ) -> Result<(), Error> {
        let mut state = self.state.write();
        self.store
            .put_permissions(&PermissionRecord::new(user, vhost, &permissions))?;
        self.store.tell("permission.created", |headers| {
            headers
                .text("user", user.as_bytes())
                .text("vhost", vhost.as_bytes())
                .text("configure", permissions.configure())
                .text("write", permissions.write())
                .text("read", permissions.read());
        });
        let key = (user.clone(), vhost.clone());
        state.permissions.insert(key, Arc::new(permissions));
        self.changed();
        Ok(())
    }

    /// Takes all rights of a user in a vhost; false if it has none.
    pub fn delete_permissions(&self, user: &Name, vhost: &Name) -> Result<bool, Error> {
        let mut state = self.state.write();
        let key = (user.clone(), vhost.clone());
        if !state.permissions.contains_key(&key) {
            return Ok(false);
        }
        self.store.delete_permissions(user, vhost)?;
        state.permissions.remove(&key);
        self.store.tell("permission.deleted", |headers| {
            headers
                .text("user", user.as_bytes())
                .text("vhost", vhost.as_bytes());
        });
        self.changed();
        Ok(true)
    }

    /// Sets what a user may do at a topic exchange. Without an entry all routing keys are allowed there.
    ///
    /// # Errors
    /// If there are too many, or it cannot be written.
    pub fn put_topic_permissions(
        &self,
        user: &Name,
        vhost: &Name,
        exchange: &Name,
        permissions: TopicPermissions,
    ) -> Result<(), Error> {
        let mut state = self.state.write();
        let key = (user.clone(), vhost.clone(), exchange.clone());
        if !state.topics.contains_key(&key) && state.topics.len() >= TOPIC_PERMISSIONS_MAX {
            return Err(Error::AccountLimitReached {
                limited: "topic permission",
                count_max: TOPIC_PERMISSIONS_MAX,
            });
        }
        let record = TopicPermissionRecord::new(user, vhost, exchange, &permissions);
        self.store.put_topic_permissions(&record)?;
        self.store.tell("topic.permission.created", |headers| {
            headers
                .text("user", user.as_bytes())
                .text("vhost", vhost.as_bytes())
                .text("exchange", exchange.as_bytes())
                .text("write", permissions.write())
                .text("read", permissions.read());
        });
        state.topics.insert(key, Arc::new(permissions));
        self.changed();
        Ok(())
    }

    /// Takes away topic permissions of a user in a vhost, at one exchange or at all; false if there are
    /// none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn delete_topic_permissions(
        &self,
        user: &Name,
        vhost: &Name,
        exchange: Option<&Name>,
    ) -> Result<bool, Error> {
        let mut state = self.state.write();
        let found = self.forget_topics_in(&mut state, |(of_user, of_vhost, of_exchange)| {
            of_user == user && of_vhost == vhost && exchange.is_none_or(|name| name == of_exchange)
        })?;
        if found {
            self.store.tell("topic.permission.deleted", |headers| {
                headers
                    .text("user", user.as_bytes())
                    .text("vhost", vhost.as_bytes());
            });
        }
        self.changed();
        Ok(found)
    }

    /// All topic permissions, in order of user, vhost and exchange.
    #[must_use]
    pub fn topic_permissions(&self) -> Vec<TopicPermissionEntry> {
        let state = self.state.read();
        let all = state.topics.iter();
        all.map(
            |((user, vhost, exchange), permissions)| TopicPermissionEntry {
                user: user.clone(),
                vhost: vhost.clone(),
                exchange: exchange.clone(),
                permissions: Arc::clone(permissions),
            },
        )
        .collect()
    }

    /// What a user may do in a vhost, if anything.
    #[must_use]
    pub fn permissions(&self, user: &Name, vhost: &Name) -> Option<Arc<Permissions>> {
        let key = (user.clone(), vhost.clone());
        self.state.read().permissions.get(&key).cloned()
    }

    /// All permissions: user, vhost and rights, in order.
    #[must_use]
    pub fn all_permissions(&self) -> Vec<(Name, Name, Arc<Permissions>)> {
        let state = self.state.read();
        let all = state.permissions.iter();
        all.map(|((user, vhost), permissions)| {
            (user.clone(), vhost.clone(), Arc::clone(permissions))
        })
        .collect()
    }

    /// Lets what was remembered of rights be asked for again: an [`Authorizer`] would answer otherwise now.
    pub fn rights_changed(&self) {
        self.changed();
    }

    /// Changes whenever any right may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Takes away all rights in a vhost that is deleted.
    pub(crate) fn forget_vhost(&self, vhost: &Name) -> Result<(), Error> {
        let of_vhost: Vec<_> = {
            let state = self.state.read();
            state
                .permissions
                .keys()
                .filter(|(_, of)| of == vhost)
                .cloned()
                .collect()
        };
        for (user, vhost) in of_vhost {
            self.delete_permissions(&user, &vhost)?;
        }
        let mut state = self.state.write();
        self.forget_topics_in(&mut state, |(_, of, _)| of == vhost)?;
        self.changed();
        Ok(())
    }

    fn forget_topics_in(
        &self,
        state: &mut State,
        is_meant: impl Fn(&(Name, Name, Name)) -> bool,
    ) -> Result<bool, Error> {
        let gone: Vec<_> = state
            .topics
            .keys()
            .filter(|key| is_meant(key))
            .cloned()
            .collect();
        for key in &gone {
            self.store
                .delete_topic_permissions(&key.0, &key.1, &key.2)?;
            state.topics.remove(key);
        }
        Ok(!gone.is_empty())
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
