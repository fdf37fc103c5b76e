//! Issuers that do not answer, or not as they should.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::time::{Instant, advance};

use crate::source::MAX_DOCUMENT;
use crate::testing::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn keys_url() -> String {
    format!("{ISSUER}/jwks")
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_comes_later_is_found() {
    let (auth, net, mint) = simple();
    net.set(&metadata_url(ISSUER), Reply::Breaks);
    let token = mint.good("1");
    assert_eq!(ask(&auth, &token).await, Said::Unavailable(1));
    // Whether a token is bad beyond doubt is still said.
    assert_eq!(ask(&auth, &mint.token(json!({"alg": "none"}), json!({}))).await, Said::Invalid);
    assert_eq!(known(&auth, &token), Some(Said::Unavailable(1)));
    advance(Duration::from_millis(999)).await;
    assert_eq!(known(&auth, &token), Some(Said::Unavailable(1)));
    assert_eq!(net.asked(&metadata_url(ISSUER)), 1);
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&auth, &token).await, Said::Unavailable(2));
    net.add(ISSUER, &[ed(0).jwk("k1", json!({}))]);
    advance(Duration::from_secs(2)).await;
    assert_eq!(ask(&auth, &token).await, Said::Good);
}

#[tokio::test(start_paused = true)]
async fn whatever_an_issuer_does_the_answer_is_unavailable() {
    let lies = json!({"issuer": "https://other.example", "jwks_uri": keys_url()});
    let no_keys = json!({"issuer": ISSUER});
    let here = json!({"issuer": ISSUER, "jwks_uri": "http://127.0.0.1:9/jwks"});
    let key = ed(0).jwk("k1", json!({}));
    let huge = json!({"keys": [key], "pad": "x".repeat(MAX_DOCUMENT)});
    for (name, url, reply) in [
        ("another issuer's metadata", metadata_url(ISSUER), Reply::json(&lies)),
        ("metadata without keys", metadata_url(ISSUER), Reply::json(&no_keys)),
        ("keys on this machine", metadata_url(ISSUER), Reply::json(&here)),
        ("no metadata", metadata_url(ISSUER), Reply::Says(404, "".into())),
        ("metadata hang", metadata_url(ISSUER), Reply::Hangs),
        ("an error", keys_url(), Reply::Says(500, "{}".into())),
        ("a redirect", keys_url(), Reply::Says(302, huge.to_string().into())),
        ("no content", keys_url(), Reply::Says(204, "".into())),
        ("garbage", keys_url(), Reply::Says(200, r#"{"keys": [ {"kty": "RSA", "#.into())),
        ("no keys", keys_url(), Reply::json(&json!({"keys": []}))),
        ("too many keys", keys_url(), Reply::json(&json!({"keys": vec![key.clone(); 101]}))),
        ("too much", keys_url(), Reply::json(&huge)),
        ("a reset", keys_url(), Reply::Breaks),
        ("nothing", keys_url(), Reply::Hangs),
        ("a panic", keys_url(), Reply::Panics),
    ] {
        let (auth, net, mint) = simple();
        net.set(&url, reply);
        let began = Instant::now();
        assert_eq!(ask(&auth, &mint.good("1")).await, Said::Unavailable(1), "{name}");
        assert!(began.elapsed() <= Duration::from_secs(5), "{name}");
        // No storm: within a second nothing is tried.
        let asked = net.all_asked().len();
        let tokens: Vec<_> = (0..30).map(|it| mint.good(&it.to_string())).collect();
        let said = join_all(tokens.iter().map(|token| ask(&auth, token))).await;
        assert!(said.iter().all(|it| *it == Said::Unavailable(1)), "{name}: {said:?}");
        assert_eq!(net.all_asked().len(), asked, "{name}");
        // It recovers.
        net.add(ISSUER, std::slice::from_ref(&key));
        advance(Duration::from_secs(1)).await;
        assert_eq!(ask(&auth, &mint.good("2")).await, Said::Good, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_hangs_holds_up_nobody_elses_tokens() {
    let (_, net, mint) = simple();
    let slow = "https://slow.example";
    net.add(slow, &[]);
    net.set(&format!("{slow}/jwks"), Reply::Hangs);
    let auth = builder(&net, mint.clock).issuer(ISSUER).issuer(slow).build().unwrap();
    let (of_slow, began) = (Mint { issuer: slow, ..mint }.good("1"), Instant::now());
    let others = async {
        for number in 0..5 {
            assert_eq!(ask(&auth, &mint.good(&number.to_string())).await, Said::Good);
        }
        began.elapsed()
    };
    let (slow, others) = tokio::join!(ask(&auth, &of_slow), others);
    assert_eq!((slow, others), (Said::Unavailable(1), Duration::ZERO));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_an_issuer_that_is_gone_are_used_for_a_day() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    net.set(&keys_url(), Reply::Hangs);
    net.set(&metadata_url(ISSUER), Reply::Hangs);
    advance(Duration::from_secs(600)).await;
    // The first who asks waits; nobody else does.
    let began = Instant::now();
    assert_eq!(ask(&auth, &mint.good("2")).await, Said::Good);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    for number in 0..24 * 60 - 1 {
        let token = mint.good(&format!("later {number}"));
        assert_eq!(known(&auth, &token), Some(Said::Good), "after {number} min");
        advance(Duration::from_secs(60)).await;
    }
    advance(HOUR).await;
    assert_eq!(ask(&auth, &mint.good("3")).await, Said::Unavailable(10));
    net.add(ISSUER, &[ed(0).jwk("k1", json!({}))]);
    advance(Duration::from_secs(10)).await;
    assert_eq!(ask(&auth, &mint.good("4")).await, Said::Good);
}

#[tokio::test(start_paused = true)]
async fn nobody_can_tell_a_new_key_from_a_made_up_one_while_the_issuer_is_gone() {
    let (auth, net, mint) = simple();
    let seen = mint.good("1");
    assert_eq!(ask(&auth, &seen).await, Said::Good);
    net.set(&keys_url(), Reply::Breaks);
    let with_new = Mint { signer: ed(1), kid: "k2", ..mint }.good("2");
    assert_eq!(ask(&auth, &with_new).await, Said::Unavailable(1));
    assert_eq!(known(&auth, &with_new), Some(Said::Unavailable(1)));
    assert_eq!(ask(&auth, &seen).await, Said::Good);
    assert_eq!(ask(&auth, &mint.good("3")).await, Said::Good);
    assert_eq!(ask(&auth, &mint.token(json!({}), json!({"aud": "x"}))).await, Said::Invalid);
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&auth, &with_new).await, Said::Unavailable(2));
    // A fetch that failed is no reason to hold the next one back.
    net.set_keys(ISSUER, &[ed(0).jwk("k1", json!({})), ed(1).jwk("k2", json!({}))]);
    advance(Duration::from_secs(2)).await;
    assert_eq!(ask(&auth, &with_new).await, Said::Good);
}

#[tokio::test(start_paused = true)]
async fn keys_that_have_moved_are_found() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    let moved = format!("{ISSUER}/new-jwks");
    net.set(&keys_url(), Reply::Says(410, "".into()));
    let key = ed(0).jwk("k1", json!({}));
    net.set(&moved, Reply::json(&json!({"keys": [key]})));
    let metadata = json!({"issuer": ISSUER, "jwks_uri": moved});
    net.set(&metadata_url(ISSUER), Reply::json(&metadata));
    advance(Duration::from_secs(500)).await;
    for number in 0..20 {
        assert_eq!(ask(&auth, &mint.good(&format!("{number}"))).await, Said::Good);
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(net.asked(&moved), 1);
}

#[tokio::test(start_paused = true)]
async fn metadata_is_looked_for_at_all_its_addresses() {
    let issuer = "https://login.example.com/t/v2";
    let (_, net, mint) = simple();
    let metadata = json!({"issuer": issuer, "jwks_uri": keys_url()});
    let last = format!("{issuer}/.well-known/openid-configuration");
    net.set(&last, Reply::json(&metadata));
    let auth = builder(&net, mint.clock).issuer(issuer).build().unwrap();
    assert_eq!(ask(&auth, &Mint { issuer, ..mint }.good("1")).await, Said::Good);
    let asked = net.all_asked();
    let well_known = "https://login.example.com/.well-known";
    let expected = [
        format!("{well_known}/oauth-authorization-server/t/v2"),
        format!("{well_known}/openid-configuration/t/v2"),
        last,
        keys_url(),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn without_a_runtime_the_answer_is_unavailable() {
    let (auth, _, mint) = simple();
    assert_eq!(known(&auth, &mint.good("1")), Some(Said::Unavailable(1)));
}
