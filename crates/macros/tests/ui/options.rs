//! Options that are not there.

// Stands in for the door, which is above this crate.
extern crate self as stentor;
struct Tool;
struct Resource;

impl Tool {
    fn title(self, _title: &str) -> Self {
        self
    }
}

fn tool<F>(_name: &str, _function: F) -> Tool {
    Tool
}

#[stentor_macros::tool(title = "one", title = "two")]
async fn twice() {}

#[stentor_macros::tool(name)]
async fn no_value() {}

#[stentor_macros::tool("docs://readme")]
async fn no_uri() {}

#[stentor_macros::tool(titel = "one")]
async fn no_setter() {}

#[stentor_macros::resource(name = "readme")]
async fn needs_a_uri() {}

#[stentor_macros::tool(title = )]
async fn unfinished() {}

fn main() {}
