use stentor_engine::tool;

struct Greeting {
    text: String,
}

async fn greet() -> Greeting {
    Greeting { text: String::new() }
}

fn main() {
    tool("greet", greet);
}
