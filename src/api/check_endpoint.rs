//! `sea_mq.check_endpoint`: one request of a session of its own, step by step. The dispatcher has no part in it, so an endpoint
//! that is paused or refused can be checked.

use std::time::{Duration, Instant};

use pgrx::{PgSqlErrorCode, pg_sys};
use uuid::Uuid;

use crate::deliver::endpoints::{self, Described};
use crate::deliver::network::network;
use crate::host::door::as_owner;
use crate::host::session;
use crate::sys::datum::{nullable_text, return_set, sql_function, text_datum};
use crate::sys::error::raise;
use sea_mq_io::http::target::{Answered, Attempt};
use sea_mq_io::http::{self, Report, Request};
use sea_mq_model::deliver::outcome::{Answer, FaultKind};

/// Between two looks whether the statement was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// A step, whether it succeeded (`None`: it was not come to), and what is to be known of it.
type Step = (&'static str, Option<bool>, Option<String>);

sql_function!(check_endpoint_wrapper, pg_finfo_check_endpoint_wrapper, |call| {
    let name = call.text(0).unwrap_or_default();
    let described = as_owner(|| endpoints::all().into_iter().find(|one| one.name == name));
    let Some(described) = described else {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("there is no endpoint \"{name}\""),
            "See sea_mq.endpoints.",
        )
    };
    let steps = check(&described);
    return_set(call, |row| {
        for (step, ok, detail) in steps {
            let (detail, no_detail) = nullable_text(detail.as_deref());
            let mut values = [text_datum(step), pg_sys::Datum::from(ok.unwrap_or_default()), detail];
            row(&mut values, &mut [false, ok.is_none(), no_detail]);
        }
    })
});

fn check(described: &Described) -> Vec<Step> {
    let refused = |step, error| vec![(step, Some(false), Some(error))];
    let network = match network() {
        Ok(network) => network,
        Err(error) => return refused("settings", error),
    };
    let target = match described.target() {
        Ok(target) => target,
        Err(error) => return refused("secrets", error),
    };
    let limit = target.timeout + target.connect_timeout;
    let io = match http::spawn(network) {
        Ok(io) => io,
        Err(error) => return refused("settings", error.to_string()),
    };
    io.send(Request::Describe { endpoint: described.id, target: Box::new(target) });
    let id = Uuid::now_v7();
    let body = serde_json::json!({ "type": "ping", "timestamp": as_owner(endpoints::now), "data": { "endpoint": described.name } });
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let attempt = Attempt { id: id.to_string(), body: body.to_string().into(), headers };
    io.send(match described.is_broker() {
        // What it stores stays there, so it is asked and not sent anything.
        true => Request::Ask { token: 0, endpoint: described.id, subjects: described.subject_filters.clone() },
        false => Request::Send { token: 0, endpoint: described.id, attempt },
    });
    let begin = Instant::now();
    loop {
        match io.try_recv() {
            Some(Report::Answered { answered, .. }) => return steps(&answered),
            Some(Report::Ended(error)) => return refused("settings", error),
            None if begin.elapsed() > limit + LOOK => return refused("answers", "no answer".into()),
            None => {}
        }
        session::wait(Some(io.wake_fd()), LOOK);
        io.clear_wake();
        pgrx::check_for_interrupts!();
    }
}

/// How far it came.
fn steps(answered: &Answered) -> Vec<Step> {
    const STEPS: [&str; 5] = ["secrets", "resolves", "connects", "tls", "answers"];
    let failed_at = match answered.answer {
        Answer::Fault(FaultKind::Credentials) => 0,
        Answer::Fault(FaultKind::Dns | FaultKind::Blocked) => 1,
        Answer::Fault(FaultKind::Connect) => 2,
        Answer::Fault(FaultKind::Tls | FaultKind::Certificate) => 3,
        Answer::Fault(
            FaultKind::Timeout
            | FaultKind::Broken
            | FaultKind::Full
            | FaultKind::NoStream
            | FaultKind::Forbidden
            | FaultKind::Unsendable,
        ) => 4,
        Answer::Status { code: 200..=299, .. } | Answer::Stored => STEPS.len(),
        Answer::Status { .. } => 4,
    };
    let detail = match answered.answer {
        Answer::Status { code, .. } => Some(format!("HTTP {code} after {} ms", answered.duration.as_millis())),
        Answer::Stored => answered.response.clone(),
        Answer::Fault(_) => answered.error.clone(),
    };
    let step = |(place, step)| {
        let ok = if place > failed_at { None } else { Some(place < failed_at) };
        let told = place == failed_at || (failed_at == STEPS.len() && place == STEPS.len() - 1);
        (step, ok, if told { detail.clone() } else { None })
    };
    STEPS.into_iter().enumerate().map(step).collect()
}
