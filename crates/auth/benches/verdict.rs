//! What it costs to find out who sends a request: with a verdict that is kept, and with a signature to
//! check.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures::future::{BoxFuture, FutureExt as _};
use http::request::Parts;
use http::{Request, Response};
use serde_json::{Value, json};
use stentor_auth::{FetchError, KeySource, OAuth};
use stentor_engine::identity::Identity;
use stentor_transport::http::{Authenticator, StaticTokens, Verdict};

const RESOURCE: &str = "https://mcp.example.com/mcp";
const ISSUER: &str = "https://login.example.com";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one key.
#[derive(Debug)]
struct Issuer(Value);

impl KeySource for Issuer {
    fn fetch(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Bytes>, FetchError>> {
        let keys = format!("{ISSUER}/keys");
        let answer = match request.uri().path() {
            "/keys" => self.0.clone(),
            _ => json!({"issuer": ISSUER, "jwks_uri": keys}),
        };
        async move { Ok(Response::new(Bytes::from(answer.to_string()))) }.boxed()
    }
}

fn token(key: &Ed25519KeyPair, id: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let head = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "one"});
    let claims = json!({
        "iss": ISSUER, "sub": "ann", "aud": RESOURCE, "client_id": "editor", "jti": id,
        "scope": "mcp:read mcp:write", "iat": now, "exp": now + 3_600,
    });
    let signed = format!("{}.{}", b64(head.to_string()), b64(claims.to_string()));
    let signature = b64(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn request(token: &str) -> Parts {
    let request = Request::post(RESOURCE).header("authorization", format!("Bearer {token}"));
    request.body(()).expect("a request").into_parts().0
}

fn verdicts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verdict");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let known = |verdict: Verdict| match verdict {
        Verdict::Now(known) => known.expect("a good token"),
        Verdict::Later(_) => panic!("it is known"),
    };

    let tokens = StaticTokens::new([("a-secret-of-sixteen-bytes", Identity::named("ann"))]);
    let tokens = tokens.expect("a long secret");
    let head = request("a-secret-of-sixteen-bytes");
    group.bench_function("static", |bencher| {
        bencher.iter(|| known(black_box(&tokens).check(black_box(&head), None)));
    });

    let key = Ed25519KeyPair::generate().expect("a key");
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": b64(key.public_key())}]});
    let oauth = OAuth::resource(RESOURCE).issuer(ISSUER).key_source(Issuer(keys)).build();
    let oauth = oauth.expect("a configuration");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _guard = runtime.enter();
    let first = request(&token(&key, 0));
    if let Verdict::Later(later) = oauth.check(&first, None) {
        runtime.block_on(later).expect("a good token");
    }
    group.bench_function("kept", |bencher| {
        bencher.iter(|| known(black_box(&oauth).check(black_box(&first), None)));
    });
    let mut next = 0;
    group.bench_function("signature", |bencher| {
        bencher.iter_batched_ref(
            || {
                next += 1;
                request(&token(&key, next))
            },
            |head| known(black_box(&oauth).check(head, None)),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
