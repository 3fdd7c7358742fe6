//! What the tests of the broker's parts share.

pub(crate) mod kit;
