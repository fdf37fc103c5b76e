//! Lists, which are read from a snapshot of the catalog.

use stentor_wire::encode::ResultBody;
use stentor_wire::{ErrorObject, Method, Params, Request, params};

use super::{Dispatcher, ListConfig, private};
use crate::access::Need;
use crate::call::{Calls, Dispatch, Target};
use crate::caller::Caller;
use crate::handler::{CallError, OperationInput, OperationKind};
use crate::items::ItemKind;

impl Dispatcher {
    /// What somebody has to have who reads a list that was made for this sender.
    pub(super) fn needs_of_list(&self, kind: ItemKind, of: &Caller) -> Vec<Need> {
        let registry = &self.calls.registry;
        let catalog = registry.catalog();
        let viewer = registry.viewer(&catalog, &of.who).filter(|_| catalog.hides(kind));
        viewer.map(|viewer| catalog.needs_of_list(kind, &viewer)).unwrap_or_default()
    }

    /// What somebody has to have who reads an answer that was given at once.
    pub(crate) fn needs_of_answer(&self, method: &Method, of: &Caller) -> Vec<Need> {
        let kind = match method {
            Method::ToolsList => ItemKind::Tools,
            Method::ResourcesList => ItemKind::Resources,
            Method::TemplatesList => ItemKind::Templates,
            Method::PromptsList => ItemKind::Prompts,
            _ => return Vec::new(),
        };
        self.needs_of_list(kind, of)
    }

    /// A list is read from a snapshot and answered at once, unless middleware wants to see it.
    pub(super) fn list(&self, kind: ItemKind, of: &Caller, request: &Request) -> Dispatch {
        if self.calls.layers.is_empty() {
            return Dispatch::Answer(page(&self.calls, self.lists, kind, of, &request.params));
        }
        let (calls, lists, params) = (self.calls.clone(), self.lists, request.params.clone());
        let caller = of.clone();
        let page = move || page(&calls, lists, kind, &caller, &params);
        let (operation, method) = (OperationKind::List(kind), request.method.as_str());
        let code = |_, _| async move { page().map_err(CallError::protocol) };
        let operation = (operation, OperationInput::Nothing);
        let needs = self.needs_of_list(kind, of);
        Dispatch::Call(Target::other("the list", method, operation, code).needing(needs))
    }
}

fn page(
    calls: &Calls,
    lists: ListConfig,
    kind: ItemKind,
    caller: &Caller,
    params: &Params,
) -> Result<ResultBody, ErrorObject> {
    let params: params::List = params.parse()?;
    let (catalog, era) = (calls.registry.catalog(), caller.era());
    let viewer = calls.registry.viewer(&catalog, &caller.who);
    let (cursor, size) = (params.cursor.as_deref(), lists.page_size);
    let page = catalog.page(kind, era, cursor, size, viewer.as_ref());
    let page = page.map_err(|error| ErrorObject::invalid_params(error.to_string()))?;
    let body = ResultBody::from_json(page).ok_or_else(|| ErrorObject::internal("no page"))?;
    let cache = lists.cache.of(kind);
    // A list that is not the same for all is nobody else's.
    Ok(body.with_cache(if catalog.hides(kind) { private(cache) } else { cache }))
}
