//! The log: one JSON object a line, on standard error.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::auth::Caller;
use crate::rest::problem::Problem;
use crate::rest::request::Ids;

/// Where a handler leaves word of who the caller is.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Caller>>>);

impl Slot {
    pub fn set(&self, caller: &Caller) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = Some(caller.clone());
        }
    }

    pub fn get(&self) -> Option<Caller> {
        self.0.lock().ok().and_then(|slot| slot.clone())
    }
}

/// A request that was answered.
pub struct Line<'a> {
    pub ids: &'a Ids,
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub took: Duration,
    pub caller: Option<Caller>,
    pub problem: Option<&'a Problem>,
}

pub fn request(line: &Line) {
    let (role, actor) = line.caller.as_ref().map(|caller| (&caller.role, &caller.label)).unzip();
    write(&json!({
        "level": if line.status >= 500 { "error" } else { "info" },
        "request_id": line.ids.request,
        "correlation_id": line.ids.correlation,
        "method": line.method,
        "path": line.path,
        "status": line.status,
        "ms": (line.took.as_secs_f64() * 1e4).round() / 10.0,
        "role": role,
        "actor": actor,
        "sqlstate": line.problem.and_then(|problem| problem.sqlstate.as_ref()),
        "error": line.problem.map(|problem| problem.hidden.as_deref().unwrap_or(&problem.message)),
    }));
}

/// Something that is not about one request.
pub fn event(level: &str, message: &str) {
    write(&json!({"level": level, "message": message}));
}

/// Something that somebody did and that is to be found later.
pub fn act(ids: &Ids, caller: &Caller, what: &str) {
    write(
        &json!({"level": "notice", "request_id": ids.request, "role": caller.role, "actor": caller.label, "act": what}),
    );
}

fn write(line: &serde_json::Value) {
    let mut text = line.to_string();
    text.push('\n');
    // Nobody can be told that the log is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
