use serde::Deserialize;
use stentor_engine::tool;

#[derive(Deserialize)]
struct Args {
    name: String,
}

async fn greet(args: Args) -> String {
    args.name
}

fn main() {
    tool("greet", greet);
}
