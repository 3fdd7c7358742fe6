//! Class tx, 90: transactions over publishing and acknowledging on one channel.

use super::definition::method;

method! {
    /// Makes the channel transactional.
    Select = 90, 10, "tx.select" {}
}

method! {
    /// Answers [`Select`].
    SelectOk = 90, 11, "tx.select-ok" {}
}

method! {
    /// Does all that was published and acknowledged since the last commit or rollback.
    Commit = 90, 20, "tx.commit" {}
}

method! {
    /// Answers [`Commit`].
    CommitOk = 90, 21, "tx.commit-ok" {}
}

method! {
    /// Forgets all that was published and acknowledged since the last commit or rollback.
    Rollback = 90, 30, "tx.rollback" {}
}

method! {
    /// Answers [`Rollback`].
    RollbackOk = 90, 31, "tx.rollback-ok" {}
}
