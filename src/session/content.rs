//! Reassembles one message of a channel: method, content header, body frames.
//!
//! Owns: the half-received message. Knows nothing of queues, files or sockets.
//! Bound: holds less than the payload threshold, or what the broker has promised memory for; a larger body leaves frame
//! by frame as an upload, and one over the size limit is read over.
//!
//! ```text
//! Idle ─publish─> Header ─header─> Body ──────complete──> Idle
//!                           ├────> Upload ────complete──> Idle, once the store has it
//!                           │        └─keep──> Memory ──complete──> Idle
//!                           └────> TooLarge ──complete──> the channel is closed
//! Body ─frame longer than what was announced─> Overrun: whatever comes next closes the connection
//! ```
//! Spec: AMQP 0-9-1 §4.2.6; what is refused, and how, as in RabbitMQ.

use bytes::{Bytes, BytesMut};

use crate::amqp::frame::{FrameKind, FrameRef};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, HeaderError};
use crate::amqp::method::basic;
use crate::broker::Filling;

use super::failure::{Failure, MethodId};

/// Most memory that is taken for a body before its octets are there, in bytes.
const JOINED_BYTES_AT_ONCE_MAX: usize = 1024 * 1024;

/// Where a channel is in receiving a message.
#[derive(Debug, Default)]
pub(super) enum Content {
    /// Not in a message: a method must come.
    #[default]
    Idle,
    /// The header must come.
    Header { publish: basic::Publish },
    /// Body frames must come, and are kept.
    Body {
        publish: basic::Publish,
        header: ContentHeader,
        body: Received,
    },
    /// Body frames must come, and leave as an upload.
    Upload {
        publish: basic::Publish,
        header: ContentHeader,
        received_bytes: u64,
    },
    /// Body frames must come, and go into memory that the broker has promised.
    Memory {
        publish: basic::Publish,
        header: ContentHeader,
        /// Apart, so that small messages are not moved about with it.
        body: Box<Filling>,
    },
    /// Body frames must come, and are dropped: the message is over the limit.
    TooLarge {
        header: ContentHeader,
        received_bytes: u64,
    },
    /// More came than the header announced; RabbitMQ notices with the next frame.
    Overrun,
}

/// A body as far as it is there.
#[derive(Debug, Default)]
pub(super) enum Received {
    #[default]
    Nothing,
    /// One frame, a slice of the read buffer.
    One(Bytes),
    /// Several frames, joined.
    Joined(BytesMut),
}

impl Received {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
        }
    }

    /// Adds a frame's octets; `body_bytes` is how many there will be in all.
    fn push(&mut self, owner: &Bytes, piece: &[u8], body_bytes: usize) {
        if piece.is_empty() {
            return;
        }
        match self {
            Self::Nothing => *self = Self::One(owner.slice_ref(piece)),
            Self::One(first) => {
                // What is announced is not yet there: beyond the bound, memory grows as it comes.
                let mut joined = BytesMut::with_capacity(body_bytes.min(JOINED_BYTES_AT_ONCE_MAX));
                joined.extend_from_slice(first);
                joined.extend_from_slice(piece);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => joined.extend_from_slice(piece),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Joined(bytes) => bytes.freeze(),
        }
    }
}

/// What a frame of a message led to.
#[derive(Debug)]
pub(super) enum Progress {
    /// More must come.
    More,
    /// The message is whole.
    Whole {
        publish: basic::Publish,
        header: ContentHeader,
        body: Bytes,
    },
    /// A body for the payload store begins.
    UploadBegins { size_bytes: u64 },
    /// A part of it.
    UploadPart(Bytes),
    /// The last part of it: the message is whole once the store has it.
    UploadWhole {
        publish: basic::Publish,
        header: ContentHeader,
        last: Bytes,
    },
    /// A body in memory that was promised is whole, and the message with it.
    MemoryWhole {
        publish: basic::Publish,
        header: ContentHeader,
        body: Box<Filling>,
    },
    /// A message over the limit was read to its end.
    TooLarge { size_bytes: u64 },
}

/// Which bodies go where.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeRules {
    /// At least this many bytes: to the payload store. `None` without a store.
    pub(super) payload_threshold_bytes: Option<u64>,
    /// More than this many bytes: refused.
    pub(super) message_bytes_max: Option<u64>,
    /// Large bodies are delivered with their content id.
    pub(super) tells_content_ids: bool,
    /// `prefetch_size` counts; otherwise it is refused.
    pub(super) counts_prefetch_size: bool,
}

impl SizeRules {
    /// The longest body that goes to the broker in memory, in bytes.
    #[inline]
    pub(super) fn inline_bytes_max(self) -> usize {
        let below_threshold = self
            .payload_threshold_bytes
            .map(|least| least.saturating_sub(1));
        let max = below_threshold.into_iter().chain(self.message_bytes_max);
        usize::try_from(max.min().unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
    }
}

impl Content {
    /// Whether a method may come.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// A method came in the middle of a message.
    pub(super) fn method_unexpected(&self) -> Failure {
        match self {
            Self::Header { .. } | Self::Idle => no_header(),
            Self::Body { .. }
            | Self::Upload { .. }
            | Self::Memory { .. }
            | Self::TooLarge { .. }
            | Self::Overrun => no_body(),
        }
    }

    /// Lets a body that has just begun go into memory in the place of the payload store.
    // req: MEMBODY-1
    pub(super) fn keep(&mut self, body: Box<Filling>) {
        *self = match std::mem::take(self) {
            Self::Upload {
                publish,
                header,
                received_bytes: 0,
            } => Self::Memory {
                publish,
                header,
                body,
            },
            other => other,
        };
    }

    /// Takes a header or body frame. `owner` is the buffer that the frame lies in.
    #[inline]
    pub(super) fn handle_frame(
        &mut self,
        owner: &Bytes,
        frame: &FrameRef<'_>,
        rules: SizeRules,
    ) -> Result<Progress, Failure> {
        match (std::mem::take(self), frame.kind) {
            (Self::Header { publish }, FrameKind::Header) => {
                self.begin(publish, read_header(owner, frame.payload)?, rules)
            }
            (
                Self::Body {
                    publish,
                    header,
                    body,
                },
                FrameKind::Body,
            ) => Ok(self.continue_body(publish, header, body, owner, frame.payload)),
            (
                Self::Upload {
                    publish,
                    header,
                    received_bytes,
                },
                FrameKind::Body,
            ) => Ok(self.continue_upload(publish, header, received_bytes, owner, frame.payload)),
            (
                Self::Memory {
                    publish,
                    header,
                    body,
                },
                FrameKind::Body,
            ) => Ok(self.continue_memory(publish, header, body, frame.payload)),
            (
                Self::TooLarge {
                    header,
                    received_bytes,
                },
                FrameKind::Body,
            ) => {
                let received_bytes = received_bytes + frame.payload.len() as u64;
                if received_bytes >= header.body_bytes {
                    return Ok(Progress::TooLarge {
                        size_bytes: header.body_bytes,
                    });
                }
                *self = Self::TooLarge {
                    header,
                    received_bytes,
                };
                Ok(Progress::More)
            }
            (Self::Overrun, FrameKind::Body) => {
                *self = Self::Overrun;
                Ok(Progress::More)
            }
            (Self::Idle, _) => Err(Failure::unexpected_frame(
                "expected method frame, got non method frame instead",
                MethodId::default(),
            )),
            (Self::Header { .. }, _) => Err(no_header()),
            (
                Self::Body { .. }
                | Self::Upload { .. }
                | Self::Memory { .. }
                | Self::TooLarge { .. }
                | Self::Overrun,
                _,
            ) => Err(no_body()),
        }
    }

    fn begin(
        &mut self,
        publish: basic::Publish,
        header: ContentHeader,
        rules: SizeRules,
    ) -> Result<Progress, Failure> {
        let size_bytes = header.body_bytes;
        if rules.message_bytes_max.is_some_and(|max| size_bytes > max) {
            *self = Self::TooLarge {
                header,
                received_bytes: 0,
            };
            return Ok(Progress::More);
        }
        if size_bytes == 0 {
            return Ok(Progress::Whole {
                publish,
                header,
                body: Bytes::new(),
            });
        }
        if rules
            .payload_threshold_bytes
            .is_some_and(|threshold| size_bytes >= threshold)
        {
            // Before anything is stored: what RabbitMQ would refuse at the end.
            header.properties_ref()?;
            *self = Self::Upload {
                publish,
                header,
                received_bytes: 0,
            };
            return Ok(Progress::UploadBegins { size_bytes });
        }
        *self = Self::Body {
            publish,
            header,
            body: Received::Nothing,
        };
        Ok(Progress::More)
    }

    fn continue_body(
        &mut self,
        publish: basic::Publish,
        header: ContentHeader,
        mut body: Received,
        owner: &Bytes,
        piece: &[u8],
    ) -> Progress {
        let received_bytes = (body.len() + piece.len()) as u64;
        if received_bytes > header.body_bytes {
            *self = Self::Overrun;
            return Progress::More;
        }
        let body_bytes = usize::try_from(header.body_bytes).unwrap_or(usize::MAX);
        body.push(owner, piece, body_bytes);
        if received_bytes == header.body_bytes {
            return Progress::Whole {
                publish,
                header,
                body: body.into_bytes(),
            };
        }
        *self = Self::Body {
            publish,
            header,
            body,
        };
        Progress::More
    }

    fn continue_upload(
        &mut self,
        publish: basic::Publish,
        header: ContentHeader,
        received_bytes: u64,
        owner: &Bytes,
        piece: &[u8],
    ) -> Progress {
        let received_bytes = received_bytes + piece.len() as u64;
        if received_bytes > header.body_bytes {
            *self = Self::Overrun;
            return Progress::More;
        }
        let part = owner.slice_ref(piece);
        if received_bytes == header.body_bytes {
            return Progress::UploadWhole {
                publish,
                header,
                last: part,
            };
        }
        *self = Self::Upload {
            publish,
            header,
            received_bytes,
        };
        Progress::UploadPart(part)
    }

    fn continue_memory(
        &mut self,
        publish: basic::Publish,
        header: ContentHeader,
        mut body: Box<Filling>,
        piece: &[u8],
    ) -> Progress {
        let received_bytes = body.len_bytes() + piece.len() as u64;
        if received_bytes > header.body_bytes {
            *self = Self::Overrun;
            return Progress::More;
        }
        body.push(piece);
        if received_bytes == header.body_bytes {
            return Progress::MemoryWhole {
                publish,
                header,
                body,
            };
        }
        *self = Self::Memory {
            publish,
            header,
            body,
        };
        Progress::More
    }
}

fn read_header(owner: &Bytes, payload: &[u8]) -> Result<ContentHeader, Failure> {
    let header = match ContentHeader::decode_in(owner, payload) {
        Ok(header) => header,
        // RabbitMQ does not take it for a content header.
        Err(HeaderError::Weight { .. }) => return Err(no_header()),
        Err(error) => return Err(error.into()),
    };
    if header.class_id != CLASS_ID_BASIC {
        return Err(Failure::unexpected_frame(
            format_args!(
                "expected content header for class {CLASS_ID_BASIC}, got one for class {} instead",
                header.class_id
            ),
            MethodId::PUBLISH,
        ));
    }
    Ok(header)
}

fn no_header() -> Failure {
    Failure::unexpected_frame(
        format_args!(
            "expected content header for class {CLASS_ID_BASIC}, \
             got non content header frame instead"
        ),
        MethodId::PUBLISH,
    )
}

fn no_body() -> Failure {
    Failure::unexpected_frame(
        "expected content body, got non content body frame instead",
        MethodId::PUBLISH,
    )
}
