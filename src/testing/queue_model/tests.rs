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

/// What a delivery brings to the front, and is over, is gone before the same requeue counts what waits: the settled
/// messages of the first queue make room for the delivery, then those of the second, which is bounded, come back.
#[test]
fn what_expires_behind_a_delivery_does_not_count_at_a_requeue() {
    // Kind and arguments, see `Run::step`.
    let commands: [[u8; COMMAND_BYTES]; 9] = [
        // Room for three messages in a channel with a consumer of either queue; another channel has the first's too.
        [109, 0, 118, 48],
        [19, 32, 0, 1],
        [194, 104, 166, 0],
        [4, 9, 40, 59],
        [137, 214, 8, 0],
        // Two of three messages are out; two that do not live wait behind the third.
        [3, 187, 0, 103],
        [133, 103, 0, 60],
        [57, 89, 0, 0],
        // All that the channel has comes back.
        [238, 20, 100, 125],
    ];
    run(
        &[&[78, 0], commands.as_flattened()].concat(),
        Instant::now(),
    );
}
