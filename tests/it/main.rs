//! Tests over real sockets, filed by behaviour; one binary, since each file alone would be linked alone.
#![allow(clippy::disallowed_methods)]

mod admin;
mod alarm;
mod backlog;
mod broker;
mod client;
mod config;
mod confirm;
mod consume;
mod crash;
mod dead_letter;
mod durable;
mod engines;
mod files;
mod handshake;
mod hardship;
mod lapin_patterns;
mod large_payload;
mod limits;
mod listeners;
mod malformed;
mod prefetch_size;
mod priority;
mod process;
mod publish;
mod qos_style;
mod quorum;
mod rabbitmq;
mod repair;
mod single_active;
mod stream;
mod swarm;
mod tls;
mod transactions;
mod ttl;
mod wire;
