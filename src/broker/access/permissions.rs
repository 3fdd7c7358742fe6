//! What a user may do in one vhost.
//!
//! Owns: the three patterns of permissions, and the two of topic permissions with their variables.
//! Knows no user and no vhost. Spec: RabbitMQ, "Access Control", "Topic Authorisation".

use super::pattern::{Pattern, PatternError, literal};

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

/// What a user may do in a vhost: three patterns of names, as RabbitMQ writes them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

impl Permissions {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            configure: Pattern::all(),
            write: Pattern::all(),
            read: Pattern::all(),
        }
    }

    /// Names that match these patterns.
    ///
    /// # Errors
    /// If one of them is no usable regular expression.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, PatternError> {
        Ok(Self {
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }

    /// The pattern for configuring.
    #[must_use]
    pub fn configure(&self) -> &str {
        self.configure.as_str()
    }

    /// The pattern for writing.
    #[must_use]
    pub fn write(&self) -> &str {
        self.write.as_str()
    }

    /// The pattern for reading.
    #[must_use]
    pub fn read(&self) -> &str {
        self.read.as_str()
    }

    pub(super) fn allow(&self, access: Access, name: &[u8]) -> bool {
        let pattern = match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        };
        pattern.matches(name)
    }
}

/// Which routing keys a user may publish and bind with at one topic exchange. `{username}` and `{vhost}`
/// in a pattern stand for the names of the two.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicPermissions {
    write: TopicPattern,
    read: TopicPattern,
}

/// A pattern as written, and with its variables filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
struct TopicPattern {
    written: String,
    expanded: Pattern,
}

impl TopicPattern {
    fn new(written: &str, user: &str, vhost: &str) -> Result<Self, PatternError> {
        let expanded = written
            .replace("{username}", &literal(user))
            .replace("{vhost}", &literal(vhost));
        Ok(Self {
            written: written.to_owned(),
            expanded: Pattern::new(&expanded)?,
        })
    }
}

impl TopicPermissions {
    /// Routing keys that match these patterns, for this user in this vhost.
    ///
    /// # Errors
    /// If one of them is no usable regular expression.
    pub fn new(write: &str, read: &str, user: &str, vhost: &str) -> Result<Self, PatternError> {
        Ok(Self {
            write: TopicPattern::new(write, user, vhost)?,
            read: TopicPattern::new(read, user, vhost)?,
        })
    }

    /// No routing key at all.
    pub(super) fn none() -> Self {
        let nothing = || TopicPattern {
            written: "^$".to_owned(),
            expanded: Pattern::none(),
        };
        Self {
            write: nothing(),
            read: nothing(),
        }
    }

    /// The pattern for publishing, as written.
    #[must_use]
    pub fn write(&self) -> &str {
        &self.write.written
    }

    /// The pattern for binding, as written.
    #[must_use]
    pub fn read(&self) -> &str {
        &self.read.written
    }

    pub(super) fn allow(&self, access: Access, routing_key: &[u8]) -> bool {
        match access {
            Access::Configure => true,
            Access::Write => self.write.expanded.matches(routing_key),
            Access::Read => self.read.expanded.matches(routing_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variables stand for names and not for patterns, whatever the names look like.
    #[test]
    fn variables_of_topic_permissions_are_the_names_themselves() {
        let rights =
            TopicPermissions::new("^{username}\\.", "{vhost}$", "a.c", "/").expect("plain");
        assert!(rights.allow(Access::Write, b"a.c.x"));
        assert!(!rights.allow(Access::Write, b"abc.x"));
        assert!(rights.allow(Access::Read, b"at/"));
        assert!(!rights.allow(Access::Read, b"at"));
        assert_eq!(rights.write(), "^{username}\\.");
        assert!(TopicPermissions::new("(", "", "u", "v").is_err());
    }
}
