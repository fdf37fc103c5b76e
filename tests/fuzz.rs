//! The targets of `fuzz/` on stable: on their seeds, and on seeds that are changed at random.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library of its own")]
mod targets;

/// What is put into an input: what parsers look for, and what they may not expect.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"0.5",
    b"99999999999999999999",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"%",
    b"%2F",
    b"\xff",
    b"\xc3\xa9",
    b"/..",
    b"=?base64?",
];

/// An input, shown as text when it fails.
#[derive(Clone)]
struct Input(Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A seed in which parts are replaced by other parts of seeds, by pieces, and by any bytes.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let part = (select(seeds.clone()), any::<[Index; 2]>()).prop_map(|(seed, ends)| {
        let [start, end] = ends.map(|end| end.index(seed.len() + 1));
        seed.get(start..end).unwrap_or_default().to_vec()
    });
    let piece = select(&PIECES[..]).prop_map(<[u8]>::to_vec);
    let new = prop_oneof![4 => piece, 1 => part, 1 => vec(any::<u8>(), 0..4)];
    let change = (any::<Index>(), 0_usize..8, new);
    (select(seeds), vec(change, 0..6)).prop_map(|(mut input, changes)| {
        for (start, len, new) in changes {
            let start = start.index(input.len() + 1);
            let end = input.len().min(start + len);
            input.splice(start..end, new);
        }
        Input(input)
    })
}

/// Runs a target on its seeds, and on this many changed ones.
fn holds(name: &str, target: fn(&[u8]), cases: u32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
    let entries = fs::read_dir(&folder).expect("the seeds of the target");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| fs::read(path).expect("a seed")).collect();
    for seed in &seeds {
        target(seed);
    }
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let run = |input: Input| {
        target(&input.0);
        Ok(())
    };
    let outcome = TestRunner::new(config).run(&changed(seeds), run);
    assert!(outcome.is_ok(), "{name}: {}", outcome.unwrap_err());
}

#[test]
fn any_message_is_read_or_refused_and_reads_the_same_once_it_is_encoded() {
    holds("message", targets::message, 2_000);
}

#[test]
fn any_parameters_are_read_or_refused() {
    holds("params", targets::params, 1_000);
}

#[test]
fn any_text_fits_into_a_header_and_is_read_from_it() {
    holds("headers", targets::headers, 2_000);
}

#[test]
fn any_schema_and_arguments_are_compared_with_any_headers() {
    holds("param_headers", targets::param_headers, 2_000);
}

#[test]
fn the_normal_form_of_any_text_is_its_own_normal_form() {
    holds("uri", targets::uri, 2_000);
}

#[test]
fn any_id_is_written_as_it_is_read() {
    holds("ids", targets::ids, 2_000);
}

#[test]
fn any_template_is_refused_or_matches_uris() {
    holds("template", targets::template, 100);
}

#[test]
fn any_http_request_is_answered_and_none_is_an_internal_error() {
    holds("http", targets::http, 200);
}

#[test]
fn any_cursor_is_refused_or_continues_a_stream() {
    holds("cursor", targets::cursor, 200);
}
