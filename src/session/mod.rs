//! One AMQP connection as a state machine: bytes in; bytes, broker calls and actions out.
