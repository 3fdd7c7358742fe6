//! What the tests of the broker's parts share, and tests of the whole.

pub(crate) mod kit;
mod threads;
