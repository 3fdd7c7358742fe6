//! What the tests of the broker's parts share, and tests of the whole.

mod exchange_types;
pub(crate) mod kit;
mod rules;
mod threads;
