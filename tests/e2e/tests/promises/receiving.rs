//! What the tests of the receiving half have in common: a handler that records, and what became of the messages.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::publish::PublishAck;
use harness::{Database, EVENTS, Stage, holds_for, kill, ledger, until, until_some};
use serde_json::Value;
use tokio_postgres::types::FromSql;

use crate::{A_WHILE, SOON};

/// Within which tens of thousands of events are handled, restarts included.
pub const LONG: Duration = Duration::from_secs(120);

/// A broker that forgets message ids at once, so that it is no help against doubles.
pub const FORGETFUL: &str = "SELECT sea_mq.create_stream('orders', duplicate_window => '100 ms')";

/// A stage with the stream of `orders`, [`FORGETFUL`], and the handler `record`.
pub async fn prepared(name: &str) -> Stage {
    let stage = Stage::new(name).await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    make_recorder(&db).await;
    stage
}

/// Makes the handler `record`, which leaves a row in `effects` for each call that commits. Nothing there is unique:
/// doubles show.
pub async fn make_recorder(db: &Database) {
    db.run(
        "CREATE TABLE effects (place bigint GENERATED ALWAYS AS IDENTITY, subscription text, message_id text, n bigint,
            aggregate text, attempt int, pid int DEFAULT pg_backend_pid());
         CREATE FUNCTION record(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO effects (subscription, message_id, n, aggregate, attempt)
             VALUES (e.subscription, e.message_id, (e.payload ->> 'n')::bigint, e.aggregate_id, e.attempt);
         END $$",
    )
    .await;
}

/// Makes the handler `choosy`, which skips event 2, gives 3 up, fails at 4, and records the others.
pub async fn make_choosy(db: &Database) {
    db.run(
        "CREATE FUNCTION choosy(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             CASE (e.payload ->> 'n')::int
             WHEN 2 THEN PERFORM sea_mq.skip('not today');
             WHEN 3 THEN PERFORM sea_mq.poison('never');
             WHEN 4 THEN RAISE EXCEPTION 'later';
             ELSE PERFORM record(e);
             END CASE;
         END $$",
    )
    .await;
}

/// Makes the handler `stumbling`, which fails at the first attempt of each event that is a multiple of `every`, and records
/// the others.
pub async fn make_stumbling(db: &Database, every: i64) {
    db.run(&format!(
        "CREATE FUNCTION stumbling(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF e.attempt = 1 AND (e.payload ->> 'n')::int % {every} = 0 THEN RAISE EXCEPTION 'later'; END IF;
             PERFORM record(e);
         END $$"
    ))
    .await;
}

/// Emits `Counted` events with the numbers from `first` to `last`, 10,000 a transaction; 50 aggregates take turns.
pub async fn emit_numbers(db: &Database, first: i64, last: i64) {
    for from in (first..=last).step_by(10_000) {
        let sql = "SELECT count(sea_mq.emit('order', ((n - 1) % 50)::text, 'Counted', jsonb_build_object('n', n)))
            FROM generate_series($1::int8, $2) n";
        let _: i64 = db.value(sql, &[&from, &last.min(from + 9_999)]).await;
    }
}

/// The answer to a query, or `None` while there is none because the server is crashing or recovering.
pub async fn ask<T: for<'a> FromSql<'a>>(stage: &Stage, sql: &str) -> Option<T> {
    let db = stage.connector().try_connect().await.ok()?;
    let row = db.query_one(sql, &[]).await.ok()?;
    row.try_get(0).ok()
}

/// The numbers of the events that a subscription's handler recorded, in the order in which it did.
pub async fn recorded(db: &Database, subscription: &str) -> Vec<i64> {
    db.values("SELECT n FROM effects WHERE subscription = $1 ORDER BY place", &[&subscription]).await
}

/// Waits until at least `count` effects are there, whoever's.
pub async fn until_recorded(stage: &Stage, count: i64) {
    until(&format!("{count} effects"), LONG, async || {
        ask::<i64>(stage, "SELECT count(*) FROM effects").await.is_some_and(|found| found >= count)
    })
    .await;
}

/// Waits until the handler has recorded the events 1 to `last`; asserts that it has done so once for each, that it
/// stays so, and that the inbox and the broker agree.
pub async fn assert_handled_once(stage: &Stage, subscription: &str, last: i64) {
    until_recorded(stage, last).await;
    let db = stage.connect().await;
    let count = format!("SELECT count(*) FROM effects WHERE subscription = '{subscription}'");
    holds_for("nothing is handled again", A_WHILE, async || db.value::<i64>(&count, &[]).await == last).await;
    ledger::assert_same_set(&(1..=last).collect::<Vec<i64>>(), &recorded(&db, subscription).await);
    let sql = "SELECT count(*) || ' messages, ' || count(DISTINCT message_id) || ' ids, '
        || count(*) FILTER (WHERE processed AND status = 'processed') || ' processed'
        FROM sea_mq.inbox_messages WHERE subscription = $1";
    let inbox: String = db.value(sql, &[&subscription]).await;
    assert_eq!(inbox, format!("{last} messages, {last} ids, {last} processed"));
    until_acknowledged(stage, subscription).await;
}

/// Asserts that those of the events 1 to `last` were handled that belong to these aggregates, each aggregate's in order.
pub async fn assert_in_order(db: &Database, aggregates: impl Iterator<Item = i64>, last: i64) {
    let rows = db.query("SELECT aggregate, n FROM effects ORDER BY place", &[]).await.expect("cannot read");
    let expected: HashMap<String, i64> = aggregates.map(|aggregate| (aggregate.to_string(), last / 50)).collect();
    // The numbers of an aggregate are 50 apart.
    ledger::assert_gapless(&expected, rows.iter().map(|row| (row.get(0), (row.get::<_, i64>(1) - 1) / 50 + 1)));
}

/// Waits until the broker has nothing left for a subscription on the stage's stream, undelivered or unacknowledged.
pub async fn until_acknowledged(stage: &Stage, subscription: &str) {
    until(&format!("all is acknowledged for {subscription}"), SOON, async || {
        jetstream_consumer(stage, subscription)
            .await
            .is_some_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
    })
    .await;
}

/// What the broker says of a subscription's consumer on the stage's stream; `None` if it has none.
pub async fn jetstream_consumer(stage: &Stage, subscription: &str) -> Option<consumer::Info> {
    let stream = stage.broker.stream(EVENTS).await?;
    Some(stream.get_consumer::<pull::Config>(subscription).await.ok()?.cached_info().clone())
}

/// Waits until the broker has the subscription's consumer and says what it is like.
pub async fn until_provisioned(stage: &Stage, subscription: &str) -> consumer::Info {
    until_some(&format!("consumer {subscription}"), SOON, async || jetstream_consumer(stage, subscription).await).await
}

/// Waits until the message with the number `n` has the status, and returns its row in the inbox.
pub async fn until_status(db: &Database, subscription: &str, n: i64, status: &str) -> Value {
    until_some(&format!("message {n} of {subscription} is {status}"), SOON, async || {
        let sql =
            "SELECT to_jsonb(m) FROM sea_mq.inbox_messages m WHERE subscription = $1 AND (payload ->> 'n')::bigint = $2
            AND status = $3 ORDER BY id DESC LIMIT 1";
        let row = db.query_opt(sql, &[&subscription, &n, &status]).await.expect("cannot read the inbox");
        row.map(|row| row.get(0))
    })
    .await
}

/// Waits until `condition` holds for the subscription's row of `sea_mq.subscription_status`, and returns the row.
pub async fn until_state(db: &Database, subscription: &str, condition: &str) -> Value {
    let sql = format!(
        "SELECT to_jsonb(s) FROM sea_mq.subscription_status s WHERE subscription = '{subscription}' AND {condition}"
    );
    until_some(&format!("{subscription} with {condition}"), SOON, async || {
        db.query_opt(&sql, &[]).await.expect("cannot read the status").map(|row| row.get(0))
    })
    .await
}

/// The process with this backend type in the stage's database, once there is one other than `not`.
pub async fn worker(stage: &Stage, backend_type: &str, not: i32) -> i32 {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = '{backend_type}'
            AND datname = current_database() AND pid <> {not} LIMIT 1"
    );
    until_some(&format!("a {backend_type}"), SOON, async || ask(stage, &sql).await).await
}

/// SIGKILL for the consumer; returns when there is another. The whole cluster restarts meanwhile, as after the crash of
/// any backend.
pub async fn kill_consumer(stage: &Stage) {
    let pid = worker(stage, "sea_mq consumer", 0).await;
    kill(pid);
    worker(stage, "sea_mq consumer", pid).await;
}

/// Waits until a session waits for another's lock with this statement.
pub async fn until_it_waits(stage: &Stage, sql: &str) {
    // A session of its own: what pg_stat_activity shows in a transaction stays the same.
    let db = stage.connect().await;
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = $1)";
    until("one session waits for another", SOON, async || db.value(waits, &[&sql]).await).await;
}

/// Publishes as another client of the broker would, and returns the broker's answer.
pub async fn publish(stage: &Stage, subject: &str, headers: &[(&str, &str)], body: &str) -> PublishAck {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let jetstream = stage.broker.jetstream();
    // The relay creates the stream, in its own time; what no stream took is stored nowhere.
    until_some(&format!("a stream for {subject}"), SOON, async || {
        let sent = jetstream.publish_with_headers(subject.to_owned(), map.clone(), body.to_owned().into());
        match sent.await.expect("cannot publish").await {
            Ok(ack) => Some(ack),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => None,
            Err(error) => panic!("the stream refuses the message: {error:?}"),
        }
    })
    .await
}

/// Stores a message once more that the stream has already, which the broker takes once it has forgotten the id.
pub async fn publish_again(stage: &Stage, subject: &str, id: &str, body: &str) {
    until("the broker has forgotten the id", SOON, async || {
        !publish(stage, subject, &[("Nats-Msg-Id", id)], body).await.duplicate
    })
    .await;
}
