//! For tests: keys that sign, issuers that misbehave when told to, and requests.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use stentor_engine::identity::Identity;
use stentor_transport::http::{Authenticator as _, Rejection, Verdict};

use crate::clock::Clock;
use crate::{FetchError, KeySource, OAuth, OAuthBuilder};

pub(crate) const RESOURCE: &str = "https://mcp.example.com/mcp";
pub(crate) const ISSUER: &str = "https://login.example.com";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key.
#[derive(Clone, Copy)]
pub(crate) enum Signer {
    Rsa(&'static RsaKeyPair),
    Ec(&'static EcdsaKeyPair),
    Ed(&'static Ed25519KeyPair),
}

/// RSA keys are made slowly, so all tests share these.
pub(crate) fn rsa(index: usize) -> Signer {
    static KEYS: OnceLock<[RsaKeyPair; 2]> = OnceLock::new();
    let make = || RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    Signer::Rsa(&KEYS.get_or_init(|| [make(), make()])[index])
}

pub(crate) fn ec() -> Signer {
    static KEY: OnceLock<EcdsaKeyPair> = OnceLock::new();
    let make = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Signer::Ec(KEY.get_or_init(make))
}

pub(crate) fn ed(index: usize) -> Signer {
    static KEYS: OnceLock<[Ed25519KeyPair; 4]> = OnceLock::new();
    let make = |_| Ed25519KeyPair::generate().unwrap();
    Signer::Ed(&KEYS.get_or_init(|| [0, 1, 2, 3].map(make))[index])
}

impl Signer {
    pub(crate) fn sign(self, alg: &str, data: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if alg.starts_with("PS") { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, data, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, data).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(data).as_ref().to_vec(),
        }
    }

    pub(crate) fn alg(self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// The public key, with more members.
    pub(crate) fn jwk(self, kid: &str, more: Value) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let n = b64(public.modulus().big_endian_without_leading_zero());
                let e = b64(public.exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": n, "e": e})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())})
            }
        };
        jwk["kid"] = kid.into();
        merge(&mut jwk, more);
        jwk
    }
}

/// Sets members; those that are null are taken away.
pub(crate) fn merge(object: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("no object") };
    let members = object.as_object_mut().unwrap();
    for (name, value) in more {
        match value {
            Value::Null => members.shift_remove(&name),
            value => members.insert(name, value),
        };
    }
}

pub(crate) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Makes tokens: good ones, but for what is said.
#[derive(Clone, Copy)]
pub(crate) struct Mint {
    pub(crate) issuer: &'static str,
    pub(crate) signer: Signer,
    pub(crate) kid: &'static str,
    pub(crate) clock: Clock,
}

impl Mint {
    pub(crate) fn claims(self) -> Value {
        let now = seconds(self.clock.now().wall).floor();
        json!({
            "iss": self.issuer, "sub": "ann", "aud": RESOURCE, "client_id": "cli-1",
            "scope": "mcp:read admin", "iat": now, "exp": now + 600.0,
        })
    }

    /// A token whose header and claims have these members, too.
    pub(crate) fn token(self, header: Value, claims: Value) -> String {
        let mut all = self.claims();
        merge(&mut all, claims);
        self.raw(header, all.to_string().as_bytes())
    }

    pub(crate) fn raw(self, header: Value, payload: &[u8]) -> String {
        let mut head = json!({"alg": self.signer.alg(), "typ": "at+jwt", "kid": self.kid});
        merge(&mut head, header);
        let signed = format!("{}.{}", b64(head.to_string()), b64(payload));
        let alg = head["alg"].as_str().unwrap_or_default();
        let signature = self.signer.sign(alg, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    pub(crate) fn good(self, jti: &str) -> String {
        self.token(json!({}), json!({"jti": jti}))
    }
}

/// How an address answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Says(u16, Bytes),
    Fresh(u64, Bytes),
    Slow(Duration, Bytes),
    Hangs,
    Breaks,
    Panics,
}

impl Reply {
    pub(crate) fn json(value: &Value) -> Self {
        Self::Says(200, value.to_string().into())
    }
}

/// All issuers of a test, by address; and what they were asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    replies: HashMap<String, Reply>,
    asked: Vec<(String, Bytes)>,
}

impl Net {
    /// One issuer with these keys.
    pub(crate) fn with(issuer: &str, keys: &[Value]) -> Self {
        let net = Self::default();
        net.add(issuer, keys);
        net
    }

    pub(crate) fn add(&self, issuer: &str, keys: &[Value]) {
        self.set(&metadata_url(issuer), Reply::json(&metadata(issuer)));
        self.set_keys(issuer, keys);
    }

    pub(crate) fn set_keys(&self, issuer: &str, keys: &[Value]) {
        self.set(&format!("{issuer}/jwks"), Reply::json(&json!({"keys": keys})));
    }

    pub(crate) fn set(&self, url: &str, reply: Reply) {
        self.0.lock().replies.insert(url.to_owned(), reply);
    }

    /// How often an address was asked.
    pub(crate) fn asked(&self, url: &str) -> usize {
        self.0.lock().asked.iter().filter(|(asked, _)| asked == url).count()
    }

    pub(crate) fn key_fetches(&self) -> usize {
        self.asked(&format!("{ISSUER}/jwks"))
    }

    pub(crate) fn all_asked(&self) -> Vec<String> {
        self.0.lock().asked.iter().map(|(url, _)| url.clone()).collect()
    }
}

pub(crate) fn metadata_url(issuer: &str) -> String {
    format!("{issuer}/.well-known/oauth-authorization-server")
}

pub(crate) fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "introspection_endpoint": format!("{issuer}/introspect"),
    })
}

impl KeySource for Net {
    fn fetch(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, FetchError>> {
        let url = request.uri().to_string();
        let reply = {
            let mut state = self.0.lock();
            state.asked.push((url.clone(), request.into_body()));
            state.replies.get(&url).cloned()
        };
        let say =
            |status: u16, body: Bytes| Ok(Response::builder().status(status).body(body).unwrap());
        Box::pin(async move {
            match reply {
                None => say(404, Bytes::new()),
                Some(Reply::Says(status, body)) => say(status, body),
                Some(Reply::Fresh(seconds, body)) => {
                    let response =
                        Response::builder().header(CACHE_CONTROL, format!("max-age={seconds}"));
                    Ok(response.body(body).unwrap())
                }
                Some(Reply::Slow(delay, body)) => {
                    tokio::time::sleep(delay).await;
                    say(200, body)
                }
                Some(Reply::Hangs) => std::future::pending().await,
                Some(Reply::Breaks) => Err(FetchError::new("connection reset")),
                Some(Reply::Panics) => panic!("as told"),
            }
        })
    }
}

/// What a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Good,
    Missing,
    Invalid,
    Unavailable(u64),
}

pub(crate) fn said(answer: &Result<Identity, Rejection>) -> Said {
    match answer {
        Ok(_) => Said::Good,
        Err(Rejection::Missing) => Said::Missing,
        Err(Rejection::Unavailable { retry_after }) => {
            assert_eq!(retry_after.subsec_nanos(), 0);
            Said::Unavailable(retry_after.as_secs())
        }
        Err(_) => Said::Invalid,
    }
}

pub(crate) fn check(auth: &OAuth, token: &str) -> Verdict {
    let request = Request::post("/mcp").header(AUTHORIZATION, format!("Bearer {token}"));
    auth.check(&request.body(()).unwrap().into_parts().0, None)
}

pub(crate) async fn answer(auth: &OAuth, token: &str) -> Result<Identity, Rejection> {
    match check(auth, token) {
        Verdict::Now(answer) => answer,
        Verdict::Later(answer) => answer.await,
    }
}

pub(crate) async fn ask(auth: &OAuth, token: &str) -> Said {
    said(&answer(auth, token).await)
}

/// What is known at once.
pub(crate) fn known(auth: &OAuth, token: &str) -> Option<Said> {
    match check(auth, token) {
        Verdict::Now(answer) => Some(said(&answer)),
        Verdict::Later(_) => None,
    }
}

pub(crate) fn builder(net: &Net, clock: Clock) -> OAuthBuilder {
    OAuth::resource(RESOURCE).key_source(net.clone()).clock(clock)
}

/// An issuer whose one key is called `k1`, somebody who trusts it, and its mint.
pub(crate) fn simple() -> (OAuth, Net, Mint) {
    let clock = Clock::stopped();
    let mint = Mint { issuer: ISSUER, signer: ed(0), kid: "k1", clock };
    let net = Net::with(ISSUER, &[ed(0).jwk("k1", json!({}))]);
    let auth = builder(&net, clock).issuer(ISSUER).build().unwrap();
    (auth, net, mint)
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}
