//! Bearer tokens (RFC 6750): the credential of a request, and the challenge in the response to a
//! request without a good one.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::{Challenge, Rejection};

/// The longest challenge, in bytes. Proxies and clients limit the headers of a response.
const MAX: usize = 2 * 1024;

const BEARER: &str = "Bearer";

/// The token of a request: its `Authorization` header, if that is a bearer token. For one's own
/// [`Authenticator`](super::Authenticator).
///
/// # Errors
///
/// [`Rejection::Missing`] if there is no such header, or if it has another scheme;
/// [`Rejection::Invalid`] if what follows the scheme is not one token.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Rejection> {
    let value = headers.get(AUTHORIZATION).ok_or(Rejection::Missing)?.as_bytes().trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(BEARER.as_bytes()) {
        return Err(Rejection::Missing);
    }
    let token = std::str::from_utf8(rest.trim_ascii()).map_err(|_| Rejection::Invalid)?;
    if is_token(token) { Ok(token) } else { Err(Rejection::Invalid) }
}

/// Whether a text can be sent as a token. RFC 6750 allows fewer characters, but some servers give
/// out others.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The challenges of an endpoint, as header values.
#[derive(Debug)]
pub(super) struct Challenges {
    /// For a request without a credential.
    pub(super) missing: HeaderValue,
    /// For a credential that is not good.
    pub(super) invalid: HeaderValue,
    /// For several credentials.
    pub(super) repeated: HeaderValue,
    /// For a credential that lacks a scope that every request needs.
    pub(super) insufficient: HeaderValue,
}

impl Challenges {
    /// `metadata` is the URL of the metadata document, if there is one.
    pub(super) fn new(challenge: &Challenge, metadata: Option<&str>) -> Self {
        let scopes = || challenge.scopes.iter().map(String::as_str);
        let missing = Bearer { metadata, ..Bearer::default() };
        let error = Some(("invalid_token", "the token is not accepted"));
        let invalid = Bearer { error, ..missing };
        let error = Some(("invalid_request", "the Authorization header is repeated"));
        let repeated = Bearer { error, ..missing };
        Self {
            missing: missing.write(scopes()),
            invalid: invalid.write(scopes()),
            repeated: repeated.write([]),
            insufficient: insufficient(metadata, challenge.required.iter().map(String::as_str)),
        }
    }
}

/// The challenge for a request that lacks one of these scopes.
pub(super) fn insufficient<'a>(
    metadata: Option<&str>,
    scopes: impl IntoIterator<Item = &'a str>,
) -> HeaderValue {
    let error = Some(("insufficient_scope", "the token lacks a scope that this needs"));
    Bearer { error, metadata }.write(scopes)
}

/// The challenge for a request without a credential that needs these scopes.
pub(super) fn missing<'a>(
    metadata: Option<&str>,
    scopes: impl IntoIterator<Item = &'a str>,
) -> HeaderValue {
    Bearer { error: None, metadata }.write(scopes)
}

/// A challenge (RFC 6750, section 3; RFC 9728, section 5.1) but for its scopes.
#[derive(Clone, Copy, Debug, Default)]
struct Bearer<'a> {
    /// The code of the error, and its description.
    error: Option<(&'a str, &'a str)>,
    metadata: Option<&'a str>,
}

impl Bearer<'_> {
    /// As a header value: one line of printable ASCII, every value quoted, of at most [`MAX`] bytes.
    /// A scope that is not one (RFC 6749, section 3.3) is left out. So is what does not fit: first
    /// the last scopes, then the URL of the metadata, which clients can also find by themselves.
    fn write<'s>(self, scopes: impl IntoIterator<Item = &'s str>) -> HeaderValue {
        let mut room = MAX - BEARER.len();
        let mut take = |name: &str, value: &str| {
            let written = parameter(name, value);
            let fits = written.len() <= room;
            room -= if fits { written.len() } else { 0 };
            fits.then_some(written)
        };
        let (code, description) = match self.error {
            Some((code, description)) => {
                (take("error", code), take("error_description", description))
            }
            None => (None, None),
        };
        let metadata = self.metadata.and_then(|url| take("resource_metadata", url));
        let mut list = String::new();
        for scope in scopes.into_iter().filter(|scope| is_scope(scope)) {
            let longer = list.len() + usize::from(!list.is_empty()) + scope.len();
            if parameter("scope", "").len() + longer > room {
                break;
            }
            if !list.is_empty() {
                list.push(' ');
            }
            list.push_str(scope);
        }
        let scope = (!list.is_empty()).then(|| parameter("scope", &list));
        let parameters: String =
            [code, scope, metadata, description].into_iter().flatten().collect();
        // The first one is not preceded by a comma.
        let value = format!("{BEARER}{}", parameters.strip_prefix(',').unwrap_or(&parameters));
        HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(BEARER))
    }
}

/// A parameter after a comma. Characters that a header cannot have are replaced.
fn parameter(name: &str, value: &str) -> String {
    let mut out = format!(", {name}=\"");
    for char in value.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            ' '..='~' => out.push(char),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

fn is_scope(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A strict reader of one challenge (RFC 9110, section 11.6.1): the names of its parameters and
    /// their values, each quoted.
    pub(in crate::http::auth) fn read(value: &HeaderValue) -> Vec<(String, String)> {
        let text = value.to_str().expect("printable ASCII");
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        let Some(mut rest) = text.strip_prefix("Bearer ") else {
            assert_eq!(text, "Bearer");
            return Vec::new();
        };
        let mut all: Vec<(String, String)> = Vec::new();
        loop {
            let (name, after) = rest.split_once("=\"").expect("a quoted parameter");
            let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(!name.is_empty() && name.bytes().all(is_name), "{name} in {text}");
            assert!(all.iter().all(|(other, _)| other != name), "{name} twice in {text}");
            let (mut read, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (_, '\\') => read.push(chars.next().expect("an escaped character").1),
                    (at, '"') => break at,
                    (_, char) => read.push(char),
                }
            };
            all.push((name.to_owned(), read));
            match &after[end + 1..] {
                "" => return all,
                more => rest = more.strip_prefix(", ").expect("another parameter"),
            }
        }
    }

    fn of<'a>(read: &'a [(String, String)], name: &str) -> Option<&'a str> {
        read.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn challenges_say_what_is_wrong_and_where_tokens_come_from() {
        let challenge =
            Challenge { scopes: vec!["a:b".to_owned(), "c".to_owned()], ..Challenge::default() };
        let all = Challenges::new(&challenge, Some("https://h/.well-known/x"));
        for (value, expected) in [
            (all.missing, r#"Bearer scope="a:b c", resource_metadata="https://h/.well-known/x""#),
            (
                all.invalid,
                "Bearer error=\"invalid_token\", scope=\"a:b c\", \
                 resource_metadata=\"https://h/.well-known/x\", \
                 error_description=\"the token is not accepted\"",
            ),
            (
                all.repeated,
                "Bearer error=\"invalid_request\", \
                 resource_metadata=\"https://h/.well-known/x\", \
                 error_description=\"the Authorization header is repeated\"",
            ),
            (
                insufficient(Some("u"), ["x"]),
                "Bearer error=\"insufficient_scope\", scope=\"x\", resource_metadata=\"u\", \
                 error_description=\"the token lacks a scope that this needs\"",
            ),
            (missing(None, ["x", "y"]), "Bearer scope=\"x y\""),
        ] {
            assert_eq!(value, expected);
        }
        let bare = Challenges::new(&Challenge::default(), None);
        assert_eq!(bare.missing, "Bearer");
        assert_eq!(of(&read(&bare.invalid), "error"), Some("invalid_token"));
    }

    #[test]
    fn a_token_is_all_that_follows_the_scheme() {
        for (value, expected) in [
            (None, Err(Rejection::Missing)),
            (Some(&b"Bearer abc"[..]), Ok("abc")),
            (Some(b"bEaReR   abc "), Ok("abc")),
            (Some(b"BEARER a.b-c_d~e+f/g="), Ok("a.b-c_d~e+f/g=")),
            (Some(b"Bearer"), Err(Rejection::Invalid)),
            (Some(b"Bearer  "), Err(Rejection::Invalid)),
            (Some(b"Bearer a b"), Err(Rejection::Invalid)),
            (Some(b"Bearer a, Bearer a"), Err(Rejection::Invalid)),
            (Some(b"Bearer a\tb"), Err(Rejection::Invalid)),
            (Some("Bearer ä".as_bytes()), Err(Rejection::Invalid)),
            (Some(b"Bearer \xff"), Err(Rejection::Invalid)),
            (Some(b"Bearerx abc"), Err(Rejection::Missing)),
            (Some(b"Basic YTpi"), Err(Rejection::Missing)),
            (Some(b"abc"), Err(Rejection::Missing)),
            (Some(b""), Err(Rejection::Missing)),
            (Some(b"\xff"), Err(Rejection::Missing)),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(bearer(&headers), expected, "{value:?}");
        }
    }

    #[test]
    fn a_challenge_that_is_too_long_loses_scopes_first() {
        let scopes: Vec<_> = (0..1_000).map(|it| format!("scope:{it}")).collect();
        let value = insufficient(Some("https://h/x"), scopes.iter().map(String::as_str));
        assert!((MAX - 20..=MAX).contains(&value.len()), "{}", value.len());
        let read = read(&value);
        assert_eq!(of(&read, "resource_metadata"), Some("https://h/x"));
        let kept: Vec<_> = of(&read, "scope").unwrap().split(' ').collect();
        assert_eq!(kept, scopes[..kept.len()]);
        let long = "x".repeat(MAX);
        assert_eq!(missing(Some(&long), ["a", &long]), "Bearer scope=\"a\"");
    }

    proptest! {
        #[test]
        fn any_challenge_can_be_read_back(
            url in prop::option::of("\\PC{0,40}|[\"\\\\ -~]{0,40}|\\PC{1900,2100}"),
            scopes in prop::collection::vec("\\PC{0,20}|[!-~]{0,300}|[ \t\r\n\0]", 0..20),
            errs: bool,
        ) {
            let scopes = || scopes.iter().map(String::as_str);
            let value = match errs {
                true => insufficient(url.as_deref(), scopes()),
                false => missing(url.as_deref(), scopes()),
            };
            prop_assert!(value.len() <= MAX);
            let read = read(&value);
            prop_assert_eq!(of(&read, "error"), errs.then_some("insufficient_scope"));
            if let Some(read) = of(&read, "resource_metadata") {
                let url = url.as_deref().unwrap();
                let same = |(one, other): (char, char)| one == other || (one == '?' && !(' '..='~').contains(&other));
                prop_assert!(read.chars().zip(url.chars()).all(same), "{}", read);
                prop_assert_eq!(read.chars().count(), url.chars().count());
            }
            let kept: Vec<_> = of(&read, "scope").into_iter().flat_map(|it| it.split(' ')).collect();
            let good: Vec<_> = scopes().filter(|scope| is_scope(scope)).collect();
            prop_assert_eq!(&kept[..], &good[..kept.len()]);
            let whole: usize = good.iter().map(|scope| scope.len() + 1).sum();
            if whole + url.map_or(0, |it| 2 * it.len()) < 1_800 {
                prop_assert_eq!(kept.len(), good.len());
            }
        }

        #[test]
        fn any_credential_is_read_or_refused(value: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(AUTHORIZATION, value);
                if let Ok(token) = bearer(&headers) {
                    prop_assert!(is_token(token));
                }
            }
        }
    }
}
