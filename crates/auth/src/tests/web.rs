//! The default source, on a port of this machine.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::source::{KeySource as _, MAX_DOCUMENT, Web, get};
use crate::testing::*;
use crate::{FetchError, OAuth};

/// Answers each request with what `answer` says for its path; returns the origin.
async fn serve(answer: impl Fn(&str, &str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let own = origin.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let (mut head, mut buffer) = (Vec::new(), [0; 1_024]);
            while !head.windows(4).any(|it| it == b"\r\n\r\n") {
                match connection.read(&mut buffer).await {
                    Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head);
            let path = head.split(' ').nth(1).unwrap_or_default();
            // The other end may have heard enough.
            let _ = connection.write_all(answer(&own, path).as_bytes()).await;
            let _ = connection.shutdown().await;
        }
    });
    origin
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=120\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn fetch(web: &Web, url: &str) -> Result<http::Response<Bytes>, FetchError> {
    web.fetch(get(url).unwrap()).await
}

#[tokio::test]
async fn documents_are_fetched_from_where_they_are_said_to_be_and_not_endlessly() {
    let origin = serve(|_, path| match path {
        "/ok" => ok("{}"),
        "/redirect" => {
            "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
        "/long" => ok(&" ".repeat(MAX_DOCUMENT + 1)),
        "/endless" => {
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(9))
        }
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    })
    .await;
    let web = Web::new().unwrap();
    let response = fetch(&web, &format!("{origin}/ok")).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"{}"[..]));
    assert_eq!(response.headers()["cache-control"], "max-age=120");
    assert_eq!(fetch(&web, &format!("{origin}/redirect")).await.unwrap().status(), 302);
    assert_eq!(fetch(&web, &format!("{origin}/none")).await.unwrap().status(), 404);
    for path in ["long", "endless"] {
        let error = fetch(&web, &format!("{origin}/{path}")).await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
    let closed = fetch(&web, "http://127.0.0.1:1/").await.unwrap_err();
    assert!(closed.to_string().contains("refused"), "{closed}");
}

#[tokio::test]
async fn a_token_is_checked_with_the_keys_of_a_real_server() {
    let keys = json!({"keys": [ed(0).jwk("k1", json!({}))]}).to_string();
    let origin = serve(move |origin, path| match path {
        "/.well-known/oauth-authorization-server" => ok(&metadata(origin).to_string()),
        "/jwks" => ok(&keys),
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    })
    .await;
    let auth = OAuth::resource(RESOURCE).issuer(&origin).build().unwrap();
    let clock = crate::clock::Clock::Machine;
    let mint = Mint { issuer: ISSUER, signer: ed(0), kid: "k1", clock };
    let token = mint.token(json!({}), json!({"iss": origin}));
    let checked = tokio::time::timeout(Duration::from_secs(30), ask(&auth, &token)).await;
    assert_eq!(checked.unwrap(), Said::Good);
}
