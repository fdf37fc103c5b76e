//! Opaque tokens.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use stentor_transport::http::Authenticator as _;
use tokio::time::advance;

use crate::clock::Clock;
use crate::testing::*;
use crate::{Issuer, OAuth};

const TOKEN: &str = "b2a4c9d0e1f2a3b4c5d6e7f8";

fn url() -> String {
    format!("{ISSUER}/introspect")
}

/// What the issuer says of a good token, but for what is said here.
fn active(clock: Clock, more: Value) -> Reply {
    let expires = seconds(clock.now().wall) + 600.0;
    let mut answer = json!({
        "active": true, "sub": "ann", "client_id": "cli-1", "aud": RESOURCE, "exp": expires,
        "scope": "mcp:read",
    });
    merge(&mut answer, more);
    Reply::json(&answer)
}

fn world() -> (OAuth, Net, Clock) {
    let clock = Clock::stopped();
    let net = Net::with(ISSUER, &[ed(0).jwk("k1", json!({}))]);
    net.set(&url(), active(clock, json!({})));
    let auth = builder(&net, clock).issuer(ISSUER).introspect("us", "s3cret").build().unwrap();
    (auth, net, clock)
}

#[tokio::test(start_paused = true)]
async fn the_issuer_is_asked_once_a_minute() {
    let (auth, net, _) = world();
    let ann = answer(&auth, TOKEN).await.unwrap();
    assert_eq!((ann.principal(), ann.client_id()), (&*format!("{ISSUER}#ann"), Some("cli-1")));
    assert!(ann.has_scope("mcp:read"));
    assert_eq!(known(&auth, TOKEN), Some(Said::Good));
    advance(Duration::from_secs(59)).await;
    assert_eq!(known(&auth, TOKEN), Some(Said::Good));
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&auth, TOKEN).await, Said::Good);
    assert_eq!(net.asked(&url()), 2);
    // The keys are not needed for that.
    assert_eq!((net.key_fetches(), net.asked(&metadata_url(ISSUER))), (0, 1));
    net.set(&url(), Reply::json(&json!({"active": false})));
    auth.forget(Some(ann.principal()));
    assert_eq!(ask(&auth, TOKEN).await, Said::Invalid);
    assert_eq!(known(&auth, TOKEN), Some(Said::Invalid));
    advance(Duration::from_secs(10)).await;
    net.set(&url(), active(Clock::stopped(), json!({})));
    assert_eq!(ask(&auth, TOKEN).await, Said::Good);
}

#[tokio::test(start_paused = true)]
async fn an_answer_must_satisfy_the_same_rules_as_a_signed_token() {
    for (name, claims, expected) in [
        ("its own name", json!({"iss": ISSUER}), Said::Good),
        ("another name", json!({"iss": "https://other.example"}), Said::Invalid),
        ("another audience", json!({"aud": "x"}), Said::Invalid),
        ("no audience", json!({"aud": null}), Said::Invalid),
        ("no end", json!({"exp": null}), Said::Invalid),
        ("ended", json!({"exp": 1}), Said::Invalid),
        ("nobody", json!({"sub": null, "client_id": null}), Said::Invalid),
        ("a client", json!({"sub": null}), Said::Good),
        ("bound", json!({"cnf": {"jkt": "a"}}), Said::Invalid),
        ("not active", json!({"active": false}), Said::Invalid),
        ("active as text", json!({"active": "true"}), Said::Unavailable(1)),
        ("active left out", json!({"active": null}), Said::Unavailable(1)),
    ] {
        let (auth, net, clock) = world();
        net.set(&url(), active(clock, claims));
        assert_eq!(ask(&auth, TOKEN).await, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_issuer_is_not_the_clients() {
    for (name, reply) in [
        ("our secret is wrong", Reply::Says(401, "{}".into())),
        ("an error", Reply::Says(500, "{}".into())),
        ("a redirect", Reply::Says(302, r#"{"active": true}"#.into())),
        ("garbage", Reply::Says(200, "<html>".into())),
        ("a reset", Reply::Breaks),
        ("nothing", Reply::Hangs),
        ("a panic", Reply::Panics),
    ] {
        let (auth, net, clock) = world();
        net.set(&url(), reply);
        assert_eq!(ask(&auth, TOKEN).await, Said::Unavailable(1), "{name}");
        // For a while nobody is asked about any token.
        assert_eq!(known(&auth, "another"), Some(Said::Unavailable(1)), "{name}");
        assert_eq!(net.asked(&url()), 1, "{name}");
        net.set(&url(), active(clock, json!({})));
        advance(Duration::from_secs(1)).await;
        assert_eq!(ask(&auth, TOKEN).await, Said::Good, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_issuer_does_not_want_to_be_asked_about_holds_up_no_other() {
    for reply in [
        Reply::Says(400, r#"{"error": "unsupported_token_type"}"#.into()),
        // More claims than are kept.
        Reply::Says(200, " ".repeat(100_000).into()),
    ] {
        let (auth, net, clock) = world();
        net.set(&url(), reply);
        assert_eq!(ask(&auth, TOKEN).await, Said::Unavailable(1));
        net.set(&url(), active(clock, json!({})));
        assert_eq!(ask(&auth, "another").await, Said::Good);
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_is_asked_about_once_at_a_time_whoever_breaks_off() {
    let (auth, net, clock) = world();
    let Reply::Says(_, body) = active(clock, json!({})) else { panic!("an answer") };
    net.set(&url(), Reply::Slow(Duration::from_secs(2), body));
    let gone = tokio::time::timeout(Duration::from_secs(1), ask(&auth, TOKEN)).await;
    assert!(gone.is_err());
    let said = join_all((0..20).map(|_| ask(&auth, TOKEN))).await;
    assert!(said.iter().all(|it| *it == Said::Good), "{said:?}");
    assert_eq!(net.asked(&url()), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_while_the_issuer_is_asked_is_not_kept() {
    let (auth, net, clock) = world();
    let Reply::Says(_, body) = active(clock, json!({})) else { panic!("an answer") };
    net.set(&url(), Reply::Slow(Duration::from_secs(2), body));
    let forgets = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        auth.forget(Some(&format!("{ISSUER}#ann")));
    };
    let (said, ()) = tokio::join!(ask(&auth, TOKEN), forgets);
    assert_eq!((said, known(&auth, TOKEN)), (Said::Good, None));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_made_up_tokens_is_bounded() {
    let (auth, net, _) = world();
    let body = json!({"active": false}).to_string();
    net.set(&url(), Reply::Slow(Duration::from_secs(1), body.into()));
    let tokens: Vec<_> = (0..2_000).map(|it| format!("made-up-{it}")).collect();
    let said = join_all(tokens.iter().map(|token| ask(&auth, token))).await;
    let refused = said.iter().filter(|it| **it == Said::Invalid).count();
    let unavailable = said.iter().filter(|it| matches!(it, Said::Unavailable(_))).count();
    assert_eq!(refused + unavailable, 2_000);
    // 32 at once, 1 s each, for 5 s at most.
    assert!(net.asked(&url()) <= 5 * 32, "{}", net.asked(&url()));
    assert!(unavailable >= 1_000, "{unavailable}");
}

#[tokio::test(start_paused = true)]
async fn only_one_issuer_is_asked_and_a_signed_token_is_not_shown() {
    let (_, net, clock) = world();
    let mint = Mint { issuer: ISSUER, signer: ed(0), kid: "k1", clock };
    let other = "https://other.example";
    net.add(other, &[ed(1).jwk("k1", json!({}))]);
    let auth = builder(&net, clock)
        .issuer(other)
        .issuer(Issuer::at(ISSUER).introspect("us", "s3cret"))
        .build()
        .unwrap();
    assert_eq!(ask(&auth, TOKEN).await, Said::Good);
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    assert_eq!(ask(&auth, "not.a.token").await, Said::Invalid);
    assert_eq!(net.asked(&url()), 1);
    assert!(net.all_asked().iter().all(|url| !url.starts_with(other)));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_without_introspection_cannot_say() {
    let (auth, net, _) = world();
    let metadata = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/jwks")});
    net.set(&metadata_url(ISSUER), Reply::json(&metadata));
    assert_eq!(ask(&auth, TOKEN).await, Said::Unavailable(1));
}
