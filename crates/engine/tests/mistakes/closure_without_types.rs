use stentor_engine::tool;

fn main() {
    tool("greet", |ctx| async move { "hello" });
}
