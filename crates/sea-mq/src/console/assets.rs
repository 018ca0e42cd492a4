//! What pages load: compiled in.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

pub async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "uplot.js" => ("text/javascript; charset=utf-8", include_str!("../../assets/uplot.js")),
        "console.js" => ("text/javascript; charset=utf-8", include_str!("../../assets/console.js")),
        "uplot.css" => ("text/css; charset=utf-8", include_str!("../../assets/uplot.css")),
        "console.css" => ("text/css; charset=utf-8", include_str!("../../assets/console.css")),
        "icon.svg" => ("image/svg+xml", include_str!("../../assets/icon.svg")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text).into_response()
}
