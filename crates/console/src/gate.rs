//! Who may read an answer of the console. Checked before everything else.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::answer::Node;
use crate::config::{ConsoleConfig, Operator};

/// Everything comes from this server, and no other page may show it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
);

/// Lets a request in whose host is known, with its [`Operator`] among its extensions.
pub(crate) async fn check(
    State(node): State<Arc<Node>>,
    mut request: Request,
    next: Next,
) -> Response {
    let config = &node.config;
    let mut response = if !is_known(config, &host(request.headers(), request.uri())) {
        let why = "this console does not answer to this host: see ConsoleConfig::host\n";
        (StatusCode::FORBIDDEN, why).into_response()
    } else if let Some(operator) = operator(config, request.headers()) {
        request.extensions_mut().insert(operator);
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "who are you?\n").into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn operator(config: &ConsoleConfig, headers: &HeaderMap) -> Option<Operator> {
    match &config.operator {
        Some(find) => {
            let mut operator = find(headers)?;
            operator.may_act &= config.actions;
            Some(operator)
        }
        None => Some(Operator { name: None, may_act: config.actions }),
    }
}

fn host(headers: &HeaderMap, uri: &Uri) -> String {
    let named = headers.get(HOST).and_then(|it| it.to_str().ok());
    named.or_else(|| uri.authority().map(|it| it.as_str())).unwrap_or_default().to_ascii_lowercase()
}

/// Whether a host, with or without a port, is a loopback name or one of the configured ones.
fn is_known(config: &ConsoleConfig, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]") || config.hosts.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_and_the_configured_ones_are_known() {
        let config = ConsoleConfig::new().host("Console.example.com");
        for known in [
            "localhost",
            "localhost:80",
            "127.0.0.1:7667",
            "[::1]",
            "[::1]:1",
            "console.example.com",
        ] {
            assert!(is_known(&config, known), "{known}");
        }
        for unknown in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "::2"]
        {
            assert!(!is_known(&config, unknown), "{unknown}");
        }
    }

    #[test]
    fn nobody_acts_unless_both_the_settings_and_the_operator_allow_it() {
        let headers = HeaderMap::new();
        let may_act = |config: &ConsoleConfig| operator(config, &headers).map(|it| it.may_act);
        assert_eq!(may_act(&ConsoleConfig::new()), Some(false));
        assert_eq!(may_act(&ConsoleConfig::new().actions(true)), Some(true));
        let reader = ConsoleConfig::new().actions(true).operator(|_| Some(Operator::default()));
        assert_eq!(may_act(&reader), Some(false));
        let of_all = |_: &HeaderMap| Some(Operator { name: None, may_act: true });
        assert_eq!(may_act(&ConsoleConfig::new().operator(of_all)), Some(false));
        assert_eq!(may_act(&ConsoleConfig::new().operator(|_| None)), None);
    }
}
