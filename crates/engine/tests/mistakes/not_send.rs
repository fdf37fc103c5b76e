use std::rc::Rc;

use stentor_engine::{Context, tool};

async fn greet(ctx: Context) -> String {
    let name = Rc::new("Ann");
    ctx.cancelled().await;
    name.to_string()
}

fn main() {
    tool("greet", greet);
}
