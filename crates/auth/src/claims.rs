//! What the claims of a token must say, and the identity that they describe (RFC 9068).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use stentor_engine::identity::Identity;
use stentor_wire::model::JsonObject;

use crate::refused::Refused;

/// What the claims of all tokens must say, whoever issued them.
#[derive(Debug)]
pub(crate) struct ClaimRules {
    /// A token must be for one of these.
    pub(crate) audiences: BTreeSet<String>,
    /// How far the clocks of an issuer and of this server may differ.
    pub(crate) leeway: Duration,
    /// Which scopes a scope includes, all the way down.
    pub(crate) implied: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// The claim that has the roles.
    pub(crate) roles_claim: Option<String>,
}

impl ClaimRules {
    /// Checks the claims of a token that is known to come from this issuer.
    pub(crate) fn identity(
        &self,
        issuer: &Arc<str>,
        claims: JsonObject,
        now: SystemTime,
    ) -> Result<Identity, Refused> {
        match claims.get("iss") {
            Some(Value::String(found)) if **found == **issuer => {}
            _ => return Err(Refused::Issuer),
        }
        self.check_audience(claims.get("aud"))?;
        let expires = self.check_times(&claims, now)?;
        if claims.contains_key("cnf") {
            return Err(Refused::Bound);
        }
        let text = |name| match claims.get(name) {
            Some(Value::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let subject = match claims.get("sub") {
            None => text("client_id"),
            Some(_) => text("sub"),
        };
        let subject = subject.ok_or(Refused::Nobody)?;
        let mut identity = Identity::issued(issuer.clone(), subject).expires(expires, self.leeway);
        if identity.is_blank() {
            return Err(Refused::Nobody);
        }
        let is_told = |client: &&str| !client.trim().is_empty();
        let client = text("client_id").filter(is_told).or(text("azp").filter(is_told));
        if let Some(client) = client {
            identity = identity.client(client);
        }
        let scopes = ["scope", "scp"].into_iter().filter_map(|name| claims.get(name));
        let scopes: BTreeSet<Arc<str>> = scopes.flat_map(scopes_in).map(Arc::from).collect();
        let implied = scopes.iter().filter_map(|scope| self.implied.get(&**scope)).flatten();
        let implied: BTreeSet<_> = implied.cloned().collect();
        let roles = self.roles_claim.as_deref().and_then(|claim| find(&claims, claim));
        let roles: Vec<_> = roles.into_iter().flat_map(strings).map(Arc::<str>::from).collect();
        Ok(identity.scopes(scopes).implied_scopes(implied).roles(roles).claims(claims))
    }

    fn check_audience(&self, found: Option<&Value>) -> Result<(), Refused> {
        let is_ours = |one: &Value| one.as_str().is_some_and(|it| self.audiences.contains(it));
        let is_ours = match found {
            Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if is_ours { Ok(()) } else { Err(Refused::Audience) }
    }

    /// Returns when the token expires.
    fn check_times(&self, claims: &JsonObject, now: SystemTime) -> Result<SystemTime, Refused> {
        let leeway = self.leeway.as_secs_f64();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let seconds = |name| match claims.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_f64().ok_or(Refused::Claim).map(Some),
            Some(_) => Err(Refused::Claim),
        };
        let expires = seconds("exp")?.ok_or(Refused::Expired)?;
        if now >= expires + leeway {
            return Err(Refused::Expired);
        }
        for name in ["nbf", "iat"] {
            if seconds(name)?.is_some_and(|from| now + leeway < from) {
                return Err(Refused::NotYet);
            }
        }
        let expires = Duration::try_from_secs_f64(expires).ok();
        expires.and_then(|it| UNIX_EPOCH.checked_add(it)).ok_or(Refused::Claim)
    }
}

/// All scopes that each scope includes, from what is configured: a scope and one that it includes.
pub(crate) fn closure(implications: &[(String, String)]) -> BTreeMap<String, BTreeSet<Arc<str>>> {
    let mut closure = BTreeMap::new();
    for (granted, _) in implications {
        let (mut found, mut left) = (BTreeSet::<Arc<str>>::new(), vec![granted.as_str()]);
        while let Some(scope) = left.pop() {
            for (_, wanted) in implications.iter().filter(|(granted, _)| granted == scope) {
                if wanted != granted && found.insert(wanted.as_str().into()) {
                    left.push(wanted);
                }
            }
        }
        closure.insert(granted.clone(), found);
    }
    closure
}

/// Scopes are separated by spaces, or are the strings of an array.
fn scopes_in(value: &Value) -> Vec<&str> {
    let all = strings(value);
    all.flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty()).collect()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    let all = match value {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    all.iter().filter_map(Value::as_str)
}

/// The claim of this name; else the one at the end of this path (`realm_access.roles`).
fn find<'a>(claims: &'a JsonObject, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_scope_implies_goes_all_the_way_down_and_round() {
        let pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("x", "x")];
        let closure = closure(&pairs.map(|(one, other)| (one.to_owned(), other.to_owned())));
        let implied = |scope: &str| closure[scope].iter().map(|it| &**it).collect::<Vec<_>>();
        assert_eq!(
            (implied("a"), implied("b"), implied("c")),
            (vec!["b", "c"], vec!["a", "c"], vec!["a", "b"])
        );
        assert!(implied("x").is_empty());
    }

    proptest! {
        #[test]
        fn what_is_implied_implies_nothing_new(
            pairs in prop::collection::vec(("[a-e]", "[a-e]"), 0..12),
        ) {
            let closure = closure(&pairs);
            for (scope, implied) in &closure {
                for one in implied {
                    let further = closure.get(&**one).into_iter().flatten();
                    prop_assert!(further.filter(|it| ***it != **scope).all(|it| implied.contains(it)));
                }
            }
        }
    }
}
