//! The piece protocol: events in, actions out.
