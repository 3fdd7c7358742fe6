//! What the tests of the broker's parts share, and tests of the whole.

mod events;
mod exchange_types;
mod expiry;
pub(crate) mod kit;
mod letters;
mod rules;
mod threads;
