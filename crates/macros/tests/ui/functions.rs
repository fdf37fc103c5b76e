//! Functions that cannot be items.

// Stands in for the door, which is above this crate.
extern crate self as stentor;
struct Tool;
struct Resource;

struct Database;

#[stentor_macros::tool]
fn not_async() {}

#[stentor_macros::tool]
async fn generic<T>(value: T) {}

impl Database {
    #[stentor_macros::tool]
    async fn method(&self, id: u64) {}
}

#[stentor_macros::tool]
struct NoFunction;

#[stentor_macros::resource("docs://readme")]
fn several_mistakes(text: &str) {}

fn main() {
    // No second error says that this does not exist.
    let _ = not_async();
}
