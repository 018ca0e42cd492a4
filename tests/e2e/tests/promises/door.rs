//! Nobody rises: what the workers do they do as the extension's owner, what handlers do they do as theirs, and neither is left
//! anything by the other.

use harness::{Cluster, Stage, until};
use serde_json::Value;
use tokio_postgres::error::SqlState;

use crate::SOON;
use crate::receiving::{emit_numbers, prepared, recorded, until_state, until_status};

/// A stage with the handler `record`, and roles that may subscribe.
async fn with_roles(name: &str, roles: &[&str]) -> Stage {
    let stage = prepared(name).await;
    let db = stage.connect().await;
    db.run("GRANT INSERT, SELECT ON effects TO PUBLIC; CREATE TABLE who (place bigint GENERATED ALWAYS AS IDENTITY, who text);
        GRANT INSERT ON who TO PUBLIC").await;
    for role in roles {
        db.run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT sea_mq_consumer, sea_mq_producer TO {role}; CREATE SCHEMA {role} AUTHORIZATION {role}"
        ))
        .await;
    }
    stage
}

/// Who ran the function that was put in the place of a handler.
async fn who(stage: &Stage) -> Vec<String> {
    stage.connect().await.values("SELECT DISTINCT who FROM who ORDER BY who", &[]).await
}

/// A function that notes who runs it.
fn noting(name: &str) -> String {
    format!(
        "CREATE FUNCTION {name}(e sea_mq.event) RETURNS void LANGUAGE sql AS 'INSERT INTO public.who (who) VALUES (current_user)'"
    )
}

/// A trigger on a table that the consumer and the relay write says who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workers_act_as_the_owner_of_messages_and_as_nobody_else() {
    let stage = with_roles("act_as_owner", &[]).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO public.who (who) VALUES (current_user || ' ' || current_setting('search_path')); RETURN NULL; END $$;
         CREATE TRIGGER noted AFTER INSERT OR UPDATE ON sea_mq.stream_state FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON sea_mq.subscription_health FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE TRIGGER noted AFTER INSERT OR UPDATE ON sea_mq.inbox_pending FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE FUNCTION fails(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
         GRANT USAGE ON SCHEMA public TO PUBLIC;
         SELECT sea_mq.subscribe('app__fails', 'orders', 'fails', max_deliver => 2, retry_delay => '0')",
    )
    .await;
    emit_numbers(&db, 1, 2).await;
    until_status(&db, "app__fails", 2, "dead").await;
    db.run("SELECT sea_mq.unsubscribe('app__fails')").await;
    let owners: Vec<String> = db
        .values(
            "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class
             WHERE relnamespace = 'sea_mq'::regnamespace AND relkind IN ('r', 'p', 'S')",
            &[],
        )
        .await;
    assert_eq!(owners, ["sea_mq_owner"]);
    assert_eq!(who(&stage).await, ["sea_mq_owner pg_catalog, pg_temp"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_sees_its_owner_as_the_user_of_the_session() {
    let stage = with_roles("session_user", &["clerk"]).await;
    let clerk = stage.connect_as("clerk").await;
    clerk
        .run(
            "CREATE FUNCTION clerk.look(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO public.who (who) VALUES (concat_ws(' ', session_user, current_user, current_setting('is_superuser')));
                 BEGIN RESET SESSION AUTHORIZATION; EXCEPTION WHEN OTHERS THEN NULL; END;
                 INSERT INTO public.who (who) VALUES (concat_ws(' ', session_user, current_user, current_setting('is_superuser')));
             END $$;
             SELECT sea_mq.subscribe('clerk__look', 'orders', 'clerk.look')",
        )
        .await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 2).await;
    until_status(&db, "clerk__look", 2, "processed").await;
    assert_eq!(who(&stage).await, ["clerk clerk off"]);
    // A superuser's own function: the session is a superuser's again.
    db.run(
        "CREATE FUNCTION look(e sea_mq.event) RETURNS void LANGUAGE sql AS
            $$INSERT INTO public.who (who) VALUES (concat_ws(' ', session_user, current_user, current_setting('is_superuser')))$$;
         SELECT sea_mq.subscribe('app__look', 'orders', 'look')",
    )
    .await;
    emit_numbers(&db, 3, 3).await;
    until_status(&db, "app__look", 3, "processed").await;
    assert_eq!(who(&stage).await, ["clerk clerk off", "postgres postgres on"]);
}

/// Settings that are made where the handler has returned already: in a deferred trigger, and in a cursor that is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_at_the_commit_leaves_no_setting_behind() {
    let stage = with_roles("late_settings", &["clerk", "other"]).await;
    let db = stage.connect().await;
    let settings = "ARRAY['search_path', 'default_transaction_read_only', 'TimeZone', 'sea_mq.context', 'lock_timeout',
        'default_transaction_isolation', 'app.own', 'enable_indexscan', 'statement_timeout']";
    db.run("CREATE TABLE found (place bigint GENERATED ALWAYS AS IDENTITY, settings jsonb); GRANT INSERT ON found TO PUBLIC").await;
    let other = stage.connect_as("other").await;
    other
        .run(&format!(
            "CREATE FUNCTION other.look(e sea_mq.event) RETURNS void LANGUAGE sql AS $$
                INSERT INTO public.found (settings) SELECT jsonb_object_agg(name, coalesce(current_setting(name, true), ''))
                FROM unnest({settings}) name $$;
             SELECT sea_mq.subscribe('other__look', 'orders', 'other.look')"
        ))
        .await;
    emit_numbers(&db, 1, 1).await;
    until_status(&db, "other__look", 1, "processed").await;
    let clerk = stage.connect_as("clerk").await;
    clerk
        .run(
            "CREATE FUNCTION clerk.own(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO public.who (who) SELECT current_user WHERE current_user <> 'clerk';
                 RETURN $1 OPERATOR(pg_catalog.=) $2;
             END $$;
             CREATE OPERATOR clerk.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = clerk.own);
             GRANT USAGE ON SCHEMA clerk TO PUBLIC;
             CREATE FUNCTION clerk.settle_in() RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM set_config('search_path', 'clerk, pg_catalog', false),
                     set_config('default_transaction_read_only', 'on', false), set_config('TimeZone', 'Pacific/Chatham', false),
                     set_config('sea_mq.context', 'mine', false), set_config('lock_timeout', '1ms', false),
                     set_config('default_transaction_isolation', 'serializable', false), set_config('app.own', 'mine', false),
                     set_config('enable_indexscan', 'off', false), set_config('statement_timeout', '99s', false);
                 RETURN true;
             END $$;
             CREATE FUNCTION clerk.late() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM clerk.settle_in(); RETURN NULL; END';
             CREATE TABLE clerk.bait (id int);
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON clerk.bait DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION clerk.late();
             CREATE FUNCTION clerk.work(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 INSERT INTO clerk.bait VALUES (1);
                 EXECUTE 'DECLARE c' || (e.payload ->> 'n') || ' CURSOR WITH HOLD FOR SELECT clerk.settle_in()';
             END $$;
             SELECT sea_mq.subscribe('clerk__work', 'orders', 'clerk.work', priority => 10)",
        )
        .await;
    let consumer = stage.consumer().await;
    for n in 2..=6 {
        emit_numbers(&db, n, n).await;
        until_status(&db, "clerk__work", n, "processed").await;
        until_status(&db, "other__look", n, "processed").await;
    }
    let found: Vec<Value> = db.values("SELECT settings FROM found ORDER BY place", &[]).await;
    assert_eq!(found.len(), 6);
    for later in &found[1..] {
        assert_eq!(later, &found[0]);
    }
    assert_eq!(who(&stage).await, Vec::<String>::new());
    // Nothing was left that the process would have had to end for.
    assert_eq!(stage.consumer().await, consumer);
    assert!(db.value::<i64>("SELECT count(*) FROM clerk.bait", &[]).await >= 5, "the trigger was not queued");
}

/// The owner of the schema in which a superuser's handler stands can put another function in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_a_handler_s_place_does_not_run_as_whom_it_ran() {
    let tricks = [
        ("dropped", "DROP FUNCTION place.work(sea_mq.event); {place.work}"),
        ("renamed", "ALTER SCHEMA place RENAME TO gone; CREATE SCHEMA place; {place.work}"),
        ("moved", "CREATE SCHEMA aside; ALTER FUNCTION place.work(sea_mq.event) SET SCHEMA aside; {place.work}"),
        ("replaced", "ALTER SCHEMA place RENAME TO gone; ALTER SCHEMA decoy RENAME TO place"),
    ];
    for (name, trick) in tricks {
        let stage = with_roles(name, &[]).await;
        let db = stage.connect().await;
        db.run(
            "CREATE ROLE boss LOGIN; GRANT sea_mq_consumer TO boss; ALTER DATABASE app OWNER TO boss; CREATE SCHEMA place AUTHORIZATION boss;
            GRANT INSERT, SELECT ON effects TO boss",
        )
        .await;
        let boss = stage.connect_as("boss").await;
        boss.run(&format!("CREATE SCHEMA decoy; {}", noting("decoy.work"))).await;
        // The superuser's function where somebody else owns the schema, who can drop what stands in it.
        db.run(
            "CREATE FUNCTION place.work(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT public.record(e)';
            SELECT sea_mq.subscribe('app__work', 'orders', 'place.work')",
        )
        .await;
        emit_numbers(&db, 1, 1).await;
        until_status(&db, "app__work", 1, "processed").await;
        let trick = trick.replace("{place.work}", &noting("place.work"));
        if name == "moved" {
            // Only who owns a function can move it.
            db.run("CREATE SCHEMA aside; ALTER FUNCTION place.work(sea_mq.event) SET SCHEMA aside").await;
            boss.run(&noting("place.work")).await;
        } else {
            boss.run(&trick).await;
        }
        emit_numbers(&db, 2, 2).await;
        let state = until_state(&db, "app__work", "state = 'blocked'").await;
        assert!(state["error"].is_string() && state["hint"].is_string(), "{name}: {state}");
        assert_eq!(who(&stage).await, Vec::<String>::new(), "{name}");
        // Nor does a superuser who names it make it one's own.
        let sql = "SELECT sea_mq.alter_subscription('app__work', handler => 'place.work')";
        assert_eq!(db.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{name}");
        db.run("SELECT sea_mq.alter_subscription('app__work', handler => 'place.work', owner => 'boss')").await;
        until_status(&db, "app__work", 2, "processed").await;
        assert_eq!(who(&stage).await, ["boss"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_is_revoked_ends_what_it_allowed() {
    let stage = with_roles("revoked", &["clerk", "chief"]).await;
    let db = stage.connect().await;
    db.run("GRANT chief TO clerk; GRANT USAGE ON SCHEMA clerk TO chief").await;
    let clerk = stage.connect_as("clerk").await;
    clerk.run(&noting("clerk.work")).await;
    clerk
        .run(
            "SELECT sea_mq.subscribe('clerk__work', 'orders', 'clerk.work');
             SELECT sea_mq.alter_subscription('clerk__work', owner => 'chief')",
        )
        .await;
    emit_numbers(&db, 1, 1).await;
    until_status(&db, "clerk__work", 1, "processed").await;
    assert_eq!(who(&stage).await, ["chief"]);
    db.run("TRUNCATE who; REVOKE chief FROM clerk").await;
    emit_numbers(&db, 2, 2).await;
    until_state(&db, "clerk__work", "state = 'blocked'").await;
    assert_eq!(who(&stage).await, Vec::<String>::new());
    for sql in [
        "SELECT sea_mq.alter_subscription('clerk__work', owner => 'clerk')",
        "SELECT sea_mq.unsubscribe('clerk__work')",
        "SELECT sea_mq.subscribe('clerk__work', 'orders', 'clerk.work')",
    ] {
        let code = clerk.refusal(sql).await;
        assert!([SqlState::INSUFFICIENT_PRIVILEGE, SqlState::DUPLICATE_OBJECT].contains(&code), "{sql}: {code:?}");
    }
    db.run("GRANT chief TO clerk").await;
    until_status(&db, "clerk__work", 2, "processed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_known_by_what_it_is_and_not_by_its_name() {
    let stage = with_roles("renamed_role", &["clerk"]).await;
    let db = stage.connect().await;
    let clerk = stage.connect_as("clerk").await;
    clerk.run(&noting("clerk.work")).await;
    clerk.run("SELECT sea_mq.subscribe('clerk__work', 'orders', 'clerk.work')").await;
    drop(clerk);
    db.run("ALTER ROLE clerk RENAME TO scribe").await;
    emit_numbers(&db, 1, 1).await;
    until_status(&db, "clerk__work", 1, "processed").await;
    let owner: String = db.value("SELECT owner::text FROM sea_mq.subscription_status", &[]).await;
    assert_eq!((owner.as_str(), who(&stage).await), ("scribe", vec!["scribe".into()]));
    // Another role of the old name is another role.
    db.run("TRUNCATE who; CREATE ROLE clerk LOGIN; GRANT sea_mq_consumer TO clerk").await;
    let clerk = stage.connect_as("clerk").await;
    let sql = "SELECT sea_mq.unsubscribe('clerk__work')";
    assert_eq!(clerk.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE);
    emit_numbers(&db, 2, 2).await;
    until_status(&db, "clerk__work", 2, "processed").await;
    assert_eq!(who(&stage).await, ["scribe"]);
    db.run("REASSIGN OWNED BY scribe TO postgres; DROP OWNED BY scribe; DROP ROLE scribe; CREATE ROLE scribe").await;
    emit_numbers(&db, 3, 3).await;
    until_state(&db, "clerk__work", "state = 'blocked'").await;
    db.run(
        "GRANT USAGE ON SCHEMA clerk TO scribe; GRANT EXECUTE ON FUNCTION clerk.work TO scribe;
        SELECT sea_mq.alter_subscription('clerk__work', owner => 'scribe')",
    )
    .await;
    until_status(&db, "clerk__work", 3, "processed").await;
}

/// Whatever somebody may do to what he made, he may after he was renamed, and a role that takes his old name may not. It stays
/// so in a copy that is adopted, where the old name is what is written beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_made_something_is_known_by_more_than_a_name() {
    let stage = with_roles("maker", &["clerk"]).await;
    let db = stage.connect().await;
    db.run("GRANT sea_mq_operator TO clerk").await;
    stage
        .connect_as("clerk")
        .await
        .run(
            "SELECT sea_mq.create_endpoint('partner', 'http', 'https://partner.invalid/');
             SELECT sea_mq.create_link('a', 'b', n::text, 'c', 'd', 'e') FROM generate_series(1, 2) n;
             SELECT sea_mq.subscribe('clerk__first', 'orders'), sea_mq.subscribe('clerk__second', 'orders');
             SELECT sea_mq.inbox_accept('m-1', 'orders', 'made', '{}', 'clerk_own')",
        )
        .await;
    db.run(
        "REVOKE sea_mq_operator FROM clerk; ALTER ROLE clerk RENAME TO scribe; CREATE ROLE clerk LOGIN;
         GRANT sea_mq_consumer, sea_mq_producer TO clerk",
    )
    .await;
    let ids: Vec<String> = db.values("SELECT id::text FROM sea_mq.entity_links ORDER BY source_id", &[]).await;
    for (copy, link, subscription) in
        [("", &ids[0], "clerk__first"), ("SELECT sea_mq.adopt()", &ids[1], "clerk__second")]
    {
        db.run(copy).await;
        let (impostor, scribe) = (stage.connect_as("clerk").await, stage.connect_as("scribe").await);
        let deeds = [
            format!("SELECT sea_mq.subscribe('new__{subscription}', 'orders', endpoint => 'partner')"),
            format!("SELECT sea_mq.drop_link('{link}')"),
            format!("SELECT sea_mq.unsubscribe('{subscription}')"),
            format!("SELECT sea_mq.inbox_accept('m-{subscription}', 'orders', 'made', '{{}}', 'clerk_own')"),
        ];
        for deed in deeds {
            assert_eq!(impostor.refusal(&deed).await, SqlState::INSUFFICIENT_PRIVILEGE, "{copy} {deed}");
            scribe.run(&deed).await;
        }
    }
    let shown: String = db.value("SELECT created_by::text FROM sea_mq.endpoints", &[]).await;
    assert_eq!(shown, "scribe");
}

/// Roles are not part of a dump, and have other numbers where it is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_restored_without_the_roles_that_it_names() {
    let stage = with_roles("dump_without_roles", &[]).await;
    let db = stage.connect().await;
    db.run("CREATE ROLE clerk LOGIN; GRANT sea_mq_consumer TO clerk; SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    stage.connect_as("clerk").await.run("SELECT sea_mq.subscribe('clerk__pull', 'orders')").await;
    let mut other = Cluster::new(&stage.directory.path().join("other"), &[]);
    other.configure(&[("shared_preload_libraries", "sea_mq")]);
    other.start().await;
    other.run("CREATE DATABASE app").await;
    stage.cluster.copy_database("app", &other, "app");
    let copy = other.connect("app").await;
    let row = copy.object("SELECT owner, owner_oid FROM sea_mq.subscriptions WHERE subscription = 'clerk__pull'").await;
    assert_eq!((&row["owner"], &row["owner_oid"]), (&"clerk".into(), &Value::Null), "{row}");
    let known = "SELECT handler_oid = 'record'::regproc FROM sea_mq.subscriptions WHERE subscription = 'app__all'";
    assert!(copy.value::<bool>(known, &[]).await);
    copy.run("CREATE ROLE clerk; SELECT sea_mq.adopt()").await;
    let known = "SELECT owner_oid = 'clerk'::regrole FROM sea_mq.subscriptions WHERE subscription = 'clerk__pull'";
    assert!(copy.value::<bool>(known, &[]).await);
}

/// What members of other roles have received or accepted is nobody else's to complete or to use up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_do_not_reach_each_other_s_messages() {
    let stage = with_roles("apart", &["clerk", "thief"]).await;
    let (clerk, thief) = (stage.connect_as("clerk").await, stage.connect_as("thief").await);
    clerk.run("SELECT sea_mq.subscribe('clerk__pull', 'orders')").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 1).await;
    let id: i64 = {
        until_status(&db, "clerk__pull", 1, "received").await;
        clerk.value("SELECT id FROM sea_mq.receive('clerk__pull')", &[]).await
    };
    for sql in [
        "SELECT * FROM sea_mq.receive('clerk__pull')".to_owned(),
        format!("SELECT sea_mq.complete({id})"),
        format!("SELECT sea_mq.fail({id}, 'x')"),
        format!("SELECT sea_mq.reject({id}, 'x')"),
        format!("SELECT sea_mq.extend_lease({id})"),
        "SELECT sea_mq.inbox_accept('m', 'orders', 'Counted', '{}', 'clerk__pull')".into(),
        "SELECT sea_mq.pause_subscription('clerk__pull')".into(),
    ] {
        assert_eq!(thief.refusal(&sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    clerk.run(&format!("SELECT sea_mq.complete({id})")).await;
    // A name that no subscription has is that of whoever uses it first.
    let accept = "SELECT sea_mq.inbox_accept('m1', 'orders', 'Counted', '{}', 'clerk__own')";
    assert!(clerk.value::<bool>(accept, &[]).await);
    let again = accept.replace("m1", "m2");
    assert_eq!(thief.refusal(&again).await, SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(
        thief.refusal("SELECT sea_mq.subscribe('clerk__own', 'orders')").await,
        SqlState::INSUFFICIENT_PRIVILEGE
    );
    assert!(clerk.value::<bool>(&again, &[]).await);
    let partner = "SELECT sea_mq.inbox_accept('m', 'orders', 'Counted', '{}', 'ingest:acme')";
    assert_eq!(thief.refusal(partner).await, SqlState::INVALID_PARAMETER_VALUE);
}

/// A lock on a table of the extension, or on a row of one, would stop what others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_role_writes_to_the_tables_or_locks_them() {
    let stage = with_roles("no_locks", &["clerk", "runner"]).await;
    let db = stage.connect().await;
    db.run("GRANT sea_mq_operator, sea_mq_monitor TO runner; SELECT sea_mq.subscribe('app__all', 'orders', 'record')")
        .await;
    for user in ["clerk", "runner"] {
        let role = stage.connect_as(user).await;
        for sql in [
            "DO 'BEGIN LOCK TABLE sea_mq.subscriptions; END'",
            "DO 'BEGIN LOCK TABLE sea_mq.subscriptions IN ROW SHARE MODE; END'",
            "SELECT 1 FROM sea_mq.subscriptions FOR UPDATE",
            "SELECT 1 FROM sea_mq.subscriptions FOR KEY SHARE",
            "UPDATE sea_mq.subscriptions SET take_over = true",
            "INSERT INTO sea_mq.subscriptions (subscription) VALUES ('sea_mq__dlq_mirror')",
            "DELETE FROM sea_mq.subscriptions",
            "SELECT nextval('sea_mq.subscriptions_id_seq')",
        ] {
            assert_eq!(role.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{user}: {sql}");
        }
        let tables: Vec<String> = db
            .values(
                "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind IN ('r', 'p')
                    AND has_table_privilege($1, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')",
                &[&user],
            )
            .await;
        assert_eq!(tables, Vec::<String>::new(), "{user}");
    }
    emit_numbers(&db, 1, 1).await;
    until("it is handled", SOON, async || recorded(&db, "app__all").await == [1]).await;
}

/// With this setting an ERROR would end the process that serves all handlers of the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_cannot_make_its_errors_the_end_of_the_process() {
    let stage = with_roles("exit_on_error", &["clerk"]).await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    let clerk = stage.connect_as("clerk").await;
    clerk
        .run(
            "CREATE FUNCTION clerk.set(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS
                $$BEGIN PERFORM set_config('exit_on_error', 'on', false); RAISE EXCEPTION 'the end'; END$$;
             SELECT sea_mq.subscribe('clerk__set', 'orders', 'clerk.set', max_deliver => 1)",
        )
        .await;
    let consumer = stage.consumer().await;
    emit_numbers(&db, 1, 3).await;
    let message = until_status(&db, "clerk__set", 3, "dead").await;
    assert_eq!(message["errors"][0]["sqlstate"], "55P02", "{message}");
    until_status(&db, "app__all", 3, "processed").await;
    assert_eq!(stage.consumer().await, consumer);
}
