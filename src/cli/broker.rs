//! Where the broker is: what the commands that speak AMQP have in common.

use std::path::PathBuf;

use crate::client::AmqpUri;

/// The broker's URI, and whom to believe that it is the one.
#[derive(clap::Args)]
pub(super) struct BrokerArgs {
    /// The broker, as amqp://user:password@host:port/vhost, or amqps:// for TLS
    #[arg(
        long,
        env = "WARREN_BROKER",
        default_value = "amqp://localhost",
        value_name = "URI",
        hide_env_values = true
    )]
    broker: AmqpUri,
    /// Certificate authorities for amqps, as PEM [default: the URI's cacertfile, or the system's]
    #[arg(long, env = "WARREN_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl BrokerArgs {
    /// The URI, with the authorities of the command line.
    pub(super) fn uri(self) -> AmqpUri {
        match self.ca_file {
            Some(file) => self.broker.with_authorities(&file),
            None => self.broker,
        }
    }
}
