use stentor_engine::tool;

struct OutOfPaper;

async fn print() -> Result<String, OutOfPaper> {
    Err(OutOfPaper)
}

fn main() {
    tool("print", print);
}
