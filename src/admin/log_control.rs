//! What an operator may see and change of the log while the broker runs.

use std::fmt::Debug;

use super::log_tail::LogTail;

/// The log of the process that the broker runs in: the process owns it, the library only writes to it.
pub trait LogControl: Debug + Send + Sync {
    /// What is logged: a level, or a filter as in `info,warren::swarm=debug`.
    fn filter(&self) -> String;

    /// Logs this from now on, until something else is said or the process ends.
    ///
    /// # Errors
    /// What is wrong with the filter; then everything stays as it was.
    fn set_filter(&self, filter: &str) -> Result<(), String>;

    /// Its latest lines.
    fn tail(&self) -> &LogTail;
}
