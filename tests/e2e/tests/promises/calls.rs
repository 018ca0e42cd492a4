//! Calls of every function that a role may execute, generated from the catalogs: what is added to the extension is called as well.

use harness::{Chance, Database};

/// A function, and what its parameters are called and are.
pub struct Function {
    pub name: String,
    parameters: Vec<(String, String)>,
}

/// The functions of the extension that a role may execute; `None`: all of them. Triggers cannot be called.
pub async fn functions(admin: &Database, role: Option<&str>) -> Vec<Function> {
    let sql = "SELECT n.nspname || '.' || p.proname, coalesce(p.proargnames[1:p.pronargs], '{}'),
            ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a(t, n) ORDER BY n)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('sea_mq', 'sea_mq_inside') AND p.prokind IN ('f', 'p')
            AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
            AND ($1::text IS NULL OR (has_schema_privilege($1, n.oid, 'USAGE') AND has_function_privilege($1, p.oid, 'EXECUTE')))
        ORDER BY p.oid";
    let rows = admin.query(sql, &[&role]).await.expect("the catalogs can be read");
    rows.iter()
        .map(|row| {
            let (names, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
            let named = types.into_iter().enumerate();
            let parameters = named.map(|(at, of)| (names.get(at).cloned().unwrap_or_default(), of)).collect();
            Function { name: row.get(0), parameters }
        })
        .collect()
}

/// The tables and views of the extension that a role may read.
pub async fn relations(admin: &Database, role: &str) -> Vec<String> {
    let sql = "SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege($1, c.oid, 'SELECT')
        ORDER BY c.oid";
    admin.values(sql, &[&role]).await
}

impl Function {
    /// A statement that calls it with what `value` gives for each parameter, from its name and its type.
    pub fn call(&self, mut value: impl FnMut(&str, &str) -> String) -> String {
        let arguments: Vec<String> = self.parameters.iter().map(|(name, of)| value(name, of)).collect();
        format!("SELECT * FROM {}({})", self.name, arguments.join(", "))
    }
}

pub fn null(of: &str) -> String {
    format!("NULL::{}", qualified(of))
}

/// A type's name that means the same whatever `search_path` is.
fn qualified(of: &str) -> String {
    // What has spaces is a word of SQL's grammar, and no name that is looked up.
    let plain = of.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '[' || c == ']');
    let words = ["bigint", "integer", "smallint", "boolean", "interval"];
    if plain && !words.contains(&of.trim_end_matches("[]")) { format!("pg_catalog.{of}") } else { of.to_owned() }
}

pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value that could be meant: calls with such values get further than to the first check.
pub fn plausible(chance: &mut Chance, name: &str, of: &str) -> String {
    let known: &[&str] = match (name, of) {
        ("context" | "source", _) => &["orders", "orders", "billing", "fresh"],
        ("subscription", _) => &["hostile__calls", "hostile__pull", "hostile__new", "victim__pull"],
        ("event_type", _) => &["Placed", "Checked", "Fails"],
        ("name", "text") => &["HOSTILE_EVENTS", "hostile__default", "Placed"],
        ("stream", _) => &["ORDERS_EVENTS", "ORDERS_DLQ"],
        ("filter", _) => &["Placed", "placed.v1", "orders.event.>"],
        ("kind", _) => &["event", "dlq"],
        ("partner", _) => &["acme"],
        ("mapping", _) => &["order", "other"],
        ("visibility", _) => &["internal", "public"],
        ("retention", _) => &["limits"],
        ("storage", _) => &["file"],
        ("body", _) => &["payload", "envelope"],
        ("contracts", _) => &["off", "warn", "enforce"],
        ("start_from" | "deliver_policy", _) => &["all", "new"],
        ("audience", _) => &["partner", "public"],
        ("uri", _) => &["https://example.com/s.json"],
        ("aggregate_type" | "aggregate_id" | "message_id" | "key", "text") => &["order", "id"],
        ("condition" | "when", _) => &["new.n > 0", "old.n IS DISTINCT FROM new.n"],
        ("columns", _) => &["{id,n}"],
        ("subjects", _) => &["{hostile.event.>}"],
        ("owner", _) => &["hostile_consumer", "victim"],
        ("schema" | "old" | "new", "jsonb") => {
            &[r#"{"type": "object", "properties": {"n": {"type": "integer"}}}"#, "true"]
        }
        ("template", _) => &[r#"{"n": "$.n"}"#],
        ("events", "jsonb") => &[r#"{"insert": "RowMade", "update": null}"#],
        (_, "jsonb") => &[r#"{"n": 1, "id": "x", "text": "y"}"#, r#"{"a": [1, {"b": null}]}"#],
        (_, "jsonb[]") => &[
            r#"{"{\"aggregate_type\": \"order\", \"aggregate_id\": \"1\", \"event_type\": \"Placed\", \"payload\": {\"n\": 1}}"}"#,
        ],
        (_, "jsonpath") => &["$.id", "$.n"],
        (_, "regproc") => &["hostile.handle"],
        (_, "regclass") => &["hostile.watched", "victim.watched"],
        (_, "integer" | "bigint" | "smallint") => &["1", "2", "7"],
        (_, "boolean") => &["true", "false"],
        (_, "interval") => &["1 second", "2 minutes"],
        (_, "timestamp with time zone") => &["2020-01-01"],
        (_, "text[]") => &["{a,b}"],
        (_, "text") => &["x", "Placed", "1"],
        ("event_id", "uuid") => &["01890a5d-ac96-774b-bcce-b302099a8070"],
        (_, "oid") => return "'hostile.watched'::pg_catalog.regclass::pg_catalog.oid".to_owned(),
        (_, "oid[]") => return "ARRAY['hostile.watched'::pg_catalog.regclass::pg_catalog.oid]".to_owned(),
        (_, "uuid") => return quoted(&chance.uuid().to_string()) + "::pg_catalog.uuid",
        (_, "sea_mq.event") => &[
            r#"{"message_id": "m", "source_context": "orders", "event_type": "placed", "event_version": 1, "visibility": "public", "payload": {"n": 1}, "headers": {"a": "b"}}"#,
        ],
        _ => return null(of),
    };
    let text = quoted(chance.of::<&str>(known));
    if of.starts_with("sea_mq.") {
        return format!("pg_catalog.jsonb_populate_record(NULL::{of}, {text}::pg_catalog.jsonb)");
    }
    format!("{text}::{}", qualified(of))
}
