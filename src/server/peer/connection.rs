//! One connection: bytes in, messages to the engine; messages and blocks out, in order.
//!
//! Blocks are read from the socket straight into buffers that are used again, the head of the next
//! message with the same system call; they are written with their heads and the messages before them
//! in one.
//! Bounds: unsent messages 4 MiB, then the connection ends; one message is held while it comes in.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::core::{self, Shared};
use super::secure::{Received, SecureSocket};
use super::transfer::TransferIo;
use crate::payload::BlockRange;
use crate::swarm::wire::{self, BlockHeader, Header, Slot};
use crate::swarm::{ChannelBinding, ConnId, Message, TransferId};

/// Unsent messages, blocks not counted. Beyond it: close.
const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes read at a time while no block is coming in.
const HEAD_BYTES: usize = 4 * 1024;
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

/// The transport of one connection.
pub(super) enum Link {
    /// TCP.
    Plain(TcpStream),
    /// TLS over it.
    Secure(Arc<SecureSocket>),
}

impl Link {
    /// What proofs are bound to.
    pub(super) fn binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::default(),
            Self::Secure(socket) => socket.binding(),
        }
    }

    fn into_split(self) -> (Reader, Writer) {
        match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Self::Secure(socket) => {
                let reader = Reader::Secure(Arc::clone(&socket), Received::default());
                (reader, Writer::Secure(socket))
            }
        }
    }
}

/// One connection's incoming direction.
enum Reader {
    Plain(OwnedReadHalf),
    Secure(Arc<SecureSocket>, Received),
}

impl Reader {
    /// Fills `place` and then `beyond` with what is there, at least one octet; 0 is the end.
    async fn read(&mut self, place: &mut [u8], beyond: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => loop {
                reader.readable().await?;
                let mut slices = [IoSliceMut::new(place), IoSliceMut::new(beyond)];
                match reader.try_read_vectored(&mut slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            },
            Self::Secure(socket, received) if place.is_empty() => {
                socket.read(received, beyond).await
            }
            Self::Secure(socket, received) => socket.read(received, place).await,
        }
    }
}

/// One connection's outgoing direction.
enum Writer {
    Plain(OwnedWriteHalf),
    Secure(Arc<SecureSocket>),
}

impl Writer {
    /// Sends all of it, with as few system calls as the transport allows.
    async fn write_all(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        match self {
            Self::Plain(writer) => write_all_vectored(writer, slices).await,
            Self::Secure(socket) => {
                for slice in slices {
                    socket.write_all(slice).await?;
                }
                Ok(())
            }
        }
    }
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
        let part = queue.parts.pop_front()?;
        if let Part::Messages(bytes) = &part {
            queue.message_bytes -= bytes.len();
        }
        Some(part)
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
    let message = Message::Block {
        slot: block.slot,
        piece: block.piece,
        offset_bytes: block.offset_bytes,
        bytes: Bytes::from(buffer),
    };
    core::with(shared, |core, now| {
        core.engine.handle_message(conn, message, now);
    });
    Ok(())
}

/// Sends what the engine wants sent until the socket ends.
async fn write(
    shared: &Arc<Shared>,
    mut writer: Writer,
    conn: ConnId,
    output: &Output,
) -> Result<(), ConnectionError> {
    let mut messages = BytesMut::new();
    loop {
        match output.next() {
            Some(Part::Messages(bytes)) if messages.is_empty() => messages = bytes,
            Some(Part::Messages(bytes)) => messages.extend_from_slice(&bytes),
            Some(Part::Block(pending)) => {
                write_block(shared, &mut writer, conn, pending, &mut messages).await?;
            }
            None if messages.is_empty() => output.filled.notified().await,
            None => {
                writer.write_all(&mut [IoSlice::new(&messages)]).await?;
                messages.clear();
            }
        }
    }
}

/// Sends a block with the messages before it, and tells the engine that it left.
async fn write_block(
    shared: &Arc<Shared>,
    writer: &mut Writer,
    conn: ConnId,
    pending: PendingBlock,
    messages: &mut BytesMut,
) -> Result<(), ConnectionError> {
    let (transfer, block) = (pending.transfer, pending.block);
    let mut bytes = shared.buffers.take(pending.head.len_bytes);
    if let Err(error) = pending.io.read(block, &mut bytes) {
        tracing::warn!(%error, piece = block.piece().get(), "piece cannot be read");
        shared.buffers.put(bytes);
        core::with(shared, |core, now| {
            core.engine.handle_read_failed(conn, transfer, block, now);
        });
        return Ok(());
    }
    let head = wire::encode_block_header(pending.head);
    let mut slices = [
        IoSlice::new(messages),
        IoSlice::new(&head),
        IoSlice::new(&bytes),
    ];
    writer.write_all(&mut slices).await?;
    messages.clear();
    shared.buffers.put(bytes);
    core::with(shared, |core, now| core.engine.handle_block_sent(conn, now));
    Ok(())
}

async fn write_all_vectored(
    writer: &mut OwnedWriteHalf,
    slices: &mut [IoSlice<'_>],
) -> io::Result<()> {
    let mut rest = slices;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let count = writer.write_vectored(rest).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, count);
    }
    Ok(())
}
