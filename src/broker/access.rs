//! Users, their passwords and what they may do.
//!
//! Owns: accounts and permissions of the whole broker, and the one place where a right is decided
//! ([`Users::authorize`]). Knows no queue; a right is about names.
//! Spec: RabbitMQ's model: per user and vhost one pattern each for configure, write and read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::definitions::{DefinitionStore, PermissionRecord, UserRecord};
use super::error::{Error, ResourceKind};
use super::name::Name;

/// Length of the salt in front of a password's hash, in bytes (RabbitMQ's format).
const SALT_BYTES: usize = 4;

/// A salted SHA-256 hash of a password, as RabbitMQ keeps it: `salt | SHA-256(salt | password)`.
#[derive(Clone, Eq, PartialEq)]
pub struct PasswordHash(Vec<u8>);

impl PasswordHash {
    /// Hashes a password.
    #[must_use]
    pub fn new(password: &[u8], salt: [u8; SALT_BYTES]) -> Self {
        let mut bytes = salt.to_vec();
        bytes.extend_from_slice(&digest(&salt, password));
        Self(bytes)
    }

    /// Takes a hash that was made elsewhere; one of another length matches no password.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Salt and hash, for export; base64 of it is RabbitMQ's `password_hash`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the hash of `password`; takes as long whatever the answer.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        match self.0.split_at_checked(SALT_BYTES) {
            Some((salt, hash)) => digest(salt, password).ct_eq(hash).into(),
            None => false,
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordHash(..)")
    }
}

fn digest(salt: &[u8], password: &[u8]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(password);
    hasher.finalize().to_vec()
}

/// An account.
#[derive(Clone, Debug)]
pub struct User {
    name: Name,
    tags: Vec<String>,
    password: Option<PasswordHash>,
}

impl User {
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

    /// Whether it has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }
}

/// Where a login comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// This machine's loopback addresses.
    Loopback,
    /// Anywhere else.
    Remote,
}

/// Why a login is refused. Whoever tried must not learn which it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// No such user, or not this password.
    #[error("unknown user or wrong password")]
    BadCredentials,
    /// The user may log in from this machine only.
    #[error("user can only connect via localhost")]
    LoopbackOnly,
}

/// What is to be done with a queue or exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Create, delete, change.
    Configure,
    /// Put messages in.
    Write,
    /// Take messages out.
    Read,
}

/// Which names a right is about.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    /// `.*`
    All,
    /// The empty pattern, or `^$`: only the empty name, which nothing has.
    None,
    /// `^name$`, without any character that means something.
    Exactly(String),
    /// `^prefix.*`, without any character that means something in the prefix.
    Prefix(String),
}

/// A pattern that is not understood yet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("permission pattern '{pattern}' is not supported: use .*, ^$, ^name$ or ^prefix.*")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, PatternError> {
        let is_plain = |text: &str| !text.contains(|c| r".*+?()[]{}|^$\".contains(c));
        let inner = pattern.strip_prefix('^');
        match (pattern, inner) {
            (".*" | "^.*" | "^.*$", _) => Ok(Self::All),
            ("" | "^$", _) => Ok(Self::None),
            (_, Some(inner)) => {
                let prefix = inner
                    .strip_suffix(".*")
                    .or_else(|| inner.strip_suffix(".*$"));
                match (prefix, inner.strip_suffix('$')) {
                    (Some(prefix), _) if is_plain(prefix) => Ok(Self::Prefix(prefix.to_owned())),
                    (None, Some(name)) if is_plain(name) => Ok(Self::Exactly(name.to_owned())),
                    (_, _) => Err(PatternError {
                        pattern: pattern.to_owned(),
                    }),
                }
            }
            (_, None) => Err(PatternError {
                pattern: pattern.to_owned(),
            }),
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::None => name.is_empty(),
            Self::Exactly(exact) => name == exact.as_bytes(),
            Self::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }
}

/// What a user may do in a vhost: three patterns of names, as RabbitMQ writes them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Permissions {
    configure: (String, Pattern),
    write: (String, Pattern),
    read: (String, Pattern),
}

impl Permissions {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        let all = || (".*".to_owned(), Pattern::All);
        Self {
            configure: all(),
            write: all(),
            read: all(),
        }
    }

    /// Names that match these patterns.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, PatternError> {
        let pattern = |text: &str| Ok((text.to_owned(), Pattern::new(text)?));
        Ok(Self {
            configure: pattern(configure)?,
            write: pattern(write)?,
            read: pattern(read)?,
        })
    }

    /// The pattern for configuring.
    #[must_use]
    pub fn configure(&self) -> &str {
        &self.configure.0
    }

    /// The pattern for writing.
    #[must_use]
    pub fn write(&self) -> &str {
        &self.write.0
    }

    /// The pattern for reading.
    #[must_use]
    pub fn read(&self) -> &str {
        &self.read.0
    }

    fn allow(&self, access: Access, name: &[u8]) -> bool {
        let (_, pattern) = match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        };
        pattern.matches(name)
    }
}

/// All accounts and permissions.
#[derive(Debug)]
pub struct Users {
    state: RwLock<State>,
    /// Counts changes, so that what was once decided can be remembered.
    generation: AtomicU64,
    /// Users who may log in from this machine only.
    loopback_only: Vec<Name>,
    store: DefinitionStore,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<Name, Arc<User>>,
    /// By user, then by vhost.
    permissions: BTreeMap<(Name, Name), Arc<Permissions>>,
}

impl Users {
    pub(crate) fn new(loopback_only: Vec<Name>, store: DefinitionStore) -> Self {
        Self {
            state: RwLock::default(),
            generation: AtomicU64::new(0),
            loopback_only,
            store,
        }
    }

    /// Checks a login.
    pub fn authenticate(
        &self,
        name: &[u8],
        password: &[u8],
        origin: Origin,
    ) -> Result<Arc<User>, AuthError> {
        let user = self.state.read().users.get(name).cloned();
        let user = user.ok_or(AuthError::BadCredentials)?;
        let is_right = user
            .password
            .as_ref()
            .is_some_and(|hash| hash.matches(password));
        if password.is_empty() || !is_right {
            return Err(AuthError::BadCredentials);
        }
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
        let user = User {
            name: name.clone(),
            tags,
            password,
        };
        let mut state = self.state.write();
        self.store.put_user(&UserRecord::from(&user))?;
        state.users.insert(name.clone(), Arc::new(user));
        self.changed();
        Ok(())
    }

    /// Deletes an account with its permissions; false if there is none.
    pub fn delete_user(&self, name: &[u8]) -> Result<bool, Error> {
        let mut state = self.state.write();
        let Some(user) = state.users.get(name).cloned() else {
            return Ok(false);
        };
        self.store.delete_user(user.name())?;
        state.users.remove(name);
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
        self.changed();
        Ok(true)
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

    /// Whether `user` may do this in `vhost`: every right is decided here. The default exchange goes
    /// by the name `amq.default`.
    #[must_use]
    pub fn authorize(
        &self,
        user: &Name,
        vhost: &Name,
        kind: ResourceKind,
        name: &[u8],
        access: Access,
    ) -> bool {
        let name = match kind {
            ResourceKind::Exchange if name.is_empty() => b"amq.default",
            ResourceKind::Exchange | ResourceKind::Queue => name,
        };
        let permissions = self.permissions(user, vhost);
        permissions.is_some_and(|permissions| permissions.allow(access, name))
    }

    /// Changes whenever any right may have changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn restore_user(&self, record: UserRecord) {
        let name = Name::new(&record.name);
        let user = User {
            name: name.clone(),
            tags: record.tags,
            password: record.password.as_deref().map(PasswordHash::from_bytes),
        };
        self.state.write().users.insert(name, Arc::new(user));
    }

    pub(crate) fn restore_permissions(&self, record: &PermissionRecord) {
        let key = (Name::new(&record.user), Name::new(&record.vhost));
        match Permissions::new(&record.configure, &record.write, &record.read) {
            Ok(permissions) => {
                self.state
                    .write()
                    .permissions
                    .insert(key, Arc::new(permissions));
            }
            // Written by a later version: no right rather than too many.
            Err(error) => {
                tracing::error!(user = %key.0, vhost = %key.1, %error, "permission dropped")
            }
        }
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
        Ok(())
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let users = Users::new(vec![Name::from("guest")], DefinitionStore::in_memory());
        let hash = PasswordHash::new(b"guest", [1, 2, 3, 4]);
        users
            .put_user(&Name::from("guest"), Some(hash), Vec::new())
            .expect("in memory");
        users
    }

    /// The vector that RabbitMQ's documentation gives.
    #[test]
    fn the_hash_is_that_of_rabbitmq() {
        let hash = PasswordHash::new(b"test12", [0x90, 0x8d, 0xc6, 0x0a]);
        let expected = [
            0x90, 0x8d, 0xc6, 0x0a, 0xa5, 0xb9, 0x24, 0xb3, 0x09, 0x6b, 0x88, 0x97, 0xd6, 0x5a,
            0x3b, 0x5f, 0x80, 0xfa, 0x5d, 0xb6, 0x2a, 0x94, 0xb8, 0x31, 0x22, 0xcd, 0xf4, 0xf8,
            0xfe, 0xad, 0x10, 0xd5, 0x15, 0xd8, 0xf3, 0x91,
        ];
        assert!(hash.matches(b"test12"));
        assert!(!hash.matches(b"test13"));
        assert_eq!(hash.as_bytes(), expected);
    }

    #[test]
    fn guest_logs_in_from_this_machine_only() {
        let users = users();
        assert!(
            users
                .authenticate(b"guest", b"guest", Origin::Loopback)
                .is_ok()
        );
        let refused = |name: &[u8], password: &[u8], origin| {
            users
                .authenticate(name, password, origin)
                .map(|user| user.name().clone())
        };
        assert_eq!(
            refused(b"guest", b"guest", Origin::Remote),
            Err(AuthError::LoopbackOnly)
        );
        assert_eq!(
            refused(b"guest", b"wrong", Origin::Loopback),
            Err(AuthError::BadCredentials)
        );
        assert_eq!(
            refused(b"guest", b"", Origin::Loopback),
            Err(AuthError::BadCredentials)
        );
        assert_eq!(
            refused(b"nobody", b"guest", Origin::Loopback),
            Err(AuthError::BadCredentials)
        );
    }

    #[test]
    fn rights_are_those_of_the_patterns() {
        let users = users();
        let (guest, vhost) = (Name::from("guest"), Name::from("/"));
        let may = |kind, name: &[u8], access| users.authorize(&guest, &vhost, kind, name, access);
        assert!(!may(ResourceKind::Queue, b"q", Access::Read));
        let permissions = Permissions::new("^own$", "^amq.default$", "^in-.*")
            .expect_err("a dot means something");
        assert_eq!(permissions.pattern, "^amq.default$");
        let permissions = Permissions::new("^own$", "", "^in-.*").expect("plain patterns");
        users
            .put_permissions(&guest, &vhost, permissions)
            .expect("in memory");
        assert!(may(ResourceKind::Queue, b"own", Access::Configure));
        assert!(!may(ResourceKind::Queue, b"owner", Access::Configure));
        assert!(may(ResourceKind::Exchange, b"in-1", Access::Read));
        assert!(!may(ResourceKind::Exchange, b"", Access::Write));
        users
            .put_permissions(&guest, &vhost, Permissions::all())
            .expect("in memory");
        assert!(may(ResourceKind::Exchange, b"", Access::Write));
    }

    #[test]
    fn a_deleted_user_leaves_no_rights() {
        let users = users();
        let (guest, vhost) = (Name::from("guest"), Name::from("/"));
        users
            .put_permissions(&guest, &vhost, Permissions::all())
            .expect("in memory");
        let before = users.generation();
        assert!(users.delete_user(b"guest").expect("in memory"));
        assert!(users.all_permissions().is_empty());
        assert_ne!(users.generation(), before);
        assert!(!users.delete_user(b"guest").expect("in memory"));
    }
}
