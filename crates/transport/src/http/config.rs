//! The configuration of the HTTP endpoint.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, header};
use stentor_macros::Setters;

use super::{Authenticator, Networks, OriginPolicy};

/// The configuration of the HTTP endpoint.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct HttpConfig {
    /// The path of the endpoint: the whole path, compared exactly. Default `/mcp`. A request for
    /// the same path with a slash more or less at its end is answered with 404, which names the
    /// right path.
    pub path: String,
    /// The hosts and origins that may call, and so the web pages that may read the responses.
    /// Default: the policy that fits the address on which the server listens, see
    /// [`OriginPolicy::default`].
    pub origins: OriginPolicy,
    /// Finds out who sends a request. See [`auth`](Self::auth()).
    pub(super) auth: Option<Arc<dyn Authenticator>>,
    /// Whether an endpoint with an authenticator accepts requests without a credential. Their sender
    /// is nobody: without a principal, and without scopes. A credential that is not good is refused
    /// all the same. Default `false`.
    pub allow_anonymous: bool,
    /// Whether a request without an identity is answered with 401. Then an authentication layer that
    /// is missing or bypassed lets nobody in. Default `false`: where there is no
    /// [authenticator](Self::auth()), a client without an [`Identity`] or a [`Principal`](super::Principal) is
    /// anonymous.
    ///
    /// [`serve_on`](super::serve_on) has no layers: with `true` and no authenticator it serves nobody.
    /// [`serve_on_layered`](super::serve_on_layered) has.
    ///
    /// [`Identity`]: stentor_engine::identity::Identity
    pub require_identity: bool,
    /// Whether `/livez` and `/readyz` say how the server is, to anybody who can reach it: 200 and
    /// `ok`, or 503 and the reason in one line. `/livez` fails when the engine was killed or has
    /// failed, `/readyz` also while it is draining. They need no identity, and accept any host.
    /// Default `false`.
    pub health: bool,
    /// The headers that handlers may read. See [`expose_headers`](Self::expose_headers).
    pub(super) exposed: Vec<(HeaderName, Arc<str>)>,
    /// The proxies that are believed when they say where a request comes from, by `Forwarded` or
    /// `X-Forwarded-For`: list only proxies that add the address of their client to one of them. The
    /// address of a client is then the nearest one that is not a proxy of this list. Default: none;
    /// the address of a client is that of the other end of its connection.
    pub trusted_proxies: Networks,
    /// The largest body, in bytes. A larger body is answered with 413. Default 4 MiB.
    pub max_body: usize,
    /// The largest headers, names and values together, in bytes. Larger headers are answered with
    /// 431. Default 16 KiB.
    ///
    /// [`serve_on`](super::serve_on) also keeps little more than this for each connection whose client does not
    /// read. A head that is larger by 4 KiB is refused before it is read to its end.
    pub max_headers: usize,
    /// The interval of keep-alive comments on a quiet stream. Default 15 s.
    pub keep_alive: Duration,
    /// How long a legacy client waits before it reconnects to a closed stream. Each client gets
    /// another value between half of this and one and a half times this, so that not all clients
    /// reconnect at once. Default 500 ms.
    pub retry: Duration,
    /// How long a call has to finish for a plain JSON response. A call that sends anything else
    /// first, or takes longer, is answered with an event stream. Default 100 ms.
    ///
    /// When a client closes its connection within this time, the server notices it only when this
    /// time is over: until then the server writes nothing, and a client that has only closed its
    /// sending half can still read.
    pub json_grace: Duration,
    /// How long [`serve_on`](super::serve_on) waits for the head of a request, from when the connection was opened
    /// or the last response was sent, and then for each piece of its body. An idle connection is
    /// closed after this time, too. Default 75 s.
    pub read_timeout: Duration,
    /// How long a body may take to arrive before [`min_body_rate`](Self::min_body_rate) applies to
    /// it. Default 10 s.
    pub body_grace: Duration,
    /// How many bytes of a body must arrive each second once [`body_grace`](Self::body_grace) is
    /// over, on average since the body began. A slower body is answered with 408. Default 8 KiB; 0
    /// is no limit.
    pub min_body_rate: usize,
    /// How many bytes unfinished requests of all connections may keep together. Each of them counts
    /// 8 KiB more than was read of it. Beyond this limit the request that has kept the most for the
    /// longest gives way: a body is answered with 503, and the connection of an unfinished head,
    /// which only [`serve_on`](super::serve_on) counts, is closed. Default 128 MiB.
    pub max_unfinished: usize,
    /// How many connections [`serve_on`](super::serve_on) keeps open at once. This is capped below the process's
    /// limit of open files (on Unix `ulimit -n`, less one in 16, and between 16 and 256 in any
    /// case). For one more connection, the connection that has been idle the longest is closed: it
    /// has no request in progress and no open stream. While no connection is idle, the new
    /// connection waits. Default 100,000.
    pub max_connections: usize,
    /// How many connections may wait for [`serve_on`](super::serve_on) to accept them. Clients beyond this have to
    /// retry, which takes a second or longer. The kernel caps it (Linux: `net.core.somaxconn`, by
    /// default 4,096). Default 16,384.
    pub backlog: u32,
    /// After a shutdown, how long the connections of [`serve_on`](super::serve_on) get at least to send the rest of
    /// their responses. Default 1 s.
    ///
    /// A whole shutdown takes no longer than
    /// [`Config::drain_timeout`](stentor_engine::Config::drain_timeout), one second and this: by
    /// default less than the 10 s after which Docker kills the process.
    pub close_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            path: "/mcp".to_owned(),
            origins: OriginPolicy::default(),
            auth: None,
            allow_anonymous: false,
            require_identity: false,
            health: false,
            exposed: Vec::new(),
            trusted_proxies: Networks::default(),
            max_body: 4 * 1024 * 1024,
            max_headers: 16 * 1024,
            keep_alive: Duration::from_secs(15),
            retry: Duration::from_millis(500),
            json_grace: Duration::from_millis(100),
            read_timeout: Duration::from_secs(75),
            body_grace: Duration::from_secs(10),
            min_body_rate: 8 * 1024,
            max_unfinished: 128 * 1024 * 1024,
            max_connections: 100_000,
            backlog: 16_384,
            close_timeout: Duration::from_secs(1),
        }
    }
}

impl HttpConfig {
    /// Sets what finds out who sends a request: [`StaticTokens`](super::StaticTokens),
    /// [`ProxyHeaders`](super::ProxyHeaders), `OAuth` of the feature `oauth`, or your own. It is
    /// asked for every request, before the body is read. A request that it does not know is answered
    /// with 401.
    ///
    /// Without it, an [`Identity`](stentor_engine::identity::Identity) or a
    /// [`Principal`](super::Principal) that a layer puts into the extensions of a request says who sends it. With it,
    /// these are ignored.
    #[must_use]
    pub fn auth(mut self, auth: impl Authenticator) -> Self {
        self.auth = Some(Arc::new(auth));
        self
    }

    /// Sets the names of the request headers that handlers may read. Default: none.
    ///
    /// `Authorization`, `Proxy-Authorization` and `Cookie` are never exposed, because handlers must
    /// not pass credentials on: they are ignored here, and so is what is no name of a header.
    ///
    /// ```
    /// use stentor::http::HttpConfig;
    ///
    /// let config = HttpConfig::new().expose_headers(["x-tenant"]);
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn expose_headers<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.exposed.clear();
        for name in names {
            let Ok(name) = HeaderName::try_from(name.as_ref()) else { continue };
            let is_secret = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE]
                .contains(&name);
            if !is_secret && !self.exposed.iter().any(|(other, _)| *other == name) {
                let text = name.as_str().into();
                self.exposed.push((name, text));
            }
        }
        self
    }
}
