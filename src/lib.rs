//! sea_mq: transactional messaging for PostgreSQL over NATS JetStream.
//!
//! Three zones, told apart by what they may import:
//!
//! * the **centre** ([`domain`], [`broker`], [`relay`]): values, decisions and the relay's pass; neither PostgreSQL nor NATS;
//! * **`pg`**: all that touches PostgreSQL, and the only place with `pgrx`;
//! * **[`nats`]**: all that touches the network, and the only place with `async-nats`.
//!
//! ```text
//! SQL emit ─► pg::api ─► pg::pending ─(pre-commit)─► pg::store::log ─► relay ─► nats
//! ```
//!
//! `docs/concepts.md` has the reasoning behind the log and its cursor.

pub mod broker;
pub mod domain;
pub mod nats;
mod pg;
pub mod relay;

::pgrx::pg_module_magic!();

::pgrx::extension_sql_file!("../sql/01_schema.sql", name = "schema", bootstrap);
::pgrx::extension_sql_file!("../sql/02_outbox.sql", name = "outbox", requires = ["schema"]);
::pgrx::extension_sql_file!("../sql/03_streams.sql", name = "streams", requires = ["outbox"]);
::pgrx::extension_sql_file!("../sql/04_emit.sql", name = "emit", requires = ["streams"]);
::pgrx::extension_sql_file!("../sql/05_manage.sql", name = "manage", requires = ["emit"]);
::pgrx::extension_sql_file!("../sql/06_views.sql", name = "views", requires = ["manage"]);
::pgrx::extension_sql_file!("../sql/07_grants.sql", name = "grants", finalize);
