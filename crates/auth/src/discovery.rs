//! Where the endpoints of an issuer are, as its metadata document says (RFC 8414, OpenID Connect
//! Discovery).

use serde::Deserialize;

use crate::refreshed::Fetched;
use crate::source::{FetchError, KeySource, document, get};
use crate::url::Url;

/// What an issuer says about itself, as far as it is needed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// `None` unless the document names an address that can be trusted; so is the other.
    pub(crate) keys: Option<String>,
    pub(crate) introspection: Option<IntrospectionEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IntrospectionEndpoint {
    pub(crate) url: String,
    /// Whether our secret goes into the body, because the issuer does not read it in the header.
    pub(crate) is_secret_in_body: bool,
}

/// Why a document is not the metadata of an issuer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("it is not a metadata document")]
    Form,
    #[error("it is the document of another issuer")]
    OtherIssuer,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
    introspection_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// The addresses at which the metadata document may be, in the order in which they are tried.
pub(crate) fn candidates(issuer: Url<'_>) -> Vec<String> {
    let (origin, path) = (issuer.origin(), issuer.path().trim_end_matches('/'));
    let mut candidates = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        candidates.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    candidates
}

/// Finds the endpoints of an issuer.
pub(crate) async fn discover(
    source: &dyn KeySource,
    issuer: &str,
) -> Result<Fetched<Endpoints>, FetchError> {
    let url = Url::parse(issuer).ok_or_else(|| FetchError::new("the issuer is no address"))?;
    let mut last = None;
    for candidate in candidates(url) {
        // If nobody answers, nobody will at the next address.
        let response = source.fetch(get(&candidate)?).await?;
        let found = document(response).and_then(|(body, max_age)| {
            let value = Endpoints::parse(&body, issuer).map_err(FetchError::new)?;
            Ok(Fetched { value, max_age })
        });
        match found {
            Ok(found) => return Ok(found),
            Err(error) => last = Some(FetchError::new(format!("{candidate}: {error}"))),
        }
    }
    Err(last.unwrap_or_else(|| FetchError::new("there is no metadata document")))
}

impl Endpoints {
    fn parse(document: &[u8], issuer: &str) -> Result<Self, MetadataError> {
        let document: Document =
            serde_json::from_slice(document).map_err(|_| MetadataError::Form)?;
        if document.issuer != issuer {
            return Err(MetadataError::OtherIssuer);
        }
        let is_local = Url::parse(issuer).is_some_and(|url| url.is_loopback());
        let is_trusted = |address: &String| {
            // A remote issuer has no business on this machine.
            Url::parse(address)
                .is_some_and(|url| url.is_trusted() && (is_local || !url.is_loopback()))
        };
        let methods = document.introspection_endpoint_auth_methods_supported.unwrap_or_default();
        let has = |method: &str| methods.iter().any(|it| it == method);
        let is_secret_in_body = has("client_secret_post") && !has("client_secret_basic");
        let introspection = document.introspection_endpoint.filter(is_trusted);
        let introspection =
            introspection.map(|url| IntrospectionEndpoint { url, is_secret_in_body });
        Ok(Self { keys: document.jwks_uri.filter(is_trusted), introspection })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_the_document_may_be() {
        let of = |issuer: &str| candidates(Url::parse(issuer).unwrap());
        let (oauth, openid) =
            (".well-known/oauth-authorization-server", ".well-known/openid-configuration");
        let bare = [format!("https://a.example/{oauth}"), format!("https://a.example/{openid}")];
        assert_eq!(of("https://a.example"), bare);
        assert_eq!(of("https://a.example/"), bare);
        let with_path = [
            format!("https://a.example:1/{oauth}/t/v2"),
            format!("https://a.example:1/{openid}/t/v2"),
            format!("https://a.example:1/t/v2/{openid}"),
        ];
        assert_eq!(of("https://a.example:1/t/v2"), with_path);
        assert_eq!(of("https://a.example:1/t/v2/"), with_path);
    }

    fn parse(issuer: &str, keys: &str) -> Result<Endpoints, MetadataError> {
        let document = json!({"issuer": issuer, "jwks_uri": keys, "other": [1]});
        Endpoints::parse(document.to_string().as_bytes(), issuer)
    }

    #[test]
    fn the_keys_of_an_issuer_are_fetched_from_where_nobody_else_can_answer() {
        let remote = "https://a.example";
        let keys = |issuer, keys| parse(issuer, keys).unwrap().keys;
        assert!(keys(remote, "https://keys.example/k").is_some());
        assert!(keys("http://127.0.0.1:1", "http://localhost:1/k").is_some());
        for address in [
            "http://a.example/k",
            "http://127.0.0.1/k",
            "https://localhost/k",
            "file:///k",
            "/k",
            "",
        ] {
            assert_eq!(keys(remote, address), None, "{address}");
        }
    }

    #[test]
    fn the_document_must_be_of_the_issuer_itself() {
        let document = br#"{"issuer": "https://b.example", "jwks_uri": "https://a.example/k"}"#;
        let parsed = Endpoints::parse(document, "https://a.example");
        assert_eq!(parsed, Err(MetadataError::OtherIssuer));
        for document in ["", "[]", "{}", r#"{"issuer": 1}"#, "null"] {
            let parsed = Endpoints::parse(document.as_bytes(), "https://a.example");
            assert_eq!(parsed, Err(MetadataError::Form), "{document}");
        }
    }
}
