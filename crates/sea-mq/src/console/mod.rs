//! The console.

use std::sync::Arc;

use axum::Router;

use crate::serve::App;

/// What the pages share.
#[derive(Default)]
pub struct Shared {}

pub fn router() -> Router<Arc<App>> {
    Router::new()
}
