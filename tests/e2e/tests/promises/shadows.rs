//! Nobody's code runs with somebody else's rights because a name means something else to the caller.
//!
//! `shadows/schema.sql` makes everything that pg_catalog has once more, in a schema that a role puts in front of its
//! `search_path`, that of its sessions or that of the whole database. Each shadow says so in the server's log when it runs as
//! anybody but the role whose session it is. What is called is generated from the catalogs, too.

use harness::{Chance, Database, Stage, StageOptions, until, until_some};

use crate::SOON;
use crate::calls;

/// Who tries, and which role of the extension they have; the last one owns the database and has none.
const HOSTILE: [(&str, &str); 5] = [
    ("hostile_producer", "sea_mq_producer"),
    ("hostile_consumer", "sea_mq_consumer"),
    ("hostile_operator", "sea_mq_operator"),
    ("hostile_monitor", "sea_mq_monitor"),
    ("hostile_owner", ""),
];

const PATH: &str = "mine, pg_catalog";

/// A stage with the shadows; `admin`, a superuser, and `victim`, who has all roles of the extension, say what their names mean.
struct Trap {
    stage: Stage,
    admin: Database,
    victim: Database,
}

impl Trap {
    async fn set(name: &str, options: StageOptions) -> Self {
        let stage = options.start(name).await;
        let db = stage.connect().await;
        db.run(
            "CREATE ROLE admin LOGIN SUPERUSER;
             ALTER ROLE admin SET search_path = pg_catalog, public;
             CREATE ROLE victim LOGIN IN ROLE sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
             ALTER ROLE victim SET search_path = pg_catalog, pg_temp;
             CREATE ROLE hostile",
        )
        .await;
        for (role, of) in HOSTILE {
            db.run(&format!("CREATE ROLE {role} LOGIN IN ROLE hostile")).await;
            if !of.is_empty() {
                db.run(&format!("GRANT {of} TO {role}")).await;
            }
        }
        db.run("ALTER DATABASE app OWNER TO hostile_owner").await;
        stage.connect_as("hostile_owner").await.run(include_str!("shadows/schema.sql")).await;
        // Handlers say what names mean, so that only what is run around them can be misled.
        db.run(
            "CREATE SCHEMA victim;
             CREATE SCHEMA hostile;
             GRANT USAGE ON SCHEMA victim TO PUBLIC;
             GRANT ALL ON SCHEMA victim TO victim;
             GRANT ALL ON SCHEMA hostile TO hostile;
             CREATE TABLE victim.effects (subscription text, n bigint, who text);
             CREATE TABLE victim.watched (id int PRIMARY KEY, n int, at timestamptz DEFAULT now(), tags text[]);
             CREATE FUNCTION victim.work(e sea_mq.event) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
             BEGIN
                 INSERT INTO victim.effects VALUES (e.subscription, (e.payload ->> 'n')::bigint, current_user);
                 IF e.event_type = 'fails' AND NOT (e.payload ? 'fixed') THEN RAISE EXCEPTION 'not this one'; END IF;
             END $$;
             ALTER TABLE victim.effects OWNER TO victim;
             ALTER TABLE victim.watched OWNER TO victim;
             ALTER FUNCTION victim.work OWNER TO victim;
             GRANT ALL ON victim.watched TO hostile",
        )
        .await;
        let (admin, victim) = (stage.connect_as("admin").await, stage.connect_as("victim").await);
        victim
            .run(
                "SELECT sea_mq.create_stream('orders');
                 SELECT sea_mq.register_event('orders', 'Checked', 1, '{\"type\": \"object\"}');
                 SELECT sea_mq.register_event('orders', 'Placed', 1, '{\"type\": \"object\"}');
                 SELECT sea_mq.register_mapping('acme', 'order', '$.id', 'Placed', 'order', '$.id', '{\"n\": \"$.n\"}', context => 'orders');
                 SELECT sea_mq.subscribe('victim__work', 'orders', 'victim.work', max_deliver => 1, start_from => 'all');
                 SELECT sea_mq.subscribe('victim__pull', 'orders', max_deliver => 1)",
            )
            .await;
        // Theirs do it, and set a search path that would outlive them.
        let consumer = stage.connect_as("hostile_consumer").await;
        consumer
            .run(
                "CREATE TABLE hostile.bait (id int);
                 CREATE FUNCTION hostile.stay() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     PERFORM set_config('search_path', 'mine, pg_catalog', false);
                     RETURN NULL;
                 END $$;
                 CREATE CONSTRAINT TRIGGER stay AFTER INSERT ON hostile.bait DEFERRABLE INITIALLY DEFERRED
                    FOR EACH ROW EXECUTE FUNCTION hostile.stay();
                 CREATE FUNCTION hostile.handle(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
                 BEGIN
                     PERFORM mine.make_types('pg_temp');
                     PERFORM set_config('search_path', 'mine, pg_catalog', false);
                     INSERT INTO hostile.bait VALUES (1);
                 END $$;
                 SELECT sea_mq.subscribe('hostile__work', 'orders', 'hostile.handle', max_deliver => 2, start_from => 'all'),
                    sea_mq.subscribe('hostile__pull', 'orders', start_from => 'all')",
            )
            .await;
        let operator = stage.connect_as("hostile_operator").await;
        operator
            .run("CREATE TABLE hostile.watched (id int PRIMARY KEY, n int, at timestamptz DEFAULT now(), tags text[])")
            .await;
        Self { stage, admin, victim }
    }

    /// What is captured of the victim's table, as a superuser has decided.
    async fn capture(&self) {
        let sql = "SELECT sea_mq.capture_table('victim.watched', 'watched', \"when\" => 'new.n > 0 OR old.n > 0')";
        self.admin.run(sql).await;
    }

    /// Everything that `role` may do with the extension, in a session that begins with `prepared`. Returns how many of the
    /// calls got through.
    async fn try_everything(&self, role: &str, prepared: &str, chance: &mut Chance) -> usize {
        let session = self.stage.connect_as(role).await;
        session.run("SELECT mine.make_types('pg_temp')").await;
        session.run(prepared).await;
        session.run("SET statement_timeout = '1s'; SET lock_timeout = '1s'; SET client_min_messages = error").await;
        let mut passed = 0;
        let functions = calls::functions(&self.admin, Some(role)).await;
        for function in &functions {
            // NULLs first, then what gets further.
            for round in 0..4 {
                let value = |name: &str, of: &str| {
                    if round == 0 { calls::null(of) } else { calls::plausible(chance, name, of) }
                };
                passed += usize::from(session.batch_execute(&function.call(value)).await.is_ok());
            }
        }
        for relation in calls::relations(&self.admin, role).await {
            passed += usize::from(session.batch_execute(&format!("SELECT * FROM {relation} LIMIT 20")).await.is_ok());
        }
        for statement in STATEMENTS {
            passed += usize::from(session.batch_execute(statement).await.is_ok());
            let _ = session.batch_execute("ROLLBACK").await;
        }
        let _ = session.batch_execute("SELECT sea_mq.start()").await;
        passed
    }

    /// Events for all subscriptions: handled ones, dead letters, scheduled ones, those of captured rows.
    async fn traffic(&self, n: i64) {
        self.victim
            .run(&format!(
                "SELECT sea_mq.emit('order', '1', 'Placed', '{{\"n\": {n}}}'), sea_mq.emit('order', '2', 'Fails', '{{\"n\": {n}}}'),
                    sea_mq.emit('order', '3', 'Placed', '{{\"n\": -{n}}}', available_at => now() + '100 ms'),
                    sea_mq.emit('order', '4', 'Checked', '{{}}', context => 'fresh_{n}');
                 INSERT INTO victim.watched VALUES ({n}, 1); UPDATE victim.watched SET n = n + 1; DELETE FROM victim.watched"
            ))
            .await;
        for (what, sql) in [
            ("the event is handled", format!("SELECT count(*) > 0 FROM victim.effects WHERE n = {n}")),
            ("the scheduled event is handled", format!("SELECT count(*) > 0 FROM victim.effects WHERE n = -{n}")),
            (
                "there is a dead letter",
                format!("SELECT count(*) > 0 FROM sea_mq.dlq_messages WHERE payload @> '{{\"n\": {n}}}'"),
            ),
        ] {
            until(what, SOON, async || self.admin.value(&sql, &[]).await).await;
        }
        let sql = "SELECT sea_mq.dlq_replay(id, payload || '{\"fixed\": true}') FROM sea_mq.dlq_list() LIMIT 3";
        let _ = self.victim.batch_execute(sql).await;
    }

    /// No shadow has run as anybody but the role itself, and nobody has become a superuser.
    async fn assert_unharmed(&self) {
        let told = self.shadows();
        let seen: std::collections::BTreeSet<&str> = told.iter().map(String::as_str).collect();
        assert!(seen.is_empty(), "{} shadows ran as somebody else: {seen:#?}", told.len());
        let supers = "SELECT rolname::text FROM pg_roles WHERE rolsuper ORDER BY 1";
        assert_eq!(self.admin.values::<String>(supers, &[]).await, ["admin", "postgres"]);
        let who: Vec<String> = self.admin.values("SELECT DISTINCT who FROM victim.effects", &[]).await;
        assert_eq!(who, ["victim"]);
    }

    /// What the shadows said in the server's log about running as somebody else.
    fn shadows(&self) -> Vec<String> {
        let log = self.stage.cluster.log();
        let told = log.lines().filter_map(|line| Some(line.split_once("LOG:  SHADOW ")?.1.to_owned()));
        told.filter(|line| !line.contains(" ran as itself, ")).collect()
    }

    async fn workers(&self) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type IN ('sea_mq relay', 'sea_mq consumer') AND datname = 'app' ORDER BY 1";
        self.admin.values(sql, &[]).await
    }

    /// Waits until relay and consumer are there, and are others than those.
    async fn until_replaced(&self, old: &[i32]) {
        until_some("other workers run", SOON, async || {
            let workers = self.workers().await;
            (workers.len() == 2 && workers.iter().all(|pid| !old.contains(pid))).then_some(())
        })
        .await;
    }
}

/// What is done with the extension beside calling its functions. Much of it is refused to most.
const STATEMENTS: &[&str] = &[
    "SELECT sea_mq.emit('order', '1', 'Placed', '{\"n\": 1}')",
    "SELECT sea_mq.emit('order', '1', 'Placed', '{\"n\": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8071')",
    "SELECT sea_mq.emit('order', '1', 'Placed', '{\"n\": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8071')",
    "SELECT sea_mq.emit('order', '1', 'Placed', '{\"n\": 1}', context => 'of_' || current_user)",
    "SELECT sea_mq.emit('order', '1', 'Placed', '{\"n\": 1}', available_at => pg_catalog.now() OPERATOR(pg_catalog.+) '1 hour'::interval)",
    "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', '1', 'Placed', '{\"n\": 1}')",
    "BEGIN; SELECT sea_mq.emit('order', '1', 'Placed', '{}'); SAVEPOINT s; SELECT sea_mq.emit('order', '1', 'Placed', '{}');
     ROLLBACK TO s; SELECT * FROM sea_mq.pending_events(); COMMIT",
    "BEGIN; SELECT sea_mq.emit('order', '1', 'Placed', '{}'); PREPARE TRANSACTION 'p'",
    "COMMIT PREPARED 'p'",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT sea_mq.emit('order', '1', 'Placed', '{}') FROM generate_series(1, 3); COMMIT",
    "SELECT sea_mq.dlq_replay(id) FROM sea_mq.dlq_list() LIMIT 2",
    "SELECT sea_mq.dlq_discard(id, 'no') FROM sea_mq.dlq_list() LIMIT 1",
    "SELECT sea_mq.complete(id) FROM sea_mq.receive('hostile__pull', 2)",
    "SELECT sea_mq.extend_lease(id), sea_mq.fail(id, 'later') FROM sea_mq.receive('hostile__pull', 1)",
    "SELECT sea_mq.reject(id, 'no') FROM sea_mq.receive('hostile__pull', 1)",
    "SELECT sea_mq.inbox_accept('m', 'orders', 'Placed', '{}', 'hostile__accepts') FROM generate_series(1, 2)",
    "INSERT INTO victim.watched (id, n) VALUES (-1, 1), (-2, 2)",
    "UPDATE victim.watched SET n = 7 WHERE id < 0",
    "INSERT INTO victim.watched (id, n) VALUES (-1, 1) ON CONFLICT (id) DO UPDATE SET n = 8",
    "DELETE FROM victim.watched WHERE id < 0",
    "TRUNCATE victim.watched",
    "COPY sea_mq.subscriptions TO STDOUT",
    "EXPLAIN ANALYZE SELECT * FROM sea_mq.status",
    "CREATE TABLE hostile.own_table (id int PRIMARY KEY)",
    "ALTER TABLE hostile.watched ADD COLUMN more text",
    "CREATE TYPE hostile.kind AS ENUM ('a'); ALTER TYPE hostile.kind ADD VALUE 'b'; DROP TYPE hostile.kind",
];

/// In a session's search path, and by temporary types, which need none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_s_search_path_hides_runs_as_nobody_else() {
    let trap = Trap::set("shadows_session", StageOptions::default()).await;
    trap.capture().await;
    let (mut chance, _) = Chance::new(0);
    for (role, of) in HOSTILE {
        for prepared in [
            "SET search_path = mine, pg_catalog",
            "SET search_path = pg_catalog",
            "SET search_path = pg_temp, mine, pg_catalog; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard;
             SET standard_conforming_strings = off; SET quote_all_identifiers = on; SET transform_null_equals = on",
        ] {
            let passed = trap.try_everything(role, prepared, &mut chance).await;
            assert!(passed > if of.is_empty() { 0 } else { 20 }, "{role}: {passed} calls passed");
        }
    }
    trap.traffic(1).await;
    trap.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_s_search_path_hides_runs_as_nobody_else() {
    let trap = Trap::set("shadows_role", StageOptions::default()).await;
    trap.capture().await;
    let (mut chance, _) = Chance::new(0);
    for (role, _) in HOSTILE {
        trap.stage.connect_as(role).await.run(&format!("ALTER ROLE {role} SET search_path = {PATH}")).await;
        trap.try_everything(role, "", &mut chance).await;
    }
    trap.traffic(1).await;
    trap.assert_unharmed().await;
}

/// In the workers as well, however they come to be started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_s_search_path_hides_runs_as_nobody_else() {
    let trap = Trap::set("shadows_database", StageOptions::default()).await;
    trap.capture().await;
    trap.stage.connect_as("hostile_owner").await.run(&format!("ALTER DATABASE app SET search_path = {PATH}")).await;
    let (mut chance, _) = Chance::new(0);
    let operator = trap.stage.connect_as("hostile_operator").await;
    for (n, restart) in (1..).zip([
        "SELECT sea_mq.reload()",
        "SELECT sea_mq.stop()",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'sea\\_mq%' AND datname = 'app'",
    ]) {
        let old = trap.workers().await;
        let by = if restart.contains("terminate") { &trap.admin } else { &operator };
        by.run(restart).await;
        if restart.contains("stop") {
            until("they have stopped", SOON, async || trap.workers().await.is_empty()).await;
            operator.run("SELECT sea_mq.start()").await;
        }
        trap.until_replaced(&old).await;
        trap.traffic(n).await;
    }
    for (role, _) in HOSTILE {
        trap.try_everything(role, "", &mut chance).await;
    }
    trap.traffic(4).await;
    trap.assert_unharmed().await;
}

/// The estimate that `sea_mq.max_outbox_size` needs, and the refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hidden_while_the_outbox_is_full_runs_as_nobody_else() {
    let options = StageOptions::default().setting("sea_mq.max_outbox_size", "1MB");
    let mut trap = Trap::set("shadows_full", options).await;
    trap.stage.connect_as("hostile_owner").await.run(&format!("ALTER DATABASE app SET search_path = {PATH}")).await;
    trap.traffic(1).await;
    trap.stage.broker.stop();
    let producer = trap.stage.connect_as("hostile_producer").await;
    producer.run("SELECT mine.make_types('pg_temp')").await;
    let sql = "SELECT sea_mq.emit('order', n::pg_catalog.text, 'Placed', pg_catalog.to_jsonb(
            (SELECT pg_catalog.string_agg(pg_catalog.md5(pg_catalog.random()::pg_catalog.text), '') FROM pg_catalog.generate_series(1, 10))))
        FROM pg_catalog.generate_series(1, 300) n";
    until("emit is refused", SOON, async || {
        let error = producer.batch_execute(sql).await.err();
        error.is_some_and(|error| error.code().is_some_and(|code| code.code() == "53400"))
    })
    .await;
    let (mut chance, _) = Chance::new(0);
    for (role, _) in HOSTILE {
        trap.try_everything(role, "", &mut chance).await;
    }
    trap.assert_unharmed().await;
}

/// The tests above can fail: shadows are there, they run, and where somebody is careless they run as somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadows_run_where_postgresql_lets_them() {
    let trap = Trap::set("shadows_seen", StageOptions::default()).await;
    let count = "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'mine'::regnamespace) > 3000
            AND (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'mine'::regnamespace) > 800
            AND (SELECT count(*) FROM pg_type WHERE typnamespace = 'mine'::regnamespace AND typtype = 'd') > 70
            AND (SELECT count(*) FROM pg_class WHERE relnamespace = 'mine'::regnamespace AND relkind = 'v') > 100";
    assert!(trap.admin.value::<bool>(count, &[]).await, "there are too few shadows");
    trap.admin
        .run(
            "CREATE FUNCTION public.careless(a text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
                $$ SELECT upper(a) <> 'x' AND EXISTS (SELECT FROM pg_class WHERE relname = a::text) $$;
             ALTER FUNCTION public.careless OWNER TO postgres",
        )
        .await;
    for (role, _) in HOSTILE {
        let session = trap.stage.connect_as(role).await;
        session.run("SET search_path = mine, pg_catalog; SET mine.tell = on; SELECT upper('a') = 'A', 1 + 1 = 2, 'x'::text, count(*) FROM pg_class").await;
        let log = trap.stage.cluster.log();
        for what in [
            "function upper",
            "operator =(text,text)",
            "operator +(integer,integer)",
            "type mine.text",
            "aggregate count",
            "relation pg_class",
        ] {
            let line = format!("SHADOW {what} ran as itself, {role}");
            assert!(log.contains(&line), "there is no line: {line}");
        }
        assert_eq!(trap.shadows(), Vec::<String>::new());
        session.run("SELECT mine.make_types('pg_temp'); SET search_path = pg_catalog; SELECT 'x'::text").await;
        let line = format!("SHADOW type pg_temp.text ran as itself, {role}");
        assert!(trap.stage.cluster.log().contains(&line), "there is no line: {line}");
    }
    let session = trap.stage.connect_as("hostile_producer").await;
    session.run("SET search_path = mine, pg_catalog; SELECT public.careless('a')").await;
    let told = trap.shadows();
    for what in ["function upper", "operator =(name,text)", "type mine.text", "relation pg_class"] {
        let line = format!("{what} ran as postgres in a session of hostile_producer");
        assert!(told.contains(&line), "{line} is not among {told:#?}");
    }
}
