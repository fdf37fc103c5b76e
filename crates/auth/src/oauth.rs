//! The authenticator: what is known already it says at once, and it waits only for issuers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use stentor_transport::http::{Authenticator, Challenge, Rejection, Verdict};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::bearer;
use crate::builder::OAuthBuilder;
use crate::claims::ClaimRules;
use crate::clock::{Clock, Now};
use crate::introspection::{Answer, AskError, Introspection};
use crate::issuer::{Found, IssuerState};
use crate::refreshed::Flight;
use crate::refused::Refused;
use crate::token::Jwt;
use crate::verdicts::{Began, OPAQUE, SIGNED, TokenDigest, Verdicts, digest};

/// How often a check waits for keys: for the first ones, and for a newer set with an unknown key.
const MAX_WAITS: usize = 3;

/// Checks the access tokens of requests: an OAuth 2.1 resource server.
///
/// ```no_run
/// # fn f() -> Result<(), stentor::oauth::BuildError> {
/// use stentor::oauth::OAuth;
///
/// let auth = OAuth::resource("https://mcp.example.com/mcp")
///     .issuer("https://login.example.com")
///     .scopes(["mcp:read"])
///     .build()?;
/// # let _ = auth;
/// # Ok(())
/// # }
/// ```
///
/// A signed token (a JWT) is checked with the keys of its issuer. These are fetched when the first
/// token arrives, then kept, and fetched again before they are too old, or when a token names a key
/// that is not among them. While an issuer cannot be reached, its keys are used for 24 hours more.
/// An opaque token is one about which its issuer is [asked](OAuthBuilder::introspect).
///
/// A token is good if all of this holds; clients are not told what does not:
///
/// * its issuer is a configured one, and signed it with one of its keys for signatures, by an
///   [allowed algorithm](OAuthBuilder::algorithms);
/// * `aud` contains the resource, or an [alias](OAuthBuilder::audience). An issuer that does not
///   write what a token is for cannot be used: any token of any of its clients would be good;
/// * `exp` is there and not over, `nbf` and `iat` are over if they are there;
/// * `typ` is `at+jwt` or `JWT`, or absent;
/// * `sub` is there, or at least `client_id`;
/// * it is not bound to a key or a certificate of its client (`cnf`): such proofs are not read.
///
/// The principal is the issuer and the subject, see
/// [`Identity::issued`](stentor_engine::identity::Identity::issued). The client is
/// `client_id`, or else `azp`. The scopes are those of `scope` and `scp` together.
///
/// What was found out about a token is kept for 5 minutes, of an opaque one for 1 minute, and never
/// for longer than until it expires.
///
/// Clones share everything.
#[derive(Clone)]
pub struct OAuth(Arc<Checker>);

pub(crate) struct Checker {
    pub(crate) challenge: Challenge,
    pub(crate) issuers: Vec<Arc<IssuerState>>,
    pub(crate) rules: ClaimRules,
    pub(crate) is_strict: bool,
    pub(crate) clock: Clock,
    pub(crate) verdicts: Verdicts,
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth").field("challenge", &self.0.challenge).finish_non_exhaustive()
    }
}

/// The check of one token.
struct Check {
    checker: Arc<Checker>,
    token: TokenDigest,
    began: Began,
    /// How often its issuer had been asked for keys when this began, once that issuer is known.
    fetches: Option<u64>,
}

/// How far a check came.
enum Step {
    Done(Answer),
    Keys(Flight),
    Issuer(watch::Receiver<Option<Answer>>),
}

impl OAuth {
    /// Begins the description of what is protected: the URL that clients connect to, exactly as they
    /// write it, as `https://mcp.example.com/mcp`. Behind a proxy it is the public one.
    ///
    /// Tokens must be for it (`aud`), and clients are told it. So it must be absolute, without a
    /// fragment, and with a scheme and a host in lowercase.
    pub fn resource(url: impl Into<String>) -> OAuthBuilder {
        OAuthBuilder::new(url.into())
    }

    pub(crate) fn of(checker: Checker) -> Self {
        Self(Arc::new(checker))
    }
}

impl Authenticator for OAuth {
    fn check(&self, head: &Parts, _peer: Option<SocketAddr>) -> Verdict {
        let token = match bearer::token(&head.headers) {
            Ok(token) => token,
            Err(rejection) => return Verdict::Now(Err(rejection)),
        };
        let (digest, now) = (digest(token), self.0.clock.now());
        // Before the verdict is looked up, so that one that is forgotten meanwhile is not noted.
        let began = self.0.verdicts.begin();
        if let Some(known) = self.0.verdicts.get(&digest, now) {
            return Verdict::Now(known);
        }
        let mut check = Check { checker: self.0.clone(), token: digest, began, fetches: None };
        match check.step(token, now) {
            Step::Done(answer) => Verdict::Now(answer),
            step => {
                let token = token.to_owned();
                Verdict::Later(Box::pin(async move { check.finish(&token, step).await }))
            }
        }
    }

    fn challenge(&self) -> &Challenge {
        &self.0.challenge
    }

    fn forget(&self, principal: Option<&str>) {
        self.0.verdicts.forget(principal);
        let introspections = self.0.issuers.iter().filter_map(|it| it.introspection.as_ref());
        introspections.for_each(Introspection::forget);
    }
}

impl Check {
    /// Takes a check as far as it comes without waiting.
    fn step(&mut self, token: &str, now: Now) -> Step {
        if Jwt::is_one(token) {
            return self.signed(token, now).unwrap_or_else(|why| Step::Done(self.refuse(why, now)));
        }
        let mut issuers = self.checker.issuers.iter();
        let asked = issuers.find_map(|it| Some((it, it.introspection.as_ref()?)));
        match asked {
            Some((issuer, introspection)) => self.opaque(token, issuer, introspection, now),
            None => Step::Done(self.refuse(Refused::Opaque, now)),
        }
    }

    async fn finish(mut self, token: &str, mut step: Step) -> Answer {
        for _ in 0..MAX_WAITS {
            match step {
                Step::Done(answer) => return answer,
                Step::Keys(flight) => flight.end().await,
                Step::Issuer(mut answer) => {
                    let answer = answer.wait_for(Option::is_some).await.ok();
                    return answer.and_then(|it| it.clone()).unwrap_or(Err(unavailable()));
                }
            }
            step = self.step(token, self.checker.clock.now());
        }
        match step {
            Step::Done(answer) => answer,
            _ => Err(unavailable()),
        }
    }

    fn signed(&mut self, token: &str, now: Now) -> Result<Step, Refused> {
        let checker = self.checker.clone();
        let jwt = Jwt::parse(token, checker.is_strict)?;
        let claimed = jwt.claimed_issuer()?;
        let issuer = checker.issuers.iter().find(|it| *it.name == *claimed);
        let issuer = issuer.ok_or(Refused::Issuer)?;
        if !issuer.algorithms.contains(&jwt.algorithm) {
            return Err(Refused::Algorithm);
        }
        let fetches = *self.fetches.get_or_insert_with(|| issuer.fetches());
        let kid = jwt.kid.as_deref();
        let claims =
            issuer.with_key(kid, jwt.algorithm, fetches, now.instant, |found| match found {
                Found::Key(key) => jwt.claims(key).map(Ok),
                Found::Refused(why) => Err(why),
                Found::Unavailable(pause) => Ok(Err(Step::Done(Err(unavailable_for(pause))))),
                Found::Wait(flight) => Ok(Err(Step::Keys(flight))),
            });
        let claims = match claims? {
            Ok(claims) => claims,
            Err(step) => return Ok(step),
        };
        let identity = checker.rules.identity(&issuer.name, claims, now.wall)?;
        checker.verdicts.good(self.token, &identity, SIGNED, self.began, now);
        Ok(Step::Done(Ok(identity)))
    }

    /// The reason goes to the log, and nothing of the token.
    fn refuse(&self, why: Refused, now: Now) -> Answer {
        tracing::debug!(reason = %why, "refused a token");
        if why.is_worth_remembering() {
            self.checker.verdicts.refused(self.token, now);
        }
        Err(Rejection::Invalid)
    }

    fn opaque(
        &self,
        token: &str,
        issuer: &Arc<IssuerState>,
        introspection: &Introspection,
        now: Now,
    ) -> Step {
        let Ok(runtime) = Handle::try_current() else { return Step::Done(Err(unavailable())) };
        let asked = introspection.ask(self.token, now.instant, |sender| {
            let (checker, issuer) = (self.checker.clone(), issuer.clone());
            let check = Self { checker, ..*self };
            let token = token.to_owned();
            // A task of its own: others may wait for the same answer.
            runtime.spawn(async move {
                let answer = check.introspect(&token, &issuer).await;
                if let Some(introspection) = &issuer.introspection {
                    introspection.answered(&check.token);
                }
                sender.send_replace(Some(answer));
            });
        });
        match asked {
            Ok(answer) => Step::Issuer(answer),
            Err(pause) => Step::Done(Err(unavailable_for(pause))),
        }
    }

    async fn introspect(&self, token: &str, issuer: &IssuerState) -> Answer {
        let Some(introspection) = &issuer.introspection else { return Err(unavailable()) };
        let claims = introspection.claims(issuer, token).await;
        let now = self.checker.clock.now();
        let identity = match claims {
            Ok(mut claims) => {
                // It was this issuer that answered, whether it says so or not.
                claims.entry("iss").or_insert_with(|| (*issuer.name).into());
                self.checker.rules.identity(&issuer.name, claims, now.wall)
            }
            Err(AskError::Inactive) => Err(Refused::Inactive),
            Err(AskError::Failed(_) | AskError::ThisToken(_)) => return Err(unavailable()),
        };
        match identity {
            Ok(identity) => {
                self.checker.verdicts.good(self.token, &identity, OPAQUE, self.began, now);
                Ok(identity)
            }
            Err(why) => self.refuse(why, now),
        }
    }
}

fn unavailable() -> Rejection {
    unavailable_for(Duration::ZERO)
}

/// In whole seconds, as clients are told it; at least one.
fn unavailable_for(pause: Duration) -> Rejection {
    let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
    Rejection::Unavailable { retry_after: Duration::from_secs(seconds.max(1)) }
}
