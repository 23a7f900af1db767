//! That the simulation is what it claims: the same seed gives the same run, and nothing in it is without effect.

use crate::{Plan, run};

#[test]
fn the_same_seed_gives_the_same_run_line_by_line() {
    for seed in 0..5 {
        let (one, other) = (run(&Plan::of(seed)), run(&Plan::of(seed)));
        let differs = one.lines.iter().zip(&other.lines).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
}
