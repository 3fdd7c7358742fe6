//! Any bytes as operations on queues, consumers and channels: the broker does what the model says.
//!
//! The model, the commands and what is compared are in `warren::testing::queue_model`.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use warren::testing::queue_model;

/// More commands only make a run slower, not deeper.
const INPUT_BYTES_MAX: usize = 4_096;

fuzz_target!(|input: &[u8]| {
    let input = input.get(..INPUT_BYTES_MAX).unwrap_or(input);
    queue_model::run(input, Instant::now());
});
