//! Kills actors of the extension, as a bug would.

#![allow(dead_code, reason = "each suite uses a part of it")]

use ractor::ActorCell;
use stentor_engine::Engine;

/// The keeper: the only actor below the engine's supervisor that has actors below itself.
pub(crate) fn keeper(engine: &Engine) -> ActorCell {
    let children = engine.supervisor_cell().get_children();
    let keepers: Vec<_> =
        children.into_iter().filter(|child| !child.get_children().is_empty()).collect();
    let [keeper] = &keepers[..] else { panic!("no keeper, or several: {keepers:?}") };
    keeper.clone()
}

/// The actors of types and webhooks, the oldest first.
pub(crate) fn below(keeper: &ActorCell) -> Vec<ActorCell> {
    let mut children = keeper.get_children();
    children.sort_by_key(|child| child.get_id().pid());
    children
}
