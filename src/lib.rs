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

::pgrx::extension_sql_file!("../sql/host/schema.sql", name = "schema", bootstrap);
::pgrx::extension_sql_file!("../sql/log/outbox.sql", name = "outbox", requires = ["schema"]);
::pgrx::extension_sql_file!("../sql/streams/streams.sql", name = "streams", requires = ["outbox"]);
::pgrx::extension_sql_file!("../sql/log/unpublished.sql", name = "unpublished", requires = ["streams"]);
::pgrx::extension_sql_file!("../sql/emit/emit.sql", name = "emit", requires = ["unpublished"]);
::pgrx::extension_sql_file!("../sql/streams/manage.sql", name = "manage", requires = ["emit"]);
::pgrx::extension_sql_file!("../sql/deliver/readers.sql", name = "endpoint_readers", requires = ["manage"]);
::pgrx::extension_sql_file!("../sql/inbox/subscriptions.sql", name = "subscriptions", requires = ["endpoint_readers"]);
::pgrx::extension_sql_file!("../sql/inbox/inbox.sql", name = "inbox", requires = ["subscriptions"]);
::pgrx::extension_sql_file!("../sql/inbox/dlq.sql", name = "dlq", requires = ["inbox"]);
::pgrx::extension_sql_file!("../sql/inbox/views.sql", name = "inbox_views", requires = ["dlq"]);
::pgrx::extension_sql_file!("../sql/deliver/problems.sql", name = "endpoint_problems", requires = ["inbox_views"]);
::pgrx::extension_sql_file!("../sql/api/views.sql", name = "views", requires = ["endpoint_problems"]);
::pgrx::extension_sql_file!("../sql/registry/contracts.sql", name = "contracts", requires = ["views"]);
::pgrx::extension_sql_file!("../sql/registry/lint.sql", name = "lint", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/emit/capture.sql", name = "capture", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/emit/capture_table.sql", name = "capture_table", requires = ["capture"]);
::pgrx::extension_sql_file!("../sql/registry/ingest.sql", name = "ingest", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/registry/edge.sql", name = "edge", requires = ["contracts"]);
::pgrx::extension_sql_file!("../sql/streams/operate.sql", name = "operate", requires = ["views", "dlq"]);
::pgrx::extension_sql_file!("../sql/api/pages.sql", name = "pages", requires = ["operate"]);
::pgrx::extension_sql_file!("../sql/api/metrics.sql", name = "metrics", requires = ["operate"]);
::pgrx::extension_sql_file!("../sql/api/links.sql", name = "links", requires = ["outbox"]);
::pgrx::extension_sql_file!("../sql/inbox/questions.sql", name = "questions", requires = ["inbox", "contracts"]);
::pgrx::extension_sql_file!(
    "../sql/deliver/endpoints.sql",
    name = "endpoints",
    requires = ["operate", "ingest", "edge"]
);
::pgrx::extension_sql_file!("../sql/deliver/manage.sql", name = "endpoints_manage", requires = ["endpoints"]);
::pgrx::extension_sql_file!("../sql/deliver/deliver.sql", name = "endpoints_deliver", requires = ["endpoints_manage"]);
::pgrx::extension_sql_file!("../sql/deliver/record.sql", name = "endpoints_record", requires = ["endpoints_deliver"]);
::pgrx::extension_sql_file!("../sql/deliver/views.sql", name = "endpoints_views", requires = ["endpoints_record"]);
::pgrx::extension_sql_file!("../sql/deliver/http_handlers.sql", name = "http_handlers", requires = ["endpoints_views"]);
::pgrx::extension_sql_file!("../sql/api/event_trace.sql", name = "event_trace", requires = ["http_handlers"]);
::pgrx::extension_sql_file!("../sql/api/traces.sql", name = "traces", requires = ["pages", "inbox"]);
::pgrx::extension_sql_file!("../sql/api/door.sql", name = "door", finalize);
