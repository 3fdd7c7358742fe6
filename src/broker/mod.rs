//! Routing and queues; synchronous, under short locks, with time as an argument.
