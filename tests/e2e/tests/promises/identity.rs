//! Several clusters with one identity: clones, standbys, recoveries. One of them publishes, and the others say why they
//! do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{
    BrokerOptions, Cluster, Connector, Database, EVENTS, Stage, StageOptions, Stored, holds_for, ledger, until,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::receiving::{assert_handled_once, emit_numbers, prepared, recorded};
use crate::{A_WHILE, SOON};

async fn emit(db: &Database, event_type: &str, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(db.emit("1", event_type, json!({})).await);
    }
    ids
}

/// Waits until the relay of this database has paused for a reason of this kind, with a hint, and returns its status.
pub(crate) async fn until_paused(db: &Database, kind: &str) -> Value {
    let sql = "SELECT EXISTS (SELECT FROM sea_mq.relay_status r, sea_mq.status s
        WHERE r.state = 'paused' AND r.error_kind = $1 AND NOT s.ok AND s.hint LIKE '%adopt%')";
    until(&format!("the relay has paused: {kind}"), SOON * 2, async || db.value(sql, &[&kind]).await).await;
    db.object("SELECT * FROM sea_mq.relay_status").await
}

async fn until_ok(db: &Database) {
    until("sea_mq.status is ok", SOON * 2, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
}

async fn until_streaming(primary: &Database) {
    let sql =
        "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'standby' AND state = 'streaming')";
    until("the standby follows", SOON, async || primary.value(sql, &[]).await).await;
}

/// Promotes a standby and waits until it can be written to.
async fn promote(db: &Database) {
    db.run("SELECT pg_promote(false)").await;
    until("it is promoted", SOON * 2, async || db.value("SELECT NOT pg_is_in_recovery()", &[]).await).await;
}

async fn stored_ids(stage: &Stage) -> Vec<Uuid> {
    stage.broker.stored(EVENTS).await.iter().map(Stored::id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_beside_its_original_keeps_quiet_until_it_is_adopted() {
    let stage = Stage::new("clone").await;
    let db = stage.connect().await;
    let mut expected = emit(&db, "Before", 5).await;
    stage.assert_stored(&expected).await;
    let mut clone = stage.cluster.base_backup(&stage.directory.path().join("clone"));
    clone.start().await;
    let copy = clone.connect(stage.database()).await;
    let status = until_paused(&copy, "Fenced").await;
    let place = stage.directory.path().join("pg").display().to_string();
    assert!(status["error"].as_str().is_some_and(|error| error.contains(&place)), "{status}");
    let mut in_the_clone = emit(&copy, "InTheClone", 3).await;
    expected.extend(emit(&db, "Original", 5).await);
    stage.assert_stored(&expected).await;
    drop(copy);

    // It does not come back by itself, whatever becomes of the original.
    stage.broker.jetstream().delete_stream("SEA_MQ_RELAYS").await.expect("there is the stream of leases");
    clone.crash();
    clone.start().await;
    let copy = clone.connect(stage.database()).await;
    until_paused(&copy, "Fenced").await;
    holds_for("the clone stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 10).await;
    stage.until_ok().await;

    copy.run("SELECT sea_mq.adopt()").await;
    stage.broker.until_count(EVENTS, 13, SOON * 2).await;
    until_paused(&db, "Fenced").await;
    emit(&db, "TooLate", 2).await;
    in_the_clone.extend(emit(&copy, "Adopted", 3).await);
    expected.append(&mut in_the_clone);
    stage.broker.until_count(EVENTS, 16, SOON).await;
    holds_for("the original stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 16).await;
    ledger::assert_same(&expected, &stored_ids(&stage).await);
    until_ok(&copy).await;
    copy.run("SELECT sea_mq.adopt()").await;
    expected.extend(emit(&copy, "AdoptedAgain", 1).await);
    stage.assert_stored(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_does_not_take_the_original_s_messages() {
    let stage = prepared("clone_inbox").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, 10).await;
    assert_handled_once(&stage, "app__all", 10).await;
    let mut clone = stage.cluster.base_backup(&stage.directory.path().join("clone"));
    clone.start().await;
    let copy = clone.connect(stage.database()).await;
    emit_numbers(&db, 11, 100).await;
    until_paused(&copy, "Fenced").await;
    emit_numbers(&db, 101, 200).await;
    assert_handled_once(&stage, "app__all", 200).await;
    assert_eq!(recorded(&copy, "app__all").await.len(), 10);
}

/// Nothing is lost, so nobody is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_promoted_without_a_loss_goes_on_by_itself_and_the_old_primary_stops() {
    let stage = Stage::new("promotion").await;
    let old = stage.connect().await;
    let mut standby = stage.cluster.base_backup(&stage.directory.path().join("standby"));
    standby.follow(&stage.cluster);
    standby.start().await;
    until_streaming(&old).await;
    old.run("ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
    old.run("ALTER SYSTEM SET synchronous_commit = 'remote_apply'").await;
    old.run("SELECT pg_reload_conf()").await;
    until("the standby is synchronous", SOON, async || {
        old.value("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')", &[]).await
    })
    .await;
    let mut expected = emit(&old, "Before", 20).await;
    stage.assert_stored(&expected).await;

    let new = standby.connect(stage.database()).await;
    promote(&new).await;
    expected.extend(emit(&new, "After", 20).await);
    stage.assert_stored(&expected).await;
    until_ok(&new).await;
    assert_eq!(new.value::<i64>("SELECT count(*) FROM sea_mq.stream_divergences", &[]).await, 0);

    // Still alive, and no longer waiting for anybody.
    old.run("ALTER SYSTEM SET synchronous_standby_names = ''").await;
    old.run("SELECT pg_reload_conf()").await;
    let status = until_paused(&old, "Fenced").await;
    assert!(status["error"].as_str().is_some_and(|error| error.contains("standby")), "{status}");
    emit(&old, "TooLate", 5).await;
    expected.extend(emit(&new, "Later", 5).await);
    stage.assert_stored(&expected).await;
    holds_for("the old primary stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 45).await;
}

/// Emits until it is told to stop. Returns what was committed.
async fn emit_until(connector: Connector, stop: Arc<AtomicBool>) -> Vec<Uuid> {
    let db = connector.try_connect().await.expect("cannot connect");
    let mut ids = Vec::new();
    while !stop.load(Ordering::Acquire) {
        ids.push(db.emit("1", "OldPrimary", json!({})).await);
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lost_the_last_events_says_which_and_goes_on_behind_them_once_it_is_adopted() {
    let stage = Stage::new("failover").await;
    let old = stage.connect().await;
    let mut standby = stage.cluster.base_backup(&stage.directory.path().join("standby"));
    standby.follow(&stage.cluster);
    standby.start().await;
    until_streaming(&old).await;
    let known = emit(&old, "Known", 10).await;
    stage.assert_stored(&known).await;
    let new = standby.connect(stage.database()).await;
    until("the standby has them", SOON, async || {
        new.value::<i64>("SELECT count(*) FROM sea_mq.outbox_log", &[]).await == 10
    })
    .await;
    new.run("ALTER SYSTEM SET primary_conninfo = ''").await;
    new.run("SELECT pg_reload_conf()").await;
    until("it follows no longer", SOON, async || {
        old.value("SELECT NOT EXISTS (SELECT FROM pg_stat_replication)", &[]).await
    })
    .await;
    let lost = emit(&old, "Lost", 10).await;
    stage.broker.until_count(EVENTS, 20, SOON).await;

    let stop = Arc::new(AtomicBool::new(false));
    let emitting = tokio::spawn(emit_until(stage.connector(), Arc::clone(&stop)));
    stage.broker.until_count(EVENTS, 30, SOON).await;
    promote(&new).await;
    let status = until_paused(&new, "Diverged").await;
    until_paused(&old, "Fenced").await;
    stop.store(true, Ordering::Release);
    let of_old: Vec<Uuid> = [lost, emitting.await.expect("the emitting task failed")].concat();

    let found = new.object("SELECT * FROM sea_mq.stream_divergences").await;
    assert_eq!(found["first_id"], of_old[0].to_string(), "{found}");
    assert!(found["events"].as_i64().is_some_and(|events| events >= 20) && found["accepted_at"].is_null(), "{found}");
    assert!(status["error"].as_str().is_some_and(|error| error.contains(&of_old[0].to_string())), "{status}");
    let mut of_new = emit(&new, "Waiting", 5).await;
    let before = stage.broker.count(EVENTS).await;
    holds_for("neither publishes", A_WHILE, async || stage.broker.count(EVENTS).await == before).await;

    new.run("SELECT sea_mq.adopt()").await;
    of_new.extend(emit(&new, "Adopted", 5).await);
    stage.broker.until_count(EVENTS, before + 10, SOON * 2).await;
    until_ok(&new).await;
    let stored = stored_ids(&stage).await;
    let beginning = stored.len() - of_new.len();
    ledger::assert_same(&of_new, &stored[beginning..]);
    // What the old primary had published is in front of it, in order.
    let published_by_old = beginning - known.len();
    ledger::assert_same(&[&known[..], &of_old[..published_by_old]].concat(), &stored[..beginning]);
    assert!(new.value::<bool>("SELECT bool_and(accepted_at IS NOT NULL) FROM sea_mq.stream_divergences", &[]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_recovered_to_an_earlier_time_says_what_it_lost_and_goes_on_behind_it_once_it_is_adopted() {
    let mut stage = StageOptions::default().setting("wal_keep_size", "1GB").start("recovery").await;
    let db = stage.connect().await;
    let mut expected = emit(&db, "Known", 10).await;
    stage.assert_stored(&expected).await;
    let mut recovered = stage.cluster.base_backup(&stage.directory.path().join("recovered"));
    db.run("SELECT pg_create_restore_point('good')").await;
    let lost = emit(&db, "Lost", 10).await;
    expected.extend(&lost);
    stage.assert_stored(&expected).await;
    db.run("SELECT pg_switch_wal()").await;
    drop(db);
    stage.cluster.stop();
    recovered.recover(&stage.cluster, "good");
    recovered.start().await;

    let db = recovered.connect(stage.database()).await;
    until("it is recovered", SOON * 2, async || db.value("SELECT NOT pg_is_in_recovery()", &[]).await).await;
    until_paused(&db, "Diverged").await;
    let found = db.object("SELECT * FROM sea_mq.stream_divergences").await;
    assert_eq!(
        (&found["events"], &found["first_sequence"], &found["last_sequence"]),
        (&json!(10), &json!(11), &json!(20))
    );
    assert_eq!(found["first_id"], lost[0].to_string());
    assert_eq!(found["last_id"], lost[9].to_string());
    expected.extend(emit(&db, "Waiting", 3).await);
    holds_for("it stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 20).await;
    db.run("SELECT sea_mq.adopt()").await;
    expected.extend(emit(&db, "Adopted", 3).await);
    stage.assert_stored(&expected).await;
    until_ok(&db).await;
    // What was decided once is not asked again.
    db.run("SELECT sea_mq.reload()").await;
    expected.extend(emit(&db, "Later", 3).await);
    stage.assert_stored(&expected).await;

    stage.cluster.start().await;
    let original = stage.connect().await;
    until_paused(&original, "Fenced").await;
    emit(&original, "TooLate", 3).await;
    holds_for("the original stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 29).await;
}

/// The broker has lost everything, the lease included, and whoever comes first publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_start_at_once_one_publishes() {
    let mut stage = Stage::new("at_once").await;
    let db = stage.connect().await;
    let before = emit(&db, "Before", 5).await;
    stage.assert_stored(&before).await;
    drop(db);
    stage.cluster.stop();
    stage.broker.stop();
    stage.broker.forget_everything();
    let mut clone: Cluster = stage.cluster.clone_to(&stage.directory.path().join("clone"));
    stage.cluster.start().await;
    clone.start().await;
    let sides = [stage.connect().await, clone.connect(stage.database()).await];
    let events = [emit(&sides[0], "Original", 5).await, emit(&sides[1], "Clone", 5).await];
    stage.broker.start().await;

    let paused = "SELECT state = 'paused' AND error_kind = 'Fenced' FROM sea_mq.relay_status";
    let mut loser = 0;
    until("one has paused", SOON * 2, async || {
        for (place, side) in sides.iter().enumerate() {
            if side.value(paused, &[]).await {
                loser = place;
                return true;
            }
        }
        false
    })
    .await;
    let winner = 1 - loser;
    let mut expected = [&before[..], &events[winner][..]].concat();
    expected.extend(emit(&sides[winner], "Winner", 5).await);
    emit(&sides[loser], "Loser", 5).await;
    stage.assert_stored(&expected).await;
    until_ok(&sides[winner]).await;
    holds_for("the other stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_the_lease_does_not_stop_a_lone_relay() {
    let mut stage = Stage::new("lease_lost").await;
    let db = stage.connect().await;
    let mut expected = emit(&db, "Before", 5).await;
    stage.assert_stored(&expected).await;
    let epoch = "SELECT lease_epoch FROM sea_mq.installation";
    until("it has the lease", SOON, async || db.value::<i64>(epoch, &[]).await > 0).await;
    let first: i64 = db.value(epoch, &[]).await;
    stage.broker.stop();
    stage.broker.forget_everything();
    stage.broker.start().await;
    expected.extend(emit(&db, "After", 5).await);
    stage.assert_stored(&expected).await;
    until("it has a later lease", SOON, async || db.value::<i64>(epoch, &[]).await > first).await;
    stage.broker.jetstream().delete_stream("SEA_MQ_RELAYS").await.expect("there is the stream of leases");
    db.run("SELECT sea_mq.reload()").await;
    expected.extend(emit(&db, "Again", 5).await);
    stage.assert_stored(&expected).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_may_not_have_a_lease_publishes_all_the_same() {
    let allowed = r#"{ user: app, password: secret, permissions: {
        publish: ["orders.>", "$JS.API.*", "$JS.API.*.*.ORDERS_EVENTS", "$JS.API.*.*.ORDERS_DLQ", "$JS.API.*.*.ORDERS_EVENTS.>",
            "$JS.API.*.*.*.ORDERS_EVENTS", "$JS.API.*.*.*.ORDERS_DLQ"],
        subscribe: ["_INBOX.>"] } }"#;
    let broker = BrokerOptions {
        configuration: format!("authorization {{ users: [{{ user: test, password: test }}, {allowed}] }}"),
        login: Some(("test".into(), "test".into())),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, no_url: true, ..StageOptions::default() }.start("no_lease").await;
    let url = stage.broker.url().replace("nats://", "nats://app:secret@");
    stage.cluster.run(&format!("ALTER DATABASE app SET sea_mq.nats_url = '{url}'")).await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.reload()").await;
    let expected = emit(&db, "Unfenced", 10).await;
    stage.assert_stored(&expected).await;
    stage.until_ok().await;
}
