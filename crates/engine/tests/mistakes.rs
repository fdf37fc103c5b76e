//! What the compiler says about the commonest mistakes of an author.

/// The compiler whose words are compared: those of another one may differ.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn a_mistake_is_explained() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output().expect("a compiler");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if version.starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
    } else {
        eprintln!("not compared: this is {version}");
    }
}
