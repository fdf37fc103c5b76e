//! Parameters that clients cannot send.

// Stands in for the door, which is above this crate.
extern crate self as stentor;
struct Tool;
struct Resource;
struct ResourceTemplate;

#[stentor_macros::tool]
async fn pattern((a, b): (i64, i64)) {}

#[stentor_macros::tool]
async fn no_name(_: i64) {}

#[stentor_macros::tool]
async fn borrowed(text: &str, more: Vec<&'static str>, ctx: &Context) {}

#[stentor_macros::tool]
async fn two_of_all(#[args] one: One, #[args] other: Other) {}

#[stentor_macros::tool]
async fn all_and_one(#[args] all: All, one: i64) {}

#[stentor_macros::tool]
async fn both_marks(#[args] #[extract] all: All) {}

#[stentor_macros::tool]
async fn mark_with_value(#[args(all)] all: All) {}

#[stentor_macros::tool]
async fn not_an_argument(#[serde(default)] ctx: Context) {}

#[stentor_macros::resource("db://users/{id}")]
async fn unknown_variable(id: u64, name: String) {}

#[stentor_macros::resource("docs://readme")]
async fn no_variables(id: u64) {}

fn main() {}
