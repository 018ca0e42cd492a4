//! The console: pages that the server renders, and that work without JavaScript.

mod act;
mod assets;
mod endpoints;
mod history;
mod login;
mod pages;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::rest::request::Ctx;
use crate::serve::App;

pub use history::{History, sample};

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(pages::overview))
        .route("/streams", get(pages::streams))
        .route("/streams/{name}", get(pages::stream))
        .route("/subscriptions", get(pages::subscriptions))
        .route("/subscriptions/{name}", get(pages::subscription))
        .route("/subscriptions/{name}/pause", post(act::pause))
        .route("/subscriptions/{name}/resume", post(act::resume))
        .route("/dead-letters", get(pages::letters))
        .route("/dead-letters/replay", get(pages::confirm_replay).post(act::replay_all))
        .route("/dead-letters/{id}", get(pages::letter))
        .route("/dead-letters/{id}/replay", post(act::replay))
        .route("/dead-letters/{id}/discard", post(act::discard))
        .route("/contracts", get(pages::contracts))
        .route("/endpoints", get(endpoints::endpoints))
        .route("/endpoints/{name}", get(endpoints::endpoint))
        .route("/endpoints/{name}/pause", post(endpoints::pause))
        .route("/endpoints/{name}/resume", post(endpoints::resume))
        .route("/endpoints/{name}/redeliver", post(endpoints::redeliver))
        .route("/login", get(login::form).post(login::login))
        .route("/logout", post(login::logout))
        .route("/data/rates", get(history::rates))
        .route("/assets/{name}", get(assets::asset))
        .layer(axum::middleware::map_response(guarded))
}

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Who looks at a page: by the cookie alone. Who is not known is led to the form.
pub struct Viewer(pub Ctx);

impl axum::extract::FromRequestParts<Arc<App>> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, app: &Arc<App>) -> Result<Self, Response> {
        if app.guard.session(&parts.headers).is_none() {
            return Err(Redirect::to(&app.link("/login")).into_response());
        }
        Ctx::from_request_parts(parts, app).await.map(Self).map_err(IntoResponse::into_response)
    }
}

/// Whether a form was sent by a page of ours: the cookie is not sent from elsewhere, and this does not rely on it.
pub fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (None, None, _) => true,
        (None, Some(_), None) => false,
    }
}
