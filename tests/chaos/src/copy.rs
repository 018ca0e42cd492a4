//! A database that is dumped under load and restored beside the original.

use harness::until;

use crate::LONG;
use crate::scene::Scene;

const ORIGINAL: &str = "billing";
const COPY: &str = "billing_copy";

/// # Panics
/// When it cannot be dumped or restored.
pub async fn make(scene: &Scene) {
    scene.cluster.run(&format!("CREATE DATABASE {COPY}")).await;
    scene.cluster.copy_database(ORIGINAL, &scene.cluster, COPY);
}

/// The copy says that it is one, and has each transaction with its events or neither. That it published nothing shows in the
/// streams.
///
/// # Panics
/// When it is not so.
pub async fn check_and_drop(scene: &Scene) {
    let db = scene.cluster.connect(COPY).await;
    until("the copy says that it is one", LONG, async || {
        db.value("SELECT NOT ok AND coalesce(hint LIKE '%adopt%', false) FROM sea_mq.status", &[]).await
    })
    .await;
    let torn: i64 = db
        .value(
            "WITH sent AS (SELECT DISTINCT (payload ->> 'tx')::int8 AS key FROM sea_mq.outbox_events
                WHERE aggregate_type = 'aggregate')
             SELECT count(*) FROM sent FULL JOIN witness USING (key) WHERE sent IS NULL OR witness IS NULL",
            &[],
        )
        .await;
    assert_eq!(torn, 0, "transactions without their events in the copy, or the other way round");
    drop(db);
    scene.cluster.run(&format!("DROP DATABASE {COPY} WITH (FORCE)")).await;
}
