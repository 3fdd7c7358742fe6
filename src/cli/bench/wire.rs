//! One connection with one channel, driven method by method, or many methods at a time.
//!
//! Owns: the setting up around a measurement: declaring, binding, deleting, closing.
//! Bound: [`PIPELINED_MAX`] methods wait for their answers.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use crate::amqp::field::ShortString;
use crate::amqp::frame::{self, FrameKind, put_method};
use crate::amqp::method::{Encode, Method, channel, connection};
use crate::amqp::reply::ReplyCode;
use crate::client::{AmqpUri, ConnectSettings, RawConnection, RawReader, RawWriter};

/// The channel that all is said on.
pub(super) const CHANNEL: u16 = 1;
/// Methods that a connection sends ahead of their answers, where nobody says how many.
pub(super) const PIPELINED_COUNT: u64 = 1_000;
/// Longest wait for any answer.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Longest wait for the broker to agree to the end.
const CLOSE_WAIT: Duration = Duration::from_secs(20);

/// A connection and its channel.
pub(super) struct Wire {
    pub(super) reader: RawReader,
    pub(super) writer: RawWriter,
    /// Frames that were read; the next is at the start.
    frames: Bytes,
}

impl Wire {
    /// Connects and opens the channel.
    pub(super) async fn open(uri: &AmqpUri, settings: &ConnectSettings) -> anyhow::Result<Self> {
        let (reader, writer) = RawConnection::open(uri, settings).await?.split();
        let mut wire = Self {
            reader,
            writer,
            frames: Bytes::new(),
        };
        wire.call(&channel::Open {}).await?;
        Ok(wire)
    }

    /// Sends a method and waits for the next one on the channel.
    ///
    /// # Errors
    /// If the broker closed the channel or the connection instead, with its words.
    pub(super) async fn call(&mut self, method: &impl Encode) -> anyhow::Result<Method> {
        let mut out = BytesMut::new();
        put_method(&mut out, CHANNEL, method);
        self.writer.write(&out).await?;
        self.answer().await
    }

    /// Sends `count` methods, at most `window` ahead of their answers, and waits for an answer to each.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(super) async fn pipeline(
        &mut self,
        count: u64,
        window: u64,
        mut put: impl FnMut(u64, &mut BytesMut),
    ) -> anyhow::Result<()> {
        let (mut sent, mut answered) = (0, 0);
        let mut out = BytesMut::new();
        while answered < count {
            out.clear();
            let until = count.min(answered + window);
            while sent < until {
                put(sent, &mut out);
                sent += 1;
            }
            self.writer.write(&out).await?;
            // Half of them, so that the broker has the others to work on meanwhile.
            let awaited = (answered + window.div_ceil(2)).min(sent);
            while answered < awaited {
                self.answer().await?;
                answered += 1;
            }
        }
        Ok(())
    }

    /// The next method on the channel.
    async fn answer(&mut self) -> anyhow::Result<Method> {
        loop {
            while !self.frames.is_empty() {
                let frames = self.frames.clone();
                let frame = frame::parse(&frames, self.reader.frame_bytes_max())?
                    .context("frames are taken whole")?;
                self.frames = frames.slice(frame.frame_bytes..);
                let number = frame.channel;
                let method = match frame.kind {
                    FrameKind::Method => Some(Method::decode_in(&frames, frame.payload)?),
                    FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => None,
                };
                if let Some(method) = method {
                    check_open(&method)?;
                    if number == CHANNEL {
                        return Ok(method);
                    }
                }
            }
            timeout(ANSWER_WAIT, self.reader.fill())
                .await
                .context("the broker does not answer")??;
            self.frames = self.reader.take_frames()?;
        }
    }

    /// Says goodbye; when it returns, the broker has dealt with all that was sent.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        let Self {
            mut reader,
            mut writer,
            ..
        } = self;
        close(&mut reader, &mut writer, |_| Ok(())).await
    }
}

/// Says goodbye and gives all frames that still come to `handle`, up to the broker's answer.
pub(super) async fn close(
    reader: &mut RawReader,
    writer: &mut RawWriter,
    mut handle: impl FnMut(&Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    put_method(
        &mut out,
        0,
        &connection::Close {
            reply_code: ReplyCode::Success.number(),
            reply_text: ShortString::from_static("Goodbye"),
            class_id: 0,
            method_id: 0,
        },
    );
    writer.write(&out).await?;
    loop {
        let filled = timeout(CLOSE_WAIT, reader.fill()).await;
        if filled
            .context("the broker does not let the connection end")?
            .is_err()
        {
            // Some brokers just hang up.
            return Ok(());
        }
        let frames = reader.take_frames()?;
        if let Some(answer) = frames.len().checked_sub(CLOSE_OK_FRAME.len())
            && frames.get(answer..) == Some(CLOSE_OK_FRAME.as_slice())
        {
            return handle(&frames.slice(..answer));
        }
        handle(&frames)?;
    }
}

/// `connection.close-ok`, the last frame of a connection.
const CLOSE_OK_FRAME: [u8; 12] = [1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51, 0xce];

/// Makes an error of what ends a channel, a connection or a consumer, or says that a message was not taken.
pub(super) fn check_open(method: &Method) -> anyhow::Result<()> {
    match method {
        Method::ConnectionClose(close) => bail!(
            "the broker closed the connection: {} {}",
            close.reply_code,
            close.reply_text
        ),
        Method::ChannelClose(close) => bail!(
            "the broker closed the channel: {} {}",
            close.reply_code,
            close.reply_text
        ),
        Method::BasicCancel(cancel) => {
            bail!("the broker cancelled the consumer {}", cancel.consumer_tag)
        }
        Method::BasicNack(_) => bail!("the broker refused a message (basic.nack)"),
        Method::BasicReturn(_) => bail!("the broker returned a message"),
        _ => Ok(()),
    }
}
