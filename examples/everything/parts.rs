//! What the server offers, part by part.

mod asking;
mod calls;
mod changes;
mod content;
mod input_required;
mod notices;
mod odd;
mod prompts;
mod resources;
mod schemas;
mod tasks;

use stentor::EngineBuilder;

/// One of everything.
pub(crate) fn everything(server: EngineBuilder) -> EngineBuilder {
    // The suite calls the first tool without arguments, so those of `content` come first.
    let parts = [
        content::offer,
        schemas::offer,
        notices::offer,
        asking::offer,
        input_required::offer,
        changes::offer,
        calls::offer,
        resources::offer,
        prompts::offer,
        tasks::offer,
    ];
    parts.into_iter().fold(server, |server, offer| offer(server))
}

/// Tools whose arguments, results and forms are of every odd type.
#[allow(dead_code, reason = "not all who offer everything offer these, too")]
pub(crate) fn odd(server: EngineBuilder) -> EngineBuilder {
    odd::offer(server)
}
