//! Requests whose methods belong to extensions, here or on another node.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, ready};
use stentor_wire::{ErrorObject, Method, Request};

use super::{Dispatcher, Lookup, PeerAnswer, Scope};
use crate::call::Dispatch;
use crate::caller::Caller;
use crate::extension::{Requester, StreamRequest};
use crate::ids::NodeId;
use crate::notice_stream::Begin;

impl Dispatcher {
    pub(super) fn dispatch_to_extension(&self, lookup: &Lookup<'_>) -> Option<Dispatch> {
        let Lookup { caller, request, .. } = *lookup;
        if let Some(nodes) = self.route(caller, request, lookup.scope) {
            return Some(lookup.remote_call(nodes, request.method.as_str()));
        }
        self.extensions.iter().find_map(|extension| {
            Some(match extension.clone().dispatch(caller, request)? {
                Dispatch::Call(target) if extension.calls_are_new_work() => self.work(Ok(target)),
                decided => decided,
            })
        })
    }

    /// The nodes that serve a request of an extension instead of this one, if there are any.
    fn route(&self, caller: &Caller, request: &Request, scope: Scope) -> Option<Vec<NodeId>> {
        if scope == Scope::Local {
            return None;
        }
        let requester = || self.requester(caller);
        let mut routes = self.extensions.iter().map(|it| it.route(&requester, request));
        routes.find(|nodes| !nodes.is_empty())
    }

    fn requester(&self, caller: &Caller) -> Requester {
        Requester::new(caller, self.calls.registry.viewers.clone())
    }

    /// Whether requests of this method open a stream of an extension.
    pub(crate) fn opens_stream(&self, method: &Method) -> bool {
        let Method::Other(name) = method else { return false };
        self.extensions.iter().any(|extension| extension.stream_method(name).is_some())
    }

    /// Asks the extension, here or on another node, to open a stream.
    pub(crate) fn open_stream(
        &self,
        caller: &Caller,
        request: &Request,
        scope: Scope,
    ) -> BoxFuture<'static, Result<Begin, ErrorObject>> {
        if let Some(nodes) = self.route(caller, request, scope) {
            let viewers = &self.calls.registry.viewers;
            let caller = caller.clone().with_who(viewers.for_call(&caller.who));
            return self.nodes.open_stream(nodes, &caller, request);
        }
        let name = request.method.as_str();
        let method = self.extensions.iter().find_map(|it| it.stream_method(name));
        let requester = self.requester(caller);
        match method {
            Some(method) => method.open(StreamRequest::new(
                request.id.clone(),
                request.params.clone(),
                requester,
            )),
            None => ready(Err(ErrorObject::method_not_found(name))).boxed(),
        }
    }

    /// Answers a message of an extension on another node; `None` if there is no such extension.
    pub(crate) fn on_peer_message(
        &self,
        identifier: &str,
        message: Bytes,
    ) -> Option<BoxFuture<'static, Bytes>> {
        let answer = self.peer_answers.get(identifier).map(|it| it.0.clone());
        if let Some(answer) = answer {
            return Some(answer(message));
        }
        let extension = self.extensions.iter().find(|it| it.identifier() == identifier)?;
        extension.on_peer_message(message)
    }

    pub(crate) fn answer_peers(
        &self,
        identifier: &str,
        answer: impl Fn(Bytes) -> BoxFuture<'static, Bytes> + Send + Sync + 'static,
    ) {
        self.peer_answers.insert(identifier.into(), PeerAnswer(Arc::new(answer)));
    }
}
