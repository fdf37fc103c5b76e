use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use standardwebhooks::Webhook;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::super::secret::Secret;
use super::*;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const MARKER: &str = "canary-4711";

/// A request, as an endpoint sees it.
type Seen = Request<Bytes>;
type Answers = Arc<dyn Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync>;

/// A server of a client.
struct Endpoint {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn new(answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        Self::with_tls(None, answer).await
    }

    async fn with_tls(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Self { address, seen: Arc::default(), connections: Arc::default() };
        let (seen, answer) = (endpoint.seen.clone(), Arc::new(answer) as Answers);
        let connections = endpoint.connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::AcqRel);
                let (seen, answer, tls) = (seen.clone(), answer.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, seen, answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, seen, answer).await;
                            }
                        }
                    }
                });
            }
        });
        endpoint
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> usize {
        self.seen.lock().len()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Answers,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let request = Request::from_parts(head, body);
            let response = answer(&request);
            seen.lock().push(request);
            Ok::<_, Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// Answers that come one after the other, the last of them for ever.
struct Names(Mutex<VecDeque<&'static str>>);

impl Names {
    fn that_answer(answers: &[&'static str]) -> Arc<dyn Lookup> {
        Arc::new(Self(Mutex::new(answers.iter().copied().collect())))
    }
}

impl Lookup for Names {
    fn lookup(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
        let found = answer.map(|it| vec![it.parse().unwrap()]);
        Box::pin(async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

/// Settings with which an attempt ends soon.
fn hasty() -> ClientSettings {
    ClientSettings { timeout: Duration::from_millis(300), ..ClientSettings::default() }
}

/// A client, and a URL of an origin that is allowed.
fn client(origin: &str, path: &str, names: &[&'static str]) -> (CallbackClient, CallbackUrl) {
    let allowed = AllowedOrigins::default();
    allowed.allow(origin).unwrap();
    let url = CallbackUrl::parse(&format!("{origin}{path}"), &allowed).unwrap();
    (
        CallbackClient::with_lookup(&ClientSettings::default(), allowed, Names::that_answer(names))
            .unwrap(),
        url,
    )
}

fn secrets() -> Secrets {
    Secrets::new(Secret::parse(SECRET).unwrap())
}

fn message() -> Signed<'static> {
    let now = SystemTime::now();
    let (id, timestamp, body) = ("evt_1", unix_seconds(now), Bytes::from_static(b"{\"a\":1}"));
    let signatures = secrets().signatures(now, id, timestamp, &body);
    Signed { id, timestamp, signatures, subscription: "sub_1", body }
}

/// What a client says to an endpoint that answers so.
async fn post(response: fn(&Seen) -> Response<Full<Bytes>>) -> Result<(), AttemptError> {
    let endpoint = Endpoint::new(response).await;
    let (client, url) = client(&endpoint.origin(), "/h", &[]);
    client.post(&url, message()).await
}

async fn verify(response: fn(&Seen) -> Response<Full<Bytes>>) -> Result<(), AttemptError> {
    let endpoint = Endpoint::new(response).await;
    let (client, url) = client(&endpoint.origin(), "/h", &[]);
    client.verify(&url, &secrets(), "sub_1").await
}

#[tokio::test]
async fn a_message_as_its_receiver_sees_it() {
    let endpoint = Endpoint::new(|_| answer(204, "")).await;
    let origin = format!("http://hook.test:{}", endpoint.address.port());
    let (client, url) = client(&origin, "/h?token=a%20b", &["127.0.0.1"]);
    client.post(&url, message()).await.unwrap();

    let seen = endpoint.seen.lock().pop().unwrap();
    assert_eq!((seen.method().as_str(), seen.uri().to_string()), ("POST", "/h?token=a%20b".into()));
    let header = |name: &str| seen.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("webhook-id"), "evt_1");
    assert_eq!(header("x-mcp-subscription-id"), "sub_1");
    assert_eq!(header("user-agent"), "stentor");
    assert_eq!(header("host"), origin.trim_start_matches("http://"));
    assert_eq!(seen.headers().get("referer"), None);
    Webhook::new(SECRET).unwrap().verify(seen.body(), seen.headers()).unwrap();
}

#[tokio::test]
async fn a_status_becomes_a_category() {
    assert_eq!(post(|_| answer(200, MARKER)).await, Ok(()));
    assert_eq!(post(|_| answer(299, "")).await, Ok(()));
    macro_rules! fails {
        ($($status:literal => $category:ident),*) => {$(
            let error = post(|_| answer($status, "no")).await.unwrap_err();
            let expected = AttemptError::new(Category::$category);
            assert_eq!(error, AttemptError { status: Some($status), ..expected });
        )*};
    }
    fails!(304 => Http4xx, 400 => Http4xx, 404 => Http4xx, 410 => Http4xx, 413 => Http4xx);
    fails!(429 => Http4xx, 500 => Http5xx, 503 => Http5xx, 599 => Http5xx, 999 => Http5xx);
}

#[tokio::test]
async fn an_endpoint_may_ask_for_a_pause() {
    let error = post(|_| {
        let mut response = answer(503, "");
        response.headers_mut().insert("retry-after", 7.into());
        response
    });
    assert_eq!(error.await.unwrap_err().retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let canary = Endpoint::new(|_| answer(200, "")).await;
        let target = canary.origin();
        let endpoint = Endpoint::new(move |_| {
            let mut response = answer(status, "");
            response.headers_mut().insert("location", target.parse().unwrap());
            response
        })
        .await;
        let (client, url) = client(&endpoint.origin(), "/h", &[]);
        client.allowed().allow(&canary.origin()).unwrap();
        let error = client.post(&url, message()).await.unwrap_err();
        assert_eq!((error.category, error.status), (Category::Http4xx, Some(status)));
        assert_eq!((endpoint.seen(), canary.seen()), (1, 0));
    }
}

#[tokio::test]
async fn nothing_that_an_endpoint_says_is_in_an_error() {
    fn with_marker(status: u16, body: String) -> Response<Full<Bytes>> {
        let mut response = answer(status, body);
        response.headers_mut().insert("x-secret", MARKER.parse().unwrap());
        response.headers_mut().insert("retry-after", MARKER.parse().unwrap());
        response.headers_mut().insert("location", format!("/{MARKER}").parse().unwrap());
        response
    }
    let errors = [
        post(|_| with_marker(400, MARKER.into())).await,
        post(|_| with_marker(302, MARKER.into())).await,
        post(|_| with_marker(500, MARKER.into())).await,
        verify(|_| with_marker(200, MARKER.into())).await,
        verify(|_| with_marker(200, format!("{{\"challenge\":\"{MARKER}\"}}"))).await,
        verify(|_| with_marker(200, MARKER.repeat(1000))).await,
    ];
    for error in errors {
        let error = error.unwrap_err();
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!shown.contains("canary") && !shown.contains("127.0.0.1"), "{shown}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let allowed = AllowedOrigins::default();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    allowed.allow(&origin).unwrap();
    let url = CallbackUrl::parse(&origin, &allowed).unwrap();
    let client = CallbackClient::new(&hasty(), allowed).unwrap();
    let error = client.post(&url, message()).await.unwrap_err();
    assert_eq!(error, AttemptError::new(Category::Timeout));

    struct Never;
    impl Lookup for Never {
        fn lookup(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            Box::pin(futures::future::pending())
        }
    }
    let allowed = AllowedOrigins::default();
    let client = CallbackClient::with_lookup(&hasty(), allowed.clone(), Arc::new(Never)).unwrap();
    let url = CallbackUrl::parse("https://hook.example/", &allowed).unwrap();
    let error = client.post(&url, message()).await.unwrap_err();
    assert_eq!(error, AttemptError::new(Category::Timeout));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (client, url) = client(&origin, "/", &[]);
    let error = client.post(&url, message()).await.unwrap_err();
    assert_eq!(error, AttemptError::new(Category::ConnectionRefused));

    let allowed = AllowedOrigins::default();
    let client = CallbackClient::with_lookup(
        &ClientSettings::default(),
        allowed.clone(),
        Names::that_answer(&[]),
    )
    .unwrap();
    let url = CallbackUrl::parse("https://hook.example/", &allowed).unwrap();
    let error = client.post(&url, message()).await.unwrap_err();
    assert_eq!(error, AttemptError::new(Category::ConnectionRefused));
}

#[tokio::test]
async fn a_name_that_leads_into_the_network_of_the_server() {
    let canary = Endpoint::new(|_| answer(200, "")).await;
    let allowed = AllowedOrigins::default();
    let text = format!("https://hook.example:{}/h", canary.address.port());
    let url = CallbackUrl::parse(&text, &allowed).unwrap();
    let names = Names::that_answer(&["127.0.0.1"]);
    let client = CallbackClient::with_lookup(&ClientSettings::default(), allowed, names).unwrap();
    assert_eq!(client.post(&url, message()).await, Err(AttemptError::forbidden()));
    let verified = client.verify(&url, &secrets(), "sub_1").await;
    assert_eq!(verified, Err(AttemptError::forbidden()));
    assert_eq!(canary.seen(), 0);
}

#[tokio::test]
async fn an_origin_that_is_allowed_no_more() {
    let endpoint = Endpoint::new(|_| answer(200, "")).await;
    let (client, url) = client(&endpoint.origin(), "/h", &[]);
    client.post(&url, message()).await.unwrap();
    assert!(client.allowed().remove(&endpoint.origin()));
    assert_eq!(client.post(&url, message()).await, Err(AttemptError::forbidden()));
    assert_eq!(endpoint.seen(), 1);
}

/// An endpoint for this name with a certificate that only `trusting` knows.
async fn secure_endpoint(name: &str) -> (Endpoint, Vec<u8>) {
    let signed = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    // With other crates in the build there is more than one provider, and none is the default.
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let endpoint = Endpoint::with_tls(Some(tls), |_| {
        let mut response = answer(200, "");
        // So that each attempt looks up the name.
        response.headers_mut().insert("connection", "close".parse().unwrap());
        response
    });
    (endpoint.await, signed.cert.der().to_vec())
}

/// A client that takes this machine for the open internet, and trusts a certificate.
fn trusting(certificate: Vec<u8>, names: &[&'static str]) -> CallbackClient {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.into()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (settings, allowed) = (ClientSettings::default(), AllowedOrigins::default());
    let names = Names::that_answer(names);
    CallbackClient::build(&settings, allowed, names, |ip| ip.is_loopback(), &tls)
}

#[tokio::test]
async fn the_certificate_is_that_of_the_name_and_the_address_the_one_that_was_checked() {
    let (endpoint, certificate) = secure_endpoint("hook.example").await;
    let client = trusting(certificate, &["127.0.0.1", "127.0.0.1", "10.0.0.1"]);
    let url = |name: &str| {
        let text = format!("https://{name}:{}/h", endpoint.address.port());
        CallbackUrl::parse(&text, client.allowed()).unwrap()
    };
    client.post(&url("hook.example"), message()).await.unwrap();
    let host = endpoint.seen.lock()[0].headers()["host"].to_str().unwrap().to_owned();
    assert_eq!(host, format!("hook.example:{}", endpoint.address.port()));

    let error = client.post(&url("other.example"), message()).await.unwrap_err();
    assert_eq!(error, AttemptError::new(Category::TlsError));
    // The name leads to another address than when it was verified.
    let error = client.post(&url("hook.example"), message()).await.unwrap_err();
    assert_eq!(error, AttemptError::forbidden());
    assert_eq!(endpoint.seen(), 1);
}

#[tokio::test]
async fn a_connection_that_is_not_secure() {
    let (unknown, _) = secure_endpoint("hook.example").await;
    let plain = Endpoint::new(|_| answer(200, "")).await;
    let closing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closing_at = closing.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = closing.accept().await {
            // The hello is read, so that the connection ends instead of breaking.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
        }
    });
    for address in [unknown.address, plain.address, closing_at] {
        let origin = format!("https://hook.example:{}", address.port());
        let (client, url) = client(&origin, "/h", &["127.0.0.1"]);
        let error = client.post(&url, message()).await.unwrap_err();
        assert_eq!(error, AttemptError::new(Category::TlsError), "{address}");
    }
    assert_eq!((unknown.seen(), plain.seen()), (0, 0));
}

#[tokio::test]
async fn an_endpoint_that_answers_the_challenge_is_verified() {
    let endpoint = Endpoint::new(|seen| {
        let body: serde_json::Value = serde_json::from_slice(seen.body()).unwrap();
        answer(200, json!({"challenge": body["challenge"], "more": 1}).to_string())
    })
    .await;
    let (client, url) = client(&endpoint.origin(), "/h", &[]);
    client.verify(&url, &secrets(), "sub_1").await.unwrap();
    client.verify(&url, &secrets(), "sub_1").await.unwrap();

    let seen = endpoint.seen.lock();
    let of = |seen: &Seen| {
        Webhook::new(SECRET).unwrap().verify(seen.body(), seen.headers()).unwrap();
        let body: serde_json::Value = serde_json::from_slice(seen.body()).unwrap();
        assert_eq!(
            (&body["type"], seen.headers()["x-mcp-subscription-id"].to_str().unwrap()),
            (&json!("verification"), "sub_1")
        );
        let id = seen.headers()["webhook-id"].to_str().unwrap().to_owned();
        assert!(id.starts_with("msg_verification_"), "{id}");
        let nonce = body["challenge"].as_str().unwrap().to_owned();
        assert_eq!(URL_SAFE_NO_PAD.decode(&nonce).unwrap().len(), 32);
        (id, nonce)
    };
    let (first, second) = (of(&seen[0]), of(&seen[1]));
    assert!(first.0 != second.0 && first.1 != second.1);
}

#[tokio::test]
async fn other_answers_verify_nothing() {
    fn echo(seen: &Seen) -> serde_json::Value {
        serde_json::from_slice::<serde_json::Value>(seen.body()).unwrap()["challenge"].clone()
    }
    let wrong = [
        verify(|_| answer(200, "")).await,
        verify(|_| answer(204, "")).await,
        verify(|_| answer(200, "ok")).await,
        verify(|_| answer(200, "{}")).await,
        verify(|_| answer(200, r#"{"challenge":null}"#)).await,
        verify(|_| answer(200, r#"{"challenge":""}"#)).await,
        verify(|seen| answer(200, echo(seen).to_string())).await,
        verify(|seen| answer(200, json!([{"challenge": echo(seen)}]).to_string())).await,
        verify(|seen| answer(200, seen.body().to_vec()[1..].to_vec())).await,
        verify(|seen| {
            answer(
                200,
                json!({"challenge": format!("{} ", echo(seen).as_str().unwrap())}).to_string(),
            )
        })
        .await,
        verify(|seen| {
            answer(
                200,
                json!({"challenge": echo(seen), "more": "x".repeat(MAX_ANSWER)}).to_string(),
            )
        })
        .await,
    ];
    for (index, error) in wrong.into_iter().enumerate() {
        let error = error.unwrap_err();
        assert_eq!(error.category, Category::ChallengeFailed, "{index}: {error:?}");
    }
    let error = verify(|seen| answer(403, json!({"challenge": echo(seen)}).to_string())).await;
    assert_eq!(error.unwrap_err().category, Category::Http4xx);
}

#[tokio::test]
async fn as_many_connections_are_kept_as_requests_are_made_at_once() {
    let endpoint = Endpoint::new(|_| answer(200, "taken")).await;
    let (client, url) = client(&endpoint.origin(), "/h", &[]);
    for _ in 0..10 {
        let at_once = (0..8).map(|_| client.post(&url, message()));
        futures::future::try_join_all(at_once).await.unwrap();
    }
    assert_eq!(endpoint.seen(), 80);
    let connections = endpoint.connections.load(Ordering::Acquire);
    assert!(connections <= 8, "{connections}");
}

#[tokio::test]
async fn a_message_waits_until_there_is_a_slot() {
    let endpoint = Endpoint::new(|_| answer(200, "")).await;
    let allowed = AllowedOrigins::default();
    allowed.allow(&endpoint.origin()).unwrap();
    let url = CallbackUrl::parse(&endpoint.origin(), &allowed).unwrap();
    let settings = ClientSettings { max_in_flight_per_host: 1, ..ClientSettings::default() };
    let client = CallbackClient::new(&settings, allowed).unwrap();
    let slot = client.slot(&url).await;
    let mut waiting = Box::pin(client.post(&url, message()));
    assert!(waiting.as_mut().now_or_never().is_none());
    slot.post(message()).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(endpoint.seen(), 2);
}
