//! What the tests of the broker's parts share, and tests of the whole.

mod delays;
mod events;
mod exchange_types;
mod expiry;
mod kinds;
pub(crate) mod kit;
mod letters;
mod paging;
mod rules;
mod threads;
