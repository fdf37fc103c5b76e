//! Nothing but the snippets of `docs/EMBEDDING.md`, which are compiled with the examples.

#[cfg(doctest)]
#[doc = include_str!("../docs/EMBEDDING.md")]
struct Embedding;
