//! Keys that change, and tokens that name keys which nobody has.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::time::advance;

use crate::testing::*;

fn new_key(mint: Mint) -> Mint {
    Mint { signer: ed(1), kid: "k2", ..mint }
}

/// Both keys.
fn rotate(net: &Net) {
    net.set_keys(ISSUER, &[ed(0).jwk("k1", json!({})), ed(1).jwk("k2", json!({}))]);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_at_once_and_the_old_one_goes_on() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    rotate(&net);
    // The first fetch does not count for the brake.
    assert_eq!(ask(&auth, &new_key(mint).good("2")).await, Said::Good);
    assert_eq!(ask(&auth, &mint.good("3")).await, Said::Good);
    assert_eq!(net.key_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_tokens_with_a_new_key_cost_one_fetch() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    let keys = json!({"keys": [ed(1).jwk("k2", json!({}))]}).to_string();
    net.set(&format!("{ISSUER}/jwks"), Reply::Slow(Duration::from_secs(2), keys.into()));
    let tokens: Vec<_> = (0..30).map(|it| new_key(mint).good(&it.to_string())).collect();
    let said = join_all(tokens.iter().map(|token| ask(&auth, token))).await;
    assert!(said.iter().all(|it| *it == Said::Good), "{said:?}");
    assert_eq!(net.key_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_first_tokens_cost_one_fetch() {
    let (auth, net, mint) = simple();
    let tokens: Vec<_> = (0..30).map(|it| mint.good(&it.to_string())).collect();
    let said = join_all(tokens.iter().map(|token| ask(&auth, token))).await;
    assert!(said.iter().all(|it| *it == Said::Good), "{said:?}");
    assert_eq!((net.key_fetches(), net.asked(&metadata_url(ISSUER))), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_made_up_keys_cost_one_fetch() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    for number in 0..1_000 {
        let token = mint.token(json!({"kid": format!("storm-{number}")}), json!({}));
        assert_eq!(ask(&auth, &token).await, Said::Invalid);
    }
    assert_eq!(net.key_fetches(), 2);
    assert_eq!(ask(&auth, &mint.good("2")).await, Said::Good);
    // At once, too.
    advance(Duration::from_secs(10)).await;
    let tokens: Vec<_> =
        (0..1_000).map(|it| mint.token(json!({"kid": format!("more-{it}")}), json!({}))).collect();
    let said = join_all(tokens.iter().map(|token| ask(&auth, token))).await;
    assert!(said.iter().all(|it| *it == Said::Invalid), "{said:?}");
    assert_eq!(net.key_fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_first_set_of_keys_is_not_fetched_twice_for_a_made_up_key() {
    let (auth, net, mint) = simple();
    let token = mint.token(json!({"kid": "nobody"}), json!({}));
    assert_eq!(ask(&auth, &token).await, Said::Invalid);
    assert_eq!(net.key_fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_not_found_is_looked_for_again_after_a_minute() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    let early = new_key(mint).good("2");
    assert_eq!(ask(&auth, &early).await, Said::Invalid);
    rotate(&net);
    advance(Duration::from_secs(59)).await;
    assert_eq!(ask(&auth, &early).await, Said::Invalid);
    assert_eq!(net.key_fetches(), 2);
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&auth, &early).await, Said::Good);
    assert_eq!(net.key_fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_before_they_are_too_old_and_nobody_waits() {
    let (auth, net, mint) = simple();
    let body = json!({"keys": [ed(0).jwk("k1", json!({}))]}).to_string();
    net.set(&format!("{ISSUER}/jwks"), Reply::Fresh(100, body.into()));
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    advance(Duration::from_secs(79)).await;
    assert_eq!(known(&auth, &mint.good("2")), Some(Said::Good));
    tokio::task::yield_now().await;
    assert_eq!(net.key_fetches(), 1);
    advance(Duration::from_secs(1)).await;
    rotate(&net);
    assert_eq!(known(&auth, &mint.good("3")), Some(Said::Good));
    // The new set comes in the background.
    while known(&auth, &new_key(mint).good("4")).is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(known(&auth, &new_key(mint).good("5")), Some(Said::Good));
    assert_eq!(net.key_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_taken_away_is_not_used_after_a_pause() {
    let (auth, net, mint) = simple();
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    net.set_keys(ISSUER, &[ed(1).jwk("k2", json!({}))]);
    advance(Duration::from_secs(600)).await;
    assert_eq!(ask(&auth, &mint.good("2")).await, Said::Invalid);
    assert_eq!(net.key_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_stops_no_fetch() {
    let (auth, net, mint) = simple();
    let keys = json!({"keys": [ed(0).jwk("k1", json!({}))]}).to_string();
    net.set(&format!("{ISSUER}/jwks"), Reply::Slow(Duration::from_secs(2), keys.into()));
    let gone = tokio::time::timeout(Duration::from_secs(1), ask(&auth, &mint.good("1"))).await;
    assert!(gone.is_err());
    assert_eq!(ask(&auth, &mint.good("2")).await, Said::Good);
    assert_eq!(net.key_fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_belong_to_their_issuer() {
    let (_, net, mint) = simple();
    let other = "https://other.example";
    net.add(other, &[ed(1).jwk("k1", json!({}))]);
    let auth = builder(&net, mint.clock).issuer(ISSUER).issuer(other).build().unwrap();
    let of_other = Mint { issuer: other, signer: ed(1), ..mint };
    assert_eq!(ask(&auth, &mint.good("1")).await, Said::Good);
    assert_eq!(ask(&auth, &of_other.good("2")).await, Said::Good);
    assert_eq!(ask(&auth, &Mint { signer: ed(0), ..of_other }.good("3")).await, Said::Invalid);
    assert_eq!(ask(&auth, &Mint { signer: ed(1), ..mint }.good("4")).await, Said::Invalid);
}
