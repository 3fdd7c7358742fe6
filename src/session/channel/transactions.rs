//! Transactions: `tx.select`, `tx.commit`, `tx.rollback`.

use crate::amqp::method::tx;
use crate::amqp::reply::ReplyCode;
use crate::broker::PublishOutcome;

use super::topology::id_of;
use super::{Channel, Context, Mode};
use crate::session::failure::{Failure, MethodId};
use crate::session::tx::Transaction;

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

    /// Publishes and settles what the transaction holds. The answer waits until it is safe.
    pub(super) fn tx_commit(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let transaction = self.transaction(id_of!(tx::Commit))?;
        let (messages, settlements) = transaction.take();
        let mut wait_for = None;
        for held in messages {
            let properties = held.header.properties_ref()?;
            let outcome = self.route(&held.method, &held.header, &properties, held.body, cx)?;
            if let PublishOutcome::Routed {
                wait_for: Some(lsn),
            } = outcome
            {
                wait_for = wait_for.max(Some(lsn));
            }
        }
        for settlement in settlements {
            let (queue, seq) = settlement.owed;
            self.settle(queue, seq, settlement.how, cx);
        }
        self.flush_settled(cx);
        if let Some(lsn) = wait_for {
            cx.transmit.promise(self.number, lsn);
        }
        self.reply(&tx::CommitOk {}, cx);
        Ok(())
    }

    /// Drops what was published; what was settled is unsettled again.
    pub(super) fn tx_rollback(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let (_, settlements) = self.transaction(id_of!(tx::Rollback))?.take();
        let taken = settlements
            .into_iter()
            .map(|settlement| (settlement.tag, settlement.owed));
        self.unsettled.put_back(taken);
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
