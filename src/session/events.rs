//! What happens to connections and channels, for those who listen to `amq.rabbitmq.event`.
//!
//! Owns: the two addresses of a connection, and the headers of its events.
//! Spec: `spec/amqp.md`, "Events".

use std::net::{IpAddr, SocketAddr};

use crate::amqp::method::connection;
use crate::broker::{AUDIT, Connection, EventHeaders};

use super::handshake::claimed_name;
use super::{Session, TlsFacts};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Where the client is.
    pub peer: SocketAddr,
    /// Where it came to.
    pub local: SocketAddr,
}

impl Addresses {
    /// The connection's name as RabbitMQ makes one.
    fn name(self) -> String {
        format!("{} -> {}", self.peer, self.local)
    }

    fn describe(self, headers: &mut EventHeaders) {
        headers
            .text("name", self.name())
            .text("peer_host", tuple(self.peer.ip()))
            .number("peer_port", self.peer.port().into())
            .text("host", tuple(self.local.ip()))
            .number("port", self.local.port().into());
    }
}

/// An address as Erlang prints it.
fn tuple(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{{{a},{b},{c},{d}}}")
        }
        IpAddr::V6(address) => {
            let parts: Vec<_> = address.segments().iter().map(u16::to_string).collect();
            format!("{{{}}}", parts.join(","))
        }
    }
}

impl Session {
    /// Says where the connection comes from and goes to; for its name, events and traces.
    pub fn set_addresses(&mut self, addresses: Addresses) {
        self.addresses = Some(addresses);
    }

    /// Somebody logged in, or was refused.
    pub(super) fn authenticated(
        &self,
        start_ok: &connection::StartOk,
        user: &[u8],
        failure: Option<&str>,
    ) {
        self.note_login(start_ok, user, failure);
        let event = match failure {
            None => "user.authentication.success",
            Some(_) => "user.authentication.failure",
        };
        self.broker.emit(event, |headers| {
            headers
                .text("connection_type", "network")
                .text("protocol", "{0,9,1}")
                .text("auth_mechanism", start_ok.mechanism.as_bytes())
                .put("ssl", self.tls.is_some());
            if let Some(addresses) = self.addresses {
                addresses.describe(headers);
                headers.text("connection_name", addresses.name());
            }
            headers.text("name", user);
            if let Some(failure) = failure {
                headers.text("error", failure);
            }
        });
    }

    /// Says in the audit trail who logged in from where, or did not.
    // req: AUDIT-1
    fn note_login(&self, start_ok: &connection::StartOk, user: &[u8], failure: Option<&str>) {
        let claimed = match failure {
            Some(_) => claimed_name(start_ok),
            None => None,
        };
        let user = String::from_utf8_lossy(claimed.as_deref().unwrap_or(user));
        let from = self.addresses.map(|addresses| addresses.peer.to_string());
        let from = from.unwrap_or_default();
        let mechanism = String::from_utf8_lossy(start_ok.mechanism.as_bytes());
        match failure {
            None => {
                tracing::info!(target: AUDIT, %user, from, %mechanism, "login");
            }
            Some(reason) => {
                tracing::warn!(target: AUDIT, %user, from, %mechanism, reason, "login refused");
            }
        }
    }

    /// The vhost is open.
    pub(super) fn connection_opened(&self, connection: &Connection) {
        if let Some(addresses) = self.addresses {
            connection.set_name(addresses.name());
        }
        self.broker.statistics().connection_opened();
        self.broker.emit("connection.created", |headers| {
            let user = connection.user().name().as_bytes();
            headers
                .text("type", "network")
                .text("pid", connection.pid())
                .text("protocol", "{0,9,1}")
                .text("auth_mechanism", &self.introduction.mechanism)
                .text("user", user)
                .text("vhost", connection.vhost().name().as_bytes())
                .number("timeout", self.heartbeat.interval().as_secs())
                .number("frame_max", self.client.frame_bytes_max.into())
                .number("channel_max", self.introduction.channel_count_max.into())
                .terms("client_properties", &self.introduction.properties)
                .text("node", self.broker.node())
                .text("user_who_performed_action", user);
            TlsFacts::describe(self.tls.as_deref(), headers);
            if let Some(addresses) = self.addresses {
                addresses.describe(headers);
            }
        });
    }

    /// The connection ends.
    pub(super) fn connection_ended(&self, connection: &Connection) {
        self.broker.statistics().connection_closed();
        self.broker.emit("connection.closed", |headers| {
            headers
                .text("name", connection.name())
                .text("pid", connection.pid())
                .text("node", self.broker.node())
                .terms("client_properties", &self.introduction.properties)
                .text(
                    "user_who_performed_action",
                    connection.user().name().as_bytes(),
                );
        });
    }
}

/// A channel was opened.
pub(super) fn channel_opened(connection: &Connection, number: u16) {
    connection.vhost().emit("channel.created", |headers| {
        let user = connection.user().name().as_bytes();
        headers
            .text("pid", connection.channel_pid(number))
            .text("name", format!("{} ({number})", connection.name()))
            .text("connection", connection.pid())
            .number("number", number.into())
            .text("user", user)
            .text("vhost", connection.vhost().name().as_bytes())
            .text("user_who_performed_action", user);
    });
}

/// A channel ended.
pub(super) fn channel_ended(connection: &Connection, number: u16) {
    connection.vhost().emit("channel.closed", |headers| {
        headers.text("pid", connection.channel_pid(number)).text(
            "user_who_performed_action",
            connection.user().name().as_bytes(),
        );
    });
}
