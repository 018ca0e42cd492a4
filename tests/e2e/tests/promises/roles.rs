//! Handlers run as the subscription's owner, leave nothing to one another, and wait while they cannot be run.

use harness::{Stage, until};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::SOON;
use crate::receiving::{self, emit_numbers, recorded, until_state, until_status};

/// A stage with the handler `record` and the role `clerk`, who is nobody special and may subscribe.
async fn prepared(name: &str) -> Stage {
    let stage = receiving::prepared(name).await;
    let db = stage.connect().await;
    db.run(
        "CREATE ROLE clerk LOGIN;
         GRANT sea_mq_consumer, sea_mq_producer TO clerk;
         CREATE SCHEMA clerk AUTHORIZATION clerk;
         GRANT INSERT, SELECT ON effects TO clerk",
    )
    .await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_waits_while_it_cannot_be_run_and_no_message_is_blamed() {
    let stage = prepared("blocked").await;
    let db = stage.connect().await;
    let clerk = stage.connect_as("clerk").await;
    clerk
        .run(
            "CREATE FUNCTION clerk.work(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT public.record(e)';
             SELECT sea_mq.subscribe('app__clerk', 'orders', 'clerk.work', max_deliver => 1)",
        )
        .await;
    drop(clerk);
    db.run("SELECT sea_mq.subscribe('app__other', 'orders', 'record')").await;
    let troubles = [
        (
            "DROP FUNCTION clerk.work",
            "CREATE FUNCTION clerk.work(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT public.record(e)'",
        ),
        ("ALTER FUNCTION clerk.work RENAME TO rest", "ALTER FUNCTION clerk.rest RENAME TO work"),
        ("REVOKE ALL ON FUNCTION clerk.work FROM PUBLIC, clerk", "GRANT EXECUTE ON FUNCTION clerk.work TO clerk"),
        (
            "REASSIGN OWNED BY clerk TO postgres; DROP OWNED BY clerk; DROP ROLE clerk",
            // A role of the same name is another one.
            "CREATE ROLE clerk; GRANT sea_mq_consumer TO clerk; GRANT USAGE ON SCHEMA clerk TO clerk;
             GRANT INSERT ON effects TO clerk; GRANT EXECUTE ON FUNCTION clerk.work TO clerk;
             SELECT sea_mq.alter_subscription('app__clerk', owner => 'clerk')",
        ),
    ];
    for (n, (trouble, remedy)) in (1..).zip(troubles) {
        db.run(&format!("BEGIN; {trouble}; COMMIT")).await;
        emit_numbers(&db, n, n).await;
        let state = until_state(&db, "app__clerk", "state = 'blocked'").await;
        assert!(state["error"].as_str().is_some_and(|text| !text.is_empty()), "{trouble}: {state}");
        assert!(state["hint"].as_str().is_some_and(|text| !text.is_empty()), "{trouble}: {state}");
        until_status(&db, "app__other", n, "processed").await;
        db.run(&format!("BEGIN; {remedy}; COMMIT")).await;
        let message = until_status(&db, "app__clerk", n, "processed").await;
        assert_eq!(message["attempts"], 1, "{trouble}: {message}");
        until_state(&db, "app__clerk", "state = 'active' AND error IS NULL AND dead = 0 AND failures = 0").await;
    }
    assert_eq!(recorded(&db, "app__clerk").await, [1, 2, 3, 4]);
}

/// Whatever is tried, at once or from what runs only at the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_has_the_rights_of_its_owner_and_no_others() {
    let stage = prepared("rights").await;
    let db = stage.connect().await;
    db.run("CREATE TABLE secrets (secret text)").await;
    let clerk = stage.connect_as("clerk").await;
    clerk
        .run(
            "CREATE TABLE clerk.tried (what text, outcome text, who text);
             CREATE FUNCTION clerk.try(what text, sql text) RETURNS void LANGUAGE plpgsql AS $$
             DECLARE outcome text := 'done';
             BEGIN
                 BEGIN EXECUTE sql; EXCEPTION WHEN OTHERS THEN outcome := SQLSTATE; END;
                 INSERT INTO clerk.tried VALUES (what, outcome, current_user);
             END $$;
             CREATE FUNCTION clerk.try_all(place text) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM clerk.try(place || ' ' || sql, sql) FROM unnest(ARRAY[
                    'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'SET LOCAL ROLE postgres', 'RESET ROLE',
                    'RESET SESSION AUTHORIZATION', 'SET ROLE NONE', 'SELECT set_config(''role'', ''postgres'', false)',
                    'SELECT set_config(''session_authorization'', ''postgres'', false)', 'CREATE ROLE evil SUPERUSER',
                    'ALTER ROLE clerk SUPERUSER', 'GRANT postgres TO clerk', 'INSERT INTO public.secrets VALUES (1)',
                    'SELECT pg_read_file(''postgresql.conf'')', 'COPY (SELECT 1) TO PROGRAM ''true''',
                    'UPDATE sea_mq.subscriptions SET owner = ''postgres''',
                    'UPDATE pg_authid SET rolsuper = true']) sql;
             END $$;
             CREATE FUNCTION clerk.late() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM clerk.try_all(''late''); RETURN NULL; END';
             CREATE TABLE clerk.bait (id int);
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON clerk.bait DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION clerk.late();
             CREATE FUNCTION clerk.held() RETURNS int LANGUAGE plpgsql AS
                'BEGIN PERFORM clerk.try_all(''held''); RETURN 1; END';
             CREATE FUNCTION clerk.climb(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM clerk.try_all('now');
                 INSERT INTO clerk.bait VALUES (1);
                 PERFORM clerk.try('hold', 'DECLARE c CURSOR WITH HOLD FOR SELECT clerk.held()');
             END $$;
             CREATE FUNCTION clerk.spend(e sea_mq.event) RETURNS void LANGUAGE sql AS
                'INSERT INTO public.secrets VALUES (''x'')';
             SELECT sea_mq.subscribe('clerk__climb', 'orders', 'clerk.climb'),
                sea_mq.subscribe('clerk__spend', 'orders', 'clerk.spend', max_deliver => 1)",
        )
        .await;
    emit_numbers(&db, 1, 3).await;
    for n in 1..=3 {
        until_status(&db, "clerk__climb", n, "processed").await;
        let message = until_status(&db, "clerk__spend", n, "dead").await;
        assert_eq!(message["errors"][0]["sqlstate"], "42501", "{message}");
    }
    let who: Vec<String> = db.values("SELECT DISTINCT who FROM clerk.tried", &[]).await;
    assert_eq!(who, ["clerk"]);
    let late: i64 = db.value("SELECT count(*) FROM clerk.tried WHERE what LIKE 'late %'", &[]).await;
    assert!(late >= 3 * 16, "the deferred trigger has not run");
    // To set the role that it has is harmless; what matters is who it is afterwards.
    let done: Vec<String> = db
        .values(
            "SELECT what FROM clerk.tried WHERE outcome = 'done'
                AND what !~ '(SET ROLE NONE|RESET ROLE|RESET SESSION AUTHORIZATION|^hold)$'",
            &[],
        )
        .await;
    assert_eq!(done, Vec::<String>::new());
    let supers: Vec<String> = db.values("SELECT rolname::text FROM pg_roles WHERE rolsuper", &[]).await;
    assert_eq!(supers, ["postgres"]);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM secrets", &[]).await, 0);
}

/// A temporary table hides others of its name from all that the session runs, its triggers run as whoever writes to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_leaves_in_the_session_does_not_reach_the_handlers_of_others() {
    let stage = prepared("residue").await;
    let db = stage.connect().await;
    let clerk = stage.connect_as("clerk").await;
    clerk
        .run(
            "CREATE FUNCTION clerk.spring() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF current_user = 'postgres' THEN ALTER ROLE clerk SUPERUSER; END IF;
                 RETURN NEW;
             END $$;
             CREATE FUNCTION clerk.trap(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 CREATE TEMP TABLE IF NOT EXISTS effects (LIKE public.effects INCLUDING DEFAULTS);
                 ALTER TABLE pg_temp.effects ALTER COLUMN place DROP NOT NULL;
                 IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'spring') THEN
                     CREATE TRIGGER spring BEFORE INSERT ON pg_temp.effects FOR EACH ROW
                        EXECUTE FUNCTION clerk.spring();
                 END IF;
                 GRANT ALL ON pg_temp.effects TO PUBLIC;
             END $$;
             SELECT sea_mq.subscribe('clerk__trap', 'orders', 'clerk.trap', priority => 10)",
        )
        .await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    for round in 0..20 {
        emit_numbers(&db, round * 5 + 1, round * 5 + 5).await;
        until_status(&db, "app__all", round * 5 + 5, "processed").await;
    }
    until("the traps are set", SOON, async || {
        db.value("SELECT count(*) = 100 FROM sea_mq.inbox_messages WHERE subscription = 'clerk__trap'", &[]).await
    })
    .await;
    let supers: Vec<String> = db.values("SELECT rolname::text FROM pg_roles WHERE rolsuper", &[]).await;
    assert_eq!(supers, ["postgres"]);
    assert_eq!(recorded(&db, "app__all").await, (1..=100).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superuser_s_subscription_runs_somebody_else_s_function_as_its_owner() {
    let stage = prepared("function_owner").await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE who (who text);
         GRANT INSERT ON who TO clerk;
         CREATE FUNCTION clerk.work(e sea_mq.event) RETURNS void LANGUAGE sql AS
            'INSERT INTO public.who VALUES (current_user)';
         ALTER FUNCTION clerk.work OWNER TO clerk;
         SELECT sea_mq.subscribe('app__clerk', 'orders', 'clerk.work')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    until_status(&db, "app__clerk", 1, "processed").await;
    assert_eq!(db.values::<String>("SELECT who FROM who", &[]).await, ["clerk"]);
    let owner: String = db.value("SELECT owner::text FROM sea_mq.subscriptions", &[]).await;
    assert_eq!(owner, "clerk");
    // Names that need quotes, and a second function of that name.
    db.run(
        "CREATE SCHEMA \"Odd Schema\";
         CREATE FUNCTION \"Odd Schema\".\"Do It\"(e sea_mq.event) RETURNS void LANGUAGE sql AS
            'SELECT public.record(e)';
         SELECT sea_mq.subscribe('app__odd', 'orders', '\"Odd Schema\".\"Do It\"');
         CREATE FUNCTION \"Odd Schema\".\"Do It\"(text) RETURNS void LANGUAGE sql AS ''",
    )
    .await;
    emit_numbers(&db, 2, 2).await;
    until_status(&db, "app__odd", 2, "processed").await;
    // What runs as whom is decided by those who may.
    db.run("CREATE ROLE stranger LOGIN; CREATE ROLE colleague LOGIN; GRANT sea_mq_consumer TO colleague").await;
    let stranger = stage.connect_as("stranger").await;
    let sql = "SELECT sea_mq.subscribe('app__stranger', 'orders')";
    assert_eq!(stranger.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE);
    let colleague = stage.connect_as("colleague").await;
    for sql in [
        "SELECT sea_mq.unsubscribe('app__clerk')",
        "SELECT sea_mq.pause_subscription('app__clerk')",
        "SELECT sea_mq.alter_subscription('app__clerk', owner => 'colleague')",
    ] {
        assert_eq!(colleague.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

/// Neither in the next message's handler of the same transaction nor in later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_a_handler_makes_do_not_survive_it() {
    let stage = prepared("settings").await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE found (place bigint GENERATED ALWAYS AS IDENTITY, settings jsonb);
         CREATE FUNCTION settle_in(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO public.found (settings) SELECT jsonb_object_agg(name, current_setting(name, true))
             FROM unnest(ARRAY['search_path', 'work_mem', 'statement_timeout', 'TimeZone', 'session_replication_role',
                'app.own', 'lock_timeout']) name;
             SET search_path = pg_catalog;
             SET work_mem = '123kB';
             SET LOCAL statement_timeout = '77s';
             SET TimeZone = 'Pacific/Chatham';
             SET session_replication_role = replica;
             PERFORM set_config('app.own', 'mine', false), set_config('lock_timeout', '66s', false),
                set_config('sea_mq.correlation_id', 'mine', false);
         END $$;
         SELECT sea_mq.subscribe('app__settings', 'orders', 'settle_in')",
    )
    .await;
    emit_numbers(&db, 1, 3).await;
    until_status(&db, "app__settings", 3, "processed").await;
    emit_numbers(&db, 4, 5).await;
    until_status(&db, "app__settings", 5, "processed").await;
    until("all have looked", SOON, async || db.value("SELECT count(*) = 5 FROM found", &[]).await).await;
    let found: Vec<serde_json::Value> = db.values("SELECT settings FROM found ORDER BY place", &[]).await;
    for (at, later) in found.iter().enumerate() {
        for name in
            ["search_path", "work_mem", "statement_timeout", "TimeZone", "session_replication_role", "lock_timeout"]
        {
            assert_eq!(later[name], found[0][name], "{name}, handler {at}");
        }
        // A setting that nobody has defined stays known, and is empty.
        assert!(later["app.own"].is_null() || later["app.own"] == json!(""), "handler {at}: {later}");
    }
}
