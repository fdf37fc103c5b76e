use stentor_engine::tool;

fn greet() -> String {
    String::new()
}

fn main() {
    tool("greet", greet);
}
