//! The gate of the endpoint: every request passes it, before anything else of the request counts.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Extensions, HeaderValue, StatusCode};
use stentor_engine::Connection;
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::{ForgetRights, RequestSender};
use stentor_wire::ErrorObject;
use tokio::time::{Instant, timeout};

use super::bearer::Challenges;
use super::metadata::Metadata;
use super::{Authenticator, Challenge, Rejection, Verdict};
use crate::http::client::{Exposed, client_address, exposed};
use crate::http::guard::Refusal;
use crate::http::{Endpoint, HttpConfig, Principal, Response, reply};

/// When clients may try again after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// How long an authenticator may take to find out who sends a request.
const LONGEST_CHECK: Duration = Duration::from_secs(15);

/// The longest `Retry-After`, in seconds.
const LATEST: u64 = 24 * 60 * 60;

/// For how long after the end of a credential its streams are closed, so that not all clients come
/// back at once.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);

/// The authenticator of an endpoint, and what it tells clients.
#[derive(Debug)]
pub(in crate::http) struct Gate {
    authenticator: Arc<dyn Authenticator>,
    challenges: Challenges,
    metadata: Option<Metadata>,
}

impl Gate {
    pub(in crate::http) fn new(authenticator: Arc<dyn Authenticator>) -> Self {
        let challenge = authenticator.challenge();
        let metadata = Metadata::new(challenge);
        let url = metadata.as_ref().map(|metadata| &*metadata.url);
        Self { challenges: Challenges::new(challenge, url), metadata, authenticator }
    }

    /// The scopes that clients are told to ask for at first.
    pub(in crate::http) fn scopes(&self) -> &[String] {
        &self.authenticator.challenge().scopes
    }

    /// The scopes that every request needs.
    fn required(&self) -> &[String] {
        &self.authenticator.challenge().required
    }

    pub(in crate::http) fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    pub(super) fn metadata_url(&self) -> Option<&str> {
        self.metadata.as_ref().map(|metadata| &*metadata.url)
    }

    /// Who sends a request.
    async fn identify(&self, head: &Parts, peer: Option<&SocketAddr>) -> Result<Identity, Refusal> {
        // Something in front might have checked the other one.
        if head.headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Err(Refusal::HeaderRepeated { name: AUTHORIZATION });
        }
        let check = || self.authenticator.check(head, peer.copied());
        let known = match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Verdict::Now(known)) => Ok(known),
            Ok(Verdict::Later(later)) => {
                let later = timeout(LONGEST_CHECK, AssertUnwindSafe(later).catch_unwind());
                later.await.unwrap_or(Ok(Err(Rejection::Unavailable { retry_after: AFTER_PANIC })))
            }
            Err(panic) => Err(panic),
        };
        let known = known.unwrap_or_else(|_| {
            // The panic hook has reported the panic itself.
            stentor_engine::log!(error, "an authenticator panicked; the request is refused");
            Err(Rejection::Unavailable { retry_after: AFTER_PANIC })
        });
        let identity = known.map_err(refusal)?;
        // A blank principal is nobody, and so nobody has authenticated as it.
        if identity.is_blank() {
            return Err(Refusal::InvalidCredential);
        }
        match self.required().iter().all(|scope| identity.has_scope(scope)) {
            true => Ok(identity),
            false => Err(Refusal::ScopesMissing),
        }
    }
}

fn refusal(rejection: Rejection) -> Refusal {
    match rejection {
        Rejection::Missing => Refusal::NoIdentity,
        Rejection::Invalid => Refusal::InvalidCredential,
        Rejection::Unavailable { retry_after } => {
            let whole = retry_after.as_secs();
            let up = whole.saturating_add(u64::from(retry_after.subsec_nanos() > 0));
            Refusal::CannotAuthenticate { retry_after: up.clamp(1, LATEST) }
        }
    }
}

impl ForgetRights for Gate {
    fn forget(&self, principal: Option<&str>) {
        let forget = || self.authenticator.forget(principal);
        if catch_unwind(AssertUnwindSafe(forget)).is_err() {
            stentor_engine::log!(error, "an authenticator panicked; it may remember old rights");
        }
    }
}

/// Who sends a request, and from where.
#[derive(Debug)]
pub(in crate::http) struct Caller<'a> {
    head: &'a Parts,
    /// The other end of the connection, where it is known.
    peer: Option<SocketAddr>,
    /// `None` for a stranger.
    identity: Option<Identity>,
}

impl<'a> Caller<'a> {
    /// A stranger, until [`admit`](Self::admit) has found out who it is.
    pub(in crate::http) fn new(head: &'a Parts, peer: Option<SocketAddr>) -> Self {
        Self { head, peer, identity: None }
    }

    /// Finds out who sends the request, or refuses it.
    pub(in crate::http) async fn admit(&mut self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let config = &endpoint.config;
        self.identity = match &endpoint.gate {
            Some(gate) => match gate.identify(self.head, self.peer.as_ref()).await {
                Ok(identity) => Some(identity),
                Err(Refusal::NoIdentity) if config.allow_anonymous => None,
                Err(refusal) => return Err(refusal),
            },
            None => named(&self.head.extensions)?,
        };
        self.check_good(endpoint)?;
        match &self.identity {
            None if config.require_identity => Err(Refusal::NoIdentity),
            _ => Ok(()),
        }
    }

    /// Checks that what the sender has shown is good now: an authenticator may have remembered it for
    /// too long, and a body may take long to arrive.
    pub(in crate::http) fn check_good(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let until = self.identity.as_ref().and_then(Identity::good_until);
        if until.is_some_and(|until| until <= SystemTime::now()) || self.is_revoked(endpoint) {
            return Err(Refusal::InvalidCredential);
        }
        Ok(())
    }

    pub(in crate::http) fn head(&self) -> &'a Parts {
        self.head
    }

    pub(in crate::http) fn is_somebody(&self) -> bool {
        self.identity.is_some()
    }

    fn is_revoked(&self, endpoint: &Endpoint) -> bool {
        let principal = self.identity.as_ref().map(Identity::principal);
        principal.is_some_and(|principal| endpoint.engine.is_revoked(principal))
    }

    /// The sender of the request, as the engine wants to know it.
    pub(in crate::http) fn sender(&self, config: &HttpConfig) -> RequestSender {
        // A router's listener may know the connection better.
        let known = self.head.extensions.get().copied();
        let connection = known.or_else(|| self.peer.map(Connection::from));
        let (headers, address) = self.seen(config);
        RequestSender::from(self.identity.clone()).on(connection).with_headers(headers).at(address)
    }

    /// What handlers may know of the client: the exposed headers, and its address.
    fn seen(&self, config: &HttpConfig) -> (Option<Exposed>, Option<IpAddr>) {
        let headers = &self.head.headers;
        (exposed(headers, config), client_address(headers, self.peer, config))
    }

    /// When a stream that only waits for notices is closed: some time after the credential is good
    /// no more, if ever.
    pub(in crate::http) fn streams_until(&self, endpoint: &Endpoint) -> Option<Instant> {
        let until = self.identity.as_ref()?.good_until()?;
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        let later = CLOSED_WITHIN.mul_f64(endpoint.spread.next());
        Instant::now().checked_add(left.saturating_add(later))
    }
}

/// Whom middleware in front of the endpoint has found out.
fn named(extensions: &Extensions) -> Result<Option<Identity>, Refusal> {
    let identity = match (extensions.get::<Identity>(), extensions.get::<Principal>()) {
        (Some(identity), _) => identity.clone(),
        (None, Some(principal)) => Identity::named(principal.0.clone()),
        (None, None) => return Ok(None),
    };
    if identity.is_blank() { Err(Refusal::BlankPrincipal) } else { Ok(Some(identity)) }
}

/// The response to a request that the endpoint refuses before it has read it.
pub(in crate::http) fn refused(endpoint: &Endpoint, refusal: &Refusal) -> Response {
    let mut response = match (refusal, &endpoint.gate) {
        (Refusal::ScopesMissing, Some(gate)) => {
            let error = ErrorObject::insufficient_scope(&gate.required().join(" "));
            reply::error(StatusCode::FORBIDDEN, None, &error)
        }
        _ => reply::refused(refusal, None),
    };
    let pick: fn(&Challenges) -> &HeaderValue = match refusal {
        Refusal::NoIdentity | Refusal::BlankPrincipal => |all| &all.missing,
        Refusal::InvalidCredential => |all| &all.invalid,
        Refusal::ScopesMissing => |all| &all.insufficient,
        Refusal::HeaderRepeated { name } if *name == AUTHORIZATION => |all| &all.repeated,
        Refusal::CannotAuthenticate { retry_after } => {
            response.headers_mut().insert(RETRY_AFTER, (*retry_after).into());
            return response;
        }
        _ => return response,
    };
    let challenge = match &endpoint.gate {
        Some(gate) => pick(&gate.challenges).clone(),
        None => pick(&Challenges::new(&Challenge::default(), None)).clone(),
    };
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}
