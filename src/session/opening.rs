//! The opening of a session, step by step: what [`handshake`](super::handshake) decides is done here.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use crate::amqp::frame::{self, FrameKind, ProtocolHeader};
use crate::amqp::limits::FRAME_BYTES_BEFORE_TUNE;
use crate::amqp::method::{Method, connection};
use crate::broker::{LoginProtocol, User};

use super::failure::{Failure, MethodId};
use super::handshake::{self, Handshake};
use super::view::Introduction;
use super::{Session, State, id_of};

impl Session {
    /// Whether the client tried to log in and was refused.
    #[must_use]
    pub fn login_was_refused(&self) -> bool {
        self.login_refused
    }

    /// Whether `input` begins with a login whose check takes long. What else stands in front of it is looked at by who
    /// may take long, too.
    pub(super) fn login_takes_long(&self, input: &[u8]) -> bool {
        let Ok(Some(first)) = frame::parse(input, FRAME_BYTES_BEFORE_TUNE) else {
            return false;
        };
        if first.kind != FrameKind::Method {
            // A login may stand behind it.
            return true;
        }
        match Method::decode(&Bytes::copy_from_slice(first.payload)) {
            Ok(Method::ConnectionStartOk(start_ok)) => {
                handshake::takes_long(&start_ok, &self.broker)
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// One step of the opening; false if it needs more bytes.
    pub(super) fn open_step(&mut self, input: &mut BytesMut, now: Instant) -> bool {
        if matches!(self.state, State::Opening(Handshake::Header)) {
            let Some(header) = ProtocolHeader::parse(input) else {
                return false;
            };
            input.advance(ProtocolHeader::LEN_BYTES);
            match header {
                Ok(header) => {
                    let tls = self.tls.as_deref();
                    let start = handshake::start(header, tls, &self.settings.connection);
                    frame::put_method(self.transmit.frames(0), 0, &start);
                    self.state = State::Opening(Handshake::Start);
                    self.opening_deadline = now + self.settings.admission.handshake_wait;
                }
                Err(error) => {
                    tracing::info!(%error, "not an AMQP 0-9-1 client");
                    self.transmit
                        .frames(0)
                        .extend_from_slice(&ProtocolHeader::ANSWER);
                    self.state = State::Closed;
                }
            }
            return true;
        }
        let frame_bytes_max = self.frame_bytes_max();
        match frame::decode(input, frame_bytes_max) {
            Ok(None) => return false,
            Ok(Some(frame)) if frame.kind == FrameKind::Heartbeat && frame.channel == 0 => {}
            Ok(Some(frame)) if frame.kind != FrameKind::Method || frame.channel != 0 => {
                self.fail(0, Failure::socket("no method of the handshake"), now);
            }
            Ok(Some(frame)) => {
                let result = Method::decode(&frame.payload)
                    .map_err(Failure::from)
                    .and_then(|method| match &method {
                        Method::ConnectionOpen(_) if !method.is_text() => {
                            Err(Failure::not_text(id_of(&method)))
                        }
                        method => self.opening_method(method, now),
                    });
                if let Err(failure) = result {
                    self.fail(0, failure, now);
                }
            }
            Err(error) => self.fail(0, Failure::from(error), now),
        }
        true
    }

    fn opening_method(&mut self, method: &Method, now: Instant) -> Result<(), Failure> {
        let State::Opening(handshake) = &self.state else {
            return Ok(());
        };
        match (handshake, method) {
            (Handshake::Start, Method::ConnectionStartOk(start_ok)) => {
                let (broker, origin) = (&self.broker, self.origin);
                let user = handshake::authenticate(
                    start_ok,
                    &mut self.client,
                    broker,
                    origin,
                    self.tls.as_deref(),
                    &self.settings.connection,
                );
                self.broker
                    .statistics()
                    .login_attempted(LoginProtocol::Amqp, &user);
                let user = match user {
                    Ok(user) => {
                        self.authenticated(start_ok, user.name().as_bytes(), None);
                        user
                    }
                    Err(failure) => {
                        self.login_refused = true;
                        self.authenticated(start_ok, b"", Some(&failure.text.to_string()));
                        return Err(failure);
                    }
                };
                *self.introduction = Introduction {
                    properties: start_ok.client_properties.detached(),
                    mechanism: start_ok.mechanism.to_string(),
                    channel_count_max: 0,
                };
                let tune = handshake::tune(&self.settings.connection);
                frame::put_method(self.transmit.frames(0), 0, &tune);
                self.state = State::Opening(Handshake::Tune { user });
                Ok(())
            }
            (Handshake::Tune { user }, Method::ConnectionTuneOk(tune_ok)) => {
                let user = Arc::clone(user);
                let frame_bytes_max = handshake::tuned(tune_ok, &self.settings.connection)?;
                self.client.frame_bytes_max = frame_bytes_max;
                self.introduction.channel_count_max = tune_ok.channel_max;
                self.transmit.set_frame_bytes_max(frame_bytes_max);
                self.heartbeat.start(tune_ok.heartbeat, now);
                self.state = State::Opening(Handshake::Open { user });
                Ok(())
            }
            (Handshake::Open { user }, Method::ConnectionOpen(open)) => {
                let user = Arc::clone(user);
                self.open(&user, open, now)
            }
            // A client that gives up says goodbye at any time after it logged in.
            (Handshake::Open { .. }, Method::ConnectionClose(_)) => {
                frame::put_method(self.transmit.frames(0), 0, &connection::CloseOk {});
                self.state = State::Closed;
                Ok(())
            }
            (_, method) => Err(handshake::unexpected(method)),
        }
    }

    /// Sees to it that a token gives no right any more once its time is over.
    pub(super) fn watch_token(&mut self, user: &User, now: Instant) {
        let expires = user.expires_unix_s();
        let expires = expires.map(|unix_s| self.broker.instant_of(unix_s));
        // One that holds for centuries is never over.
        self.token_expires_at = expires.map(|at| at.max(now));
    }

    fn open(
        &mut self,
        user: &Arc<User>,
        open: &connection::Open,
        now: Instant,
    ) -> Result<(), Failure> {
        let id = MethodId {
            class_id: connection::Open::CLASS_ID,
            method_id: connection::Open::METHOD_ID,
        };
        let vhost = open.virtual_host.as_bytes();
        let connected = self
            .broker
            .connect_client(user, vhost, Arc::clone(&self.waker));
        let connected = connected.map_err(|error| Failure::broker(&error, id))?;
        frame::put_method(self.transmit.frames(0), 0, &connection::OpenOk {});
        tracing::debug!(user = %user.name(), vhost = %open.virtual_host, "connection opened");
        self.connection_opened(&connected);
        self.watch_token(user, now);
        self.state = State::Running(Box::new(connected));
        Ok(())
    }
}
