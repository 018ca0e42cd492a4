//! REST: `/v1`.

pub mod dead_letters;
mod endpoint_shapes;
pub mod endpoints;
pub mod entity_links;
pub mod event_types;
pub mod events;
pub mod openapi;
pub mod operation;
pub mod partners;
pub mod problem;
pub mod request;
pub mod shapes;
pub mod status;
pub mod streams;
pub mod subscriptions;
pub mod tail;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use crate::serve::App;
use operation::Operation;
use problem::Problem;

/// Every operation there is.
pub fn operations() -> Vec<Operation> {
    [
        events::operations(),
        streams::operations(),
        subscriptions::operations(),
        dead_letters::operations(),
        event_types::operations(),
        partners::operations(),
        endpoints::operations(),
        entity_links::operations(),
        status::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The OpenAPI document as text.
pub fn document() -> String {
    let mut text = openapi::document(&operations()).to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The routes under `/v1`.
pub fn router(body_limit: usize, batch_limit: usize) -> Router<Arc<App>> {
    let mut routes: Vec<(&'static str, MethodRouter<Arc<App>>)> = Vec::new();
    for operation in operations() {
        match routes.iter_mut().find(|(path, _)| *path == operation.path) {
            Some((_, route)) => *route = std::mem::take(route).merge(operation.handler),
            None => routes.push((operation.path, operation.handler)),
        }
    }
    let document: Arc<str> = document().into();
    let served = get(move || {
        let document = Arc::clone(&document);
        async move { request::answer(axum::http::StatusCode::OK, document.to_string()) }
    });
    let mut router = Router::new().route("/openapi.json", served);
    for (path, route) in routes {
        let limit = if path == "/event-batches" { batch_limit } else { body_limit };
        router = router.route(path, route.layer(DefaultBodyLimit::max(limit)));
    }
    router.fallback(unknown)
}

async fn unknown() -> Result<Response, Problem> {
    Err(Problem::new(axum::http::StatusCode::NOT_FOUND, "there is nothing here").hint("See /v1/openapi.json."))
}
