//! Accounts and permissions as the journal has them, after a start.

use std::sync::Arc;

use super::super::definitions::{PermissionRecord, TopicPermissionRecord, UserRecord};
use super::super::name::Name;
use super::{Limits, PasswordHash, Permissions, TopicPermissions, User, Users};

impl Users {
    pub(crate) fn restore_user(&self, record: UserRecord) {
        let name = Name::new(&record.name);
        let user = User {
            name: name.clone(),
            tags: record.tags,
            password: record.password.as_deref().map(PasswordHash::from_bytes),
            limits: Limits::default(),
            token: None,
        };
        self.state.write().users.insert(name, Arc::new(user));
    }

    /// Called once all users are restored.
    pub(crate) fn restore_user_limits(&self, name: &[u8], limits: Limits) {
        if let Some(user) = self.state.write().users.get_mut(name) {
            *user = Arc::new(User {
                limits,
                ..User::clone(user)
            });
        }
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

    pub(crate) fn restore_topic_permissions(&self, record: &TopicPermissionRecord) {
        let key = (
            Name::new(&record.user),
            Name::new(&record.vhost),
            Name::new(&record.exchange),
        );
        let (user, vhost) = (key.0.to_string(), key.1.to_string());
        let permissions = TopicPermissions::new(&record.write, &record.read, &user, &vhost);
        let permissions = permissions.unwrap_or_else(|error| {
            // Written by a later version: no right rather than too many.
            tracing::error!(user, vhost, exchange = %key.2, %error, "topic permission closed");
            TopicPermissions::none()
        });
        self.state.write().topics.insert(key, Arc::new(permissions));
    }
}
