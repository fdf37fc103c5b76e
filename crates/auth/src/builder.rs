//! How an [`OAuth`] is described.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use stentor_transport::http::{Challenge, ResourceMetadata};

use crate::algorithm::Algorithm;
use crate::claims::{ClaimRules, closure};
use crate::clock::Clock;
use crate::introspection::Introspection;
use crate::issuer::IssuerState;
use crate::oauth::{Checker, OAuth};
use crate::source::{FetchError, KeySource, Web};
use crate::url::Url;
use crate::verdicts::Verdicts;

const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);

/// Describes which tokens are good. [`OAuth::resource`] begins it, [`build`](Self::build) checks it.
#[derive(Debug)]
#[must_use = "nothing is checked without `build`"]
pub struct OAuthBuilder {
    resource: String,
    issuers: Vec<Issuer>,
    scopes: Vec<String>,
    required: Vec<String>,
    aliases: BTreeSet<String>,
    leeway: Duration,
    algorithms: BTreeSet<Algorithm>,
    is_strict: bool,
    implications: Vec<(String, String)>,
    roles_claim: Option<String>,
    credentials: Option<Credentials>,
    name: Option<String>,
    documentation: Option<String>,
    source: Option<Arc<dyn KeySource>>,
    clock: Clock,
}

/// An issuer with settings of its own. Where none are needed, a URL will do.
///
/// ```
/// use stentor::oauth::{Algorithm, Issuer};
///
/// let issuer = Issuer::at("https://login.example.com").algorithms([Algorithm::ES256]);
/// # let _ = issuer;
/// ```
#[derive(Clone, Debug)]
#[must_use = "an issuer does nothing by itself"]
pub struct Issuer {
    url: String,
    algorithms: Option<BTreeSet<Algorithm>>,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
struct Credentials {
    id: String,
    secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why an [`OAuth`] cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The resource is not a URL that clients and tokens can name.
    #[error("the resource {url:?} {problem}")]
    Resource {
        /// The resource.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An issuer is not a URL from which keys can be fetched.
    #[error("the issuer {url:?} {problem}")]
    Issuer {
        /// The issuer.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no issuer, so no token would be good.
    #[error("there is no issuer")]
    NoIssuer,
    /// No algorithm is allowed, so no token of this issuer would be good.
    #[error("no algorithm is allowed for the issuer {0:?}")]
    NoAlgorithm(String),
    /// More than one issuer would be asked about opaque tokens, which do not tell whose they are:
    /// one issuer would learn the tokens of another.
    #[error("more than one issuer would be asked about opaque tokens")]
    SeveralIntrospections,
    /// A scope is not one that a client can be told to ask for.
    #[error("the scope {scope:?} {problem}")]
    Scope {
        /// The scope.
        scope: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A second name of the resource is blank.
    #[error("an audience is blank")]
    BlankAudience,
    /// Clocks may differ by 5 minutes at most.
    #[error("the leeway of {0:?} is more than 5 minutes")]
    Leeway(Duration),
    /// The HTTP client for the keys cannot be made; perhaps this machine knows no certificates.
    #[error("there is no HTTP client for the keys: {0}")]
    Client(#[source] FetchError),
}

impl Issuer {
    /// The issuer at this address, exactly as it writes itself into tokens (`iss`): https, or http
    /// on this machine.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), algorithms: None, credentials: None }
    }

    /// Allows these algorithms for the tokens of this issuer, and no others.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = Some(algorithms.into_iter().collect());
        self
    }

    /// Asks this issuer about opaque tokens (RFC 7662), with these credentials of a client that it
    /// knows. Only one issuer can be asked.
    pub fn introspect(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Self {
        self.credentials = Some(Credentials { id: client_id.into(), secret: client_secret.into() });
        self
    }
}

impl<S: Into<String>> From<S> for Issuer {
    fn from(url: S) -> Self {
        Self::at(url)
    }
}

impl OAuthBuilder {
    pub(crate) fn new(resource: String) -> Self {
        Self {
            resource,
            issuers: Vec::new(),
            scopes: Vec::new(),
            required: Vec::new(),
            aliases: BTreeSet::new(),
            leeway: DEFAULT_LEEWAY,
            algorithms: Algorithm::DEFAULT.into(),
            is_strict: false,
            implications: Vec::new(),
            roles_claim: None,
            credentials: None,
            name: None,
            documentation: None,
            source: None,
            clock: Clock::Machine,
        }
    }

    /// Accepts the tokens of one more issuer: its URL, or an [`Issuer`]. Clients are told all of
    /// them in this order, and some clients use only the first.
    ///
    /// Where its keys are is in its metadata document (RFC 8414, OpenID Connect Discovery). Nothing
    /// is fetched before the first token.
    pub fn issuer(mut self, issuer: impl Into<Issuer>) -> Self {
        self.issuers.push(issuer.into());
        self
    }

    /// Sets the scopes that clients are told to ask for at first: few, for what most of them need.
    ///
    /// No token must have them. What a tool needs is said by its own definition, and a client asks
    /// for more when it needs that tool.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Sets scopes that every request needs. A token without one of them is answered with 403, which
    /// names them. Default: none.
    pub fn require<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.required = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Accepts tokens for one more name (`aud`) of this resource. An issuer that does not know
    /// resource indicators (RFC 8707) writes a name of its own into tokens.
    ///
    /// It must be a name for this resource only: with the name of a client, or of everything that
    /// an issuer is for, tokens that were meant for somebody else are good.
    pub fn audience(mut self, name: impl Into<String>) -> Self {
        self.aliases.insert(name.into());
        self
    }

    /// Sets how far the clocks of issuers and of this server may differ. Default 60 s, at most 5
    /// minutes.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Allows these algorithms for tokens, and no others. Default RS256, PS256, ES256 and EdDSA.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Accepts only tokens that say that they are access tokens (`typ: at+jwt`, RFC 9068). Not every
    /// issuer writes that.
    pub fn strict_type(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// A token that was granted one scope also has another: `implies("files:write", "files:read")`.
    /// What that one implies follows.
    pub fn implies(mut self, granted: impl Into<String>, also: impl Into<String>) -> Self {
        self.implications.push((granted.into(), also.into()));
        self
    }

    /// Reads roles from this claim: a string, or an array of strings. If there is no claim of this
    /// name, it is a path: `realm_access.roles`.
    pub fn roles_claim(mut self, claim: impl Into<String>) -> Self {
        self.roles_claim = Some(claim.into());
        self
    }

    /// Asks the issuer about opaque tokens (RFC 7662), with these credentials of a client that it
    /// knows. If there are several issuers, use [`Issuer::introspect`]: only one of them can be
    /// asked.
    ///
    /// A token that is not a JWT is opaque. What the issuer says must satisfy the same rules as the
    /// claims of a JWT. While it does not answer, opaque tokens are answered with 503, not with 401;
    /// so they are if a thousand others wait already. At most 32 requests are under way at once.
    pub fn introspect(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Self {
        self.credentials = Some(Credentials { id: client_id.into(), secret: client_secret.into() });
        self
    }

    /// Sets the name of the resource, for people.
    pub fn resource_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the address of a page about the resource, for people.
    pub fn documentation(mut self, url: impl Into<String>) -> Self {
        self.documentation = Some(url.into());
        self
    }

    /// Sends all requests to issuers through this, instead of through an HTTP client of its own.
    pub fn key_source(mut self, source: impl KeySource) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks the description. Nothing is fetched.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says what is wrong with it.
    pub fn build(self) -> Result<OAuth, BuildError> {
        check_resource(&self.resource)?;
        check_issuers(&self.issuers)?;
        for scope in self.scopes.iter().chain(&self.required) {
            check_scope(scope)?;
        }
        if self.aliases.iter().any(|alias| alias.trim().is_empty()) {
            return Err(BuildError::BlankAudience);
        }
        if self.leeway > MAX_LEEWAY {
            return Err(BuildError::Leeway(self.leeway));
        }
        let mut issuers = self.issuers;
        if let Some(credentials) = self.credentials {
            let [only] = &mut issuers[..] else { return Err(BuildError::SeveralIntrospections) };
            only.credentials.get_or_insert(credentials);
        }
        if issuers.iter().filter(|issuer| issuer.credentials.is_some()).count() > 1 {
            return Err(BuildError::SeveralIntrospections);
        }
        for issuer in &issuers {
            if issuer.algorithms.as_ref().unwrap_or(&self.algorithms).is_empty() {
                return Err(BuildError::NoAlgorithm(issuer.url.clone()));
            }
        }
        let source = match self.source {
            Some(source) => source,
            None => Arc::new(Web::new().map_err(BuildError::Client)?),
        };

        let urls = issuers.iter().map(|issuer| issuer.url.as_str());
        let mut metadata = ResourceMetadata::new(&self.resource, urls);
        metadata.resource_name = self.name;
        metadata.resource_documentation = self.documentation;
        let mut challenge = Challenge::default();
        challenge.metadata = Some(metadata);
        challenge.scopes = self.scopes;
        challenge.required = self.required;
        let issuers = issuers.into_iter().map(|Issuer { url, algorithms, credentials }| {
            let algorithms = algorithms.unwrap_or_else(|| self.algorithms.clone());
            let introspection = credentials.map(|it| Introspection::new(it.id, it.secret));
            Arc::new(IssuerState::new(url.into(), algorithms, introspection, source.clone()))
        });
        let mut audiences = self.aliases;
        audiences.insert(self.resource);
        Ok(OAuth::of(Checker {
            challenge,
            issuers: issuers.collect(),
            rules: ClaimRules {
                audiences,
                leeway: self.leeway,
                implied: closure(&self.implications),
                roles_claim: self.roles_claim,
            },
            is_strict: self.is_strict,
            clock: self.clock,
            verdicts: Verdicts::default(),
        }))
    }
}

fn check_resource(url: &str) -> Result<(), BuildError> {
    let problem = match Url::parse(url) {
        _ if url.contains('#') => "has a fragment",
        None => "is not an absolute http or https URL",
        Some(parsed) if !parsed.is_lower_case() => "has a scheme or host that is not in lowercase",
        Some(_) => return Ok(()),
    };
    Err(BuildError::Resource { url: url.to_owned(), problem })
}

fn check_issuers(issuers: &[Issuer]) -> Result<(), BuildError> {
    let mut seen = BTreeSet::new();
    for Issuer { url, .. } in issuers {
        let problem = match Url::parse(url) {
            None => "is not an absolute http or https URL without a fragment",
            Some(parsed) if parsed.has_query() => "has a query",
            Some(parsed) if !parsed.is_trusted() => "must be https, but on this machine",
            Some(_) if !seen.insert(url) => "is there twice",
            Some(_) => continue,
        };
        return Err(BuildError::Issuer { url: url.clone(), problem });
    }
    if issuers.is_empty() { Err(BuildError::NoIssuer) } else { Ok(()) }
}

/// RFC 6749, section 3.3.
fn check_scope(scope: &str) -> Result<(), BuildError> {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    let problem = match scope {
        "offline_access" => "is between a client and its issuer, and not of a resource",
        _ if scope.is_empty() || !scope.bytes().all(is_fit) => "is not one word of plain ASCII",
        _ => return Ok(()),
    };
    Err(BuildError::Scope { scope: scope.to_owned(), problem })
}
