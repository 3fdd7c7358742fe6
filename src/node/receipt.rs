//! Receipts on their way to senders: final ones until they are confirmed, hints as they come.

use std::sync::Arc;

use super::edge::{Hint, Receipts, Shared, short};
use super::message::{CONTROL_EXCHANGE, FileState, Receipt, encode};
use super::report::RECEIPT_KEY;
use super::state::Record;
use crate::amqp::field::ShortString;
use crate::client::{Channel, ClientError, Publish};

/// The exchange that leads to the queue of the key's name.
const DEFAULT: ShortString = ShortString::EMPTY;

/// Sends what is due from earlier, then whatever comes, until the connection ends.
// req: CONTROL-12
pub(super) async fn run(shared: &Arc<Shared>, out: &Channel) -> Result<(), ClientError> {
    let mut receipts = shared.receipts.lock().await;
    match shared.state.receipts_due() {
        Ok(due) => {
            for (key, record) in due {
                send_final(shared, out, key, &record).await?;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look up receipts that are due"),
    }
    let Receipts { hints, due } = &mut *receipts;
    loop {
        tokio::select! {
            Some(key) = due.recv() => {
                // Sent already if the connection was lost between.
                if let Ok(Some(record)) = shared.state.record(key)
                    && record.is_receipt_due
                {
                    send_final(shared, out, key, &record).await?;
                }
            }
            Some(hint) = hints.recv() => {
                let Hint { reply_to, correlation_id, receipt } = hint;
                if receipt.state != FileState::Fetching {
                    copy(out, correlation_id.clone(), &receipt).await?;
                }
                if let Some(reply_to) = reply_to {
                    drop(publish(out, DEFAULT, reply_to, correlation_id, &receipt).await?);
                }
            }
        }
    }
}

async fn send_final(
    shared: &Arc<Shared>,
    out: &Channel,
    key: [u8; 32],
    record: &Record,
) -> Result<(), ClientError> {
    let receipt = record.receipt(&shared.settings.name);
    let message_id = short(record.message_id.as_ref());
    copy(out, message_id.clone(), &receipt).await?;
    if let Some(reply_to) = short(record.reply_to.as_ref()) {
        let confirm = publish(out, DEFAULT, reply_to, message_id, &receipt).await?;
        match confirm.wait().await {
            // A reply queue that is gone has nobody who waits.
            Ok(()) => {}
            Err(ClientError::Nacked) => {
                tracing::warn!(name = ?record.name, "the broker refused a receipt; it is sent again later");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    let (shared, name) = (Arc::clone(shared), record.name.clone());
    let noted = tokio::task::spawn_blocking(move || shared.state.receipt_sent(key)).await;
    if let Ok(Err(error)) = noted {
        tracing::warn!(%error, ?name, "cannot note that a receipt was sent; it is sent again");
    }
    Ok(())
}

/// Tells those who look on.
// req: CONTROL-24
async fn copy(
    out: &Channel,
    message_id: Option<ShortString>,
    receipt: &Receipt,
) -> Result<(), ClientError> {
    let copied = publish(out, CONTROL_EXCHANGE, RECEIPT_KEY, message_id, receipt);
    copied.await.map(drop)
}

// req: CONTROL-11
async fn publish(
    out: &Channel,
    exchange: ShortString,
    routing_key: ShortString,
    correlation_id: Option<ShortString>,
    receipt: &Receipt,
) -> Result<crate::client::Confirm, ClientError> {
    let (mut properties, body) = encode(receipt);
    properties.correlation_id = correlation_id;
    let publish = Publish {
        exchange,
        routing_key,
        mandatory: false,
        properties,
    };
    out.publish(&publish, &body).await
}
