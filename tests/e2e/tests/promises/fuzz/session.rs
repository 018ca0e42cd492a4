use std::collections::{BTreeMap, HashMap};

use harness::{Chance, Database};
use sea_mq_contracts::name::{context_name, event_name, event_subject};
use serde_json::Value;
use tokio_postgres::error::DbError;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::arguments::Arguments;

/// The errors of `emit` in docs/sql.md.
const DOCUMENTED: [&str; 8] = ["22004", "22023", "23505", "23514", "25006", "42704", "54000", "55000"];

/// PostgreSQL's own, for text that is no jsonb: its numbers, its strings, its nesting, its size.
const NO_JSONB: [&str; 5] = ["22003", "22P02", "22P05", "54000", "54001"];

const EMIT: &str = "SELECT sea_mq.emit($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12::text::timestamptz),
    ($4::text::jsonb)::text, ($10::text::jsonb)::text";

const INSERT: &str =
    "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload, event_version, context, id,
        correlation_id, causation_id, headers, visibility, available_at)
    VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12::text::timestamptz)
    RETURNING id, ($4::text::jsonb)::text, ($10::text::jsonb)::text";

const EMIT_MANY: &str = "SELECT e.id, (i.item -> 'payload')::text, (i.item -> 'headers')::text
    FROM sea_mq.emit_many($1::text[]::jsonb[]) WITH ORDINALITY e(id, n)
    JOIN unnest($1::text[]::jsonb[]) WITH ORDINALITY i(item, n) USING (n) ORDER BY n";

/// What a call that was not refused says will be sent.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub id: Uuid,
    pub context: String,
    pub subject: String,
    /// As `jsonb` prints it.
    pub payload: String,
    pub headers: BTreeMap<String, String>,
    pub given: Arguments,
}

impl Emitted {
    fn new(given: Arguments, row: &Row) -> Self {
        let headers: Option<String> = row.get(2);
        let headers = headers.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or(Value::Null);
        let headers = headers.as_object().into_iter().flatten();
        let context = context_name(given.context.as_deref().filter(|name| !name.is_empty()).unwrap_or("orders"));
        let context = context.expect("what emit accepts is a name");
        let name = event_name(given.event_type.as_deref().unwrap_or_default()).expect("what emit accepts is a name");
        Self {
            id: row.get(0),
            subject: event_subject(&context, &name, given.event_version.unwrap_or(1)),
            context,
            payload: row.get(1),
            headers: headers
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            given,
        }
    }
}

/// A session that does what chance says, and remembers what should come of it.
pub struct Session {
    db: Database,
    chance: Chance,
    name: usize,
    types: Vec<&'static str>,
    /// In the order of the calls, transaction by transaction.
    pub committed: Vec<Emitted>,
    pending: Vec<Emitted>,
    /// What was pending when each savepoint was made.
    savepoints: Vec<usize>,
    transactions: usize,
    pub calls: u64,
    /// How often each error came.
    pub refused: HashMap<String, u64>,
}

impl Session {
    pub fn new(db: Database, chance: Chance, name: usize, types: &[&'static str]) -> Self {
        let (types, committed, pending, savepoints) = (types.to_vec(), Vec::new(), Vec::new(), Vec::new());
        Self {
            db,
            chance,
            name,
            types,
            committed,
            pending,
            savepoints,
            transactions: 0,
            calls: 0,
            refused: HashMap::new(),
        }
    }

    /// Transactions until there have been so many calls.
    pub async fn run(mut self, calls: u64) -> Self {
        while self.calls < calls {
            self.transaction().await;
        }
        self
    }

    async fn transaction(&mut self) {
        self.transactions += 1;
        let read_only = self.chance.one_in(40);
        self.db.run(if read_only { "BEGIN READ ONLY" } else { "BEGIN" }).await;
        for _ in 0..self.chance.within(1..8) {
            self.step(read_only).await;
        }
        self.savepoints.clear();
        let prepared = format!("fuzz_{}_{}", self.name, self.transactions);
        let (end, commits) = match self.chance.within(0..20) {
            0..3 => ("ROLLBACK".to_owned(), false),
            3 => (format!("PREPARE TRANSACTION '{prepared}'; COMMIT PREPARED '{prepared}'"), true),
            4 => (format!("PREPARE TRANSACTION '{prepared}'; ROLLBACK PREPARED '{prepared}'"), false),
            _ => ("COMMIT".to_owned(), true),
        };
        let ended = self.end(&end).await;
        let pending = std::mem::take(&mut self.pending);
        if commits && ended {
            self.committed.extend(pending);
        }
    }

    /// Whether the transaction ended as asked. It does not where another session has used one of its ids meanwhile: the
    /// first to commit has it.
    async fn end(&mut self, statements: &str) -> bool {
        // Each by itself: what is sent in one go is one transaction.
        for statement in statements.split("; ") {
            let Err(error) = self.db.batch_execute(statement).await else { continue };
            let code = self.refused(error, &[]).await;
            assert_eq!(code, "23505", "{statement}");
            let shared = |one: &Emitted| one.given.event_id.is_some_and(|id| id.is_nil() || id.is_max());
            assert!(self.pending.iter().any(shared), "nobody else has their ids: {:?}", self.pending);
            return false;
        }
        true
    }

    async fn step(&mut self, read_only: bool) {
        let depth = self.savepoints.len();
        match self.chance.within(0..16) {
            0 | 1 => {
                self.db.run(&format!("SAVEPOINT s{depth}")).await;
                self.savepoints.push(self.pending.len());
            }
            2 if depth > 0 => {
                let to = self.chance.within(0..depth);
                self.db.run(&format!("ROLLBACK TO s{to}")).await;
                self.pending.truncate(self.savepoints[to]);
                self.savepoints.truncate(to + 1);
            }
            3 if depth > 0 => {
                let to = self.chance.within(0..depth);
                self.db.run(&format!("RELEASE s{to}")).await;
                self.savepoints.truncate(to);
            }
            4 | 5 => self.emit_many().await,
            6 => self.emit(INSERT, read_only).await,
            _ => self.emit(EMIT, read_only).await,
        }
    }

    async fn emit(&mut self, sql: &str, read_only: bool) {
        let (arguments, repeated) = self.arguments();
        let a = &arguments;
        self.db.run("SAVEPOINT call").await;
        let answer = self
            .db
            .query_one(
                sql,
                &[
                    &a.aggregate_type,
                    &a.aggregate_id,
                    &a.event_type,
                    &a.payload,
                    &a.event_version,
                    &a.context,
                    &a.event_id,
                    &a.correlation_id,
                    &a.causation_id,
                    &a.headers,
                    &a.visibility,
                    &a.available_at,
                ],
            )
            .await;
        self.calls += 1;
        match answer {
            Ok(row) => {
                assert!(!read_only, "emitted in a read-only transaction");
                self.accepted(Emitted::new(arguments, &row), repeated);
                self.db.run("RELEASE call").await;
            }
            Err(error) => {
                self.db.run("ROLLBACK TO call").await;
                let code = self.refused(error, &[&arguments.payload, &arguments.headers]).await;
                if repeated == Some(true) && !read_only {
                    let stored = self.stored(arguments.event_id).await;
                    panic!("the same event is refused with {code}: {arguments:?}; it is {stored}");
                }
            }
        }
    }

    /// What is known of an event.
    async fn stored(&self, id: Option<uuid::Uuid>) -> String {
        let sql = "SELECT coalesce(string_agg(e::text, ' | '), 'nowhere') FROM (
            SELECT to_jsonb(p) AS e FROM sea_mq.pending_events() p WHERE p.id = $1
            UNION ALL SELECT to_jsonb(o) FROM sea_mq.outbox_events o WHERE o.id = $1) found";
        self.db.value(sql, &[&id]).await
    }

    async fn emit_many(&mut self) {
        let most = if self.chance.one_in(30) { 300 } else { 5 };
        let mut given: Vec<Arguments> =
            (0..self.chance.within(0..most)).map(|_| Arguments::any(&mut self.chance, &self.types)).collect();
        let items: Vec<String> = given.iter_mut().map(|one| one.item(&mut self.chance)).collect();
        self.db.run("SAVEPOINT call").await;
        let answer = self.db.query(EMIT_MANY, &[&items]).await;
        self.calls += 1;
        match answer {
            Ok(rows) => {
                assert_eq!(rows.len(), given.len(), "one id for each event");
                for (given, row) in given.into_iter().zip(&rows) {
                    self.accepted(Emitted::new(given, row), None);
                }
                self.db.run("RELEASE call").await;
            }
            Err(error) => {
                self.db.run("ROLLBACK TO call").await;
                let items: Vec<Option<String>> = items.into_iter().map(Some).collect();
                self.refused(error, &items.iter().collect::<Vec<_>>()).await;
            }
        }
    }

    /// Arguments, and if they have the id of an event that there is: whether they are that event's.
    fn arguments(&mut self) -> (Arguments, Option<bool>) {
        let earlier: Vec<&Emitted> = self.pending.iter().chain(self.committed.iter().rev().take(20)).collect();
        if earlier.is_empty() || !self.chance.one_in(8) {
            return (Arguments::any(&mut self.chance, &self.types), None);
        }
        let one = *self.chance.of(&earlier);
        // Where a version may be left out, it is 1.
        let event_version = one.given.event_version.or(Some(1));
        let mut again = Arguments { event_id: Some(one.id), event_version, ..one.given.clone() };
        let same = self.chance.one_in(2);
        if !same {
            again.aggregate_id = Some(format!("another {}", self.calls));
        }
        (again, Some(same))
    }

    fn accepted(&mut self, emitted: Emitted, repeated: Option<bool>) {
        if let Some(id) = emitted.given.event_id {
            assert_eq!(id, emitted.id, "the id is the one that was given");
        }
        assert!(repeated != Some(false), "an id is used for two events: {emitted:?}");
        let mut there = self.pending.iter().chain(&self.committed);
        if !there.any(|one| one.id == emitted.id) {
            self.pending.push(emitted);
        }
    }

    /// Asserts that it is refused as it should be, and returns the SQLSTATE. `jsons`: what the call read as jsonb.
    async fn refused(&mut self, error: Error, jsons: &[&Option<String>]) -> String {
        let db_error = error.as_db_error().unwrap_or_else(|| panic!("no answer of the server: {error}")).clone();
        let code = db_error.code().code().to_owned();
        *self.refused.entry(code.clone()).or_default() += 1;
        if NO_JSONB.contains(&code.as_str()) && self.is_no_jsonb(&code, jsons).await {
            return code;
        }
        assert!(DOCUMENTED.contains(&code.as_str()), "not in docs/sql.md: {}", told(&db_error));
        assert!(
            db_error.hint().is_some_and(|hint| !hint.is_empty()) || code == "25006",
            "no hint: {}",
            told(&db_error)
        );
        assert!(db_error.message().len() < 3000, "too long: {}", told(&db_error));
        code
    }

    /// Whether PostgreSQL by itself refuses one of them.
    async fn is_no_jsonb(&self, code: &str, jsons: &[&Option<String>]) -> bool {
        for json in jsons {
            self.db.run("SAVEPOINT json").await;
            let read = self.db.query_one("SELECT ($1::text::jsonb) IS NULL", &[json]).await;
            self.db.run("ROLLBACK TO json").await;
            if read.is_err_and(|error| error.code().is_some_and(|found| found.code() == code)) {
                return true;
            }
        }
        false
    }
}

fn told(error: &DbError) -> String {
    let message: String = error.message().chars().take(300).collect();
    format!("{} {message} (hint: {:?}, routine: {:?})", error.code().code(), error.hint(), error.routine())
}
