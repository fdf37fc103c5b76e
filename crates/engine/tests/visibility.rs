//! Who hears of a change: exactly those whose own lists differ, over random catalogs, rights and
//! changes, on one node and on three.

#[path = "visibility/clients.rs"]
mod clients;
#[allow(dead_code, reason = "other suites use the rest")]
#[path = "peers/nodes.rs"]
mod nodes;
#[path = "visibility/steps.rs"]
mod steps;
#[path = "visibility/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError};
use steps::{Step, step};
use world::World;

/// The same cases each time. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for others.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let asks = |name| std::env::var_os(name).is_some();
    let cases = if asks("PROPTEST_CASES") { default.cases } else { cases };
    let seed = if asks("PROPTEST_RNG_SEED") { default.rng_seed } else { RngSeed::Fixed(1) };
    ProptestConfig { cases, rng_seed: seed, failure_persistence: None, ..default }
}

fn run(test: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test)
}

/// After each step, which settles, exactly those have heard of a list for whom it differs.
async fn each_hears_what_concerns_it(nodes: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let world = World::start(nodes).await;
    world.settle().await;
    let mut before = world.read_all().await;
    for step in steps {
        world.forget_heard();
        world.perform(&step).await;
        world.settle().await;
        let heard = world.heard();
        let after = world.read_all().await;
        for (index, client) in world.clients().iter().enumerate() {
            let differs = before[index].differences(&after[index]);
            let expected = step.tells_all().map_or(differs, |kind| [kind].into());
            prop_assert_eq!(
                &heard[index],
                &expected,
                "{} after {:?}\nbefore {:#?}\nafter {:#?}",
                client,
                &step,
                &before[index],
                &after[index]
            );
        }
        before = after;
    }
    world.stop().await;
    Ok(())
}

/// Each client reads again what it hears of, while steps follow each other without a pause. At the
/// end nobody believes in an outdated list.
async fn nobody_is_left_behind(nodes: usize, steps: Vec<(Step, u8)>) -> Result<(), TestCaseError> {
    let world = World::start(nodes).await;
    world.settle().await;
    world.begin_to_read_again().await;
    for (step, pause) in steps {
        world.perform(&step).await;
        world.pause(pause).await;
    }
    world.settle().await;
    let (believed, now) = (world.believed(), world.read_all().await);
    for (index, client) in world.clients().iter().enumerate() {
        prop_assert_eq!(&believed[index], &now[index], "{}", client);
    }
    world.stop().await;
    Ok(())
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn on_one_node_exactly_those_hear_whose_lists_differ(
        steps in prop::collection::vec(step(1), 20..40),
    ) {
        run(each_hears_what_concerns_it(1, steps))?;
    }

    #[test]
    fn without_a_pause_nobody_is_left_with_an_outdated_list(
        steps in prop::collection::vec((step(1), 0..4_u8), 20..40),
    ) {
        run(nobody_is_left_behind(1, steps))?;
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn on_three_nodes_exactly_those_hear_whose_lists_differ(
        steps in prop::collection::vec(step(3), 20..30),
    ) {
        run(each_hears_what_concerns_it(3, steps))?;
    }

    #[test]
    fn on_three_nodes_nobody_is_left_with_an_outdated_list(
        steps in prop::collection::vec((step(3), 0..4_u8), 20..30),
    ) {
        run(nobody_is_left_behind(3, steps))?;
    }
}
