//! Transactions: `tx.select`, `tx.commit`, `tx.rollback`.
//!
//! Spec: `spec/amqp.md` TX-1 to TX-4.

use crate::amqp::method::tx;
use crate::amqp::reply::ReplyCode;
use crate::broker::{PublishOutcome, Settle, is_whole};
use crate::journal::Lsn;

use super::topology::id_of;
use super::{Channel, Context, Mode};
use crate::session::failure::{Failure, MethodId};
use crate::session::tx::{Transaction, grouped};

impl Channel {
    pub(super) fn tx_select(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self.mode {
            Mode::Plain => self.mode = Mode::Transaction(Transaction::default()),
            Mode::Transaction(_) => {}
            Mode::Confirm(_) => {
                let explanation = "cannot switch from confirm to tx mode";
                let code = ReplyCode::PreconditionFailed;
                return Err(Failure::new(code, explanation, id_of!(tx::Select)));
            }
        }
        self.reply(&tx::SelectOk {}, cx);
        Ok(())
    }

    /// Publishes and settles what the transaction holds, and returns what no queue took. The session sends
    /// what comes of it to this client's consumers, then calls [`Self::tx_committed`].
    pub(in crate::session) fn tx_commit(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Result<Option<Lsn>, Failure> {
        self.flush_settled(cx);
        let (held, settlements) = self.transaction(id_of!(tx::Commit))?.take();
        let settled = grouped(settlements);
        let mandatory: Vec<bool> = held.iter().map(|held| held.mandatory).collect();
        let prepared = held.into_iter().map(|held| held.prepared).collect();
        let vhost = cx.connection.vhost();
        let committed = vhost.commit(prepared, &settled, cx.now, cx.wakes);
        let committed = committed.map_err(|error| Failure::broker(&error, id_of!(tx::Commit)))?;
        for acked in settled.iter().filter(|group| group.how == Settle::Ack) {
            let count = acked.seqs.len() as u64;
            self.breakdown
                .count(&acked.queue, |counts| counts.acked += count);
        }
        for (published, mandatory) in committed.published.iter().zip(mandatory) {
            self.count_outcome(published.outcome, mandatory);
            if mandatory && published.outcome == PublishOutcome::Unroutable {
                self.give_back(&published.message, cx);
            }
        }
        // req: TX-3
        if !is_whole(&committed.published) {
            let explanation = "partial tx completion";
            let code = ReplyCode::PreconditionFailed;
            return Err(Failure::new(code, explanation, id_of!(tx::Commit)));
        }
        Ok(committed.wait_for)
    }

    /// Answers a commit, once the journal has it.
    pub(in crate::session) fn tx_committed(&mut self, wait_for: Option<Lsn>, cx: &mut Context<'_>) {
        if let Some(lsn) = wait_for {
            cx.transmit.promise(self.number, lsn);
        }
        self.reply(&tx::CommitOk {}, cx);
    }

    /// Drops what was published; what was settled is unsettled again.
    pub(super) fn tx_rollback(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let (_, settlements) = self.transaction(id_of!(tx::Rollback))?.take();
        let taken = settlements
            .into_iter()
            .map(|settlement| (settlement.tag, settlement.owed));
        self.unsettled.put_back(taken, cx.now);
        self.reply(&tx::RollbackOk {}, cx);
        Ok(())
    }

    fn transaction(&mut self, id: MethodId) -> Result<&mut Transaction, Failure> {
        match &mut self.mode {
            Mode::Transaction(transaction) => Ok(transaction),
            Mode::Plain | Mode::Confirm(_) => {
                let explanation = "channel is not transactional";
                Err(Failure::new(ReplyCode::PreconditionFailed, explanation, id))
            }
        }
    }
}
