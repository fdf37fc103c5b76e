//! The variables of a URI template.

/// The names of the variables of a template (RFC 6570); none of a plain URI. The engine checks the
/// template itself when the item is added.
pub(crate) fn variables(uri: &str) -> Vec<String> {
    let expressions = uri.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let specs = expressions
        .flat_map(|it| it.trim_start_matches(['+', '#', '.', '/', ';', '?', '&']).split(','));
    let name = |spec: &str| spec.split([':', '*']).next().unwrap_or_default().to_owned();
    specs.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn variables_are_found_in_every_kind_of_expression() {
        assert!(variables("docs://readme").is_empty());
        assert_eq!(variables("db://{table}/{id}"), ["table", "id"]);
        assert_eq!(variables("db://{a,b}{/parts*}{?q,limit:3}"), ["a", "b", "parts", "q", "limit"]);
    }
}
