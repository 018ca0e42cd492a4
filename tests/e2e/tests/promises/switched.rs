//! A database whose account at the broker is another from one moment to the next: the same address, other credentials.

use async_nats::jetstream::stream::Config;
use harness::{BrokerOptions, EVENTS, Stage, StageOptions, Stored, until};

use crate::SOON;
use crate::receiving::{emit_numbers, publish};

const ACCOUNTS: &str = "accounts {
    A { jetstream: enabled, users: [{ user: a, password: a }] }
    B { jetstream: enabled, users: [{ user: b, password: b }] }
}";

async fn log_in(stage: &Stage, user: &str) {
    let url = stage.broker.url().replace("nats://", &format!("nats://{user}:{user}@"));
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{url}'")).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
}

/// The test itself is in account B.
async fn start(name: &str) -> Stage {
    let broker = BrokerOptions {
        configuration: ACCOUNTS.into(),
        login: Some(("b".into(), "b".into())),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, no_url: true, ..StageOptions::default() }.start(name).await;
    log_in(&stage, "a").await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_in_another_account_s_stream_are_noticed() {
    const FOREIGN: usize = 500;
    let stage = start("switched").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 50).await;
    let state = "SELECT EXISTS (SELECT FROM sea_mq.stream_status
        WHERE stream = 'ORDERS_EVENTS' AND state = 'ready' AND ordering = $1 AND pending = 0)";
    until("all is in account A", SOON, async || {
        db.value("SELECT published = 50 FROM sea_mq.status", &[]).await && db.value(state, &[&"strict"]).await
    })
    .await;
    let made = Config { name: EVENTS.into(), subjects: vec!["orders.event.>".into()], ..Default::default() };
    stage.broker.jetstream().create_stream(made).await.expect("cannot make the stream");
    for number in 0..FOREIGN {
        publish(&stage, "orders.event.theirs.v1", &[("Nats-Msg-Id", &format!("theirs-{number}"))], "{}").await;
    }
    log_in(&stage, "b").await;
    emit_numbers(&db, 51, 60).await;
    // Account B has nothing of it: what is retained is published there.
    stage.broker.until_count(EVENTS, 60 + FOREIGN as u64, SOON).await;
    until("others are noticed", SOON, async || db.value(state, &[&"shared"]).await).await;
    let stored = stage.broker.stored(EVENTS).await;
    let ours: Vec<_> = stored.iter().skip(FOREIGN).map(Stored::id).collect();
    let emitted: Vec<uuid::Uuid> = db.values("SELECT id FROM sea_mq.outbox_events ORDER BY seq", &[]).await;
    assert_eq!(ours, emitted, "each once and in order");
    assert_eq!(db.value::<i64>("SELECT losses FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'", &[]).await, 1);
    stage.until_ok().await;
}
