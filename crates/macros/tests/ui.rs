//! What authors read when they use an attribute in a way that it does not allow.
//!
//! `TRYBUILD=overwrite cargo test --package stentor-macros --test ui` writes the snapshots again.

#[test]
fn mistakes_are_explained_where_they_are_made() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
