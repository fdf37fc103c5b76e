use stentor_engine::{Context, tool};

async fn greet(ctx: &Context) -> String {
    ctx.uri().to_owned()
}

fn main() {
    tool("greet", greet);
}
