//! The trail of who did what: logins, refusals and administrative acts, for the log.
//!
//! Owns: the name by which it is told apart from everything else that is logged. Entries have who, from where, what and
//! the result as fields; never a password, a token or a body.

/// The target of its log lines.
pub const AUDIT: &str = "warren::audit";
