//! Logging in: as a role of the database, which proves its password to the database.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::view::{Frame, html};
use crate::auth::{COOKIE, seal};
use crate::serve::App;
use crate::serve::log;

#[derive(Template)]
#[template(path = "login.html")]
struct Page {
    frame: Frame,
}

#[derive(Deserialize)]
pub struct Login {
    role: String,
    password: String,
}

pub async fn form(State(app): State<Arc<App>>) -> Response {
    html(&Page { frame: Frame::outside(app.link(""), "Log in") })
}

pub async fn login(State(app): State<Arc<App>>, headers: HeaderMap, Form(login): Form<Login>) -> Response {
    if !super::is_own(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    match prove(&app, &login).await {
        Ok(sealed) => {
            log::event("notice", &format!("role {:?} has logged in with the console", login.role));
            let secure = if app.options.tls_cert.is_some() { "; Secure" } else { "" };
            let path = app.link("/");
            let cookie =
                format!("{COOKIE}={sealed}; Path={path}; Max-Age={}; HttpOnly; SameSite=Strict{secure}", seal::LASTS);
            ([(header::SET_COOKIE, cookie)], Redirect::to(&path)).into_response()
        }
        Err(why) => {
            log::event("warning", &format!("role {:?} has not logged in with the console: {why}", login.role));
            let mut frame = Frame::outside(app.link(""), "Log in");
            frame.error = "This role and password are not known, or the role may not log in here.".into();
            let mut response = html(&Page { frame });
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            response
        }
    }
}

/// One connection with the password, and one with another: where that is taken as well, nothing was proved.
async fn prove(app: &App, login: &Login) -> Result<String, String> {
    connects(app, &login.role, &login.password).await?;
    if connects(app, &login.role, &Uuid::new_v4().to_string()).await.is_ok() {
        return Err("the server asks this role for no password: see pg_hba.conf".into());
    }
    app.guard.sealer.seal(&login.role).ok_or_else(|| "the session cannot be sealed".into())
}

async fn connects(app: &App, role: &str, password: &str) -> Result<(), String> {
    let mut config = app.target.config.clone();
    config.user(role).password(password);
    let (client, connection) = config.connect(app.target.tls.clone()).await.map_err(|error| error.to_string())?;
    drop(client);
    // Ends with the client.
    connection.await.map_err(|error| error.to_string())
}

pub async fn logout(State(app): State<Arc<App>>) -> Response {
    let cookie = format!("{COOKIE}=; Path={}; Max-Age=0; HttpOnly; SameSite=Strict", app.link("/"));
    ([(header::SET_COOKIE, cookie)], Redirect::to(&app.link("/login"))).into_response()
}
