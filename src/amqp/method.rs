//! Methods: every one of AMQP 0-9-1 and of RabbitMQ's extensions, as values.
//!
//! Owns: the list of methods, and decoding and encoding any of them. One file per class holds the
//! methods themselves, each a list of fields in the order of the wire; `definition.rs` turns such a
//! list into a struct with its two directions. Fields that the standard reserves are read over
//! and written as zero.
//! Bounds: those of the fields; a decoded method is slices of the frame that it came in.
//! Spec: AMQP 0-9-1 §1 "The AMQP Reference"; `spec/amqp.md` METHOD-1 to METHOD-5 and its table.

mod definition;
mod error;

pub mod access;
pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod exchange;
pub mod queue;
pub mod tx;

use bytes::{Bytes, BytesMut};

use definition::Arguments;
pub use error::DecodeError;

/// A value that can be written as the payload of a method frame.
pub trait Encode {
    /// Appends class id, method id and arguments.
    fn encode(&self, output: &mut BytesMut);
}

/// `Variant(class::Struct)` for each method, in the order of class and method ids.
macro_rules! methods {
    ($($variant:ident($type:ty),)+) => {
        /// Any method.
        #[derive(Clone, Debug, Eq, PartialEq)]
        #[non_exhaustive]
        pub enum Method {
            $(
                #[doc = concat!("[`", stringify!($type), "`]")]
                $variant($type),
            )+
        }

        impl Method {
            /// Class and method ids of all methods with their names, ascending.
            pub const ALL: &'static [(u16, u16, &'static str)] =
                &[$((<$type>::CLASS_ID, <$type>::METHOD_ID, <$type>::NAME),)+];

            /// The class id.
            pub fn class_id(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => <$type>::CLASS_ID,)+
                }
            }

            /// The method id within the class.
            pub fn method_id(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => <$type>::METHOD_ID,)+
                }
            }

            /// The name as in the standard: `queue.declare-ok`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$type>::NAME,)+
                }
            }

            /// Whether all of its short strings are UTF-8.
            #[inline]
            pub fn is_text(&self) -> bool {
                match self {
                    $(Self::$variant(method) => method.is_text(),)+
                }
            }

            /// Reads the arguments of the method with this id, which must fill `arguments`.
            #[inline]
            fn parse_arguments(
                id: u32,
                arguments: &[u8],
                owner: &Bytes,
            ) -> Result<Self, DecodeError> {
                match id {
                    $(
                        <$type>::ID => match <$type>::parse(arguments, owner) {
                            Ok(([], method)) => Ok(Self::$variant(method)),
                            Ok(_) => Err(DecodeError::trailing(id, arguments, owner)),
                            Err(error) => {
                                Err(DecodeError::from_field(error.into(), id, arguments, owner))
                            }
                        },
                    )+
                    _ => Err(DecodeError::unknown_method(id)),
                }
            }
        }

        impl Encode for Method {
            fn encode(&self, output: &mut BytesMut) {
                match self {
                    $(Self::$variant(method) => method.encode(output),)+
                }
            }
        }

        #[cfg(test)]
        impl crate::amqp::field::strategy::Any for Method {
            fn any() -> proptest::strategy::BoxedStrategy<Self> {
                use crate::amqp::field::strategy::any;
                use proptest::strategy::{Strategy as _, Union};
                Union::new([$(any::<$type>().prop_map(Self::from).boxed(),)+]).boxed()
            }
        }

        $(
            impl From<$type> for Method {
                fn from(method: $type) -> Self {
                    Self::$variant(method)
                }
            }
        )+
    };
}

methods! {
    ConnectionStart(connection::Start),
    ConnectionStartOk(connection::StartOk),
    ConnectionSecure(connection::Secure),
    ConnectionSecureOk(connection::SecureOk),
    ConnectionTune(connection::Tune),
    ConnectionTuneOk(connection::TuneOk),
    ConnectionOpen(connection::Open),
    ConnectionOpenOk(connection::OpenOk),
    ConnectionClose(connection::Close),
    ConnectionCloseOk(connection::CloseOk),
    ConnectionBlocked(connection::Blocked),
    ConnectionUnblocked(connection::Unblocked),
    ConnectionUpdateSecret(connection::UpdateSecret),
    ConnectionUpdateSecretOk(connection::UpdateSecretOk),
    ChannelOpen(channel::Open),
    ChannelOpenOk(channel::OpenOk),
    ChannelFlow(channel::Flow),
    ChannelFlowOk(channel::FlowOk),
    ChannelClose(channel::Close),
    ChannelCloseOk(channel::CloseOk),
    AccessRequest(access::Request),
    AccessRequestOk(access::RequestOk),
    ExchangeDeclare(exchange::Declare),
    ExchangeDeclareOk(exchange::DeclareOk),
    ExchangeDelete(exchange::Delete),
    ExchangeDeleteOk(exchange::DeleteOk),
    ExchangeBind(exchange::Bind),
    ExchangeBindOk(exchange::BindOk),
    ExchangeUnbind(exchange::Unbind),
    ExchangeUnbindOk(exchange::UnbindOk),
    QueueDeclare(queue::Declare),
    QueueDeclareOk(queue::DeclareOk),
    QueueBind(queue::Bind),
    QueueBindOk(queue::BindOk),
    QueuePurge(queue::Purge),
    QueuePurgeOk(queue::PurgeOk),
    QueueDelete(queue::Delete),
    QueueDeleteOk(queue::DeleteOk),
    QueueUnbind(queue::Unbind),
    QueueUnbindOk(queue::UnbindOk),
    BasicQos(basic::Qos),
    BasicQosOk(basic::QosOk),
    BasicConsume(basic::Consume),
    BasicConsumeOk(basic::ConsumeOk),
    BasicCancel(basic::Cancel),
    BasicCancelOk(basic::CancelOk),
    BasicPublish(basic::Publish),
    BasicReturn(basic::Return),
    BasicDeliver(basic::Deliver),
    BasicGet(basic::Get),
    BasicGetOk(basic::GetOk),
    BasicGetEmpty(basic::GetEmpty),
    BasicAck(basic::Ack),
    BasicReject(basic::Reject),
    BasicRecoverAsync(basic::RecoverAsync),
    BasicRecover(basic::Recover),
    BasicRecoverOk(basic::RecoverOk),
    BasicNack(basic::Nack),
    ConfirmSelect(confirm::Select),
    ConfirmSelectOk(confirm::SelectOk),
    TxSelect(tx::Select),
    TxSelectOk(tx::SelectOk),
    TxCommit(tx::Commit),
    TxCommitOk(tx::CommitOk),
    TxRollback(tx::Rollback),
    TxRollbackOk(tx::RollbackOk),
}

impl Method {
    /// Reads the payload of a method frame.
    ///
    /// # Errors
    /// See [`DecodeError`] for what the connection must do.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        Self::decode_in(payload, payload)
    }

    /// Like [`decode`](Self::decode), for a payload that is a part of `owner`: what the method keeps
    /// are slices of `owner`.
    ///
    /// # Errors
    /// See [`DecodeError`] for what the connection must do.
    ///
    /// # Panics
    /// If `payload` does not lie in `owner`.
    // req: METHOD-1
    // req: METHOD-2
    // req: METHOD-3
    // req: METHOD-4
    pub fn decode_in(owner: &Bytes, payload: &[u8]) -> Result<Self, DecodeError> {
        match payload.split_first_chunk() {
            Some((id, arguments)) => {
                Self::parse_arguments(u32::from_be_bytes(*id), arguments, owner)
            }
            None => Err(DecodeError::no_method(payload, owner)),
        }
    }

    /// Whether a content header and a body follow this method.
    pub fn has_content(&self) -> bool {
        matches!(
            self,
            Self::BasicPublish(_)
                | Self::BasicReturn(_)
                | Self::BasicDeliver(_)
                | Self::BasicGetOk(_)
        )
    }
}

#[cfg(test)]
mod tests;
