//! The queue and its model do the same (T1). Spec: RELIABILITY, "Test plan".
#![allow(clippy::disallowed_methods)]

use proptest::prelude::*;

use super::*;

/// T1: 2,000 runs, or as many as `WARREN_MODEL_CASES` says.
fn case_count() -> u32 {
    let wanted = std::env::var("WARREN_MODEL_CASES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(case_count()))]

    /// Runs of 200 commands.
    #[test]
    fn a_queue_does_what_the_model_says(
        settings in 0..KIND_COUNT,
        spill in 0..6_u8,
        commands in prop::collection::vec(any::<[u8; COMMAND_BYTES]>(), 1..=200),
    ) {
        run(&[&[settings, spill], commands.as_flattened()].concat(), Instant::now());
    }
}
