//! The token of a request (RFC 6750, section 2.1). Tokens in queries, forms and cookies are not
//! looked at.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use stentor_transport::http::Rejection;

/// The longest token that is read, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// The token in the `Authorization` header.
pub(crate) fn token(headers: &HeaderMap) -> Result<&str, Rejection> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Rejection::Missing)?.as_bytes();
    if values.next().is_some() {
        return Err(Rejection::Invalid);
    }
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Rejection::Missing);
    }
    let token = rest.trim_ascii();
    // Some issuers write opaque tokens with more characters than the RFC has; none of these can be
    // mistaken for two tokens.
    let is_fit = |byte: &u8| byte.is_ascii_graphic() && !b"\",".contains(byte);
    if token.is_empty() || token.len() > MAX_TOKEN || !token.iter().all(is_fit) {
        return Err(Rejection::Invalid);
    }
    str::from_utf8(token).map_err(|_| Rejection::Invalid)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<String, Rejection> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        token(&headers).map(str::to_owned)
    }

    #[test]
    fn the_scheme_is_matched_without_case() {
        for value in
            ["Bearer a.b-c_d~e+f/g==", "bearer a.b-c_d~e+f/g==", "bEaReR   a.b-c_d~e+f/g=="]
        {
            assert_eq!(read(&[value.as_bytes()]).unwrap(), "a.b-c_d~e+f/g==", "{value}");
        }
        assert_eq!(read(&[b"Bearer 1|abc:d"]).unwrap(), "1|abc:d");
    }

    #[test]
    fn another_scheme_is_no_credential() {
        for value in
            ["Basic YTpi", "Bearerx t", "t", "", "Token t", "DPoP t", "Bearer\tt", "Bearer,t"]
        {
            assert_eq!(read(&[value.as_bytes()]), Err(Rejection::Missing), "{value:?}");
        }
        assert_eq!(read(&[]), Err(Rejection::Missing));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for value in
            ["Bearer", "Bearer ", "Bearer   ", "Bearer a b", "Bearer a, Bearer b", "Bearer \"a\""]
        {
            assert_eq!(read(&[value.as_bytes()]), Err(Rejection::Invalid), "{value:?}");
        }
        assert_eq!(read(&["Bearer \u{e4}".as_bytes()]), Err(Rejection::Invalid));
        assert_eq!(read(&[b"Bearer a", b"Bearer a"]), Err(Rejection::Invalid));
        let long = |length: usize| format!("Bearer {}", "a".repeat(length));
        assert!(read(&[long(MAX_TOKEN).as_bytes()]).is_ok());
        assert_eq!(read(&[long(MAX_TOKEN + 1).as_bytes()]), Err(Rejection::Invalid));
    }

    proptest! {
        #[test]
        fn a_token_is_part_of_its_header(value in "[Bb]earer {0,3}[ -~]{0,20}") {
            if let Ok(token) = read(&[value.as_bytes()]) {
                prop_assert!(value.trim_end().ends_with(&token) && !token.contains([' ', ',', '"']));
            }
        }
    }
}
