//! Topology and accounts as records: what survives a restart.
//!
//! Owns: the records, their keys and their encoding (postcard). The journal keeps them as keys and
//! values in one order with the messages, so that a confirm also proves that its queue was declared.
//! A key is `kind u8 | size u16 | name | size u16 | name ...`, so that no two names can run together.
//! Spec: `spec/journal.md`, "Definitions".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::journal::{Journal, Lsn, QueueId};

use super::access::{Limits, Permissions, TopicPermissions};
use super::error::Error;
use super::events::{EventHeaders, Events, INTERNAL_USER};
use super::name::Name;
use super::policy::PolicyValue;
use super::queue::Truncated;
use super::vhost::VhostDetails;

/// A vhost.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct VhostRecord {
    pub(crate) name: Vec<u8>,
    /// Its scope in the payload store; never used again.
    pub(crate) scope: u32,
}

/// An account.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct UserRecord {
    pub(crate) name: Vec<u8>,
    pub(crate) tags: Vec<String>,
    pub(crate) password: Option<Vec<u8>>,
}

/// What a user may do in a vhost.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PermissionRecord {
    pub(crate) user: Vec<u8>,
    pub(crate) vhost: Vec<u8>,
    pub(crate) configure: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

impl PermissionRecord {
    pub(crate) fn new(user: &Name, vhost: &Name, permissions: &Permissions) -> Self {
        Self {
            user: user.as_bytes().to_vec(),
            vhost: vhost.as_bytes().to_vec(),
            configure: permissions.configure().to_owned(),
            write: permissions.write().to_owned(),
            read: permissions.read().to_owned(),
        }
    }
}

/// What a user may do at a topic exchange.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct TopicPermissionRecord {
    pub(crate) user: Vec<u8>,
    pub(crate) vhost: Vec<u8>,
    pub(crate) exchange: Vec<u8>,
    pub(crate) write: String,
    pub(crate) read: String,
}

impl TopicPermissionRecord {
    pub(crate) fn new(
        user: &Name,
        vhost: &Name,
        exchange: &Name,
        permissions: &TopicPermissions,
    ) -> Self {
        Self {
            user: user.as_bytes().to_vec(),
            vhost: vhost.as_bytes().to_vec(),
            exchange: exchange.as_bytes().to_vec(),
            write: permissions.write().to_owned(),
            read: permissions.read().to_owned(),
        }
    }
}

/// How many connections and channels a user may have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct UserLimitsRecord {
    pub(crate) user: Vec<u8>,
    pub(crate) limits: Limits,
}

/// A policy or an operator policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct PolicyRecord {
    pub(crate) vhost: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) is_operator: bool,
    pub(crate) pattern: String,
    pub(crate) applies_to: String,
    pub(crate) priority: i64,
    pub(crate) definition: Vec<(String, PolicyValue)>,
}

/// A parameter of a vhost, or of the whole broker: a value that is kept and given back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ParameterRecord {
    /// None for a global parameter.
    pub(crate) vhost: Option<Vec<u8>>,
    pub(crate) component: String,
    pub(crate) name: String,
    /// As JSON.
    pub(crate) value: String,
}

/// What is said of a vhost beside its name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct VhostDetailsRecord {
    pub(crate) name: Vec<u8>,
    pub(crate) details: VhostDetails,
}

/// A durable exchange.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ExchangeRecord {
    pub(crate) vhost: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) kind: String,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    /// The elements of the table as on the wire.
    pub(crate) arguments: Vec<u8>,
}

/// The journal ids of a durable exchange that has messages or keys of its own there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ExchangeLogRecord {
    pub(crate) vhost: Vec<u8>,
    pub(crate) name: Vec<u8>,
    /// Of messages that wait.
    pub(crate) delays: u64,
    /// Of keys that tell duplicates.
    pub(crate) keys: u64,
}

/// A durable queue.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct QueueRecord {
    pub(crate) vhost: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) id: u64,
    pub(crate) auto_delete: bool,
    /// The elements of the table as on the wire.
    pub(crate) arguments: Vec<u8>,
}

/// Where a stream begins, after it forgot its oldest messages.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct StreamBaseRecord {
    /// The queue's id.
    pub(crate) queue: u64,
    /// Offset of the first message that is kept.
    pub(crate) first: u64,
    /// Numbers in the journal up to this one are gone.
    pub(crate) up_to: u64,
}

/// A binding between durable ends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct BindingRecord {
    pub(crate) vhost: Vec<u8>,
    pub(crate) source: Vec<u8>,
    pub(crate) destination_is_queue: bool,
    pub(crate) destination: Vec<u8>,
    pub(crate) routing_key: Vec<u8>,
    /// The elements of the table as on the wire.
    pub(crate) arguments: Vec<u8>,
}

/// What kind of record a key is for. Ordered so that what others refer to comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Kind {
    ScopeNext = b'0',
    Vhost = b'1',
    User = b'2',
    Permission = b'3',
    Exchange = b'4',
    Queue = b'5',
    Binding = b'6',
    Parameter = b'A',
    Policy = b'P',
    StreamBase = b'S',
    TopicPermission = b'T',
    UserLimits = b'U',
    VhostDetails = b'V',
    ExchangeLog = b'x',
}

/// One record, read back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Record {
    /// The next free scope of the payload store.
    ScopeNext {
        next: u32,
    },
    Vhost(VhostRecord),
    User(UserRecord),
    Permission(PermissionRecord),
    Exchange(ExchangeRecord),
    Queue(QueueRecord),
    Binding(BindingRecord),
    Parameter(ParameterRecord),
    Policy(PolicyRecord),
    StreamBase(StreamBaseRecord),
    TopicPermission(TopicPermissionRecord),
    UserLimits(UserLimitsRecord),
    VhostDetails(VhostDetailsRecord),
    ExchangeLog(ExchangeLogRecord),
}

/// A definition that cannot be read: damage, or a later version.
#[derive(Debug, thiserror::Error)]
#[error("definition with key {key} cannot be read: {source}")]
pub struct DefinitionError {
    /// The key, printable.
    key: String,
    source: postcard::Error,
}

impl Record {
    /// Reads a record from its key and value.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, DefinitionError> {
        let kind = key.first().copied();
        let read = match kind {
            Some(b'0') => postcard::from_bytes(value).map(|next| Self::ScopeNext { next }),
            Some(b'1') => postcard::from_bytes(value).map(Self::Vhost),
            Some(b'2') => postcard::from_bytes(value).map(Self::User),
            Some(b'3') => postcard::from_bytes(value).map(Self::Permission),
            Some(b'4') => postcard::from_bytes(value).map(Self::Exchange),
            Some(b'5') => postcard::from_bytes(value).map(Self::Queue),
            Some(b'6') => postcard::from_bytes(value).map(Self::Binding),
            Some(b'A') => postcard::from_bytes(value).map(Self::Parameter),
            Some(b'P') => postcard::from_bytes(value).map(Self::Policy),
            Some(b'S') => postcard::from_bytes(value).map(Self::StreamBase),
            Some(b'T') => postcard::from_bytes(value).map(Self::TopicPermission),
            Some(b'U') => postcard::from_bytes(value).map(Self::UserLimits),
            Some(b'V') => vhost_details(value).map(Self::VhostDetails),
            Some(b'x') => postcard::from_bytes(value).map(Self::ExchangeLog),
            Some(_) | None => Err(postcard::Error::DeserializeBadEnum),
        };
        read.map_err(|source| DefinitionError {
            key: key.escape_ascii().to_string(),
            source,
        })
    }
}

/// A vhost's details; a record from before a vhost could be protected ends where that would stand.
fn vhost_details(value: &[u8]) -> postcard::Result<VhostDetailsRecord> {
    postcard::from_bytes(value).or_else(|_| postcard::from_bytes(&[value, &[0]].concat()))
}

/// Where definitions are written: the journal, or nowhere for a broker without one.
#[derive(Clone, Debug)]
pub(crate) struct DefinitionStore {
    journal: Option<Journal>,
    /// Who hears of changes; nobody in some tests.
    events: Option<Arc<Events>>,
    /// Number of the last record.
    last: Arc<AtomicU64>,
}

impl DefinitionStore {
    pub(crate) fn new(journal: Option<Journal>, events: Option<Arc<Events>>) -> Self {
        Self {
            journal,
            events,
            last: Arc::default(),
        }
    }

    /// Keeps nothing.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::new(None, None)
    }

    /// Tells of a change that was written. No lock may be held but one of users or policies.
    pub(crate) fn tell(&self, event: &'static str, fill: impl FnOnce(&mut EventHeaders)) {
        if let Some(events) = &self.events {
            events.emit(event, |headers| {
                fill(headers);
                headers.text("user_who_performed_action", INTERNAL_USER);
            });
        }
    }

    /// The last record, as long as a crash could still undo it: what says that a definition is there,
    /// or gone, must wait for it, whoever wrote it.
    pub(crate) fn pending(&self) -> Option<Lsn> {
        let last = Lsn(self.last.load(Ordering::Acquire));
        let durable = self.journal.as_ref()?.durable_lsn();
        (!durable.covers(last)).then_some(last)
    }

    pub(crate) fn put_scope_next(&self, next: u32) -> Result<Lsn, Error> {
        self.put(key(Kind::ScopeNext, &[]), &next)
    }

    pub(crate) fn put_vhost(&self, record: &VhostRecord) -> Result<Lsn, Error> {
        self.put(key(Kind::Vhost, &[&record.name]), record)
    }

    pub(crate) fn delete_vhost(&self, name: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::Vhost, &[name.as_bytes()]))
    }

    pub(crate) fn put_user(&self, record: &UserRecord) -> Result<Lsn, Error> {
        self.put(key(Kind::User, &[&record.name]), record)
    }

    pub(crate) fn delete_user(&self, name: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::User, &[name.as_bytes()]))
    }

    pub(crate) fn put_permissions(&self, record: &PermissionRecord) -> Result<Lsn, Error> {
        self.put(
            key(Kind::Permission, &[&record.user, &record.vhost]),
            record,
        )
    }

    pub(crate) fn delete_permissions(&self, user: &Name, vhost: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::Permission, &[user.as_bytes(), vhost.as_bytes()]))
    }

    pub(crate) fn put_topic_permissions(
        &self,
        record: &TopicPermissionRecord,
    ) -> Result<Lsn, Error> {
        let names: [&[u8]; 3] = [&record.user, &record.vhost, &record.exchange];
        self.put(key(Kind::TopicPermission, &names), record)
    }

    pub(crate) fn delete_topic_permissions(
        &self,
        user: &Name,
        vhost: &Name,
        exchange: &Name,
    ) -> Result<Lsn, Error> {
        let names = [user.as_bytes(), vhost.as_bytes(), exchange.as_bytes()];
        self.delete(key(Kind::TopicPermission, &names))
    }

    pub(crate) fn put_stream_base(
        &self,
        queue: QueueId,
        truncated: Truncated,
    ) -> Result<Lsn, Error> {
        let record = StreamBaseRecord {
            queue: queue.0,
            first: truncated.first,
            up_to: truncated.up_to.0,
        };
        self.put(key(Kind::StreamBase, &[&queue.0.to_be_bytes()]), &record)
    }

    pub(crate) fn delete_stream_base(&self, queue: QueueId) -> Result<Lsn, Error> {
        self.delete(key(Kind::StreamBase, &[&queue.0.to_be_bytes()]))
    }

    /// Limits that limit nothing are forgotten.
    pub(crate) fn put_user_limits(&self, user: &Name, limits: &Limits) -> Result<Lsn, Error> {
        if limits.is_empty() {
            return self.delete_user_limits(user);
        }
        let record = UserLimitsRecord {
            user: user.as_bytes().to_vec(),
            limits: limits.clone(),
        };
        self.put(key(Kind::UserLimits, &[&record.user]), &record)
    }

    pub(crate) fn delete_user_limits(&self, user: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::UserLimits, &[user.as_bytes()]))
    }

    pub(crate) fn put_vhost_details(
        &self,
        vhost: &Name,
        details: &VhostDetails,
    ) -> Result<Lsn, Error> {
        let record = VhostDetailsRecord {
            name: vhost.as_bytes().to_vec(),
            details: details.clone(),
        };
        self.put(key(Kind::VhostDetails, &[&record.name]), &record)
    }

    pub(crate) fn delete_vhost_details(&self, vhost: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::VhostDetails, &[vhost.as_bytes()]))
    }

    pub(crate) fn put_policy(&self, record: &PolicyRecord) -> Result<Lsn, Error> {
        let kind = policy_kind(record.is_operator);
        let names: [&[u8]; 3] = [&record.vhost, kind, &record.name];
        self.put(key(Kind::Policy, &names), record)
    }

    pub(crate) fn delete_policy(
        &self,
        vhost: &Name,
        is_operator: bool,
        name: &Name,
    ) -> Result<Lsn, Error> {
        let names = [vhost.as_bytes(), policy_kind(is_operator), name.as_bytes()];
        self.delete(key(Kind::Policy, &names))
    }

    pub(crate) fn put_parameter(&self, record: &ParameterRecord) -> Result<Lsn, Error> {
        let vhost = record.vhost.as_deref();
        let key = parameter_key(vhost, &record.component, &record.name);
        self.put(key, record)
    }

    pub(crate) fn delete_parameter(
        &self,
        vhost: Option<&Name>,
        component: &str,
        name: &str,
    ) -> Result<Lsn, Error> {
        self.delete(parameter_key(vhost.map(Name::as_bytes), component, name))
    }

    pub(crate) fn put_exchange(&self, record: &ExchangeRecord) -> Result<Lsn, Error> {
        self.put(key(Kind::Exchange, &[&record.vhost, &record.name]), record)
    }

    pub(crate) fn delete_exchange(&self, vhost: &Name, name: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::Exchange, &[vhost.as_bytes(), name.as_bytes()]))
    }

    pub(crate) fn put_exchange_log(&self, record: &ExchangeLogRecord) -> Result<Lsn, Error> {
        self.put(
            key(Kind::ExchangeLog, &[&record.vhost, &record.name]),
            record,
        )
    }

    pub(crate) fn delete_exchange_log(&self, vhost: &Name, name: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::ExchangeLog, &[vhost.as_bytes(), name.as_bytes()]))
    }

    pub(crate) fn put_queue(&self, record: &QueueRecord) -> Result<Lsn, Error> {
        self.put(key(Kind::Queue, &[&record.vhost, &record.name]), record)
    }

    pub(crate) fn delete_queue(&self, vhost: &Name, name: &Name) -> Result<Lsn, Error> {
        self.delete(key(Kind::Queue, &[vhost.as_bytes(), name.as_bytes()]))
    }

    pub(crate) fn put_binding(&self, record: &BindingRecord) -> Result<Lsn, Error> {
        self.put(binding_key(record), record)
    }

    pub(crate) fn delete_binding(&self, record: &BindingRecord) -> Result<Lsn, Error> {
        self.delete(binding_key(record))
    }

    fn put(&self, key: Vec<u8>, record: &impl Serialize) -> Result<Lsn, Error> {
        let value = postcard::to_allocvec(record).expect("records are plain values");
        self.write(&key, Some(&value))
    }

    fn delete(&self, key: Vec<u8>) -> Result<Lsn, Error> {
        self.write(&key, None)
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<Lsn, Error> {
        let Some(journal) = &self.journal else {
            return Ok(Lsn::ZERO);
        };
        let lsn = journal.put_definition(key, value)?;
        self.last.fetch_max(lsn.0, Ordering::AcqRel);
        Ok(lsn)
    }
}

fn key(kind: Kind, names: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind as u8];
    for name in names {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(name);
    }
    key
}

fn policy_kind(is_operator: bool) -> &'static [u8] {
    match is_operator {
        true => b"operator",
        false => b"user",
    }
}

fn parameter_key(vhost: Option<&[u8]>, component: &str, name: &str) -> Vec<u8> {
    match vhost {
        Some(vhost) => key(
            Kind::Parameter,
            &[vhost, component.as_bytes(), name.as_bytes()],
        ),
        None => key(Kind::Parameter, &[component.as_bytes(), name.as_bytes()]),
    }
}

fn binding_key(record: &BindingRecord) -> Vec<u8> {
    let kind = [u8::from(record.destination_is_queue)];
    let parts: [&[u8]; 6] = [
        &record.vhost,
        &record.source,
        &kind,
        &record.destination,
        &record.routing_key,
        &record.arguments,
    ];
    key(Kind::Binding, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_run_together_in_keys() {
        let one = key(Kind::Exchange, &[b"a", b"bc"]);
        let other = key(Kind::Exchange, &[b"ab", b"c"]);
        assert_ne!(one, other);
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = QueueRecord {
            vhost: b"/".to_vec(),
            name: b"q".to_vec(),
            id: 7,
            auto_delete: true,
            arguments: vec![1, 2],
        };
        let key = key(Kind::Queue, &[b"/", b"q"]);
        let value = postcard::to_allocvec(&record).expect("a plain value");
        let read = Record::decode(&key, &value).expect("just written");
        assert_eq!(read, Record::Queue(record));
        assert!(Record::decode(b"?", &value).is_err());
        assert!(Record::decode(&key, &value[..1]).is_err());
    }

    /// A vhost's details from before it could be protected are read as unprotected, and what is cut shorter is an error.
    // req: VHOST-1
    #[test]
    fn details_without_protection_are_read() {
        let record = VhostDetailsRecord {
            name: b"v".to_vec(),
            details: VhostDetails {
                description: "words".to_owned(),
                tracing: true,
                ..VhostDetails::default()
            },
        };
        let key = key(Kind::VhostDetails, &[b"v"]);
        let value = postcard::to_allocvec(&record).expect("a plain value");
        let before = &value[..value.len() - 1];
        for value in [&value[..], before] {
            let read = Record::decode(&key, value).expect("a record");
            assert_eq!(read, Record::VhostDetails(record.clone()));
        }
        assert!(Record::decode(&key, &before[..before.len() - 1]).is_err());
    }
}
