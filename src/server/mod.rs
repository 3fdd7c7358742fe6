//! Sockets, tasks and timers: tokio begins here.
