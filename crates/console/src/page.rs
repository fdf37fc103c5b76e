//! The files of the page. They are in the binary, which brings all that the page needs. Each finds the others
//! beside itself, so the console may be nested below any path.

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

macro_rules! files {
    ($($path:literal: $file:literal $kind:literal,)*) => {
        pub(crate) fn routes() -> Router {
            Router::new().route("/", get(index))$(.route(
                $path,
                get(|| async { file($kind, include_str!(concat!("../assets/", $file))) }),
            ))*
        }
    };
}

files! {
    "/console.css": "console.css" "text/css; charset=utf-8",
    "/console.js": "console.js" "text/javascript; charset=utf-8",
    "/lib.js": "lib.js" "text/javascript; charset=utf-8",
    "/overview.js": "overview.js" "text/javascript; charset=utf-8",
    "/sessions.js": "sessions.js" "text/javascript; charset=utf-8",
    "/views.js": "views.js" "text/javascript; charset=utf-8",
}

/// The page names its files relative to itself. Nested below a path it has a URL without a slash at the
/// end, and they are below that.
async fn index(OriginalUri(uri): OriginalUri) -> impl IntoResponse {
    let page = include_str!("../assets/index.html");
    let below = uri.path().rsplit('/').next().unwrap_or_default();
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-_.~".contains(&it);
    let text = match below.bytes().all(is_plain) && !below.is_empty() {
        true => page.replace("=\"console.", &format!("=\"{below}/console.")),
        false => page.to_owned(),
    };
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], text)
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind)], text)
}
