//! `/status`, `/problems`, `/me`.

use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use super::operation::{Answer, Operation};
use super::problem::Problem;
use super::request::{Ctx, Names, answer};
use super::shapes::{ME, PROBLEM, STATUS};
use crate::db::call::Ask;
use crate::db::pool::Access;

pub fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/status", get(status))
            .says("Is everything all right, and if not, what")
            .roles(&["viewer", "operator", "monitor"])
            .answers(Answer::Object(STATUS)),
        Operation::get("/problems", get(problems))
            .says("What is wrong, the most urgent first")
            .roles(&["operator", "monitor"])
            .answers(Answer::Page(PROBLEM)),
        Operation::get("/me", get(me)).says("What the caller may").answers(Answer::Object(ME)),
    ]
}

async fn status(ctx: Ctx) -> Result<Response, Problem> {
    let of = |view: &str| Ask::new(format!("SELECT * FROM {view}")).rows_of();
    let rows = ctx.rows_or(Names::InBody, of("sea_mq.status"), of("sea_mq.overview")).await?;
    Ok(answer(StatusCode::OK, rows.into_iter().next().unwrap_or_default()))
}

async fn problems(ctx: Ctx) -> Result<Response, Problem> {
    let ask = Ask::new("SELECT * FROM sea_mq.problems p ORDER BY p.rank, p.problem LIMIT 1000").rows_of();
    let rows = ctx.rows(Access::Read, Names::InBody, ask).await?;
    Ok(answer(StatusCode::OK, format!("{{\"items\":[{}],\"next\":null}}", rows.join(","))))
}

/// Asks the catalogs alone, which everybody may read.
pub const ASK_ME: &str = "SELECT current_user AS role, current_setting('sea_mq.actor', true) AS actor,
    ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname ~ '^sea_mq_(producer|consumer|operator|monitor|viewer)$'
        AND pg_catalog.pg_has_role(current_user, r.oid, 'USAGE') ORDER BY 1) AS roles,
    ARRAY(SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'sea_mq' AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1) AS functions";

async fn me(ctx: Ctx) -> Result<Response, Problem> {
    let row = ctx.one(Access::Read, Ask::new(ASK_ME).rows_of(), "").await?;
    Ok(answer(StatusCode::OK, row))
}
