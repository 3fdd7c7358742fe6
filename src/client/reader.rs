//! The reading task: cuts frames out of the socket's bytes and gives each to who waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::delivery::{Assembly, DeliveryHead, Target};
use super::error::ClientError;
use super::handshake::ReadHalf;
use super::shared::{Answer, ChannelShared, Shared};
use crate::amqp::frame::{self, Frame, FrameKind, put_method};
use crate::amqp::header::ContentHeader;
use crate::amqp::method::{Encode, Method, channel, connection};

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 256 * 1024;

/// Reads until the connection ends. `silence` is how long nothing may come; `None` is for ever.
pub(super) async fn run(
    mut socket: ReadHalf,
    mut buffer: BytesMut,
    shared: Arc<Shared>,
    silence: Option<Duration>,
) {
    let error = tokio::select! {
        result = read_all(&mut socket, &mut buffer, &shared, silence) => match result {
            Ok(never) => match never {},
            Err(error) => error,
        },
        () = shared.stop.cancelled() => ClientError::Ended,
    };
    shared.close(&error);
}

async fn read_all(
    socket: &mut ReadHalf,
    buffer: &mut BytesMut,
    shared: &Shared,
    silence: Option<Duration>,
) -> Result<std::convert::Infallible, ClientError> {
    loop {
        while let Some(frame) = next_frame(buffer, shared.frame_bytes_max)? {
            handle_frame(shared, frame).await?;
        }
        read_more(socket, buffer, silence).await?;
    }
}

/// The next frame in the buffer, if it is whole.
pub(super) fn next_frame(
    buffer: &mut BytesMut,
    frame_bytes_max: u32,
) -> Result<Option<Frame>, ClientError> {
    frame::decode(buffer, frame_bytes_max).map_err(|error| ClientError::Protocol(error.to_string()))
}

/// Waits for bytes; the end of the stream is an error.
pub(super) async fn read_more(
    socket: &mut ReadHalf,
    buffer: &mut BytesMut,
    silence: Option<Duration>,
) -> Result<(), ClientError> {
    buffer.reserve(READ_BYTES);
    let read = socket.read_buf(buffer);
    let count = match silence {
        None => read.await?,
        Some(silence) => {
            timeout(silence, read)
                .await
                .map_err(|_| ClientError::HeartbeatMissed {
                    seconds: silence.as_secs(),
                })??
        }
    };
    if count == 0 {
        let source = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "the broker closed the socket",
        );
        return Err(source.into());
    }
    Ok(())
}

/// Reads a method, in words that name what is wrong.
pub(super) fn decode_method(payload: &Bytes) -> Result<Method, ClientError> {
    Method::decode(payload).map_err(|error| ClientError::Protocol(error.to_string()))
}

/// One method as bytes to write.
pub(super) fn method_frame(channel: u16, method: &impl Encode) -> Bytes {
    let mut frames = BytesMut::new();
    put_method(&mut frames, channel, method);
    frames.freeze()
}

async fn handle_frame(shared: &Shared, frame: Frame) -> Result<(), ClientError> {
    if frame.kind == FrameKind::Heartbeat {
        return Ok(());
    }
    if frame.channel == 0 {
        return handle_connection_method(shared, decode_method(&frame.payload)?).await;
    }
    let Some(channel) = shared.channels.lock().get(&frame.channel).cloned() else {
        // Frames that were under way when the channel closed.
        return Ok(());
    };
    match frame.kind {
        FrameKind::Method => {
            let method = decode_method(&frame.payload)?;
            handle_channel_method(shared, frame.channel, &channel, method).await
        }
        FrameKind::Header => {
            let assembly = take_assembly(&channel)?;
            let header = ContentHeader::decode(&frame.payload)
                .map_err(|error| ClientError::Protocol(error.to_string()))?;
            let assembly = assembly.handle_header(header)?;
            *channel.assembly.lock() = assembly;
            Ok(())
        }
        FrameKind::Body => {
            let assembly = take_assembly(&channel)?;
            let assembly = assembly.handle_body(frame.payload).await?;
            *channel.assembly.lock() = assembly;
            Ok(())
        }
        FrameKind::Heartbeat => Ok(()),
    }
}

fn take_assembly(channel: &ChannelShared) -> Result<Assembly, ClientError> {
    let assembly = channel.assembly.lock().take();
    assembly.ok_or_else(|| ClientError::Protocol("content without its method".to_owned()))
}

async fn handle_connection_method(shared: &Shared, method: Method) -> Result<(), ClientError> {
    match method {
        Method::ConnectionClose(close) => {
            shared
                .send(method_frame(0, &connection::CloseOk {}))
                .await?;
            Err(ClientError::ConnectionClosed {
                code: close.reply_code,
                text: close.reply_text.to_string(),
            })
        }
        Method::ConnectionCloseOk(_) => {
            if let Some(answer) = shared.close_answer.lock().take() {
                let _ = answer.send(());
            }
            Err(ClientError::Ended)
        }
        Method::ConnectionBlocked(blocked) => {
            tracing::warn!(reason = %blocked.reason, "the broker asks publishers to wait");
            shared.set_blocked(true);
            Ok(())
        }
        Method::ConnectionUnblocked(_) => {
            shared.set_blocked(false);
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

fn unexpected(method: &Method) -> ClientError {
    ClientError::Protocol(format!("unexpected {}", method.name()))
}

async fn handle_channel_method(
    shared: &Shared,
    number: u16,
    channel: &Arc<ChannelShared>,
    method: Method,
) -> Result<(), ClientError> {
    match method {
        Method::BasicDeliver(deliver) => {
            let slot = {
                let consumers = channel.consumers.lock();
                let slot = consumers.get(&deliver.consumer_tag);
                slot.map(|slot| (slot.deliveries.clone(), slot.whole_bytes_max))
            };
            let (target, whole_bytes_max) = match slot {
                Some((deliveries, max)) => (Target::Consumer(deliveries), max),
                // Under way when the consumer was cancelled; the broker takes it back.
                None => (Target::Nobody, 0),
            };
            let head = DeliveryHead {
                delivery_tag: deliver.delivery_tag,
                redelivered: deliver.redelivered,
                exchange: deliver.exchange,
                routing_key: deliver.routing_key,
            };
            *channel.assembly.lock() = Some(Assembly::new(head, target, whole_bytes_max));
        }
        Method::BasicGetOk(got) => {
            let answer = channel.answer.lock().take().ok_or_else(|| {
                ClientError::Protocol("basic.get-ok without basic.get".to_owned())
            })?;
            let head = DeliveryHead {
                delivery_tag: got.delivery_tag,
                redelivered: got.redelivered,
                exchange: got.exchange,
                routing_key: got.routing_key,
            };
            let assembly = Assembly::new(head, Target::Get(answer), super::WHOLE_BODY_BYTES_MAX);
            *channel.assembly.lock() = Some(assembly);
        }
        Method::BasicReturn(returned) => {
            channel.confirms.lock().returned = Some(ClientError::Returned {
                code: returned.reply_code,
                text: returned.reply_text.to_string(),
            });
            let head = DeliveryHead {
                delivery_tag: 0,
                redelivered: false,
                exchange: returned.exchange,
                routing_key: returned.routing_key,
            };
            *channel.assembly.lock() = Some(Assembly::new(head, Target::Nobody, 0));
        }
        Method::BasicAck(ack) => settle(channel, ack.delivery_tag, ack.multiple, None),
        Method::BasicNack(nack) => {
            settle(
                channel,
                nack.delivery_tag,
                nack.multiple,
                Some(ClientError::Nacked),
            );
        }
        Method::BasicCancel(cancel) => {
            let slot = channel.consumers.lock().remove(&cancel.consumer_tag);
            if let Some(slot) = slot {
                let _ = slot.deliveries.send(Err(ClientError::ConsumerCancelled));
            }
        }
        Method::ChannelFlow(flow) => {
            let answer = channel::FlowOk {
                active: flow.active,
            };
            shared.send(method_frame(number, &answer)).await?;
        }
        Method::ChannelClose(close) => {
            shared.channels.lock().remove(&number);
            channel.close(&ClientError::ChannelClosed {
                code: close.reply_code,
                text: close.reply_text.to_string(),
            });
            shared
                .send(method_frame(number, &channel::CloseOk {}))
                .await?;
        }
        answer => {
            let waiting = channel
                .answer
                .lock()
                .take()
                .ok_or_else(|| unexpected(&answer))?;
            let _ = waiting.send(Ok(Answer::Method(answer)));
        }
    }
    Ok(())
}

/// Tells publishers what became of their messages up to `tag`, or of `tag` alone.
fn settle(channel: &ChannelShared, tag: u64, multiple: bool, error: Option<ClientError>) {
    let (settled, error) = {
        let mut confirms = channel.confirms.lock();
        let error = confirms.returned.take().or(error);
        let settled: Vec<_> = if multiple {
            let later = match tag {
                // 0 with multiple is all there are.
                0 => std::collections::BTreeMap::new(),
                tag => confirms.waiting.split_off(&tag.saturating_add(1)),
            };
            std::mem::replace(&mut confirms.waiting, later)
                .into_values()
                .collect()
        } else {
            confirms.waiting.remove(&tag).into_iter().collect()
        };
        (settled, error)
    };
    for confirm in settled {
        let _ = confirm.send(error.clone().map_or(Ok(()), Err));
    }
}
