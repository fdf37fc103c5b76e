//! Good tokens and bad ones.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::testing::*;
use crate::{Algorithm, Issuer, OAuth};

const OTHER: &str = "https://other.example";

/// An issuer with all kinds of keys, and another one that is trusted, too.
fn world() -> (OAuth, Net, Mint) {
    let clock = Clock::stopped();
    let keys = [
        rsa(0).jwk("rs1", json!({"use": "sig", "alg": "RS256"})),
        rsa(1).jwk("rs2", json!({"use": "sig"})),
        ec().jwk("es1", json!({"key_ops": ["verify"]})),
        ed(0).jwk("ed1", json!({})),
    ];
    let net = Net::with(ISSUER, &keys);
    net.add(OTHER, &[ed(1).jwk("ed1", json!({}))]);
    let auth = builder(&net, clock).issuer(ISSUER).issuer(OTHER).build().unwrap();
    (auth, net, Mint { issuer: ISSUER, signer: rsa(0), kid: "rs1", clock })
}

#[tokio::test(start_paused = true)]
async fn good_tokens() {
    let (auth, _, mint) = world();
    let now = seconds(mint.clock.now().wall).floor();
    let (rs2, es) =
        (Mint { signer: rsa(1), kid: "rs2", ..mint }, Mint { signer: ec(), kid: "es1", ..mint });
    let ed = Mint { signer: ed(0), kid: "ed1", ..mint };
    let none = || json!({});
    let tokens = [
        ("plain", mint.token(none(), none())),
        (
            "one audience of several",
            mint.token(none(), json!({"aud": ["https://x.example", RESOURCE]})),
        ),
        ("long typ", mint.token(json!({"typ": "application/at+jwt"}), none())),
        ("JWT", mint.token(json!({"typ": "JWT"}), none())),
        ("no typ", mint.token(json!({"typ": null}), none())),
        ("typ in capitals", mint.token(json!({"typ": "AT+JWT"}), none())),
        ("PS256", rs2.token(json!({"alg": "PS256"}), none())),
        ("RS256, key without alg", rs2.token(none(), none())),
        ("ES256", es.token(none(), none())),
        ("EdDSA", ed.token(none(), none())),
        ("Ed25519", ed.token(json!({"alg": "Ed25519"}), none())),
        ("no kid, one key fits", es.token(json!({"kid": null}), none())),
        ("no kid, one key fits PS256", rs2.token(json!({"alg": "PS256", "kid": null}), none())),
        ("no scope", mint.token(none(), json!({"scope": null}))),
        ("no sub", mint.token(none(), json!({"sub": null}))),
        ("nbf", mint.token(none(), json!({"nbf": now - 30.0}))),
        ("nbf within the leeway", mint.token(none(), json!({"nbf": now + 59.0}))),
        ("expired within the leeway", mint.token(none(), json!({"exp": now - 58.0}))),
        ("a fraction of a second", mint.token(none(), json!({"exp": now + 600.5}))),
        ("more claims", mint.token(none(), json!({"azp": "x", "nested": {"aud": "x", "exp": 1}}))),
        ("more in the header", mint.token(json!({"x5t": "abc", "foo": [1]}), none())),
        (
            "a stranger's key in the header",
            mint.token(json!({"jwk": ed_jwk(), "jku": OTHER, "x5u": OTHER}), none()),
        ),
    ];
    for (name, token) in tokens {
        assert_eq!(ask(&auth, &token).await, Said::Good, "{name}");
    }
}

fn ed_jwk() -> Value {
    ed(3).jwk("evil", json!({}))
}

#[tokio::test(start_paused = true)]
async fn bad_tokens() {
    let (auth, net, mint) = world();
    let now = seconds(mint.clock.now().wall).floor();
    let none = || json!({});
    let good = mint.token(none(), none());
    let parts: Vec<_> = good.split('.').collect();
    let [head, payload, signature] = parts[..] else { panic!("{good}") };
    let (es, ed0) =
        (Mint { signer: ec(), kid: "es1", ..mint }, Mint { signer: ed(0), kid: "ed1", ..mint });
    let stranger = Mint { signer: ed(3), ..ed0 };
    let of = |claims: Value| mint.token(none(), claims);
    let with = |header: Value| mint.token(header, none());
    let mut root = mint.claims();
    merge(&mut root, json!({"sub": "root"}));
    let deep = format!("{}1{}", "{\"a\":".repeat(700), "}".repeat(700));
    let mut null_aud = object(mint.claims());
    null_aud.insert("aud".to_owned(), Value::Null);
    let mut null_exp = object(mint.claims());
    null_exp.insert("exp".to_owned(), Value::Null);
    let json_of = |object| Value::Object(object).to_string();
    let tokens = [
        ("aud wrong", of(json!({"aud": "https://x.example/mcp"}))),
        ("aud absent", of(json!({"aud": null}))),
        ("aud null", mint.raw(none(), json_of(null_aud).as_bytes())),
        ("aud empty", of(json!({"aud": ""}))),
        ("aud of nobody", of(json!({"aud": []}))),
        ("aud of others", of(json!({"aud": ["a", "b"]}))),
        ("aud mixed", of(json!({"aud": [RESOURCE, 5]}))),
        ("aud with a slash", of(json!({"aud": format!("{RESOURCE}/")}))),
        ("aud shorter", of(json!({"aud": "https://mcp.example.com"}))),
        ("aud in capitals", of(json!({"aud": "https://MCP.example.com/mcp"}))),
        ("aud a number", of(json!({"aud": 5}))),
        ("aud an object", of(json!({"aud": {RESOURCE: true}}))),
        ("aud in another claim", of(json!({"aud": null, "resource": RESOURCE}))),
        ("iss wrong", of(json!({"iss": "https://x.example"}))),
        ("iss absent", of(json!({"iss": null}))),
        ("iss with a slash", of(json!({"iss": format!("{ISSUER}/")}))),
        ("iss an array", of(json!({"iss": [ISSUER]}))),
        ("iss of another issuer", ed0.token(none(), json!({"iss": OTHER}))),
        ("expired", of(json!({"exp": now - 62.0}))),
        ("expired long ago", of(json!({"exp": -1}))),
        ("exp absent", of(json!({"exp": null}))),
        ("exp null", mint.raw(none(), json_of(null_exp).as_bytes())),
        ("exp a string", of(json!({"exp": (now + 600.0).to_string()}))),
        ("exp without end", of(json!({"exp": 1e300}))),
        ("nbf in the future", of(json!({"nbf": now + 62.0}))),
        ("nbf a string", of(json!({"nbf": "soon"}))),
        ("iat in the future", of(json!({"iat": now + 7_200.0, "exp": now + 9_000.0}))),
        ("alg absent", with(json!({"alg": null}))),
        ("alg a number", with(json!({"alg": 5}))),
        ("alg unknown", with(json!({"alg": "XX999"}))),
        ("alg not allowed", with(json!({"alg": "RS512"}))),
        ("alg none", with(json!({"alg": "none"}))),
        ("alg None", with(json!({"alg": "None"}))),
        ("alg HS256", with(json!({"alg": "HS256"}))),
        ("alg not that of the key", with(json!({"alg": "PS256"}))),
        ("alg of another kind of key", with(json!({"kid": "es1"}))),
        ("key of another kind of alg", es.token(json!({"kid": "rs1"}), none())),
        ("kid unknown", with(json!({"kid": "nobody"}))),
        ("kid of another key", with(json!({"kid": "rs2"}))),
        ("kid absent, two fit", with(json!({"kid": null}))),
        ("kid a number", with(json!({"kid": 1}))),
        ("kid empty", with(json!({"kid": ""}))),
        ("kid a path", with(json!({"kid": "../../dev/null"}))),
        ("kid huge", with(json!({"kid": "k".repeat(3_000)}))),
        ("typ of a logout", with(json!({"typ": "logout+jwt"}))),
        ("typ of a proof", with(json!({"typ": "dpop+jwt"}))),
        ("typ a number", with(json!({"typ": 1}))),
        ("crit unknown", with(json!({"crit": ["x"], "x": 1}))),
        ("crit of b64", with(json!({"crit": ["b64"], "b64": false}))),
        ("crit empty", with(json!({"crit": []}))),
        ("signed by a stranger", stranger.token(none(), none())),
        (
            "a stranger's key in the header",
            stranger.token(json!({"kid": "evil", "jwk": ed_jwk()}), none()),
        ),
        ("... under a known name", stranger.token(json!({"jwk": ed_jwk(), "jku": OTHER}), none())),
        ("claims of another token", format!("{head}.{}.{signature}", b64(root.to_string()))),
        ("signature gone", format!("{head}.{payload}.")),
        ("signature cut", format!("{head}.{payload}.{}", &signature[..signature.len() - 8])),
        ("two parts", format!("{head}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("no parts", "..".to_owned()),
        ("padding", format!("{good}==")),
        ("text", mint.raw(none(), b"hello")),
        ("an array", mint.raw(none(), b"[1,2]")),
        ("null", mint.raw(none(), b"null")),
        ("deep", mint.raw(none(), deep.as_bytes())),
        ("deep header", format!("{}.{payload}.{signature}", b64(&deep))),
        ("opaque", "b2a4c9d0e1f2a3b4c5d6e7f8".to_owned()),
        ("sub blank", of(json!({"sub": "", "client_id": null}))),
        ("sub of spaces", of(json!({"sub": "   "}))),
        ("sub with a control character", of(json!({"sub": "ann\u{0}"}))),
        ("sub a number", of(json!({"sub": 5}))),
        ("nobody", of(json!({"sub": null, "client_id": null}))),
        ("bound to a key", of(json!({"cnf": {"jkt": "0ZcOCORZNYy"}}))),
        ("bound to a certificate", of(json!({"cnf": {"x5t#S256": "a"}}))),
        ("bound to a text", of(json!({"cnf": "0ZcOCORZNYy"}))),
        ("huge", of(json!({"pad": "x".repeat(9_000)}))),
    ];
    assert_eq!(ask(&auth, &good).await, Said::Good);
    let asked = net.all_asked();
    for (name, token) in tokens {
        assert_eq!(ask(&auth, &token).await, Said::Invalid, "{name}");
        assert_eq!(ask(&auth, &token).await, Said::Invalid, "{name}, again");
    }
    // No address in a header was looked at, but one key was looked for.
    let more: Vec<_> = net.all_asked().split_off(asked.len());
    assert!(more.iter().all(|url| url.ends_with("/jwks") || url.starts_with(OTHER)), "{more:?}");
    assert_eq!(net.key_fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn whom_a_token_describes() {
    let (_, net, mint) = world();
    let auth = builder(&net, mint.clock)
        .issuer(ISSUER)
        .implies("files:admin", "files:write")
        .implies("files:write", "files:read")
        .roles_claim("realm_access.roles")
        .build()
        .unwrap();
    let who = async |claims| answer(&auth, &mint.token(json!({}), claims)).await.unwrap();

    let ann = who(json!({"secret": 1})).await;
    assert_eq!(ann.principal(), format!("{ISSUER}#ann"));
    assert_eq!(ann.client_id(), Some("cli-1"));
    assert_eq!(ann.granted_scopes().collect::<Vec<_>>(), ["admin", "mcp:read"]);
    assert_eq!(ann.all_claims()["secret"], 1);
    let expires = seconds(ann.expires_at().unwrap());
    assert_eq!(expires, seconds(mint.clock.now().wall).floor() + 600.0);
    assert_eq!(ann.good_until(), ann.expires_at().map(|it| it + Duration::from_secs(60)));

    assert_eq!(who(json!({"sub": null})).await.principal(), format!("{ISSUER}#cli-1"));
    let client = |claims| async { who(claims).await.client_id().map(str::to_owned) };
    assert_eq!(client(json!({"client_id": null, "azp": "app"})).await.as_deref(), Some("app"));
    assert_eq!(client(json!({"client_id": " ", "azp": "app"})).await.as_deref(), Some("app"));
    assert_eq!(client(json!({"client_id": null})).await, None);

    let scopes = |claims| async {
        who(claims).await.granted_scopes().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(scopes(json!({"scope": "a  b", "scp": ["c", "a"]})).await, ["a", "b", "c"]);
    assert_eq!(scopes(json!({"scope": null, "scp": "x y"})).await, ["x", "y"]);
    assert_eq!(scopes(json!({"scope": {"a": 1}, "scp": [1, "z"]})).await, ["z"]);

    let admin = who(json!({"scope": "files:admin"})).await;
    assert!(admin.has_scope("files:write") && admin.has_scope("files:read"));
    assert_eq!(admin.granted_scopes().collect::<Vec<_>>(), ["files:admin"]);
    assert!(!who(json!({"scope": "files:read"})).await.has_scope("files:write"));

    let roles = who(json!({"realm_access": {"roles": ["b", "a", 1]}})).await;
    assert_eq!(roles.granted_roles().collect::<Vec<_>>(), ["a", "b"]);
    let roles = who(json!({"realm_access.roles": "staff", "realm_access": {"roles": ["x"]}})).await;
    assert_eq!(roles.granted_roles().collect::<Vec<_>>(), ["staff"]);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_has_algorithms_of_its_own() {
    let (_, net, mint) = world();
    let es = Mint { signer: ec(), kid: "es1", ..mint };
    let other = Mint { issuer: OTHER, signer: ed(1), kid: "ed1", ..mint };
    let auth = builder(&net, mint.clock)
        .issuer(Issuer::at(ISSUER).algorithms([Algorithm::ES256]))
        .issuer(OTHER)
        .build()
        .unwrap();
    assert_eq!(ask(&auth, &es.good("1")).await, Said::Good);
    assert_eq!(ask(&auth, &mint.good("2")).await, Said::Invalid);
    assert_eq!(ask(&auth, &other.good("3")).await, Said::Good);
}

#[tokio::test(start_paused = true)]
async fn strict_types_and_second_names() {
    let (_, net, mint) = world();
    let builder = || builder(&net, mint.clock).issuer(ISSUER);
    let strict = builder().strict_type().build().unwrap();
    for (typ, expected) in [
        (json!("at+jwt"), Said::Good),
        (json!("Application/AT+JWT"), Said::Good),
        (json!("JWT"), Said::Invalid),
        (Value::Null, Said::Invalid),
    ] {
        let token = mint.token(json!({"typ": typ}), json!({}));
        assert_eq!(ask(&strict, &token).await, expected, "{typ}");
    }
    let aliased = builder().audience("legacy").build().unwrap();
    let for_alias = mint.token(json!({}), json!({"aud": "legacy"}));
    assert_eq!(ask(&aliased, &for_alias).await, Said::Good);
    assert_eq!(ask(&aliased, &mint.good("1")).await, Said::Good);
    assert_eq!(ask(&strict, &for_alias).await, Said::Invalid);
    let exact = builder().leeway(Duration::ZERO).build().unwrap();
    let now = seconds(mint.clock.now().wall);
    let ended = mint.token(json!({}), json!({"exp": now - 0.5}));
    assert_eq!(ask(&exact, &ended).await, Said::Invalid);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_out_is_known_at_once_until_it_is_forgotten() {
    let (auth, _, mint) = simple();
    let (good, bad) = (mint.good("1"), Mint { signer: ed(3), ..mint }.good("2"));
    assert_eq!(known(&auth, &good), None);
    assert_eq!(ask(&auth, &good).await, Said::Good);
    assert_eq!(ask(&auth, &bad).await, Said::Invalid);
    assert_eq!((known(&auth, &good), known(&auth, &bad)), (Some(Said::Good), Some(Said::Invalid)));
    let (one, two) = (answer(&auth, &good).await.unwrap(), answer(&auth, &good).await.unwrap());
    assert!(std::ptr::eq(one.all_claims(), two.all_claims()), "not the same identity");
    use stentor_transport::http::Authenticator as _;
    auth.forget(Some(one.principal()));
    let three = answer(&auth, &good).await.unwrap();
    assert!(!std::ptr::eq(one.all_claims(), three.all_claims()), "not forgotten");
    // It expires, and is accepted for the leeway.
    tokio::time::advance(Duration::from_secs(659)).await;
    assert_eq!(ask(&auth, &good).await, Said::Good);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&auth, &good).await, Said::Invalid);
}

proptest! {
    #[test]
    fn no_text_is_a_good_token(text in "[ -~]{0,80}|([A-Za-z0-9_-]{0,40}\\.){2}[A-Za-z0-9_-]{0,40}") {
        let (auth, _, _) = simple();
        let request = http::Request::post("/").header("authorization", format!("Bearer {text}"));
        use stentor_transport::http::{Authenticator as _, Verdict};
        let parts = request.body(()).unwrap().into_parts().0;
        let Verdict::Now(answer) = auth.check(&parts, None) else { panic!("asks somebody") };
        prop_assert_eq!(said(&answer), Said::Invalid);
    }

    #[test]
    fn no_header_and_no_claims_make_it_panic(
        header in "[\\[{\"]?[ -~]{0,40}[\\]}\"]?",
        alg in "RS256|ES256|EdDSA|none",
        name in "iss|aud|exp|nbf|iat|sub|cnf|scope|scp|client_id",
        value in "null|true|-?[0-9]{1,20}|[0-9]e[0-9]{3}|\"[a-z ]{0,4}\"|\\[\\]|\\[\\[1\\]\\]|\\{\\}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (auth, _, mint) = simple();
            let (_, rest) = mint.good("1").split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            ask(&auth, &format!("{}.{rest}", b64(&header))).await;
            ask(&auth, &mint.token(json!({"alg": alg}), json!({}))).await;
            let mut claims = object(mint.claims());
            claims.shift_remove(&name);
            let text = Value::Object(claims).to_string();
            let payload = format!("{},\"{name}\":{value}}}", text.trim_end_matches('}'));
            ask(&auth, &mint.raw(json!({}), payload.as_bytes())).await;
        });
    }
}
