//! Tokens that say themselves whose they are and how long they live. For tests only: anybody can make
//! them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::request::Parts;
use stentor::http::{Authenticator, Challenge, Rejection, Verdict, bearer};
use stentor::identity::Identity;

/// A token of a user that lives for so long from now on.
#[must_use]
pub fn token(user: &str, life: Duration) -> String {
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + life;
    format!("{user}.{}", until.as_millis())
}

/// Accepts such tokens.
#[derive(Debug, Default)]
pub struct Tokens(Challenge);

impl Authenticator for Tokens {
    fn check(&self, head: &Parts, _peer: Option<SocketAddr>) -> Verdict {
        let identify = |token: &str| {
            let (user, until) = token.rsplit_once('.')?;
            let until = UNIX_EPOCH + Duration::from_millis(until.parse().ok()?);
            let identity = Identity::named(user).expires(until, Duration::ZERO);
            (until > SystemTime::now()).then_some(identity)
        };
        let known = bearer(&head.headers).map(identify);
        Verdict::Now(known.and_then(|known| known.ok_or(Rejection::Invalid)))
    }

    fn challenge(&self) -> &Challenge {
        &self.0
    }
}
