//! What was found out about tokens a short while ago, by the digest of the token.

use std::time::{Duration, SystemTime};

use foldhash::HashMap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use stentor_engine::identity::Identity;
use stentor_transport::http::Rejection;
use tokio::time::Instant;

use crate::clock::Now;

/// The SHA-256 of a token.
pub(crate) type TokenDigest = [u8; 32];

/// For how long it is not asked again whether a signed token is good.
pub(crate) const SIGNED: Duration = Duration::from_secs(5 * 60);
/// The same for an opaque token, which its issuer can revoke.
pub(crate) const OPAQUE: Duration = Duration::from_secs(60);
const REFUSED: Duration = Duration::from_secs(10);

const SHARDS: usize = 16;
const MAX_GOOD: usize = 10_000;
/// Kept apart, so that bad tokens push no good ones out.
const MAX_REFUSED: usize = 1_600;

pub(crate) fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token).into()
}

/// What is known of tokens. Bounded; all tokens of a principal can be forgotten.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    shards: [Mutex<Shard>; SHARDS],
    /// How often something was forgotten.
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    good: HashMap<TokenDigest, Good>,
    refused: HashMap<TokenDigest, Instant>,
}

#[derive(Debug)]
struct Good {
    identity: Identity,
    kept_until: Instant,
    used_at: Instant,
}

/// Stands for the moment at which the check of a token began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(u64);

impl Verdicts {
    fn shard(&self, digest: &TokenDigest) -> &Mutex<Shard> {
        let [first, ..] = *digest;
        &self.shards[usize::from(first) % SHARDS]
    }

    /// What is known of a token.
    pub(crate) fn get(
        &self,
        digest: &TokenDigest,
        now: Now,
    ) -> Option<Result<Identity, Rejection>> {
        self.shard(digest).lock().get(digest, now)
    }

    /// To be called before a token is looked at.
    pub(crate) fn begin(&self) -> Began {
        Began(self.forgotten.load(Ordering::SeqCst))
    }

    /// Notes that a token is good: for so long, and not longer than until it expires.
    ///
    /// Nothing is noted if something was forgotten since the check of the token began.
    pub(crate) fn good(
        &self,
        digest: TokenDigest,
        identity: &Identity,
        keep: Duration,
        began: Began,
        now: Now,
    ) {
        let left = identity.expires_at().and_then(|it| it.duration_since(now.wall).ok());
        let keep = keep.min(left.unwrap_or_default());
        let mut shard = self.shard(&digest).lock();
        if keep.is_zero() || self.forgotten.load(Ordering::SeqCst) != began.0 {
            return;
        }
        if shard.good.len() >= MAX_GOOD / SHARDS && !shard.good.contains_key(&digest) {
            shard.make_room(now.instant);
        }
        let good = Good {
            identity: identity.clone(),
            kept_until: now.instant + keep,
            used_at: now.instant,
        };
        shard.good.insert(digest, good);
    }

    /// Notes that a token is bad.
    pub(crate) fn refused(&self, digest: TokenDigest, now: Now) {
        let mut shard = self.shard(&digest).lock();
        let refused = &mut shard.refused;
        if refused.len() >= MAX_REFUSED / SHARDS {
            refused.retain(|_, kept_until| now.instant < *kept_until);
        }
        // If all are recent, it is somebody who makes bad tokens up: those are not worth a place.
        if refused.len() < MAX_REFUSED / SHARDS {
            refused.insert(digest, now.instant + REFUSED);
        }
    }

    /// Forgets all tokens of a principal, and those that are being checked.
    pub(crate) fn forget(&self, principal: Option<&str>) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        for shard in &self.shards {
            let is_another = |of: &str| principal.is_some_and(|principal| of != principal);
            shard.lock().good.retain(|_, good| is_another(good.identity.principal()));
        }
    }
}

impl Shard {
    fn get(&mut self, digest: &TokenDigest, now: Now) -> Option<Result<Identity, Rejection>> {
        if let Some(good) = self.good.get_mut(digest) {
            let expires = good.identity.expires_at().unwrap_or(SystemTime::UNIX_EPOCH);
            if now.instant < good.kept_until && now.wall < expires {
                good.used_at = now.instant;
                return Some(Ok(good.identity.clone()));
            }
            self.good.remove(digest);
            return None;
        }
        let kept_until = self.refused.get(digest)?;
        (now.instant < *kept_until).then_some(Err(Rejection::Invalid))
    }

    /// Drops what is too old, or else what was not used for the longest time.
    fn make_room(&mut self, now: Instant) {
        let before = self.good.len();
        self.good.retain(|_, good| now < good.kept_until);
        if self.good.len() < before {
            return;
        }
        let oldest = self.good.iter().min_by_key(|(_, good)| good.used_at);
        if let Some(digest) = oldest.map(|(digest, _)| *digest) {
            self.good.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn identity(principal: &str, now: Now, life: u64) -> Identity {
        let expires = now.wall + Duration::from_secs(life);
        Identity::named(principal).expires(expires, Duration::from_secs(60))
    }

    fn later(now: Now, by: Duration) -> Now {
        Now { instant: now.instant + by, wall: now.wall + by }
    }

    #[test]
    fn a_verdict_is_kept_for_a_while_and_not_longer_than_its_token() {
        let (verdicts, now) = (Verdicts::default(), Clock::Machine.now());
        for (life, keep, kept) in [(3_600, SIGNED, 300), (3_600, OPAQUE, 60), (20, SIGNED, 20)] {
            let digest = digest(&format!("{life} {keep:?}"));
            verdicts.good(digest, &identity("ann", now, life), keep, verdicts.begin(), now);
            let until = later(now, Duration::from_secs(kept));
            let just_before = later(now, Duration::from_secs(kept) - Duration::from_millis(1));
            let found = verdicts.get(&digest, just_before).unwrap().unwrap();
            assert_eq!(found.principal(), "ann");
            assert!(verdicts.get(&digest, until).is_none());
        }
        let digest = digest("expired, within the leeway");
        verdicts.good(digest, &identity("ann", now, 0), SIGNED, verdicts.begin(), now);
        assert!(verdicts.get(&digest, now).is_none());
        verdicts.refused(digest, now);
        assert_eq!(verdicts.get(&digest, now).unwrap().unwrap_err(), Rejection::Invalid);
        assert!(verdicts.get(&digest, later(now, REFUSED)).is_none());
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_ends_a_verdict() {
        let (verdicts, now) = (Verdicts::default(), Clock::Machine.now());
        let digest = digest("token");
        verdicts.good(digest, &identity("ann", now, 200), SIGNED, verdicts.begin(), now);
        let set = Now { wall: now.wall + Duration::from_secs(200), ..now };
        assert!(verdicts.get(&digest, set).is_none());
    }

    #[test]
    fn the_number_of_verdicts_is_bounded_and_what_is_used_stays() {
        let (verdicts, mut now) = (Verdicts::default(), Clock::Machine.now());
        let used = digest("used");
        verdicts.good(used, &identity("ann", now, 3_600), SIGNED, verdicts.begin(), now);
        for number in 0..MAX_GOOD + MAX_GOOD / 2 {
            now = later(now, Duration::from_micros(1));
            let digest = digest(&number.to_string());
            verdicts.good(digest, &identity("bob", now, 3_600), SIGNED, verdicts.begin(), now);
            verdicts.refused(digest, now);
            assert!(verdicts.get(&used, now).is_some(), "{number}");
        }
        let count = |count: fn(&Shard) -> usize| -> usize {
            verdicts.shards.iter().map(|shard| count(&shard.lock())).sum()
        };
        assert_eq!(count(|shard| shard.good.len()), MAX_GOOD);
        assert_eq!(count(|shard| shard.refused.len()), MAX_REFUSED);
        // After a while there is room again.
        let (now, digest) = (later(now, REFUSED), digest("bad"));
        verdicts.refused(digest, now);
        assert!(verdicts.get(&digest, now).is_some());
    }

    #[test]
    fn what_is_forgotten_stays_so_even_if_it_was_being_checked() {
        let (verdicts, now) = (Verdicts::default(), Clock::Machine.now());
        let (one, two, three) = (digest("one"), digest("two"), digest("three"));
        for (digest, principal) in [(one, "ann"), (two, "bob")] {
            verdicts.good(digest, &identity(principal, now, 60), SIGNED, verdicts.begin(), now);
        }
        let began = verdicts.begin();
        verdicts.forget(Some("ann"));
        verdicts.good(three, &identity("ann", now, 60), SIGNED, began, now);
        let known = [one, two, three].map(|digest| verdicts.get(&digest, now).is_some());
        assert_eq!(known, [false, true, false]);
    }
}
