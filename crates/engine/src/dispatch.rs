//! Decides which requests are answered at once, and which become calls.
//!
//! This needs no actor, because the catalog is a snapshot.

mod extensions;
mod lists;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use futures::future::BoxFuture;
use stentor_delivery::StreamReceiver;
use stentor_macros::Setters;
use stentor_wire::bounds::quoted;
use stentor_wire::encode::{self, CacheHint, ResultBody};
use stentor_wire::model::CacheScope;
use stentor_wire::params::{self, Member};
use stentor_wire::{Era, ErrorObject, KeyKind, Method, Request};
use tokio::time::Instant;

use crate::access::{Access, Need, need_of_scope};
use crate::call::{self, Calls, Dispatch, NotAdmitted, Responder, Run, Target};
use crate::caller::Caller;
use crate::catalog::{Catalog, ListCache, Offer, Readable};
use crate::extension::ProtocolExtension;
use crate::handler::{
    Arguments, Completion, PendingRequests, PromptEntry, TemplateEntry, completed,
};
use crate::ids::NodeId;
use crate::items::ItemKind;
use crate::nodes::{OtherNodes, Reach};
use crate::reasons::{CallOutcome, Refused};
use crate::request_budget::cost_of_call;
use crate::server_hello::ServerHello;

/// Where the item of a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// On this node only: another node sent the request, because it knows that the item is here.
    Local,
}

/// How lists are served.
#[derive(Clone, Copy, Debug, Setters)]
#[non_exhaustive]
pub struct ListConfig {
    /// Entries on one page of a list. Default 1,000.
    pub page_size: usize,
    /// How long modern clients may cache a list, and whether one user's copy may serve another.
    /// Default: no caching; list changes are announced anyway.
    pub cache: ListCache,
}

impl Default for ListConfig {
    fn default() -> Self {
        Self { page_size: 1_000, cache: ListCache::default() }
    }
}

/// Decides about requests that do not concern their session.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    calls: Arc<Calls>,
    extensions: Vec<Arc<dyn ProtocolExtension>>,
    nodes: Arc<dyn OtherNodes>,
    hello: ServerHello,
    lists: ListConfig,
    /// Who answers messages of other nodes that belong to no extension, by their identifiers.
    peer_answers: DashMap<Box<str>, PeerAnswer>,
}

struct PeerAnswer(Arc<dyn Fn(Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>);

impl std::fmt::Debug for PeerAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerAnswer")
    }
}

/// The answer to a modern request over HTTP.
#[derive(Debug)]
pub enum Answer {
    /// One message, and its error code if it is an error.
    Now(Bytes, Option<i32>),
    /// The frames of a call, its response last. Dropping the receiver cancels the call.
    Stream(StreamReceiver),
}

/// A request that has begun. Its call, if there is one, has to be [run](Self::answer).
pub(crate) struct Begun {
    answer: Answer,
    run: Option<(Arc<Calls>, Box<Run>)>,
}

impl Begun {
    fn now((bytes, code): (Bytes, Option<i32>)) -> Self {
        Self { answer: Answer::Now(bytes, code), run: None }
    }

    pub(crate) async fn answer(self) -> Answer {
        if let Some((calls, run)) = self.run {
            calls.run(run).await;
        }
        self.answer
    }
}

impl Dispatcher {
    pub(crate) fn new(
        calls: Arc<Calls>,
        extensions: Vec<Arc<dyn ProtocolExtension>>,
        nodes: Arc<dyn OtherNodes>,
        hello: ServerHello,
        lists: ListConfig,
    ) -> Self {
        Self { calls, extensions, nodes, hello, lists, peer_answers: DashMap::new() }
    }

    pub(crate) fn hello(&self) -> &ServerHello {
        &self.hello
    }

    pub(crate) fn dispatch(&self, caller: &Caller, request: &Request, scope: Scope) -> Dispatch {
        let era = caller.era();
        // Only an extension knows whether a method of its own exists.
        if !request.method.exists_in(era) && !matches!(request.method, Method::Other(_)) {
            let error = ErrorObject::method_not_found(request.method.as_str());
            return Dispatch::Answer(Err(error));
        }
        let lookup = Lookup { dispatcher: self, caller, request, scope };
        match lookup.named_node() {
            Reach::Remote(node) => return lookup.remote_call([node], request.method.as_str()),
            Reach::Unreachable => {
                let message = "the node that gave this out cannot be reached just now";
                return Dispatch::Answer(Err(ErrorObject::unavailable(message)));
            }
            // An id that a dead node issued is unknown here, too, unless this node has taken over.
            Reach::Local | Reach::Dead => {}
        }
        match &request.method {
            Method::Ping => Dispatch::Answer(Ok(ResultBody::empty())),
            Method::Discover => Dispatch::Answer(self.hello.discover()),
            Method::ToolsList => self.list(ItemKind::Tools, caller, request),
            Method::ResourcesList => self.list(ItemKind::Resources, caller, request),
            Method::TemplatesList => self.list(ItemKind::Templates, caller, request),
            Method::PromptsList => self.list(ItemKind::Prompts, caller, request),
            Method::ToolsCall => self.work(lookup.call_tool()),
            Method::ResourcesRead => self.work(lookup.read_resource(era)),
            Method::PromptsGet => self.work(lookup.get_prompt()),
            Method::Complete => lookup.complete(),
            other => self.dispatch_to_extension(&lookup).unwrap_or_else(|| {
                Dispatch::Answer(Err(ErrorObject::method_not_found(other.as_str())))
            }),
        }
    }

    /// The extensions that own topics.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (KeyKind, Arc<dyn ProtocolExtension>)> {
        self.extensions.iter().filter_map(|it| Some((it.owns()?, it.clone())))
    }

    /// Starts new work, unless the engine shuts down.
    fn work(&self, target: Result<Target, ErrorObject>) -> Dispatch {
        match target {
            Ok(_) if self.calls.lifecycle.is_draining() => {
                Dispatch::Answer(Err(ErrorObject::unavailable("the server is shutting down")))
            }
            Ok(target) => Dispatch::Call(target),
            Err(error) => Dispatch::Answer(Err(error)),
        }
    }

    /// Begins to answer a request that belongs to no session of this engine. `questions` is for the
    /// questions of its call to a legacy client.
    ///
    /// Not an `async fn`, so that no future contains the whole request.
    pub(crate) fn begin(
        &self,
        caller: Caller,
        request: Box<Request>,
        questions: Option<PendingRequests>,
        scope: Scope,
    ) -> Result<Begun, Refused> {
        let calls = &self.calls;
        // Its body may have come long after its head was checked.
        if calls.registry.viewers.is_revoked(&caller.who) {
            return Err(Refused::Revoked);
        }
        // An immediate answer, too, takes memory until the client reads it.
        if calls.requests.is_too_much(&caller.share()) {
            return Err(Refused::TooManyRequests);
        }
        let (era, received_at) = (caller.era(), Instant::now());
        let target = match self.dispatch(&caller, &request, scope) {
            Dispatch::Answer(outcome) => {
                let call_outcome = CallOutcome::of(&outcome);
                calls.metrics.operation(&request.method, call_outcome, received_at.elapsed());
                return Ok(Begun::now(call::answer_now(calls, &caller, &request.id, &outcome)));
            }
            Dispatch::Call(target) => target,
        };
        let permit = calls.stateless.enter(&caller, cost_of_call(&request));
        let permit = permit.ok_or(Refused::TooManyRequests)?;
        let meter = calls.requests.of(&caller.share());
        let id = request.id.clone();
        let mut start = match call::admit(calls, &meter, caller, target, request) {
            Ok(start) => start,
            Err(NotAdmitted::OverBudget(_) | NotAdmitted::TooMany) => {
                return Err(Refused::TooManyRequests);
            }
            Err(NotAdmitted::Refused(error)) => {
                return Ok(Begun::now((encode::error(Some(&id), &error), Some(error.code))));
            }
        };
        start.questions = questions;
        permit.set_cancel(&start.cancel);
        let sender = calls.stateless_stream(&start.cancel);
        let receiver = sender.attach();
        let responder = Responder::new(calls.clone(), sender, era, &start.request, permit, meter);
        let run = call::begin(calls, start, responder).map(|run| (calls.clone(), run));
        Ok(Begun { answer: Answer::Stream(receiver), run })
    }
}

/// A copy of the answer must serve nobody else.
fn private(cache: CacheHint) -> CacheHint {
    CacheHint { scope: CacheScope::Private, ..cache }
}

/// A request for an item that may be on another node.
struct Lookup<'a> {
    dispatcher: &'a Dispatcher,
    caller: &'a Caller,
    request: &'a Request,
    scope: Scope,
}

impl Lookup<'_> {
    /// Where to send a request with an id or a state that a node has issued.
    fn named_node(&self) -> Reach {
        if self.scope == Scope::Local {
            return Reach::Local;
        }
        let member = match &self.request.method {
            method if method.may_ask() && self.caller.era() == Era::Modern => Member::RequestState,
            method => match method.signed_member() {
                Some(member) => member,
                None => return Reach::Local,
            },
        };
        // An invalid parameter is reported later.
        let id = self.request.params.string(member).ok().flatten();
        id.map_or(Reach::Local, |id| self.dispatcher.nodes.reach(&id))
    }

    fn remote_call(&self, nodes: impl IntoIterator<Item = NodeId>, subject: &str) -> Dispatch {
        self.dispatcher.work(Ok(self.target(nodes, subject)))
    }

    fn target(&self, nodes: impl IntoIterator<Item = NodeId>, subject: &str) -> Target {
        let nodes = nodes.into_iter().collect();
        let viewers = &self.dispatcher.calls.registry.viewers;
        let caller = self.caller.clone().with_who(viewers.for_call(&self.caller.who));
        self.dispatcher.nodes.call(nodes, &caller, self.request, subject)
    }

    /// Whether the sender may know of an item with this access.
    fn sees(&self, access: Option<&Access>) -> bool {
        let rule = access.map(|access| &access.rule).filter(|rule| !rule.is_empty());
        let viewers = &self.dispatcher.calls.registry.viewers;
        rule.is_none_or(|rule| rule.admits(&viewers.viewer(&self.caller.who)))
    }

    /// Checks that the sender has the scopes of an item, and those that this request needs besides.
    /// Returns all that the sender has to have.
    fn check_scopes(
        &self,
        access: Option<&Access>,
        besides: BTreeSet<Arc<str>>,
    ) -> Result<Vec<Need>, ErrorObject> {
        let mut scopes = besides;
        let viewers = &self.dispatcher.calls.registry.viewers;
        if let Some(access) = access {
            viewers.learn_scopes(&access.scopes);
            scopes.extend(access.scopes.iter().cloned());
        }
        if !scopes.is_empty() {
            viewers.check_scopes(&self.caller.who, self.caller.era(), &scopes)?;
        }
        let of_rule = access.into_iter().flat_map(|access| access.rule.needs());
        Ok(scopes.into_iter().map(need_of_scope).chain(of_rule).collect())
    }

    /// The local item of an offer, or the call of the item on another node; `None` if nothing is
    /// offered.
    fn find<E>(&self, offer: Option<&Offer<E>>, subject: &str) -> Option<Result<Arc<E>, Target>> {
        match offer? {
            Offer::Local(entry) => Some(Ok(entry.clone())),
            Offer::Remote(_) if self.scope == Scope::Local => None,
            Offer::Remote(remote) => Some(Err(self.target(remote.nodes().cloned(), subject))),
        }
    }

    fn call_tool(&self) -> Result<Target, ErrorObject> {
        let params = params::CallTool::read(&self.request.params)?;
        let catalog = self.dispatcher.calls.registry.catalog();
        let offer = match self.scope {
            Scope::All => catalog.tool(&params.name).cloned(),
            Scope::Local => catalog.local_tool(&params.name).cloned().map(Offer::Local),
        };
        let access = catalog.access(ItemKind::Tools, &params.name);
        let found = self.find(offer.as_ref(), &params.name).filter(|_| self.sees(access));
        let found = found.ok_or_else(|| {
            ErrorObject::invalid_params(format!("unknown tool: {}", quoted(&params.name)))
        })?;
        let object = params.arguments.filter(|raw| raw.starts_with('{'));
        let arguments = match object {
            None => Arguments::default(),
            Some(raw) => Arguments::new(self.request.params.share(raw)),
        };
        // A client is told all scopes of a request together.
        let besides = match &found {
            Ok(tool) => tool.scopes_of(&arguments)?,
            Err(_) => BTreeSet::new(),
        };
        let needs = self.check_scopes(access, besides)?;
        let tool = match found {
            Ok(tool) => tool,
            Err(remote_call) => return Ok(remote_call.needing(needs)),
        };
        if object.is_none() && params.arguments.is_some() {
            return Err(ErrorObject::invalid_params("invalid arguments: must be an object"));
        }
        Ok(Target::tool(tool, arguments).needing(needs))
    }

    fn read_resource(&self, era: Era) -> Result<Target, ErrorObject> {
        let params: params::ResourceUri = self.request.params.parse()?;
        let catalog = self.dispatcher.calls.registry.catalog();
        let found = match self.scope {
            Scope::All => catalog.reader(&params.uri),
            Scope::Local => catalog.local_reader(&params.uri).map(Readable::Local),
        };
        let mut access = catalog.access_to_uri(&params.uri).cloned();
        // What this node reads under the URI may be another item than what all nodes together show.
        if let (Scope::Local, Some(Readable::Local(reader))) = (self.scope, &found) {
            let own = reader.access();
            let shown = catalog.access(reader.kind, &reader.key);
            let both = shown.map_or_else(|| own.clone(), |shown| shown.and(&own));
            access = Some(access.map_or_else(|| both.clone(), |access| access.and(&both)));
        }
        let access = access.as_ref();
        match found.filter(|_| self.sees(access)) {
            Some(Readable::Local(mut reader)) => {
                let needs = self.check_scopes(access, reader.scopes_of(&params.uri)?)?;
                if access.is_some_and(|access| !access.rule.is_empty()) {
                    reader.cache = private(reader.cache);
                }
                Ok(Target::resource(reader, &params.uri).needing(needs))
            }
            Some(Readable::Remote(remote)) => {
                let needs = self.check_scopes(access, BTreeSet::new())?;
                Ok(self.target(remote.nodes().cloned(), &params.uri).needing(needs))
            }
            None => Err(ErrorObject::resource_not_found(era, &params.uri)),
        }
    }

    fn get_prompt(&self) -> Result<Target, ErrorObject> {
        let params: params::GetPrompt = self.request.params.parse()?;
        let catalog = self.dispatcher.calls.registry.catalog();
        let offer = self.prompt(&catalog, &params.name);
        let found = self.find(offer.as_ref(), &params.name);
        let found = found.ok_or_else(|| {
            ErrorObject::invalid_params(format!("unknown prompt: {}", quoted(&params.name)))
        })?;
        let access = catalog.access(ItemKind::Prompts, &params.name);
        match found {
            Ok(prompt) => {
                let needs = self.check_scopes(access, prompt.scopes_of(&params.arguments)?)?;
                prompt.check_arguments(&params.arguments)?;
                Ok(Target::prompt(prompt, params.arguments).needing(needs))
            }
            Err(remote_call) => {
                let needs = self.check_scopes(access, BTreeSet::new())?;
                Ok(remote_call.needing(needs))
            }
        }
    }

    /// The prompt with this name that the sender may know of.
    fn prompt(&self, catalog: &Catalog, name: &str) -> Option<Offer<PromptEntry>> {
        let found = match self.scope {
            Scope::All => catalog.prompt(name).cloned(),
            Scope::Local => catalog.local_prompt(name).cloned().map(Offer::Local),
        };
        found.filter(|_| self.sees(catalog.access(ItemKind::Prompts, name)))
    }

    /// The template that is spelled so and that the sender may know of.
    fn template(&self, catalog: &Catalog, uri: &str) -> Option<Offer<TemplateEntry>> {
        let found = match self.scope {
            Scope::All => catalog.template(uri).cloned(),
            Scope::Local => catalog.local_template(uri).cloned().map(Offer::Local),
        };
        found.filter(|_| self.sees(catalog.access_to_template(uri)))
    }

    fn complete(&self) -> Dispatch {
        let params: params::Complete = match self.request.params.parse() {
            Ok(params) => params,
            Err(error) => return Dispatch::Answer(Err(error)),
        };
        let unknown = |what: &str, name: &str| {
            Dispatch::Answer(Err(ErrorObject::invalid_params(format!(
                "unknown {what}: {}",
                quoted(name)
            ))))
        };
        let catalog = self.dispatcher.calls.registry.catalog();
        let access = match &params.r#ref {
            params::CompletionRef::Prompt { name } => catalog.access(ItemKind::Prompts, name),
            params::CompletionRef::Resource { uri } => catalog.access_to_template(uri),
            _ => None,
        };
        // Not of what the sender must not know of.
        let needs = match access.filter(|access| self.sees(Some(access))) {
            Some(access) => match self.check_scopes(Some(access), BTreeSet::new()) {
                Ok(needs) => needs,
                Err(error) => return Dispatch::Answer(Err(error)),
            },
            None => Vec::new(),
        };
        let (completer, layers, item) = match &params.r#ref {
            params::CompletionRef::Prompt { name } => {
                match self.find(self.prompt(&catalog, name).as_ref(), name) {
                    Some(Ok(prompt)) => {
                        (prompt.completer().cloned(), prompt.layers().clone(), name)
                    }
                    Some(Err(remote_call)) => {
                        return self.dispatcher.work(Ok(remote_call.needing(needs)));
                    }
                    None => return unknown("prompt", name),
                }
            }
            params::CompletionRef::Resource { uri } => {
                match self.find(self.template(&catalog, uri).as_ref(), uri) {
                    Some(Ok(template)) => {
                        (template.completer().cloned(), template.layers().clone(), uri)
                    }
                    Some(Err(remote_call)) => {
                        return self.dispatcher.work(Ok(remote_call.needing(needs)));
                    }
                    None => return unknown("resource template", uri),
                }
            }
            _ => return Dispatch::Answer(completed(Vec::new())),
        };
        let Some(completer) = completer else { return Dispatch::Answer(completed(Vec::new())) };
        let completion = Completion {
            argument: params.argument.name,
            value: params.argument.value,
            known: params.context.arguments,
        };
        let target = Target::completion(completer, completion, item, layers).needing(needs);
        self.dispatcher.work(Ok(target))
    }
}
