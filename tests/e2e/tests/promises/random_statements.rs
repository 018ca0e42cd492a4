//! No statement of an ordinary role ends a process of the server, nor one of the workers, whatever it is.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use harness::{Chance, Connector, Database, Stage, until, until_some};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::SOON;
use crate::calls::{self, Function, null, quoted};

const STATEMENTS: u64 = 10_000;

/// Who they are, and which role of the extension they have.
const ORDINARY: [(&str, &str); 6] = [
    ("producer", "sea_mq_producer"),
    ("consumer", "sea_mq_consumer"),
    ("operator", "sea_mq_operator"),
    ("monitor", "sea_mq_monitor"),
    ("nobody", ""),
    ("owner", ""),
];

/// What an operator does to restart workers; it is tried in a test of its own.
const RESTARTING: [&str; 6] =
    ["sea_mq.start", "sea_mq.stop", "sea_mq.reload", "sea_mq.adopt", "sea_mq.test_mode", "sea_mq.drop_stream"];

/// A stage with these roles, each with a schema of its own, and with the subscription `probe__work` of another one.
async fn prepared(name: &str) -> Stage {
    let stage = Stage::new(name).await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE handled (n bigint);
         CREATE FUNCTION handle(e sea_mq.event) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
            'INSERT INTO public.handled VALUES ((e.payload ->> ''n'')::bigint)';
         SELECT sea_mq.create_stream('probe');
         SELECT sea_mq.create_stream('orders');
         SELECT sea_mq.subscribe('probe__work', 'probe', 'public.handle', start_from => 'all')",
    )
    .await;
    for (role, of) in ORDINARY {
        db.run(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}")).await;
        if !of.is_empty() {
            db.run(&format!("GRANT {of} TO {role}")).await;
        }
        let own = format!(
            "CREATE TABLE {role}.a (id int PRIMARY KEY, n int, t text);
             CREATE TYPE {role}.e AS ENUM ('x', 'y');
             CREATE TYPE {role}.c AS (a int, b text);
             CREATE TABLE {role}.p (id int, kind {role}.e) PARTITION BY LIST (kind);
             CREATE VIEW {role}.v AS SELECT 1 AS one;
             CREATE SEQUENCE {role}.s"
        );
        stage.connect_as(role).await.run(&own).await;
    }
    // A handler that does what it is told, so that workers are tried, too.
    let run = "CREATE FUNCTION consumer.run(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN IF e.payload ? 'sql' THEN EXECUTE e.payload ->> 'sql'; END IF; END $$;
        SELECT sea_mq.subscribe('consumer__run', 'orders', 'consumer.run', max_deliver => 1, timeout => '300 ms')";
    stage.connect_as("consumer").await.run(run).await;
    db.run("ALTER DATABASE app OWNER TO owner").await;
    assert_handled(&stage, 0).await;
    stage
}

/// The server works: `sea_mq.status` says how it is, and an event that is emitted now is published and handled.
async fn assert_handled(stage: &Stage, n: i64) {
    let db = stage.connect().await;
    let _: bool = db.value("SELECT ok FROM sea_mq.status", &[]).await;
    let sql = format!("SELECT sea_mq.emit('probe', '1', 'Probed', '{{\"n\": {n}}}', context => 'probe')");
    db.run(&sql).await;
    let sql = "SELECT count(*) = 1 FROM handled WHERE n = $1";
    until("the event is handled", 2 * SOON, async || db.value(sql, &[&n]).await).await;
    let sql = "SELECT count(*) = 0 FROM sea_mq.outbox_events WHERE context = 'probe' AND NOT published";
    until("the event is published", SOON, async || db.value(sql, &[]).await).await;
}

/// Postmaster, launcher, relay and consumer.
async fn processes(stage: &Stage) -> Vec<(String, i32)> {
    let db = stage.connect().await;
    let sql = "SELECT backend_type, pid FROM pg_stat_activity
        WHERE backend_type = 'sea_mq launcher' OR (backend_type IN ('sea_mq relay', 'sea_mq consumer') AND datname = 'app') ORDER BY 1";
    let rows = db.query(sql, &[]).await.expect("the activity can be read");
    let workers = rows.iter().map(|row| (row.get(0), row.get(1)));
    let postmaster = stage.cluster.processes().first().copied().unwrap_or_default();
    workers.chain([("postmaster".to_owned(), postmaster)]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_an_ordinary_role_ends_a_process() {
    let stage = prepared("random_statements").await;
    let before = until_some("all processes run", SOON, async || {
        let found = processes(&stage).await;
        (found.len() == 4).then_some(found)
    })
    .await;
    let (mut chance, count) = Chance::new(STATEMENTS);
    let db = stage.connect().await;
    let names = "SELECT name FROM pg_settings WHERE context IN ('user', 'superuser') AND name <> 'client_encoding' ORDER BY name LIKE 'sea\\_mq.%' DESC, name";
    let settings: Vec<String> = db.values(names, &[]).await;
    let mut tasks = Vec::new();
    for (role, _) in ORDINARY {
        let lists = [calls::functions(&db, Some(role)).await, calls::functions(&db, None).await];
        let functions =
            lists.map(|list| list.into_iter().filter(|one| !RESTARTING.contains(&one.name.as_str())).collect());
        let author = Author { role, functions, settings: settings.clone(), chance: chance.fork() };
        let connector = stage.cluster.connector(role, stage.database());
        let share = count / ORDINARY.len() as u64;
        tasks.push(tokio::spawn(Session::new(connector, author).run(share)));
    }
    let mut passed = 0;
    for task in tasks {
        passed += task.await.expect("the session's task does not fail");
    }
    eprintln!("{passed} of {count} statements passed");
    assert!(passed * 10 > count, "only {passed} of {count} statements passed: the generator is no good");
    // What they have left open holds others up, and that is theirs to do.
    for transaction in db.values::<String>("SELECT gid FROM pg_prepared_xacts", &[]).await {
        db.run(&format!("ROLLBACK PREPARED {}", quoted(&transaction))).await;
    }
    assert_eq!(processes(&stage).await, before);
    assert_handled(&stage, 1).await;
    assert_eq!(processes(&stage).await, before);
    let supers: Vec<String> = db.values("SELECT rolname::text FROM pg_roles WHERE rolsuper", &[]).await;
    assert_eq!(supers, ["postgres"]);
}

/// Operators may restart the workers: these come back, and nothing else ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_an_operator_restarts_come_back() {
    let stage = prepared("restarting_statements").await;
    let postmaster = stage.cluster.processes().first().copied();
    let operator = stage.connect_as("operator").await;
    for (n, statement) in (1..).zip([
        "SELECT sea_mq.reload()",
        "SELECT sea_mq.reload(), sea_mq.stop(), sea_mq.start()",
        "SELECT sea_mq.stop()",
        "SELECT sea_mq.adopt()",
        "SELECT sea_mq.drop_stream('ORDERS_EVENTS', discard_pending => true)",
        "BEGIN; SELECT sea_mq.stop(); ROLLBACK",
        "SELECT sea_mq.stop(), sea_mq.start(), sea_mq.reload() FROM generate_series(1, 50)",
    ]) {
        let _ = operator.batch_execute(statement).await;
        operator.run("SELECT sea_mq.start()").await;
        assert_handled(&stage, n).await;
    }
    assert_eq!(stage.cluster.processes().first().copied(), postmaster);
}

/// A session of one role that runs what an author writes.
struct Session {
    connector: Connector,
    author: Author,
    /// `None`: it has to be made.
    client: Option<Database>,
}

/// Nothing is to take long. Settings that statements have made meanwhile go.
const LIMITS: &str = "SET statement_timeout = '400ms'; SET lock_timeout = '100ms'; SET client_min_messages = error; SET sea_mq.context = 'orders'";

impl Session {
    fn new(connector: Connector, author: Author) -> Self {
        Self { connector, author, client: None }
    }

    /// Returns how many of the statements got through.
    async fn run(mut self, count: u64) -> u64 {
        let mut passed = 0;
        for n in 0..count {
            let statement = self.author.statement();
            if n % 20 == 0 || self.client.is_none() {
                self.begin().await;
            }
            passed += u64::from(self.try_statement(&statement).await);
        }
        passed
    }

    async fn begin(&mut self) {
        if let Some(client) = &self.client {
            // Not in a transaction, and with limits again.
            if client.batch_execute("ROLLBACK").await.is_ok()
                && client.batch_execute("RESET ROLE; RESET ALL").await.is_ok()
            {
                let _ = client.batch_execute(LIMITS).await;
                return;
            }
        }
        let begin = Instant::now();
        let client = loop {
            match self.connector.try_connect().await {
                Ok(client) => break client,
                Err(error) => assert!(begin.elapsed() < SOON, "the server takes no connections: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        };
        let _ = client.batch_execute(LIMITS).await;
        self.client = Some(client);
    }

    async fn try_statement(&mut self, statement: &str) -> bool {
        let Some(client) = &self.client else { return false };
        let cancel = client.cancel_token();
        let done = async {
            if statement.starts_with("COPY") && statement.contains("FROM STDIN") {
                let sink = client.copy_in::<_, bytes::Bytes>(statement).await?;
                tokio::pin!(sink);
                sink.send(bytes::Bytes::from_static(b"1\t2\tx\n2\t\\N\ty\n")).await?;
                return sink.finish().await.map(|_| ());
            }
            client.batch_execute(statement).await
        };
        let outcome = match timeout(Duration::from_secs(2), done).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // It has taken the limits away.
                let _ = cancel.cancel_query(NoTls).await;
                self.client = None;
                return false;
            }
        };
        if let Err(error) = &outcome {
            if error.as_db_error().is_none() {
                self.client = None;
                return false;
            }
            if error.code().is_some_and(|code| code.code() == "25P02") {
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
        if ["timeout", "DISCARD", "RESET"].iter().any(|word| statement.contains(word)) {
            let _ = client.batch_execute(LIMITS).await;
        }
        outcome.is_ok()
    }
}

/// Writes the statements of a role.
struct Author {
    role: &'static str,
    /// Those that it may call, and all.
    functions: [Vec<Function>; 2],
    settings: Vec<String>,
    chance: Chance,
}

impl Author {
    fn statement(&mut self) -> String {
        match self.chance.within(0..20) {
            0..9 => self.call(),
            9..14 => self.template(UTILITY),
            14..16 => self.setting(),
            16..18 => self.template(TRANSACTIONS),
            18 => self.wrapped(),
            _ => self.template(USES),
        }
    }

    fn call(&mut self) -> String {
        let list = usize::from(self.chance.one_in(6) || self.functions[0].is_empty());
        let at = self.chance.within(0..self.functions[list].len());
        let chance = &mut self.chance;
        let call = self.functions[list][at].call(|name, of| value(chance, name, of));
        // The wrong number of them.
        if chance.one_in(40) { call.replacen('(', "('x', ", 1) } else { call }
    }

    /// A statement inside of another one.
    fn wrapped(&mut self) -> String {
        let inner = match self.chance.within(0..4) {
            0 => self.template(UTILITY),
            1 => self.setting(),
            _ => self.call(),
        };
        match self.chance.within(0..7) {
            // Errors one after the other, all caught in the same frame: what one of them leaves behind, the next one meets.
            0 => {
                let each = [inner, self.call(), self.template(USES)].map(|one| {
                    format!("BEGIN EXECUTE {}; EXCEPTION WHEN OTHERS OR QUERY_CANCELED THEN NULL; END;", quoted(&one))
                });
                format!("DO {}", quoted(&format!("BEGIN FOR n IN 1 .. 3 LOOP {} END LOOP; END", each.concat())))
            }
            1 => format!("DO {}", quoted(&format!("BEGIN EXECUTE {}; COMMIT; END", quoted(&inner)))),
            2 => format!("BEGIN; DECLARE k{} CURSOR WITH HOLD FOR {inner}; COMMIT", self.chance.within(0..9)),
            3 => format!("EXPLAIN ANALYZE {inner}"),
            4 => format!("COPY ({inner}) TO STDOUT"),
            5 => format!("BEGIN; SAVEPOINT a; {inner}; ROLLBACK TO a; {inner}; COMMIT"),
            _ => {
                let payload = quoted(&serde_json::json!({"sql": inner}).to_string());
                format!("SELECT sea_mq.emit('a', '1', 'Placed', {payload})")
            }
        }
    }

    fn setting(&mut self) -> String {
        let name =
            if self.chance.one_in(2) { self.chance.of(&self.settings[..20]) } else { self.chance.of(&self.settings) };
        let values = [
            "on",
            "off",
            "0",
            "-1",
            "1",
            "2147483647",
            "NaN",
            "''",
            "DEFAULT",
            "'x'",
            "'pg_temp, mine'",
            "'nats://a:b@c'",
            "'1 kB'",
            "'a,b'",
            "serializable",
            "escape",
        ];
        let value = *self.chance.of(&values);
        match self.chance.within(0..8) {
            0 => format!("SET LOCAL {name} = {value}"),
            1 => format!(
                "SELECT pg_catalog.set_config('{name}', {}, {})",
                quoted(&self.chance.text(300)),
                self.chance.one_in(2)
            ),
            2 => format!(
                "ALTER ROLE CURRENT_USER IN DATABASE app SET {name} = {value}; ALTER ROLE CURRENT_USER IN DATABASE app RESET ALL"
            ),
            3 => format!("ALTER DATABASE app SET {name} = {value}; ALTER DATABASE app RESET ALL"),
            4 => format!(
                "CREATE OR REPLACE FUNCTION {}.f() RETURNS void LANGUAGE sql SET {name} = {value} AS ''; SELECT {0}.f()",
                self.role
            ),
            5 => format!("RESET {name}; SHOW {name}"),
            _ => format!("SET {name} = {value}"),
        }
    }

    /// One of the templates, with `$own` for the role's schema, `$n` for a small number, `$t` for a text, `$r` for a relation and `$d`
    /// for a database.
    fn template(&mut self, templates: &[&str]) -> String {
        let template = *self.chance.of(templates);
        let relations = [
            "sea_mq.subscriptions",
            "sea_mq.outbox_log",
            "sea_mq.outbox_events",
            "sea_mq.captures",
            "sea_mq.streams",
            "sea_mq.cursors",
            "sea_mq.status",
            "pg_catalog.pg_class",
            "$own.a",
            "$own.p",
            "$own.v",
        ];
        template
            .replace("$r", self.chance.of::<&str>(&relations))
            .replace("$d", self.chance.of::<&str>(&["app", "postgres", "template1", "template0", "nonsense"]))
            .replace("$own", self.role)
            .replace("$n", &self.chance.within(0..5).to_string())
            .replace("$t", &quoted(&self.chance.text(60)))
    }
}

/// Any value of a type, odd ones mostly.
fn value(chance: &mut Chance, name: &str, of: &str) -> String {
    if chance.one_in(8) {
        return null(of);
    }
    if chance.one_in(3) {
        return calls::plausible(chance, name, of);
    }
    let numbers = [
        "0",
        "-1",
        "1",
        "2147483647",
        "-2147483648",
        "9223372036854775807",
        "-9223372036854775808",
        "32767",
        "NaN",
        "1.5",
    ];
    let literal = match of {
        "text" | "name" if name == "context" || name == "source" => {
            (*chance.of(&["orders", "billing", "*", "", ">"])).to_owned()
        }
        "text" | "name" => match chance.within(0..8) {
            0 => (*chance.of(&[
                "*",
                ">",
                "",
                " ",
                "NaN",
                "infinity",
                "-infinity",
                "294276-12-31",
                "$JS.API.>",
                "ingest:acme",
                "a.*.>",
            ]))
            .to_owned(),
            1 => "x".repeat(chance.within(1..200_000)),
            2 => chance.nested(200),
            3 => chance.text(2000),
            _ => chance.name(),
        },
        "jsonb" | "json" => match chance.within(0..6) {
            0 => {
                let levels = chance.within(1..6000);
                chance.nested(levels)
            }
            1 => chance.headers(),
            2 => r##"{"$ref": "#", "type": ["object", 1], "pattern": "(a*)*$", "minimum": 1e400}"##.to_owned(),
            _ => chance.json(4),
        },
        "jsonb[]" => format!("{{{}}}", chance.of(&["", "NULL", "1,2", r#""{}""#, "{1},{2}"])),
        "jsonpath" => {
            (*chance.of(&["$", "strict $.a", "$.**", "$[*] ? (@ > 1)", "$.a.type()", "$.datetime()", "lax $.x"]))
                .to_owned()
        }
        "integer" | "bigint" | "smallint" | "numeric" | "double precision" => {
            return format!("'{}'::{of}", chance.of(&numbers));
        }
        "oid" | "regclass" | "regproc" | "regtype" | "regrole" => {
            let names = match of {
                "regclass" => [
                    "pg_class",
                    "sea_mq.captures",
                    "sea_mq.status",
                    "producer.a",
                    "operator.a",
                    "operator.p",
                    "operator.v",
                    "operator.s",
                ],
                "regproc" => [
                    "now",
                    "consumer.run",
                    "sea_mq.emit",
                    "sea_mq_inside.subscribe",
                    "pg_sleep",
                    "public.handle",
                    "version",
                    "sea_mq.poison",
                ],
                _ => ["0", "23", "1259", "2249", "2283", "16384", "4294967295", "3802"],
            };
            if chance.one_in(2) {
                (*chance.of(&["0", "1", "1259", "4294967295"])).to_owned()
            } else {
                (*chance.of(&names)).to_owned()
            }
        }
        "interval" => {
            (*chance.of(&["0", "-1 day", "178000000 years", "1 microsecond", "1 month", "100 ms"])).to_owned()
        }
        "timestamp with time zone" => {
            (*chance.of(&["infinity", "-infinity", "294276-12-31", "4713-01-01 BC", "now", "epoch"])).to_owned()
        }
        "uuid" => {
            (*chance.of(&["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"])).to_owned()
        }
        "boolean" => (*chance.of(&["true", "false"])).to_owned(),
        "text[]" | "oid[]" => {
            (*chance.of(&["{}", "{NULL}", "{0}", "{{1,2},{3,4}}", "[5:6]={7,8}", "{1,1,1}"])).to_owned()
        }
        "bytea" => format!("\\x{}", "00ff".repeat(chance.within(0..9))),
        "xid8" | "pg_snapshot" => (*chance.of(&["1", "1:1:", "3:9:4,5"])).to_owned(),
        _ if of.starts_with("sea_mq.") => {
            return format!(
                "pg_catalog.jsonb_populate_record(NULL::{of}, {}::pg_catalog.jsonb)",
                quoted(&chance.json(2))
            );
        }
        _ => return null(of),
    };
    // PostgreSQL's text has no NUL, and the client sends none.
    format!("{}::{of}", quoted(&literal.replace('\0', "")))
}

const TRANSACTIONS: &[&str] = &[
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "SAVEPOINT s$n",
    "SAVEPOINT s$n",
    "RELEASE s$n",
    "ROLLBACK TO s$n",
    "PREPARE TRANSACTION '$own$n'",
    "COMMIT PREPARED '$own$n'",
    "ROLLBACK PREPARED '$own$n'",
    "BEGIN; SELECT sea_mq.emit('a', '1', 'Placed', '{}'); PREPARE TRANSACTION '$own$n'",
    "BEGIN; SELECT sea_mq.emit('a', '1', 'Placed', '{}'); SAVEPOINT a; SELECT sea_mq.emit('a', '2', 'Placed', '{}'); ROLLBACK TO a; COMMIT",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET TRANSACTION READ ONLY",
    "SET TRANSACTION SNAPSHOT '00000003-0000001B-1'",
    "LOCK TABLE $r",
    "LOCK TABLE $r IN ACCESS SHARE MODE",
    "LISTEN a; NOTIFY a, 'x'; UNLISTEN *",
    "FETCH ALL FROM k$n",
    "CLOSE ALL",
    "MOVE BACKWARD 5 IN k$n",
    "PREPARE q$n AS SELECT * FROM sea_mq.pending_events()",
    "EXECUTE q$n",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DISCARD TEMP",
];

const USES: &[&str] = &[
    "SELECT * FROM $r LIMIT 5",
    "SELECT * FROM $r FOR UPDATE",
    "TABLE sea_mq.problems",
    "SELECT * FROM sea_mq.outbox_events ORDER BY seq DESC LIMIT 3",
    "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload) VALUES ('a', $t, 'Placed', '{}')",
    "INSERT INTO $r DEFAULT VALUES",
    "UPDATE $r SET n = 1",
    "DELETE FROM $r",
    "TRUNCATE $r",
    "INSERT INTO $own.a SELECT n, n, $t FROM generate_series(1, 20) n ON CONFLICT (id) DO UPDATE SET n = excluded.n",
    "UPDATE $own.a SET n = n + 1, t = $t",
    "DELETE FROM $own.a WHERE id < 9",
    "COPY $own.a TO STDOUT",
    "COPY $own.a FROM STDIN",
    "COPY $r FROM STDIN",
    "COPY $r TO STDOUT",
    "COPY $own.a FROM PROGRAM 'true'",
    "SELECT lo_unlink(lo_create(0))",
    "SELECT pg_cancel_backend(pid), pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'sea%'",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_reload_conf()",
    "SELECT pg_promote()",
    "SELECT pg_notify('a', $t)",
    "SELECT pg_advisory_lock(1), pg_advisory_lock(2)",
    "SELECT nextval('sea_mq.outbox_seq'), setval('sea_mq.outbox_seq', 1)",
    "SELECT repeat('x', 10000000)",
    "SELECT sea_mq.emit('a', '1', 'Placed', jsonb_build_object('x', repeat('x', 900000)))",
    "SELECT count(sea_mq.emit('a', n::text, 'Placed', '{}')) FROM generate_series(1, 500) n",
    "SELECT sea_mq.capture_condition('pg_class', '*')",
    "SELECT sea_mq.capture_table('$own.a', \"when\" => '*')",
    "SELECT sea_mq.capture_condition('$own.a', repeat('1 + ', 5000) || '1 = 1')",
    "CREATE TEMP TABLE IF NOT EXISTS flag (); SELECT sea_mq.capture_condition('$own.a', 'NULL::pg_temp.flag IS NULL')",
    "SELECT sea_mq.capture_condition('$own.a', $t)",
    "SELECT sea_mq.capture_table('$own.a')",
    "SELECT sea_mq.capture_table('$own.p', key => 'id')",
    "SELECT sea_mq.stop_capture('$own.a')",
    "SELECT sea_mq.json_schema(0, true)",
    // For a handler: settings that make an error, or time, the end of its process.
    r#"SELECT sea_mq.emit('a', '1', 'Placed', '{"sql": "SET exit_on_error = on; SELECT 1 / 0"}')"#,
    r#"SELECT sea_mq.emit('a', '1', 'Placed', '{"sql": "SET transaction_timeout = 1; SELECT pg_sleep(1)"}')"#,
];

const UTILITY: &[&str] = &[
    "CREATE DATABASE x TEMPLATE $d",
    "CREATE DATABASE x",
    "DROP DATABASE $d",
    "DROP DATABASE IF EXISTS $d WITH (FORCE)",
    "ALTER DATABASE $d RENAME TO y",
    "ALTER DATABASE $d SET TABLESPACE pg_default",
    "ALTER DATABASE $d OWNER TO producer",
    "ALTER DATABASE $d CONNECTION LIMIT -1",
    "ALTER DATABASE $d REFRESH COLLATION VERSION",
    "COMMENT ON DATABASE $d IS $t",
    "CREATE EXTENSION sea_mq",
    "CREATE EXTENSION IF NOT EXISTS sea_mq",
    "CREATE EXTENSION nonsense",
    "DROP EXTENSION sea_mq",
    "DROP EXTENSION sea_mq CASCADE",
    "DROP EXTENSION IF EXISTS nonsense",
    "DROP EXTENSION IF EXISTS nonsense, sea_mq CASCADE",
    "ALTER EXTENSION sea_mq UPDATE",
    "ALTER EXTENSION sea_mq SET SCHEMA public",
    "ALTER EXTENSION sea_mq DROP FUNCTION sea_mq.emit",
    "DROP SCHEMA sea_mq CASCADE",
    "ALTER SCHEMA sea_mq RENAME TO other",
    "DROP FUNCTION sea_mq.stop",
    "DROP TABLE $r",
    "ALTER TABLE $r ADD COLUMN x$n int",
    "ALTER TABLE $r OWNER TO producer",
    "ALTER TABLE $r ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE $r DISABLE TRIGGER ALL",
    "ALTER TABLE $own.a ADD COLUMN IF NOT EXISTS c$n text",
    "ALTER TABLE $own.a DROP COLUMN IF EXISTS c$n",
    "ALTER TABLE $own.a ALTER COLUMN n TYPE bigint",
    "ALTER TABLE $own.a RENAME COLUMN c$n TO d$n",
    "ALTER TABLE $own.a ADD CONSTRAINT k$n CHECK (n < 1000000) NOT VALID",
    "ALTER TABLE $own.a DROP CONSTRAINT IF EXISTS k$n",
    "CREATE TABLE $own.p$n PARTITION OF $own.p FOR VALUES IN ('x')",
    "ALTER TABLE $own.p DETACH PARTITION $own.p$n CONCURRENTLY",
    "DROP TABLE IF EXISTS $own.p$n",
    "CREATE TABLE $own.t$n AS SELECT * FROM $r",
    "DROP TABLE IF EXISTS $own.t$n",
    "CREATE TEMP TABLE a$n (id int) ON COMMIT DROP",
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (VALUE <> 'x')",
    "CREATE VIEW $own.v$n AS SELECT * FROM $r",
    "CREATE MATERIALIZED VIEW $own.m$n AS SELECT 1 AS one; REFRESH MATERIALIZED VIEW $own.m$n; DROP MATERIALIZED VIEW $own.m$n",
    "CREATE INDEX CONCURRENTLY ON $own.a (n)",
    "CREATE UNIQUE INDEX i$n ON $own.a ((n / 0))",
    "CREATE STATISTICS $own.st$n ON n, id FROM $own.a",
    "CREATE POLICY p$n ON $own.a USING (n > 1)",
    "CREATE RULE r$n AS ON INSERT TO $r DO ALSO NOTHING",
    "CREATE TRIGGER t$n AFTER INSERT ON $r EXECUTE FUNCTION sea_mq.capture()",
    "CREATE TRIGGER sea_mq_capture_insert AFTER INSERT ON $own.a EXECUTE FUNCTION sea_mq.capture()",
    "DROP TRIGGER IF EXISTS sea_mq_capture_insert ON $own.a",
    "CREATE EVENT TRIGGER t$n ON ddl_command_end EXECUTE FUNCTION sea_mq.follow_ddl()",
    "ALTER TYPE $own.e ADD VALUE IF NOT EXISTS 'v$n'",
    "ALTER TYPE $own.e RENAME VALUE 'v$n' TO 'w$n'",
    "ALTER TYPE $own.c ADD ATTRIBUTE x$n int",
    "ALTER TYPE $own.c DROP ATTRIBUTE IF EXISTS x$n CASCADE",
    "ALTER TYPE sea_mq.event ADD ATTRIBUTE x int",
    "CREATE TYPE $own.k$n AS ENUM (); DROP TYPE $own.k$n",
    "CREATE TYPE $own.k$n AS RANGE (subtype = int)",
    "DROP TYPE IF EXISTS $own.k$n CASCADE",
    "CREATE PUBLICATION p$n FOR ALL TABLES",
    "CREATE PUBLICATION p$n FOR TABLE $own.a",
    "CREATE PUBLICATION p$n FOR TABLE $r",
    "DROP PUBLICATION IF EXISTS p$n",
    "CREATE SUBSCRIPTION s$n CONNECTION 'host=localhost' PUBLICATION p$n",
    "CREATE ROLE r$n SUPERUSER",
    "ALTER ROLE sea_mq_owner SUPERUSER",
    "ALTER ROLE CURRENT_USER SET search_path = mine",
    "ALTER ROLE CURRENT_USER RESET ALL",
    "DROP ROLE sea_mq_owner, sea_mq_producer",
    "GRANT sea_mq_operator, sea_mq_owner TO CURRENT_USER",
    "GRANT ALL ON $r TO PUBLIC",
    "REVOKE ALL ON $r FROM PUBLIC",
    "SET ROLE sea_mq_owner",
    "SET SESSION AUTHORIZATION postgres",
    "REASSIGN OWNED BY CURRENT_USER TO CURRENT_USER",
    "CREATE TABLESPACE t$n LOCATION '/tmp'",
    "ALTER SYSTEM SET sea_mq.nats_url = 'x'",
    "LOAD 'sea_mq'",
    "LOAD '$libdir/sea_mq'",
    "CHECKPOINT",
    "VACUUM $r",
    "VACUUM (FULL) $own.a",
    "ANALYZE $r",
    "CLUSTER $own.a USING a_pkey",
    "REINDEX TABLE $r",
    "REINDEX SCHEMA sea_mq",
    "CREATE FUNCTION $own.h(e sea_mq.event) RETURNS SETOF sea_mq.event LANGUAGE sql AS 'SELECT $1'",
    "CREATE FUNCTION $own.g() RETURNS text LANGUAGE c AS 'sea_mq', 'door_wrapper'",
    "CREATE AGGREGATE $own.sum$n (int) (SFUNC = int4pl, STYPE = int)",
    "CREATE PROCEDURE $own.pr$n() LANGUAGE sql AS 'SELECT 1'; CALL $own.pr$n(); DROP PROCEDURE $own.pr$n",
    "CREATE OPERATOR $own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)",
    "CREATE FOREIGN DATA WRAPPER w$n",
    "CREATE LANGUAGE plpython3u",
    "SECURITY LABEL ON TABLE $own.a IS 'x'",
    "IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z",
    "COMMENT ON EXTENSION sea_mq IS $t",
    "COMMENT ON TABLE $own.a IS $t",
    "CREATE SCHEMA IF NOT EXISTS $own CREATE TABLE z$n (i int)",
    "DROP OWNED BY nobody",
    "EXPLAIN SELECT * FROM $r",
    "EXPLAIN ANALYZE CREATE TABLE $own.y$n AS SELECT 1",
    "CREATE TABLE $own.inherits$n () INHERITS ($own.a)",
    "DROP TABLE IF EXISTS $own.inherits$n",
];
