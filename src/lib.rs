//! sea_mq: transactional messaging for PostgreSQL over NATS JetStream.
//!
//! This crate is the extension: all that touches PostgreSQL, and the only one with `pgrx`. What is decided, and what talks to
//! the network, has crates of its own:
//!
//! * **`sea_mq_model`**: values and decisions; neither PostgreSQL nor NATS;
//! * **`sea_mq_io`**: the I/O threads, and the only crate with `async-nats`.
//!
//! ```text
//! SQL emit ─► api ─► emit::pending ─(pre-commit)─► log::outbox ─► workers::relay ─► NATS
//! NATS ─► workers::consumer ─► inbox::handler ─► inbox: processed │ retry │ dead letter
//! ```
//!
//! Its storeys are folders, and imports go down: `sys`, `host`, `log`, `registry`, `streams`, `emit`, `inbox`, `workers`, `api`;
//! `scripts/storeys.py` checks that. Only the main thread of a process is in here, and nothing in it waits for the network.
//!
//! `docs/concepts.md` has the reasoning behind the log and its cursor, `docs/inbox.md` the states of a message.

mod api;
mod commit;
mod deliver;
mod emit;
mod host;
mod inbox;
mod init;
mod log;
mod registry;
mod streams;
mod sys;
mod workers;

::pgrx::pg_module_magic!();

::pgrx::extension_sql_file!("../sql/01_schema.sql", name = "schema", bootstrap);
::pgrx::extension_sql_file!("../sql/02_outbox.sql", name = "outbox", requires = ["schema"]);
::pgrx::extension_sql_file!("../sql/03_streams.sql", name = "streams", requires = ["outbox"]);
::pgrx::extension_sql_file!("../sql/03_unpublished.sql", name = "unpublished", requires = ["streams"]);
::pgrx::extension_sql_file!("../sql/04_emit.sql", name = "emit", requires = ["unpublished"]);
::pgrx::extension_sql_file!("../sql/05_manage.sql", name = "manage", requires = ["emit"]);
::pgrx::extension_sql_file!("../sql/05_endpoint_readers.sql", name = "endpoint_readers", requires = ["manage"]);
::pgrx::extension_sql_file!("../sql/06_subscriptions.sql", name = "subscriptions", requires = ["endpoint_readers"]);
::pgrx::extension_sql_file!("../sql/07_inbox.sql", name = "inbox", requires = ["subscriptions"]);
::pgrx::extension_sql_file!("../sql/08_dlq.sql", name = "dlq", requires = ["inbox"]);
::pgrx::extension_sql_file!("../sql/09_inbox_views.sql", name = "inbox_views", requires = ["dlq"]);
::pgrx::extension_sql_file!("../sql/09_endpoint_problems.sql", name = "endpoint_problems", requires = ["inbox_views"]);
::pgrx::extension_sql_file!("../sql/10_views.sql", name = "views", requires = ["endpoint_problems"]);
::pgrx::extension_sql_file!("../sql/11_contracts.sql", name = "contracts", requires = ["views"]);
::pgrx::extension_sql_file!("../sql/12_lint.sql", name = "lint", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/13_capture.sql", name = "capture", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/13_capture_table.sql", name = "capture_table", requires = ["capture"]);
::pgrx::extension_sql_file!("../sql/14_ingest.sql", name = "ingest", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/15_edge.sql", name = "edge", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/16_operate.sql", name = "operate", requires = ["views", "dlq"]);
::pgrx::extension_sql_file!("../sql/17_pages.sql", name = "pages", requires = ["operate"]);
::pgrx::extension_sql_file!("../sql/18_metrics.sql", name = "metrics", requires = ["operate"]);
::pgrx::extension_sql_file!("../sql/17_links.sql", name = "links", requires = ["outbox"]);
::pgrx::extension_sql_file!("../sql/18_questions.sql", name = "questions", requires = ["inbox", "contracts"]);
::pgrx::extension_sql_file!("../sql/19_endpoints.sql", name = "endpoints", requires = ["operate", "ingest", "edge"]);
::pgrx::extension_sql_file!("../sql/19_endpoints_manage.sql", name = "endpoints_manage", requires = ["endpoints"]);
::pgrx::extension_sql_file!(
    "../sql/19_endpoints_deliver.sql",
    name = "endpoints_deliver",
    requires = ["endpoints_manage"]
);
::pgrx::extension_sql_file!(
    "../sql/19_endpoints_record.sql",
    name = "endpoints_record",
    requires = ["endpoints_deliver"]
);
::pgrx::extension_sql_file!("../sql/19_endpoints_views.sql", name = "endpoints_views", requires = ["endpoints_record"]);
::pgrx::extension_sql_file!("../sql/19_http_handlers.sql", name = "http_handlers", requires = ["endpoints_views"]);
::pgrx::extension_sql_file!("../sql/19_event_trace.sql", name = "event_trace", requires = ["http_handlers"]);
::pgrx::extension_sql_file!("../sql/19_traces.sql", name = "traces", requires = ["pages", "inbox"]);
::pgrx::extension_sql_file!("../sql/20_grants.sql", name = "grants", finalize);
