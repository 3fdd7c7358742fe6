//! One connection: bytes in, messages to the engine; messages and blocks out, in order.
//!
//! Blocks are read from the socket straight into buffers that are used again, the head of the next
//! message with the same system call. Those that go out are sent by the system from the file they lie in; small
//! ones, and all where TLS changes the octets, are copied and leave with what is around them, several with one
//! system call.
//! Bounds: unsent messages 4 MiB, then the connection ends; one message is held while it comes in.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::core::{self, Shared};
use super::link::{Link, Reader, Writer};
use super::transfer::TransferIo;
use crate::disk::DiskFile;
use crate::payload::BlockRange;
use crate::swarm::wire::{self, BLOCK_HEADER_BYTES, BlockHeader, Header, Slot};
use crate::swarm::{ConnId, Message, TransferId};

/// Unsent messages, blocks not counted. Beyond it: close.
const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes read at a time while no block is coming in.
const HEAD_BYTES: usize = 4 * 1024;
/// Blocks and messages that are sent with one system call, in bytes; a single one may be longer.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Blocks from this length on are sent from their file past this process, in bytes.
const FILE_BLOCK_BYTES_MIN: usize = 64 * 1024;
/// The engine is told of a block that is still coming in at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Why a connection ended, as far as the socket knows.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("closed by the peer")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] wire::WireError),
}

/// What waits to be sent on one connection.
pub(super) struct Output {
    queue: Mutex<OutputQueue>,
    filled: Notify,
    closed: CancellationToken,
}

#[derive(Default)]
struct OutputQueue {
    parts: VecDeque<Part>,
    message_bytes: usize,
}

enum Part {
    Messages(BytesMut),
    Block(PendingBlock),
}

struct PendingBlock {
    head: BlockHeader,
    transfer: TransferId,
    io: Arc<TransferIo>,
    block: BlockRange,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::new(OutputQueue::default()),
            filled: Notify::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Appends a message.
    pub(super) fn send(&self, message: &Message) {
        let mut queue = self.queue.lock();
        if !matches!(queue.parts.back(), Some(Part::Messages(_))) {
            queue.parts.push_back(Part::Messages(BytesMut::new()));
        }
        let Some(Part::Messages(bytes)) = queue.parts.back_mut() else {
            return;
        };
        let before = bytes.len();
        wire::encode(message, bytes);
        let added = bytes.len() - before;
        queue.message_bytes += added;
        let full = queue.message_bytes > UNSENT_BYTES_MAX;
        drop(queue);
        if full {
            self.closed.cancel();
        }
        self.filled.notify_one();
    }

    /// Appends a block, whose bytes are read when its turn comes.
    pub(super) fn send_block(
        &self,
        slot: Slot,
        transfer: TransferId,
        io: Arc<TransferIo>,
        block: BlockRange,
    ) {
        let head = BlockHeader {
            slot,
            piece: block.piece().get(),
            offset_bytes: block.offset_bytes(),
            len_bytes: block.len_bytes() as usize,
        };
        let pending = PendingBlock {
            head,
            transfer,
            io,
            block,
        };
        self.queue.lock().parts.push_back(Part::Block(pending));
        self.filled.notify_one();
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until the connection is to end.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The next messages, encoded; blocks are for sockets alone and left out.
    pub(super) async fn messages(&self) -> BytesMut {
        loop {
            match self.next() {
                Some(Part::Messages(bytes)) => return bytes,
                Some(Part::Block(_)) => {}
                None => self.filled.notified().await,
            }
        }
    }

    fn next(&self) -> Option<Part> {
        let mut queue = self.queue.lock();
        queue.next()
    }

    /// Moves what is to be sent next to `batch`: one part, and those behind it up to [`BATCH_BYTES_MAX`].
    fn take_batch(&self, batch: &mut Vec<Part>) {
        let mut queue = self.queue.lock();
        let mut len_bytes = 0;
        while let Some(next) = queue.parts.front() {
            len_bytes += next.len_bytes();
            if !batch.is_empty() && len_bytes > BATCH_BYTES_MAX {
                return;
            }
            batch.extend(queue.next());
        }
    }
}

impl OutputQueue {
    fn next(&mut self) -> Option<Part> {
        let part = self.parts.pop_front()?;
        if let Part::Messages(bytes) = &part {
            self.message_bytes -= bytes.len();
        }
        Some(part)
    }
}

impl Part {
    /// Bytes on the wire.
    fn len_bytes(&self) -> usize {
        match self {
            Self::Messages(bytes) => bytes.len(),
            Self::Block(pending) => BLOCK_HEADER_BYTES + pending.head.len_bytes,
        }
    }

    /// The file and its range that a block is to be sent from, if it is long enough that not copying it is worth system
    /// calls of its own.
    fn file(&self) -> Option<(Arc<dyn DiskFile>, Range<u64>)> {
        match self {
            Self::Block(pending) if pending.head.len_bytes >= FILE_BLOCK_BYTES_MIN => {
                pending.io.file_of(pending.block)
            }
            Self::Messages(_) | Self::Block(_) => None,
        }
    }
}

/// Runs a connection to its end, and tells the engine of it.
pub(super) async fn run(
    shared: Arc<Shared>,
    link: Link,
    remote: SocketAddr,
    conn: ConnId,
    output: Arc<Output>,
) {
    let (reader, writer) = link.into_split();
    // In this order, so that the greeting is out before what came is judged: it tells who speaks TLS that he is not
    // understood here.
    let ended = tokio::select! {
        biased;
        () = shared.stopping.cancelled() => Ok(()),
        () = output.closed.cancelled() => Ok(()),
        ended = write(&shared, writer, conn, &output) => ended,
        ended = read(&shared, reader, conn) => ended,
    };
    if let Err(reason) = ended {
        tracing::debug!(peer = %remote, conn = conn.0, %reason, "peer connection ended");
    }
    core::with(&shared, |core, now| {
        core.remove(conn, remote);
        core.engine.handle_disconnected(conn, now);
    });
}

/// Takes messages from the socket until it ends.
async fn read(
    shared: &Arc<Shared>,
    mut reader: Reader,
    conn: ConnId,
) -> Result<(), ConnectionError> {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    let mut scratch = [0; HEAD_BYTES];
    loop {
        take_messages(shared, &mut head, conn)?;
        if Header::peek(&head)?.is_some_and(|header| header.is_block())
            && let Some(block) = wire::decode_block_header(&mut head)?
        {
            read_block(shared, &mut reader, conn, block, &mut head, &mut scratch).await?;
            continue;
        }
        match reader.read(&mut scratch, &mut []).await? {
            0 => return Err(ConnectionError::Closed),
            count => head.extend_from_slice(scratch.get(..count).unwrap_or_default()),
        }
    }
}

/// Gives the engine every whole message in `head` that is not a block.
fn take_messages(
    shared: &Arc<Shared>,
    head: &mut BytesMut,
    conn: ConnId,
) -> Result<(), ConnectionError> {
    let mut messages = Vec::new();
    while let Some(header) = Header::peek(head)? {
        if header.is_block() {
            break;
        }
        let Some(message) = wire::decode(head)? else {
            break;
        };
        messages.push(message);
    }
    if !messages.is_empty() {
        core::with(shared, |core, now| {
            for message in messages {
                core.engine.handle_message(conn, message, now);
            }
        });
    }
    Ok(())
}

/// Reads the bytes of a block into a buffer of their own, and what follows into `head`.
async fn read_block(
    shared: &Arc<Shared>,
    reader: &mut Reader,
    conn: ConnId,
    block: BlockHeader,
    head: &mut BytesMut,
    scratch: &mut [u8; HEAD_BYTES],
) -> Result<(), ConnectionError> {
    let mut buffer = shared.buffers.take(block.len_bytes);
    let mut filled = head.len().min(block.len_bytes);
    if let Some(place) = buffer.get_mut(..filled) {
        head.copy_to_slice(place);
    }
    let mut told = Instant::now();
    let mut told_bytes = filled;
    while filled < block.len_bytes {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        let wanted = rest.len();
        match reader.read(rest, scratch.as_mut_slice()).await? {
            0 => return Err(ConnectionError::Closed),
            count => {
                filled += count.min(wanted);
                let beyond = count.saturating_sub(wanted);
                head.extend_from_slice(scratch.get(..beyond).unwrap_or_default());
            }
        }
        if filled < block.len_bytes && told.elapsed() >= PROGRESS_INTERVAL {
            let bytes = (filled - told_bytes) as u64;
            core::with(shared, |core, now| {
                core.engine.handle_progress(conn, block.slot, bytes, now);
            });
            told = Instant::now();
            told_bytes = filled;
        }
    }
    let bytes = Bytes::from(buffer);
    let message = Message::Block {
        slot: block.slot,
        piece: block.piece,
        offset_bytes: block.offset_bytes,
        bytes: bytes.clone(),
    };
    core::with(shared, |core, now| {
        core.engine.handle_message(conn, message, now);
    });
    // Its pieces were written by now, if they were whole.
    shared.buffers.put_bytes(bytes);
    Ok(())
}

/// Sends what the engine wants sent until the socket ends.
async fn write(
    shared: &Arc<Shared>,
    mut writer: Writer,
    conn: ConnId,
    output: &Output,
) -> Result<(), ConnectionError> {
    let mut batch = Vec::new();
    loop {
        output.take_batch(&mut batch);
        if batch.is_empty() {
            output.filled.notified().await;
            continue;
        }
        write_batch(shared, &mut writer, conn, &mut batch).await?;
    }
}

/// Sends messages and blocks in their order with one system call, and tells the engine of the blocks that left.
async fn write_batch(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    conn: ConnId,
    batch: &mut Vec<Part>,
) -> Result<(), ConnectionError> {
    if let [Part::Messages(messages)] = batch.as_slice() {
        writer.write_all(messages).await?;
        batch.clear();
        return Ok(());
    }
    let mut bytes = shared.outgoing.take_longer(0);
    let mut filled = 0;
    let mut blocks = Vec::new();
    for part in batch.drain(..) {
        let file = writer.takes_files().then(|| part.file()).flatten();
        let copied_bytes = match file {
            Some(_) => BLOCK_HEADER_BYTES,
            None => part.len_bytes(),
        };
        if bytes.len() < filled + copied_bytes {
            bytes.resize(filled + copied_bytes, 0);
        }
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match (part, file) {
            (Part::Messages(messages), _) => filled += put(rest, &messages),
            (Part::Block(pending), None) => {
                let (sent_bytes, is_read) = read_out(&pending, rest);
                filled += sent_bytes;
                blocks.push((pending.transfer, pending.block, is_read));
            }
            (Part::Block(pending), Some((file, range))) => {
                filled += put(rest, &wire::encode_block_header(pending.head));
                let before = bytes.get(..filled).unwrap_or_default();
                writer.send_file(before, &*file, range).await?;
                filled = 0;
                blocks.push((pending.transfer, pending.block, true));
            }
        }
    }
    let rest = bytes.get(..filled).unwrap_or_default();
    if !rest.is_empty() {
        writer.write_all(rest).await?;
    }
    shared.outgoing.put(bytes);
    if !blocks.is_empty() {
        core::with(shared, |core, now| {
            for (transfer, block, is_read) in blocks {
                if is_read {
                    core.engine.handle_block_sent(conn, now);
                } else {
                    core.engine.handle_read_failed(conn, transfer, block, now);
                }
            }
        });
    }
    Ok(())
}

/// Puts a block with its head into `place`: how many bytes, and whether it could be read; if not, none.
fn read_out(pending: &PendingBlock, place: &mut [u8]) -> (usize, bool) {
    let head = wire::encode_block_header(pending.head);
    let head_bytes = put(place, &head);
    let end = head_bytes + pending.head.len_bytes;
    let content = place.get_mut(head_bytes..end).unwrap_or_default();
    match pending.io.read(pending.block, content) {
        Ok(()) => (end, true),
        Err(error) => {
            tracing::warn!(%error, piece = pending.block.piece().get(), "piece cannot be read");
            (0, false)
        }
    }
}

/// Copies `bytes` to the beginning of `place`, which is long enough; answers how many they are.
fn put(place: &mut [u8], bytes: &[u8]) -> usize {
    if let Some(place) = place.get_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
    bytes.len()
}
