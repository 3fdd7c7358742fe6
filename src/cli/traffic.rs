//! What swarms may cost the network, as flags and as a file that is read again.

use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{self, ServerSettings, TrafficSettings, WebSeedHost, Zone};

/// Limits and quota of a node.
#[derive(clap::Args)]
pub(super) struct TrafficArgs {
    /// Most bytes of pieces sent per second, as in 2MiB/s [default: no limit]
    #[arg(long, env = "WARREN_SWARM_UP_RATE", value_name = "RATE", value_parser = config::parse_rate)]
    up_rate: Option<NonZeroU64>,
    /// Most bytes of pieces asked for per second [default: no limit]
    #[arg(long, env = "WARREN_SWARM_DOWN_RATE", value_name = "RATE", value_parser = config::parse_rate)]
    down_rate: Option<NonZeroU64>,
    /// Most bytes of pieces sent in 24 hours [default: no limit]
    #[arg(long, env = "WARREN_SWARM_UP_QUOTA_DAY", value_name = "SIZE", value_parser = config::parse_size)]
    up_quota_day: Option<u64>,
    /// Most bytes of pieces sent at all [default: no limit]
    #[arg(long, env = "WARREN_SWARM_UP_QUOTA_TOTAL", value_name = "SIZE", value_parser = config::parse_size)]
    up_quota_total: Option<u64>,
    /// The node's zone: nodes of one zone prefer each other, as in berlin [default: none]
    #[arg(long, env = "WARREN_SWARM_ZONE", value_name = "LABEL")]
    zone: Option<Zone>,
    /// A host that web seeds may be asked of, as in mirror.example.org:8080; may be repeated [default: none]
    #[arg(
        long,
        env = "WARREN_SWARM_WEB_SEED_HOST",
        value_name = "HOST",
        value_delimiter = ','
    )]
    web_seed_host: Vec<WebSeedHost>,
    /// A file whose table [swarm] says the same; flags go before it, and SIGHUP reads it again
    #[arg(long, env = "WARREN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl TrafficArgs {
    /// What file and flags say together.
    pub(super) fn read(&self) -> anyhow::Result<TrafficSettings> {
        let mut settings = ServerSettings::default();
        if let Some(path) = &self.config {
            let context = || format!("in the settings file {}", path.display());
            let text = std::fs::read_to_string(path).with_context(context)?;
            config::toml::apply(&mut settings, &text).with_context(context)?;
        }
        let file = settings.swarm;
        Ok(TrafficSettings {
            up_bytes_per_second: self.up_rate.or(file.up_bytes_per_second),
            down_bytes_per_second: self.down_rate.or(file.down_bytes_per_second),
            up_day_bytes_max: self.up_quota_day.or(file.up_day_bytes_max),
            up_total_bytes_max: self.up_quota_total.or(file.up_total_bytes_max),
            zone: self.zone.clone().or(file.zone),
            web_seed_hosts: [self.web_seed_host.clone(), file.web_seed_hosts].concat(),
        })
    }
}
