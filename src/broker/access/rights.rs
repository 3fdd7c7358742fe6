//! The one place where a right is decided.
//!
//! Owns: the order of who is asked: the authorizer, then the token that a user came with, then the permissions.

use super::super::error::ResourceKind;
use super::super::name::Name;
use super::authorizer::{AccessObject, AccessRequest, Verdict};
use super::permissions::Access;
use super::{User, Users};

impl Users {
    /// Whether `user` may do this in `vhost`: every right is decided here. The default exchange goes
    /// by the name `amq.default`.
    #[must_use]
    pub fn authorize(
        &self,
        user: &User,
        vhost: &Name,
        kind: ResourceKind,
        name: &[u8],
        access: Access,
    ) -> bool {
        let name = match kind {
            ResourceKind::Exchange if name.is_empty() => b"amq.default",
            ResourceKind::Exchange | ResourceKind::Queue => name,
        };
        let object = match kind {
            ResourceKind::Exchange => AccessObject::Exchange { name, access },
            ResourceKind::Queue => AccessObject::Queue { name, access },
        };
        let verdict = self.verdict(user.name(), vhost, object);
        verdict.or_else(|| match &user.token {
            Some(token) => token.allow(access, vhost, name),
            None => {
                let permissions = self.permissions(user.name(), vhost);
                permissions.is_some_and(|permissions| permissions.allow(access, name))
            }
        })
    }

    /// Whether `user` may open `vhost`: it may if it has any right there.
    #[must_use]
    pub fn authorize_vhost(&self, user: &User, vhost: &Name) -> bool {
        let verdict = self.verdict(user.name(), vhost, AccessObject::Vhost);
        verdict.or_else(|| match &user.token {
            Some(token) => token.may_enter(vhost),
            None => self.permissions(user.name(), vhost).is_some(),
        })
    }

    /// Whether `user` may publish to ([`Access::Write`]) or bind from ([`Access::Read`]) a topic exchange
    /// with this routing key. That is asked after [`Self::authorize`], and allowed unless an entry for the
    /// exchange says otherwise.
    #[must_use]
    pub fn authorize_topic(
        &self,
        user: &User,
        vhost: &Name,
        exchange: &Name,
        routing_key: &[u8],
        access: Access,
    ) -> bool {
        let object = AccessObject::Topic {
            exchange: exchange.as_bytes(),
            routing_key,
            access,
        };
        self.verdict(user.name(), vhost, object).or_else(|| {
            if let Some(token) = &user.token {
                return token.allow_topic(access, vhost, exchange.as_bytes(), routing_key);
            }
            let permissions = {
                let state = self.state.read();
                if state.topics.is_empty() {
                    return true;
                }
                let key = (user.name().clone(), vhost.clone(), exchange.clone());
                state.topics.get(&key).cloned()
            };
            permissions.is_none_or(|permissions| permissions.allow(access, routing_key))
        })
    }

    /// What the authorizer says, if there is one.
    fn verdict(&self, user: &Name, vhost: &Name, object: AccessObject<'_>) -> Verdict {
        let Some(authorizer) = &self.authorizer else {
            return Verdict::NoOpinion;
        };
        authorizer.authorize(&AccessRequest {
            user,
            vhost,
            object,
        })
    }
}
