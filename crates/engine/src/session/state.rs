//! The pure part of a session: what a request means, given the messages before it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use stentor_wire::params::{self, NoticeFilter};
use stentor_wire::{
    ErrorObject, Id, KeyKind, Method, Params, ProtocolVersion, Request, SubscriptionId, Topic,
    code, encode,
};

use crate::access::Viewer;
use crate::caller::{Caller, SessionLevel};

use crate::hub::filter::{self, Filter, Watched};
use crate::identity::Who;
use crate::ids::SessionId;
use crate::notice_stream::Held;
use crate::principal_limits::PrincipalPermit;
use crate::request_budget::{Charge, Meter, SUBSCRIPTION_COST, cost_of_params};
use crate::states::Slots;

/// What a request asks of its session.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The client opened the session; answer with this version.
    Initialized(ProtocolVersion),
    /// The session only had to remember something. Answer with an empty result.
    Done,
    /// Notify the client of changes of this resource, if it can be read.
    Watch(String),
    Unwatch(String),
    /// Open a stream of an extension.
    OpenStream(Caller),
    /// Open a stream of notices, after it is known which of these topics the client may receive.
    Listen(Caller, NoticeFilter, NoticeFilter),
    /// The request concerns the catalog, not the session.
    Dispatch(Caller),
    Refuse(ErrorObject),
}

/// What an extension, or the subscriptions on other nodes, keep while a listen is open.
pub(crate) struct HeldByListen(#[expect(dead_code, reason = "held for its drop")] pub(crate) Held);

impl fmt::Debug for HeldByListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldByListen")
    }
}

#[derive(Debug)]
struct Listen {
    subscription: SubscriptionId,
    /// Shares its strings with the hub.
    filter: Filter,
    /// Whether `filter` is final. Until then the listen receives nothing.
    decided: bool,
    /// The acknowledgment, until it is sent. It is the first frame.
    unsaid: Option<Bytes>,
    /// What lives as long as the listen.
    held: Option<HeldByListen>,
    /// The bytes that are counted for it.
    cost: usize,
}

/// One subscription of a session: of its legacy client, or of one listen.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The listen; `None` for a legacy client.
    pub(crate) id: Option<SubscriptionId>,
    pub(crate) filter: Filter,
    /// The acknowledgment of a listen, which is the first frame, if it is not sent yet.
    pub(crate) unsaid: Option<Bytes>,
}

/// A listen that has ended.
#[derive(Debug)]
pub(crate) struct EndedListen {
    pub(crate) request: Id,
    /// Its subscription at the hub; `None` if the hub does not know it.
    pub(crate) subscription: Option<SubscriptionId>,
    #[expect(dead_code, reason = "dropped without the lock")]
    held: Option<HeldByListen>,
}

impl EndedListen {
    fn new(request: Id, listen: Listen) -> Self {
        let at_hub = listen.decided.then_some(listen.subscription);
        Self { request, subscription: at_hub, held: listen.held }
    }
}

impl Listen {
    fn subscription(&self, unsaid: Option<Bytes>) -> Subscription {
        Subscription { id: Some(self.subscription.clone()), filter: self.filter.clone(), unsaid }
    }

    fn new(request: &Id, granted: &NoticeFilter, cost: usize) -> Self {
        let subscription = SubscriptionId::of(request);
        let unsaid = Some(encode::acknowledged(&subscription, granted));
        let filter = Filter::granted(granted);
        Self { subscription, filter, decided: true, unsaid, held: None, cost }
    }
}

/// The state that a session keeps between messages.
#[derive(Debug)]
pub(crate) struct SessionState {
    id: SessionId,
    /// Whether requests with modern `_meta` are served: on a pipe, but not on a legacy HTTP
    /// session.
    serves_modern: bool,
    max_subscriptions: usize,
    legacy: Option<Caller>,
    level: SessionLevel,
    watched: Watched,
    /// Boxed, because a table has space for more listens than most sessions have.
    listens: HashMap<Id, Box<Listen>>,
    initialized: bool,
    /// What the author keeps for this session.
    pub(crate) slots: Slots,
    /// Who used the session last, and with which rights.
    pub(crate) who: Who,
    /// What it sees, as the hub knows.
    pub(crate) viewer: Viewer,
    /// The bytes that are counted for its client and its subscriptions.
    charge: Charge,
    /// Its subscriptions to resources, as part of what its principal may have.
    counted: PrincipalPermit,
}

impl SessionState {
    pub(crate) fn new(
        id: SessionId,
        serves_modern: bool,
        max_subscriptions: usize,
        meter: &Arc<Meter>,
    ) -> Self {
        Self {
            id,
            serves_modern,
            max_subscriptions,
            legacy: None,
            level: SessionLevel::default(),
            watched: Watched::new(),
            listens: HashMap::default(),
            initialized: false,
            slots: Slots::default(),
            who: Who::Nobody,
            viewer: Viewer::Stranger,
            charge: meter.nothing(),
            counted: PrincipalPermit::default(),
        }
    }

    /// The state of a session that is one listen.
    ///
    /// # Errors
    ///
    /// If the budget of requests does not allow it.
    pub(crate) fn listening(
        id: SessionId,
        request: Id,
        granted: &NoticeFilter,
        meter: &Arc<Meter>,
        counted: PrincipalPermit,
    ) -> Result<Self, ErrorObject> {
        let mut state = Self::new(id, true, 0, meter);
        state.counted = counted;
        let cost = state.charge_listen(&request, granted)?;
        let listen = Box::new(Listen::new(&request, granted, cost));
        state.listens.insert(request, listen);
        Ok(state)
    }

    /// The state of a session that another node had.
    pub(super) fn from_record(
        id: SessionId,
        max_subscriptions: usize,
        client: Caller,
        initialized: bool,
        watched: Vec<Arc<str>>,
        meter: &Arc<Meter>,
    ) -> Self {
        let mut state = Self::new(id, false, max_subscriptions, meter);
        state.charge.take_over(watched.iter().map(|uri| cost_of(uri)).sum());
        state.level = client.session_level();
        state.legacy = Some(client);
        state.initialized = initialized;
        let watched = watched.iter().map(|uri| filter::watched(KeyKind::Resource, uri));
        state.watched = watched.collect();
        state
    }

    /// Counts its subscriptions as part of what its principal may have. What it watches already stays.
    pub(super) fn set_limit(&mut self, mut counted: PrincipalPermit) {
        counted.grow(self.watched.len());
        self.counted = counted;
    }

    pub(super) fn watched(&self) -> impl Iterator<Item = &Arc<str>> {
        self.watched.values()
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        self.charge.meter()
    }

    /// The client of a legacy session, after `initialize`.
    pub(crate) fn legacy(&self) -> Option<&Caller> {
        self.legacy.as_ref()
    }

    /// `members` are those members of a listen that extensions bring.
    /// `opens` says whether the request opens a stream of an extension.
    pub(crate) fn on_request(
        &mut self,
        request: &Request,
        members: &[Arc<str>],
        opens: bool,
    ) -> Decision {
        let modern = self.serves_modern && request.meta.protocol_version.is_some();
        let decided =
            if modern { self.on_modern(request, members, opens) } else { self.on_legacy(request) };
        decided.unwrap_or_else(Decision::Refuse)
    }

    fn on_legacy(&mut self, request: &Request) -> Result<Decision, ErrorObject> {
        let refuse = |why| Err(ErrorObject::new(code::INVALID_REQUEST, why));
        let uri = || Ok(request.params.parse::<params::ResourceUri>()?.uri);
        match (&self.legacy, &request.method) {
            (None, Method::Initialize) => self.initialize(request),
            (None, Method::Ping) => Ok(Decision::Dispatch(Caller::unknown(self.id.clone()))),
            (None, _) => {
                refuse("not initialized: send initialize, or a request with modern params._meta")
            }
            (Some(_), Method::Initialize) => refuse("already initialized"),
            (Some(_), Method::SetLevel) => {
                let level = request.params.parse::<params::SetLevel>()?.level;
                self.level.set(level);
                Ok(Decision::Done)
            }
            (Some(_), Method::ResourcesSubscribe) => uri().map(Decision::Watch),
            (Some(_), Method::ResourcesUnsubscribe) => uri().map(Decision::Unwatch),
            (Some(caller), _) => Ok(Decision::Dispatch(caller.clone())),
        }
    }

    fn initialize(&mut self, request: &Request) -> Result<Decision, ErrorObject> {
        let params: params::Initialize = request.params.parse()?;
        self.charge(cost_of_params(&request.params))?;
        let version = ProtocolVersion::negotiate(&params.protocol_version);
        self.legacy = Some(Caller::legacy(version, params, self.id.clone(), self.level.clone()));
        Ok(Decision::Initialized(version))
    }

    fn on_modern(
        &mut self,
        request: &Request,
        members: &[Arc<str>],
        opens: bool,
    ) -> Result<Decision, ErrorObject> {
        let version = request.meta.require_modern()?;
        let caller = Caller::modern(version, &request.meta, Some(self.id.clone()));
        if request.method != Method::Listen && !opens {
            return Ok(Decision::Dispatch(caller));
        }
        if self.listens.contains_key(&request.id) {
            return Err(ErrorObject::new(code::INVALID_REQUEST, "the request id is in use"));
        }
        if self.listens.len() >= self.max_subscriptions {
            return Err(self.too_many_subscriptions());
        }
        if opens {
            self.add_stream(&request.id, cost_of_params(&request.params))?;
            return Ok(Decision::OpenStream(caller));
        }
        let mut granted = read_listen(&request.params, self.max_subscriptions, members)?;
        // The listen does not contain what an extension owns before that grants it: a session that
        // crashes meanwhile must not come back with the tasks of another client.
        let cost = self.charge_listen(&request.id, &granted)?;
        let asked = granted.take_owned();
        let mut listen = Listen::new(&request.id, &granted, cost);
        listen.decided = asked.is_empty();
        self.listens.insert(request.id.clone(), Box::new(listen));
        Ok(Decision::Listen(caller, granted, asked))
    }

    /// Adds a stream of an extension, which the hub does not know.
    fn add_stream(&mut self, request: &Id, cost: usize) -> Result<(), ErrorObject> {
        let cost = cost + cost_of(&request.to_json());
        self.charge(cost)?;
        let mut listen = Listen::new(request, &NoticeFilter::default(), cost);
        (listen.decided, listen.unsaid) = (false, None);
        self.listens.insert(request.clone(), Box::new(listen));
        Ok(())
    }

    /// The state of a session that is one stream of an extension.
    ///
    /// # Errors
    ///
    /// If the budget of requests does not allow it.
    pub(crate) fn streaming(
        id: SessionId,
        request: &Request,
        meter: &Arc<Meter>,
    ) -> Result<Self, ErrorObject> {
        let mut state = Self::new(id, true, 0, meter);
        state.add_stream(&request.id, cost_of_params(&request.params))?;
        Ok(state)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ErrorObject> {
        self.charge.grow(bytes).map_err(|error| ErrorObject::unavailable(error.to_string()))
    }

    fn charge_listen(&mut self, request: &Id, asked: &NoticeFilter) -> Result<usize, ErrorObject> {
        let keys = KeyKind::ALL.into_iter().flat_map(|kind| asked.keys(kind));
        let cost = cost_of(&request.to_json()) + keys.map(|key| cost_of(key)).sum::<usize>();
        let resources = asked.keys(KeyKind::Resource).len();
        self.count(resources)?;
        self.charge(cost).inspect_err(|_| self.counted.shrink(resources))?;
        Ok(cost)
    }

    /// Counts subscriptions to resources.
    fn count(&mut self, resources: usize) -> Result<(), ErrorObject> {
        match self.counted.grow(resources) {
            true => Ok(()),
            false => Err(ErrorObject::unavailable("you watch as many resources as you may")),
        }
    }

    fn too_many_subscriptions(&self) -> ErrorObject {
        ErrorObject::invalid_params(format!(
            "more than {} subscriptions on one session",
            self.max_subscriptions
        ))
    }

    /// Subscribes the client to a resource, unless it has as many subscriptions as it may have.
    pub(crate) fn watch(&mut self, uri: Arc<str>) -> Result<(), ErrorObject> {
        let (topic, uri) = filter::watched(KeyKind::Resource, &uri);
        if !self.watched.contains_key(&topic) && self.watched.len() >= self.max_subscriptions {
            return Err(self.too_many_subscriptions());
        }
        // Charged before a subscription to the same resource is replaced: a refusal changes nothing.
        self.count(1)?;
        self.charge(cost_of(&uri)).inspect_err(|_| self.counted.shrink(1))?;
        if let Some(replaced) = self.watched.insert(topic, uri) {
            self.charge.shrink(cost_of(&replaced));
            self.counted.shrink(1);
        }
        Ok(())
    }

    pub(crate) fn unwatch(&mut self, uri: &str) {
        if let Some(written) = self.watched.remove(&Topic::Resource(uri.into()).normal()) {
            self.charge.shrink(cost_of(&written));
            self.counted.shrink(1);
        }
    }

    /// Records that a legacy client is ready. `true` the first time.
    pub(crate) fn on_initialized(&mut self) -> bool {
        self.legacy.is_some() && !std::mem::replace(&mut self.initialized, true)
    }

    pub(crate) fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Sets what a listen is granted in the end. `false` if the listen has ended.
    pub(crate) fn set_granted(&mut self, request: &Id, granted: &NoticeFilter) -> bool {
        let listen = self.listens.get_mut(request);
        let is_open = listen.is_some();
        if let Some(listen) = listen {
            **listen = Listen::new(request, granted, listen.cost);
        }
        is_open
    }

    /// The subscription of a listen.
    pub(crate) fn subscription(&self, request: &Id) -> SubscriptionId {
        let listen = self.listens.get(request);
        listen.map_or_else(|| SubscriptionId::of(request), |listen| listen.subscription.clone())
    }

    /// Holds something until a listen ends. Returns it if the listen has ended, to be dropped without
    /// the lock.
    pub(crate) fn hold(&mut self, request: &Id, held: Held) -> Option<Held> {
        match self.listens.get_mut(request) {
            Some(listen) => {
                listen.held = Some(HeldByListen(held));
                None
            }
            None => Some(held),
        }
    }

    /// Takes what all listens hold, because nobody reads them any more. To be dropped without the lock.
    pub(crate) fn take_held(&mut self) -> Vec<HeldByListen> {
        self.listens.values_mut().filter_map(|listen| listen.held.take()).collect()
    }

    /// Ends a listen. What it held is to be dropped without the lock.
    pub(crate) fn end_listen(&mut self, request: &Id) -> Option<EndedListen> {
        let listen = self.listens.remove(request)?;
        self.charge.shrink(listen.cost);
        self.counted.shrink(listen.filter.keys(KeyKind::Resource).count());
        Some(EndedListen::new(request.clone(), *listen))
    }

    /// As [`end_listen`](Self::end_listen), for all listens.
    pub(crate) fn end_listens(&mut self) -> Vec<EndedListen> {
        let ended: Vec<_> = self.listens.drain().collect();
        self.charge.shrink(ended.iter().map(|(_, listen)| listen.cost).sum());
        let watched = ended.iter().map(|(_, it)| it.filter.keys(KeyKind::Resource).count()).sum();
        self.counted.shrink(watched);
        ended.into_iter().map(|(request, listen)| EndedListen::new(request, *listen)).collect()
    }

    /// All subscriptions now: of the legacy client, and of each listen that is acknowledged.
    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        let listens = self.listens.values().filter(|it| it.decided && it.unsaid.is_none());
        let legacy = self.legacy_subscription().into_iter();
        legacy.chain(listens.map(|listen| listen.subscription(None))).collect()
    }

    /// The subscription of a legacy client, after `initialize`.
    pub(crate) fn legacy_subscription(&self) -> Option<Subscription> {
        let filter = self.legacy.is_some().then(|| Filter::legacy(&self.watched))?;
        Some(Subscription { id: None, filter, unsaid: None })
    }

    /// The subscription of a listen, if `request` opened one and all that it is granted is known.
    pub(crate) fn begin(&mut self, request: &Id) -> Option<Subscription> {
        let listen = self.listens.get_mut(request).filter(|listen| listen.decided)?;
        let unsaid = listen.unsaid.take();
        Some(listen.subscription(unsaid))
    }

    /// Number of open listens and watched resources.
    pub(crate) fn subscribed(&self) -> usize {
        self.listens.len() + self.watched.len()
    }
}

/// The bytes that are counted for a subscription.
fn cost_of(text: &str) -> usize {
    SUBSCRIPTION_COST + text.len()
}

/// Grants a listen everything that it asks for and that exists, each topic once. Whether it receives
/// what extensions own is for them to decide. `members` are those that extensions bring.
pub(crate) fn read_listen(
    params: &Params,
    max: usize,
    members: &[Arc<str>],
) -> Result<NoticeFilter, ErrorObject> {
    let listen = params::Listen::read(params)?;
    let mut granted = listen.notifications;
    for kind in KeyKind::ALL.into_iter().filter(|kind| !kind.is_owned()) {
        let (keys, mut seen) = (granted.keys_mut(kind), HashSet::new());
        keys.retain(|key| seen.insert(kind.normal(key)));
        if keys.len() > max {
            return Err(kind.too_many(max));
        }
    }
    if !members.is_empty() {
        granted.members = params::Listen::asked_members(params, members)?;
    }
    Ok(granted)
}

#[cfg(test)]
mod tests;
