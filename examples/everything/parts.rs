//! The items of the server, by topic.

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

/// All items except the odd types.
pub(crate) fn everything(server: EngineBuilder) -> EngineBuilder {
    // The conformance suite calls the first tool without arguments, so the tools of `content` come
    // first.
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

/// Tools with unusual types in their arguments, results and forms.
#[allow(dead_code, reason = "not all who offer everything offer these, too")]
pub(crate) fn odd(server: EngineBuilder) -> EngineBuilder {
    odd::offer(server)
}
