//! The setters of a struct.

use stentor_macros::Setters;

#[derive(Clone, Debug, Default, PartialEq, Setters)]
struct Config {
    /// The path.
    pub path: String,
    pub timeout: Option<u64>,
    hidden: bool,
}

#[derive(Debug, Setters)]
#[setters(own_new)]
struct Named {
    pub name: String,
}

impl Named {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

#[test]
fn each_public_field_has_a_setter_and_all_others_keep_their_defaults() {
    let config = Config::new().path("/a").timeout(Some(3));
    assert_eq!(config, Config { path: "/a".to_owned(), timeout: Some(3), hidden: false });
}

#[test]
fn a_struct_that_needs_values_has_its_own_constructor() {
    assert_eq!(Named::new("one").name("two").name, "two");
}
