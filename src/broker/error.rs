//! What a client did wrong, or what the broker could not do, as RabbitMQ words it.
//!
//! Owns: the variants, their reply codes and their texts. `Display` is RabbitMQ's explanation without
//! the code's name in front; the session adds that (`ReplyCode::text`).
//! Spec: AMQP 0-9-1 §4.8 and `spec/amqp.md`; texts as measured from RabbitMQ 3.10.8.

use std::fmt;

use crate::amqp::reply::ReplyCode;
use crate::journal::JournalError;

use super::name::Name;

/// An exchange or a queue as reply texts name it: `queue 'q' in vhost '/'`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// The vhost it is in, or would be in.
    pub vhost: Name,
    /// Its name; the default exchange has none and is printed as `amq.default` where access is refused.
    pub name: Name,
}

/// The kinds of things in a vhost that have names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ResourceKind {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
        })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, vhost, name } = self;
        write!(formatter, "{kind} '{name}' in vhost '{vhost}'")
    }
}

/// Why a broker call was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No right to do this to that.
    #[error("access to {resource} refused for user '{user}'")]
    AccessRefused {
        /// What was to be used.
        resource: Resource,
        /// Who wanted to.
        user: Name,
    },
    /// There are as many accounts, or other things of the whole broker, as there may be.
    #[error("cannot create {limited}: the limit of {count_max} is reached")]
    AccountLimitReached {
        /// What there are too many of.
        limited: &'static str,
        /// The bound.
        count_max: usize,
    },
    /// A large body that must survive, and was in memory alone, was not taken by the payload store.
    #[error("{reason}")]
    BodyNotStored {
        /// What the store says.
        reason: String,
    },
    /// The default exchange cannot be declared, deleted, bound or unbound.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// A quorum queue cannot be deleted under a condition.
    #[error(
        "cannot delete {resource}. queue.delete operations with {flag} flag set are not supported by \
         quorum queues"
    )]
    DeleteCondition {
        /// The queue.
        resource: Resource,
        /// `if-empty` or `if-unused`.
        flag: &'static str,
    },
    /// Somebody consumes the queue exclusively, or wants to while others consume.
    #[error("{resource} in exclusive use")]
    ExclusiveUse {
        /// The queue.
        resource: Resource,
    },
    /// Quorum queues and streams know no prefetch that a channel's consumers share.
    #[error("{resource} does not support global qos")]
    GlobalQos {
        /// The queue.
        resource: Resource,
    },
    /// `if-unused` does not hold.
    #[error("{resource} in use")]
    InUse {
        /// The queue or exchange.
        resource: Resource,
    },
    /// It exists already with another property or argument.
    #[error(
        "inequivalent arg '{argument}' for {resource}: received {received} but current is {current}"
    )]
    Inequivalent {
        /// The property or argument.
        argument: String,
        /// What exists.
        resource: Resource,
        /// What the client asked for.
        received: String,
        /// What it is.
        current: String,
    },
    /// Clients may not publish to an internal exchange.
    #[error("cannot publish to internal {resource}")]
    InternalExchange {
        /// The exchange.
        resource: Resource,
    },
    /// An argument has a value that it cannot have.
    #[error("invalid arg '{argument}' for {resource}: {problem}")]
    InvalidArgument {
        /// The argument.
        argument: String,
        /// What it was given for.
        resource: Resource,
        /// What is wrong, as an Erlang term.
        problem: String,
    },
    /// An argument that the queue's type does not know.
    #[error("invalid arg '{argument}' for {resource} of queue type {queue_type}")]
    InvalidArgumentForType {
        /// The argument.
        argument: String,
        /// The queue.
        resource: Resource,
        /// RabbitMQ's name of the type.
        queue_type: &'static str,
    },
    /// An argument that must be a long string and is not.
    #[error("invalid type '{type_name}' for arg '{argument}' in {resource}")]
    InvalidArgumentType {
        /// The type it has.
        type_name: &'static str,
        /// The argument.
        argument: String,
        /// What it was given for.
        resource: Resource,
    },
    /// The empty exchange type.
    #[error("invalid exchange type ''")]
    InvalidExchangeType,
    /// An `x-match` that is a string, but none of the four.
    #[error("Invalid x-match field value {value}; expected all, any, all-with-x, or any-with-x")]
    InvalidMatch {
        /// The value as an Erlang term.
        value: String,
    },
    /// An `x-match` that is no string.
    #[error("Invalid x-match field type {type_name} (value {value}); expected longstr")]
    InvalidMatchType {
        /// The type it has.
        type_name: &'static str,
        /// The value as an Erlang term.
        value: String,
    },
    /// A `CC` or `BCC` header that is no array of strings.
    #[error("invalid message: {problem}")]
    InvalidMessage {
        /// What is wrong, as an Erlang term.
        problem: String,
    },
    /// A property that the queue's type does not allow.
    #[error("invalid property '{property}' for {resource}")]
    InvalidProperty {
        /// RabbitMQ's name of the property.
        property: &'static str,
        /// The queue.
        resource: Resource,
    },
    /// A bound of [`BrokerLimits`](super::BrokerLimits) is reached.
    #[error(
        "cannot declare {kind} '{name}': {limited} limit in vhost '{vhost}' ({count_max}) is reached",
        kind = resource.kind, name = resource.name, vhost = resource.vhost
    )]
    LimitReached {
        /// What was to be made, or made more of.
        resource: Resource,
        /// What there are too many of: `queue`, `exchange`, `binding` or `consumer`.
        limited: &'static str,
        /// The bound.
        count_max: usize,
    },
    /// Another connection has the queue to itself, or the exclusive flag differs.
    #[error(
        "cannot obtain exclusive access to locked {resource}. It could be originally declared on \
         another connection or the exclusive property value does not match that of the original \
         declaration."
    )]
    Locked {
        /// The queue.
        resource: Resource,
    },
    /// `if-empty` does not hold.
    #[error("{resource} not empty")]
    NotEmpty {
        /// The queue.
        resource: Resource,
    },
    /// Streams do not do this.
    #[error("{what} not supported by stream queues {resource}")]
    NotForStreams {
        /// What was asked for, in RabbitMQ's words.
        what: &'static str,
        /// The stream.
        resource: Resource,
    },
    /// It does not exist.
    #[error("no {resource}")]
    NotFound {
        /// What was asked for.
        resource: Resource,
    },
    /// A stream's consumer needs a prefetch count.
    #[error("consumer prefetch count is not set for '{resource}'")]
    PrefetchNotSet {
        /// The stream.
        resource: Resource,
    },
    /// Names that begin with `amq.` are the broker's.
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    ReservedPrefix {
        /// What was to be declared.
        kind: ResourceKind,
        /// Its name.
        name: Name,
    },
    /// `x-stream-max-segment-size-bytes` is beyond what RabbitMQ takes.
    #[error("Exceeded max value for x-stream-max-segment-size-bytes")]
    SegmentTooLarge,
    /// Queues of this type need a name of the client's.
    #[error("Cannot declare a server-named queue for type {queue_type}")]
    ServerNamedType {
        /// RabbitMQ's name of the type.
        queue_type: &'static str,
    },
    /// The journal failed or is closed: nothing durable can be done any more.
    #[error("{0}")]
    Storage(#[from] JournalError),
    /// A predeclared exchange cannot be deleted.
    #[error("deletion of system {resource} not allowed")]
    SystemExchange {
        /// The exchange.
        resource: Resource,
    },
    /// No right to publish or bind with this routing key.
    #[error("access to topic '{routing_key}' in {exchange} refused for user '{user}'")]
    TopicRefused {
        /// The routing key.
        routing_key: Name,
        /// The topic exchange.
        exchange: Resource,
        /// Who wanted to.
        user: Name,
    },
    /// An argument or a binding that an exchange of this type does not take, in its plugin's words.
    #[error("{problem}")]
    Unacceptable {
        /// What is wrong.
        problem: String,
    },
    /// An exchange type that nobody knows.
    #[error("unknown exchange type '{kind}'")]
    UnknownExchangeType {
        /// The type asked for.
        kind: Name,
    },
    /// A user has as many channels as it may have.
    #[error(
        "number of channels opened for user '{user}' has reached the maximum allowed user limit of \
         ({count_max})"
    )]
    UserChannelLimitReached {
        /// Whose channels.
        user: Name,
        /// The bound.
        count_max: u64,
    },
    /// A user has as many connections as it may have.
    #[error("Connection refused for user '{user}': user connection limit ({count_max}) is reached")]
    UserConnectionLimitReached {
        /// Who wanted in.
        user: Name,
        /// The bound.
        count_max: u64,
    },
    /// A vhost has as many connections as it may have.
    #[error(
        "access to vhost '{vhost}' refused for user '{user}': connection limit ({count_max}) is reached"
    )]
    VhostConnectionLimitReached {
        /// The vhost.
        vhost: Name,
        /// Who wanted in.
        user: Name,
        /// The bound.
        count_max: u64,
    },
    /// The user has no rights in the vhost.
    #[error("access to vhost '{vhost}' refused for user '{user}'")]
    VhostAccessRefused {
        /// The vhost.
        vhost: Name,
        /// Who wanted in.
        user: Name,
    },
    /// There are as many vhosts as there may be.
    #[error("cannot create vhost '{vhost}': vhost limit of {count_max} is reached")]
    VhostLimitReached {
        /// The vhost that was to be made.
        vhost: Name,
        /// The bound.
        count_max: usize,
    },
    /// There is no such vhost.
    #[error("vhost {vhost} not found")]
    VhostNotFound {
        /// The name asked for.
        vhost: Name,
    },
    /// The vhost is protected from deletion.
    #[error("cannot delete vhost '{vhost}': it is protected from deletion")]
    VhostProtected {
        /// The vhost.
        vhost: Name,
    },
}

impl Error {
    /// The code that the channel or the connection is closed with.
    #[must_use]
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::AccessRefused { .. }
            | Self::DefaultExchange
            | Self::ExclusiveUse { .. }
            | Self::InternalExchange { .. }
            | Self::ReservedPrefix { .. }
            | Self::SystemExchange { .. }
            | Self::TopicRefused { .. } => ReplyCode::AccessRefused,
            Self::NotFound { .. } => ReplyCode::NotFound,
            Self::Locked { .. } => ReplyCode::ResourceLocked,
            Self::BodyNotStored { .. }
            | Self::InUse { .. }
            | Self::Inequivalent { .. }
            | Self::InvalidArgument { .. }
            | Self::InvalidArgumentForType { .. }
            | Self::InvalidArgumentType { .. }
            | Self::InvalidMatch { .. }
            | Self::InvalidMatchType { .. }
            | Self::InvalidMessage { .. }
            | Self::InvalidProperty { .. }
            | Self::LimitReached { .. }
            | Self::NotEmpty { .. }
            | Self::PrefetchNotSet { .. }
            | Self::SegmentTooLarge
            | Self::ServerNamedType { .. }
            | Self::Unacceptable { .. }
            | Self::VhostProtected { .. } => ReplyCode::PreconditionFailed,
            Self::DeleteCondition { .. } | Self::GlobalQos { .. } | Self::NotForStreams { .. } => {
                ReplyCode::NotImplemented
            }
            Self::InvalidExchangeType | Self::UnknownExchangeType { .. } => {
                ReplyCode::CommandInvalid
            }
            Self::AccountLimitReached { .. }
            | Self::UserChannelLimitReached { .. }
            | Self::UserConnectionLimitReached { .. }
            | Self::VhostConnectionLimitReached { .. }
            | Self::VhostAccessRefused { .. }
            | Self::VhostLimitReached { .. }
            | Self::VhostNotFound { .. } => ReplyCode::NotAllowed,
            Self::Storage(_) => ReplyCode::InternalError,
        }
    }

    /// Whether the whole connection is closed rather than the channel.
    #[must_use]
    pub fn is_connection_error(&self) -> bool {
        self.reply_code().is_connection_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Resource {
        Resource {
            kind: ResourceKind::Queue,
            vhost: Name::from("/"),
            name: Name::from("q"),
        }
    }

    /// Codes and texts against recorded answers of RabbitMQ 3.10.8.
    #[test]
    fn texts_and_codes_are_those_of_rabbitmq() {
        let resource = queue();
        let not_found = Error::NotFound {
            resource: resource.clone(),
        };
        assert_eq!(not_found.to_string(), "no queue 'q' in vhost '/'");
        assert_eq!(not_found.reply_code(), ReplyCode::NotFound);
        assert!(!not_found.is_connection_error());

        let inequivalent = Error::Inequivalent {
            argument: "durable".to_owned(),
            resource: resource.clone(),
            received: "'false'".to_owned(),
            current: "'true'".to_owned(),
        };
        assert_eq!(
            inequivalent.to_string(),
            "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current \
             is 'true'"
        );

        let locked = Error::Locked { resource };
        assert_eq!(
            locked.to_string(),
            "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
             originally declared on another connection or the exclusive property value does not \
             match that of the original declaration."
        );
        assert_eq!(locked.reply_code(), ReplyCode::ResourceLocked);

        let unknown = Error::UnknownExchangeType {
            kind: Name::from("x"),
        };
        assert_eq!(unknown.reply_code(), ReplyCode::CommandInvalid);
        assert!(unknown.is_connection_error());
    }
}
