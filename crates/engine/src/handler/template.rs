//! URI templates (RFC 6570), matched backwards: from a URI to the values of the variables.

use std::fmt::Write as _;

use regex::Regex;
use stentor_wire::uri;

use super::TemplateVars;

/// Why a URI template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A brace has no counterpart.
    #[error("the URI template '{0}' has a brace without its counterpart")]
    Brace(String),
    /// An expression is invalid, or no URI can tell what its variables were.
    #[error("the expression '{expression}' of a URI template {why}")]
    Expression {
        /// The expression with its braces.
        expression: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The template has more or longer expressions than can be matched.
    #[error("the URI template is too large")]
    TooLarge,
}

/// A template that URIs are matched against.
///
/// Literals and URIs are compared in their [normal form](uri::normal), so that differences in
/// escaping do not matter. Matching takes time in proportion to the length of the URI.
#[derive(Clone, Debug)]
pub(crate) struct UriTemplate {
    pattern: Regex,
    groups: Vec<Group>,
}

/// What one group of the pattern captures.
#[derive(Clone, Debug)]
enum Group {
    One(String),
    /// Pairs of these names and values, in any order, with this separator.
    Pairs(Vec<String>, char),
}

/// How the operator of an expression writes values (RFC 6570, appendix A).
#[derive(Clone, Copy)]
struct Operator {
    first: &'static str,
    separator: char,
    named: bool,
    /// The characters of a value, as the content of a regex class.
    value: &'static str,
}

const UNRESERVED: &str = r"A-Za-z0-9\-._~%";
const ANY: &str = r"!-~";

impl Operator {
    /// The operator of an expression, and the variables after it.
    fn of(expression: &str) -> (Self, &str) {
        let (first, separator, named, value) = match expression.chars().next() {
            Some('+') => ("", ',', false, ANY),
            Some('#') => ("#", ',', false, ANY),
            Some('.') => (".", '.', false, UNRESERVED),
            Some('/') => ("/", '/', false, UNRESERVED),
            // A character that should be escaped but is not is part of the value, unless it is a
            // separator.
            Some(';') => (";", ';', true, r"!-~--[#/;?]"),
            Some('?') => ("?", '&', true, r"!-~--[#&]"),
            Some('&') => ("&", '&', true, r"!-~--[#&]"),
            _ => {
                return (
                    Self { first: "", separator: ',', named: false, value: UNRESERVED },
                    expression,
                );
            }
        };
        (Self { first, separator, named, value }, &expression[1..])
    }

    /// Adds the pattern of an expression with these variables.
    fn put(
        self,
        names: &[String],
        explodes: bool,
        lazy: bool,
        out: &mut String,
        groups: &mut Vec<Group>,
    ) {
        let Self { first, separator, named, value } = self;
        let (first, between) =
            (regex::escape(first), regex::escape(separator.encode_utf8(&mut [0; 4])));
        if named {
            let known: Vec<_> =
                names.iter().map(|name| regex::escape(&uri::normal(name))).collect();
            let pair = format!("(?:{})(?:=[{value}]*)?", known.join("|"));
            let _ = write!(out, "(?:{first}({pair}(?:{between}{pair})*))?");
            groups.push(Group::Pairs(names.to_vec(), separator));
            return;
        }
        // Of several variables, only the last can be a list.
        let own =
            if names.len() > 1 { format!("[{value}]--[{between}]") } else { value.to_owned() };
        let last = if explodes { format!("{value}{between}") } else { own.clone() };
        let greedy = if lazy { "?" } else { "" };
        // A variable without a prefix always matches, if only as an empty text.
        let mut open = 0;
        for (index, name) in names.iter().enumerate() {
            let before = if index == 0 { &first } else { &between };
            if !before.is_empty() {
                out.push_str("(?:");
                out.push_str(before);
                open += 1;
            }
            let value = if index + 1 == names.len() { &last } else { &own };
            let _ = write!(out, "([{value}]*{greedy})");
            groups.push(Group::One(name.clone()));
        }
        out.push_str(&")?".repeat(open));
    }
}

impl UriTemplate {
    pub(crate) fn new(template: &str) -> Result<Self, TemplateError> {
        let unbalanced = || TemplateError::Brace(template.to_owned());
        let mut expressions = Vec::new();
        // The literals of a template are normalized as parts of a URI. For this, each expression is
        // replaced by a word that occurs nowhere else, and does not begin with a digit.
        let (mut word, bare) = ("word".to_owned(), uri::normal(template));
        while template.contains(&word) || bare.contains(&word) {
            word.push('x');
        }
        let (mut whole, mut rest) = (String::new(), template);
        while let Some((literal, behind)) = rest.split_once('{') {
            let (expression, behind) = behind.split_once('}').ok_or_else(unbalanced)?;
            if literal.contains('}') || expression.contains('{') {
                return Err(unbalanced());
            }
            let (operator, _) = Operator::of(expression);
            let _ = write!(whole, "{literal}{}{word}{}.", operator.first, expressions.len());
            expressions.push(expression);
            rest = behind;
        }
        if rest.contains('}') {
            return Err(unbalanced());
        }
        whole.push_str(rest);
        let normal = uri::normal(&whole);

        let (mut pattern, mut groups) = (r"(?-u)\A".to_owned(), Vec::new());
        let mut rest = &*normal;
        for (index, expression) in expressions.iter().enumerate() {
            let (operator, variables) = Operator::of(expression);
            let wrong =
                |why| TemplateError::Expression { expression: format!("{{{expression}}}"), why };
            let word = format!("{}{word}{index}.", operator.first);
            let Some((literal, behind)) = rest.split_once(&word) else {
                return Err(wrong("is behind a '..' that takes it away"));
            };
            let (names, explodes) = variables_of(variables, operator).map_err(wrong)?;
            pattern.push_str(&regex::escape(literal));
            // A value before a suffix ends where the suffix begins.
            let lazy = expressions.get(index + 1).is_some_and(|next| next.starts_with('.'))
                && behind.starts_with('.');
            operator.put(&names, explodes, lazy, &mut pattern, &mut groups);
            rest = behind;
        }
        pattern.push_str(&regex::escape(rest));
        pattern.push_str(r"\z");
        let pattern = Regex::new(&pattern).map_err(|_| TemplateError::TooLarge)?;
        Ok(Self { pattern, groups })
    }

    /// The variables of a URI in its normal form; `None` if the URI does not fit. A variable that
    /// the URI leaves out is not included.
    pub(crate) fn variables(&self, normal: &str) -> Option<TemplateVars> {
        let found = self.pattern.captures(normal)?;
        let mut vars = TemplateVars::new();
        for (index, group) in self.groups.iter().enumerate() {
            let Some(part) = found.get(index + 1) else { continue };
            match group {
                Group::One(name) => put(&mut vars, name, part.as_str())?,
                Group::Pairs(names, separator) => {
                    for pair in part.as_str().split(*separator) {
                        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                        let name = names.iter().find(|name| uri::normal(name) == key)?;
                        put(&mut vars, name, value)?;
                    }
                }
            }
        }
        Some(vars)
    }

    /// Whether there is a variable of this name.
    pub(crate) fn has(&self, variable: &str) -> bool {
        self.groups.iter().any(|group| match group {
            Group::One(name) => name == variable,
            Group::Pairs(names, _) => names.iter().any(|name| name == variable),
        })
    }

    pub(crate) fn fits(&self, normal: &str) -> bool {
        self.variables(normal).is_some()
    }
}

/// Adds a variable. `None` if the value is invalid, or if the variable has another value already.
fn put(vars: &mut TemplateVars, name: &str, part: &str) -> Option<()> {
    let value = uri::decode(part)?;
    match vars.get(name) {
        Some(before) => (*before == value).then_some(()),
        None => {
            vars.insert(name.to_owned(), value);
            Some(())
        }
    }
}

/// The names of an expression's variables, and whether the last variable is a list.
fn variables_of(text: &str, operator: Operator) -> Result<(Vec<String>, bool), &'static str> {
    let mut names = Vec::new();
    let mut explodes = false;
    for variable in text.split(',') {
        if explodes {
            return Err("has a variable behind one with '*', which takes all");
        }
        let name = variable.strip_suffix('*').unwrap_or(variable);
        explodes = name.len() < variable.len();
        if name.contains(':') {
            return Err("has a prefix (':'), from which no URI tells the whole variable");
        }
        if name.is_empty()
            || name.contains([
                '+', '#', '/', ';', '?', '&', '=', '!', '@', '|', '*', '"', '<', '>', '\\', '^',
                '`',
            ])
        {
            return Err(
                "is none of RFC 6570: '{var}', '{a,b}', with one of + # . / ; ? & in front, or a '*' behind",
            );
        }
        if explodes && operator.named {
            return Err("is a list of pairs ('*'), whose names nobody knows");
        }
        names.push(name.to_owned());
    }
    Ok((names, explodes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(template: &str, uri: &str) -> Option<Vec<(String, String)>> {
        let template = UriTemplate::new(template).unwrap();
        Some(template.variables(&uri::normal(uri))?.into_iter().collect())
    }

    fn is(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn every_kind_of_expression_is_read() {
        for (template, uri, vars) in [
            ("db://users/{id}", "db://users/7", is(&[("id", "7")])),
            ("db://users/{id}", "db://users/a%2Fb%20c", is(&[("id", "a/b c")])),
            ("db://users/{id}", "db://users/a/b", None),
            ("greeting://{name}", "greeting://José", is(&[("name", "José")])),
            ("greeting://{name}", "GREETING://Jos%c3%a9", is(&[("name", "José")])),
            ("my docs://{a}", "my%20docs://x", is(&[("a", "x")])),
            ("x://ü/{a}/my file", "x://%C3%BC/1/my%20file", is(&[("a", "1")])),
            ("x://%C3%BC/{a}/my%20file", "x://ü/1/my file", is(&[("a", "1")])),
            ("file:///{+path}", "file:///a/b%20c", is(&[("path", "a/b c")])),
            ("file:///{+path}", "file:///a/b c?d#e", is(&[("path", "a/b c?d#e")])),
            ("file:///{+path}", "file:///x/../../a", is(&[("path", "a")])),
            ("https://example.com{?q}", "HTTPS://Example.com?q=1", is(&[("q", "1")])),
            (
                "https://{tenant}.example.com/a",
                "https://acme.example.com/a",
                is(&[("tenant", "acme")]),
            ),
            ("x://s{?q,limit}", "x://s?q=a%26b&limit=5", is(&[("limit", "5"), ("q", "a&b")])),
            ("x://s{?q,limit}", "x://s?limit=5&q=a/b@c", is(&[("limit", "5"), ("q", "a/b@c")])),
            ("x://s{?q,limit}", "x://s?limit=5", is(&[("limit", "5")])),
            ("x://s{?q,limit}", "x://s", is(&[])),
            ("x://s{?q,limit}", "x://s?q=", is(&[("q", "")])),
            ("x://s{?q,limit}", "x://s?q=1&other=2", None),
            ("x://s{?q,limit}", "x://s?q=1&q=2", None),
            ("x://s{?q}{&page}", "x://s?q=1&page=2", is(&[("page", "2"), ("q", "1")])),
            ("x://s?fixed=1{&q}", "x://s?fixed=1&q=2", is(&[("q", "2")])),
            ("x://h{/parts*}", "x://h/a/b%20c", is(&[("parts", "a/b c")])),
            ("x://h{/parts*}", "x://h", is(&[])),
            ("x://h{/a,b}", "x://h/1/2", is(&[("a", "1"), ("b", "2")])),
            ("x://h{/a,b}", "x://h/1", is(&[("a", "1")])),
            ("x://h{/a,rest*}", "x://h/1/2/3", is(&[("a", "1"), ("rest", "2/3")])),
            ("x://f/{name}{.ext}", "x://f/report.pdf", is(&[("ext", "pdf"), ("name", "report")])),
            ("x://f/{name}{.ext}", "x://f/report", is(&[("name", "report")])),
            ("x://f/{name}{.ext}", "x://f/a.tar.gz", is(&[("ext", "tar.gz"), ("name", "a")])),
            ("x://f/{name}.{ext}", "x://f/a.b.gz", is(&[("ext", "gz"), ("name", "a.b")])),
            ("x://p{;x,y}", "x://p;x=1;y=2", is(&[("x", "1"), ("y", "2")])),
            ("x://p{;x,y}", "x://p;y", is(&[("y", "")])),
            ("x://d{#frag}", "x://d#a/b%20c", is(&[("frag", "a/b c")])),
            ("x://d{#frag}", "x://d", is(&[])),
            ("x://map/{x,y}", "x://map/1,2", is(&[("x", "1"), ("y", "2")])),
            ("x://all/{list*}", "x://all/1,2", is(&[("list", "1,2")])),
            ("x://{a}/{a}", "x://1/1", is(&[("a", "1")])),
            ("x://{a}/{a}", "x://1/2", None),
            ("x://word/{user-id}/word0.", "x://word/7/word0.", is(&[("user-id", "7")])),
            ("x://100%4{a}", "x://100%254e", is(&[("a", "e")])),
            ("x://bad/{id}", "x://bad/%FF", None),
        ] {
            assert_eq!(read(template, uri), vars, "{template} {uri}");
        }
    }

    #[test]
    fn an_expression_that_could_never_match_is_refused_and_named() {
        for (template, named) in [
            ("x://s{?q*}", "{?q*}"),
            ("x://s{;q*}", "{;q*}"),
            ("x://{a:3}", "{a:3}"),
            ("x://{=a}", "{=a}"),
            ("x://{!a}", "{!a}"),
            ("x://{}", "{}"),
            ("x://{a,}", "{a,}"),
            ("x://{a*,b}", "{a*,b}"),
            ("x://h/{a}/../b", "{a}"),
        ] {
            let Err(TemplateError::Expression { expression, .. }) = UriTemplate::new(template)
            else {
                panic!("{template}");
            };
            assert_eq!(expression, named, "{template}");
        }
        for template in ["x://{a", "x://a}", "x://{a{b}}", "x://}{a}"] {
            assert!(
                matches!(UriTemplate::new(template), Err(TemplateError::Brace(_))),
                "{template}"
            );
        }
    }

    /// Expands an expression, as a client does.
    fn expand(operator: &str, vars: &[(&str, &str)]) -> String {
        let keeps_reserved = ["+", "#"].contains(&operator);
        let value = |text: &str| {
            text.bytes().fold(String::new(), |mut out, byte| {
                let kept = byte.is_ascii_alphanumeric()
                    || b"-._~".contains(&byte)
                    || keeps_reserved && b":/?#[]@!$&'()*+,;=".contains(&byte);
                let _ =
                    if kept { write!(out, "{}", byte as char) } else { write!(out, "%{byte:02X}") };
                out
            })
        };
        let (first, separator) = match operator {
            "" | "+" => ("", ","),
            "#" => ("#", ","),
            "?" | "&" => (operator, "&"),
            other => (other, other),
        };
        let parts: Vec<_> = vars
            .iter()
            .map(|(name, text)| match operator {
                ";" if text.is_empty() => (*name).to_owned(),
                ";" | "?" | "&" => format!("{name}={}", value(text)),
                _ => value(text),
            })
            .collect();
        format!("{first}{}", parts.join(separator))
    }

    proptest! {
        #[test]
        fn variables_of_an_expanded_template_are_read_back(
            operator in prop::sample::select(vec!["", "+", "#", ".", "/", ";", "?", "&"]),
            value in "[ -~ü/%.]{1,12}",
            second in "[a-zé%&=]{1,12}",
            literal in "[a-zü ]{0,5}",
        ) {
            // A segment of only dots refers to another path.
            prop_assume!(operator != "/" && !operator.is_empty() || !["." , ".."].contains(&&*value));
            prop_assume!(!value.split('/').any(|part| [".", ".."].contains(&part)));
            let vars = [("v", &*value), ("w", &*second)];
            let start = format!("x://h/{literal}");
            let one = format!("{start}{}", expand(operator, &vars[..1]));
            prop_assert_eq!(read(&format!("{start}{{{operator}v}}"), &one), is(&vars[..1]), "{}", one);
            // A separator that is not escaped cannot be distinguished from a part of a value.
            if !(["+", "#"].contains(&operator) && value.contains(',') || operator == "." && value.contains('.')) {
                let two = format!("{start}{}", expand(operator, &vars));
                prop_assert_eq!(read(&format!("{start}{{{operator}v,w}}"), &two), is(&vars), "{}", two);
            }
        }

        #[test]
        fn no_template_and_no_uri_panic(template in r"[a:/{}+#.;?&,*a-c]{0,20}", uri in ".{0,20}") {
            if let Ok(template) = UriTemplate::new(&template) {
                template.variables(&uri::normal(&uri));
            }
        }
    }
}
