//! What the compiler says about the commonest mistakes of an author.

#[test]
fn a_mistake_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
