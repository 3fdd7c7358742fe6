//! Policies: settings for all queues and exchanges whose names match a pattern.
//!
//! Owns: what a policy may say, which of a vhost's policies is in effect for a name, and how a policy and
//! an operator policy make one definition. Applying it to queues and exchanges is `vhost/policies.rs`'
//! business, and joining it with arguments `policy/effect.rs`'.
//! Of several that match, the one with the highest priority counts, alone: policies do not add up. Of a
//! policy and an operator policy with the same number, the lower counts.
//! Bounds: [`POLICIES_PER_VHOST_MAX`], [`DEFINITION_KEYS_MAX`], patterns as in `access/pattern.rs`.
//! Spec: RabbitMQ, "Policies"; keys and texts of `rabbit_policies`.

mod effect;
mod keys;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::access::Pattern;
use super::definitions::PolicyRecord;
use super::name::Name;
use super::queue::arguments::QueueKind;

pub use value::PolicyValue;

/// Policies of one vhost, and as many operator policies; beyond it no more can be made.
pub const POLICIES_PER_VHOST_MAX: usize = 1_000;
/// Keys of one definition.
pub const DEFINITION_KEYS_MAX: usize = 64;

/// What a policy says: keys with their values.
pub type Definition = BTreeMap<String, PolicyValue>;

/// Whose policy it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PolicyKind {
    /// A vhost's own, which a policymaker sets.
    User,
    /// An operator's, which only limits what policies and arguments say.
    Operator,
}

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AppliesTo {
    /// Queues and exchanges.
    #[default]
    All,
    /// Classic queues.
    ClassicQueues,
    /// Exchanges.
    Exchanges,
    /// Queues of all types.
    Queues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams.
    Streams,
}

impl AppliesTo {
    const ALL: [Self; 6] = [
        Self::All,
        Self::ClassicQueues,
        Self::Exchanges,
        Self::Queues,
        Self::QuorumQueues,
        Self::Streams,
    ];

    /// As RabbitMQ writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::ClassicQueues => "classic_queues",
            Self::Exchanges => "exchanges",
            Self::Queues => "queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    fn includes(self, subject: Subject) -> bool {
        match (self, subject) {
            (Self::All, _)
            | (Self::Exchanges, Subject::Exchange)
            | (Self::Queues, Subject::Queue(_))
            | (Self::ClassicQueues, Subject::Queue(QueueKind::Classic))
            | (Self::QuorumQueues, Subject::Queue(QueueKind::Quorum))
            | (Self::Streams, Subject::Queue(QueueKind::Stream)) => true,
            (
                Self::ClassicQueues
                | Self::Exchanges
                | Self::Queues
                | Self::QuorumQueues
                | Self::Streams,
                _,
            ) => false,
        }
    }
}

/// What a policy may be applied to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// An exchange.
    Exchange,
    /// A queue of this type.
    Queue(QueueKind),
}

/// Why a policy is refused: every reason, in RabbitMQ's words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyError {
    problems: Vec<String>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Validation failed\n\n")?;
        self.problems
            .iter()
            .try_for_each(|problem| writeln!(formatter, "{problem}"))
    }
}

impl std::error::Error for PolicyError {}

/// A policy or an operator policy of one vhost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    kind: PolicyKind,
    name: Name,
    pattern: Pattern,
    applies_to: AppliesTo,
    priority: i64,
    definition: Definition,
}

impl Policy {
    /// Makes a policy.
    ///
    /// # Errors
    /// If the pattern, what it applies to, a key or a value is wrong; all of it is named.
    pub fn new(
        kind: PolicyKind,
        name: &Name,
        pattern: &str,
        applies_to: &str,
        priority: i64,
        definition: Definition,
    ) -> Result<Self, PolicyError> {
        // In the order in which RabbitMQ lists them.
        let mut problems = Vec::new();
        problems.extend(keys::check(kind, &definition).err());
        let applies = AppliesTo::from_name(applies_to);
        if applies.is_none() {
            problems.push(format!(
                "apply-to '{applies_to}' unrecognised; should be 'queues', 'exchanges' or 'all'"
            ));
        }
        let compiled = Pattern::new(pattern);
        if let Err(error) = &compiled {
            problems.push(format!(
                "pattern should be regular expression but is invalid: {}",
                error.reason
            ));
        }
        match (applies, compiled) {
            (Some(applies_to), Ok(pattern)) if problems.is_empty() => Ok(Self {
                kind,
                name: name.clone(),
                pattern,
                applies_to,
                priority,
                definition,
            }),
            (_, _) => Err(PolicyError { problems }),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn kind(&self) -> PolicyKind {
        self.kind
    }

    /// Its name, unique among its kind in its vhost.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The names that it is for.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// What it is for.
    #[must_use]
    pub fn applies_to(&self) -> AppliesTo {
        self.applies_to
    }

    /// Which of several it is: the highest counts.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// What it says.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    fn is_for(&self, subject: Subject, name: &[u8]) -> bool {
        self.applies_to.includes(subject)
            && keys::are_known_to(&self.definition, subject)
            && self.pattern.matches(name)
    }

    pub(crate) fn record(&self, vhost: &Name) -> PolicyRecord {
        PolicyRecord {
            vhost: vhost.as_bytes().to_vec(),
            name: self.name.as_bytes().to_vec(),
            is_operator: self.kind == PolicyKind::Operator,
            pattern: self.pattern.as_str().to_owned(),
            applies_to: self.applies_to.name().to_owned(),
            priority: self.priority,
            definition: self.definition.clone().into_iter().collect(),
        }
    }

    pub(crate) fn from_record(record: PolicyRecord) -> Result<Self, PolicyError> {
        let kind = match record.is_operator {
            true => PolicyKind::Operator,
            false => PolicyKind::User,
        };
        Self::new(
            kind,
            &Name::new(&record.name),
            &record.pattern,
            &record.applies_to,
            record.priority,
            record.definition.into_iter().collect(),
        )
    }
}

/// The policies of one vhost.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    user: BTreeMap<Name, Arc<Policy>>,
    operator: BTreeMap<Name, Arc<Policy>>,
}

impl Policies {
    /// All of one kind, by name.
    pub(crate) fn all(&self, kind: PolicyKind) -> Vec<Arc<Policy>> {
        self.of(kind).values().cloned().collect()
    }

    pub(crate) fn get(&self, kind: PolicyKind, name: &[u8]) -> Option<Arc<Policy>> {
        self.of(kind).get(name).cloned()
    }

    pub(crate) fn len(&self, kind: PolicyKind) -> usize {
        self.of(kind).len()
    }

    /// Puts a policy in the place of one with its name.
    pub(crate) fn insert(&mut self, policy: Policy) {
        let (kind, name) = (policy.kind, policy.name.clone());
        self.of_mut(kind).insert(name, Arc::new(policy));
    }

    pub(crate) fn remove(&mut self, kind: PolicyKind, name: &[u8]) -> Option<Arc<Policy>> {
        self.of_mut(kind).remove(name)
    }

    /// What is in effect for a queue or exchange of this name.
    // req: POLICY-1
    pub(crate) fn effective(&self, subject: Subject, name: &[u8]) -> EffectivePolicy {
        let highest = |policies: &BTreeMap<Name, Arc<Policy>>| {
            let matching = policies.values().filter(|one| one.is_for(subject, name));
            // Of equals the first by name.
            let best = matching.reduce(|best, one| match one.priority > best.priority {
                true => one,
                false => best,
            });
            best.cloned()
        };
        EffectivePolicy {
            policy: highest(&self.user),
            operator_policy: highest(&self.operator),
        }
    }

    fn of(&self, kind: PolicyKind) -> &BTreeMap<Name, Arc<Policy>> {
        match kind {
            PolicyKind::User => &self.user,
            PolicyKind::Operator => &self.operator,
        }
    }

    fn of_mut(&mut self, kind: PolicyKind) -> &mut BTreeMap<Name, Arc<Policy>> {
        match kind {
            PolicyKind::User => &mut self.user,
            PolicyKind::Operator => &mut self.operator,
        }
    }
}

/// What is in effect for one queue or exchange.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EffectivePolicy {
    /// The policy, if any is.
    pub policy: Option<Arc<Policy>>,
    /// The operator policy, if any is.
    pub operator_policy: Option<Arc<Policy>>,
}

impl EffectivePolicy {
    /// What both say together: of two numbers the lower, of other values the operator's.
    #[must_use]
    pub fn definition(&self) -> Definition {
        let mut merged = match &self.policy {
            Some(policy) => policy.definition.clone(),
            None => Definition::new(),
        };
        if let Some(operator) = &self.operator_policy {
            for (key, limit) in &operator.definition {
                let value = match (merged.get(key), limit) {
                    (Some(PolicyValue::Integer(own)), PolicyValue::Integer(limit)) => {
                        PolicyValue::Integer(*own.min(limit))
                    }
                    (_, limit) => limit.clone(),
                };
                merged.insert(key.clone(), value);
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests;
