//! The writing task: frames to the socket, and a heartbeat when there are none.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::ClientError;
use super::handshake::WriteHalf;
use super::shared::Shared;
use crate::amqp::frame::put_heartbeat;

/// Bytes of small frames joined into one write.
const JOINED_BYTES_MAX: usize = 64 * 1024;
/// Longest time for the last bytes to leave when the connection ends.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(2);

/// Writes until the connection ends. `silence` is how long nothing may be sent; `None` is for ever.
pub(super) async fn run(
    mut socket: WriteHalf,
    mut outgoing: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    silence: Option<Duration>,
) {
    let result = tokio::select! {
        result = write_all(&mut socket, &mut outgoing, silence) => result,
        () = shared.stop.cancelled() => Ok(()),
    };
    if let Err(error) = result {
        shared.close(&error.into());
    }
    // What was sent before the end, such as close-ok, still goes out.
    let rest = async {
        outgoing.close();
        while let Some(frames) = outgoing.recv().await {
            socket.write_all(&frames).await?;
        }
        socket.shutdown().await
    };
    let _ = timeout(LAST_WRITE_WAIT, rest).await;
    shared.close(&ClientError::Ended);
}

async fn write_all(
    socket: &mut WriteHalf,
    outgoing: &mut mpsc::Receiver<Bytes>,
    silence: Option<Duration>,
) -> std::io::Result<()> {
    let mut heartbeat = BytesMut::new();
    put_heartbeat(&mut heartbeat);
    loop {
        let next = match silence {
            Some(silence) => timeout(silence, outgoing.recv()).await,
            None => Ok(outgoing.recv().await),
        };
        match next {
            Err(_) => socket.write_all(&heartbeat).await?,
            Ok(None) => return Ok(()),
            Ok(Some(first)) => write_joined(socket, outgoing, first).await?,
        }
    }
}

/// Writes a chunk together with the small ones that wait behind it.
async fn write_joined(
    socket: &mut WriteHalf,
    outgoing: &mut mpsc::Receiver<Bytes>,
    first: Bytes,
) -> std::io::Result<()> {
    if first.len() >= JOINED_BYTES_MAX {
        return socket.write_all(&first).await;
    }
    let mut joined = Vec::from(first);
    while joined.len() < JOINED_BYTES_MAX {
        match outgoing.try_recv() {
            Ok(next) => joined.extend_from_slice(&next),
            Err(_) => break,
        }
    }
    socket.write_all(&joined).await
}
