//! What an event costs in WAL, disk and memory, against an outbox table whose rows are inserted, and marked when published.
//!
//! One event a transaction, which does nothing else. WAL is counted after a warm-up and not after a checkpoint, so that
//! both have few full-page images.

use std::time::Duration;

use harness::{Database, EVENTS, Stage, resident_bytes};
use serde_json::json;

use crate::conventional;
use crate::figures::whole;
use crate::report::{Measured, Row};
use crate::workload::{self, PAYLOAD_BYTES};
use crate::{Options, Outcome, say};

const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes per event, and rows that are dead in the end.
struct Footprint {
    wal_of_writer: f64,
    wal_of_relay: f64,
    disk: f64,
    dead: i64,
}

impl Footprint {
    /// `wal`: how much there was before, with the events, and once they were published.
    fn new(events: u32, wal: [i64; 3], disk: i64, dead: i64) -> Self {
        let per = |bytes: i64| bytes as f64 / f64::from(events);
        let [before, written, relayed] = wal;
        Self { wal_of_writer: per(written - before), wal_of_relay: per(relayed - written), disk: per(disk), dead }
    }
}

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("footprint").await;
    let versions = workload::versions(&stage).await?;
    let db = stage.connect().await;
    db.run(conventional::OUTBOX).await;
    db.run("ALTER TABLE outbox SET (autovacuum_enabled = off)").await;
    stage.until_connected().await;
    let events = options.footprint_events;
    let own = own(&stage, &db, events).await?;
    let other = conventional(&db, events).await?;
    let relay = resident_bytes(stage.relay().await);
    let broker = resident_bytes(stage.broker.pid());

    let bytes = |label: &str, own: f64, other: f64| {
        let other = format!("{} in an outbox table", whole(other));
        Row::new(label, format!("{} bytes", whole(own)), other)
    };
    let memory = |label: &str, bytes: u64| Row::new(label, format!("{} MB", bytes >> 20), String::new());
    let rows = vec![
        bytes("WAL of the writer, an event", own.wal_of_writer, other.wal_of_writer),
        bytes("WAL of the relay, an event", own.wal_of_relay, other.wal_of_relay),
        bytes("disk with indexes, an event", own.disk, other.disk),
        Row::new("dead rows", whole(own.dead as f64), format!("{} in an outbox table", whole(other.dead as f64)))
            .expecting("0"),
        memory("memory of the relay, private", relay),
        memory("memory of nats-server, private", broker),
    ];
    let part = |one: &Footprint| {
        json!({ "wal_of_writer_bytes": one.wal_of_writer, "wal_of_relay_bytes": one.wal_of_relay,
            "disk_bytes": one.disk, "dead_rows": one.dead })
    };
    let json = json!({
        "events": events, "payload_bytes": PAYLOAD_BYTES, "versions": versions, "sea_mq": part(&own),
        "outbox_table": part(&other), "relay_private_bytes": relay, "nats_server_private_bytes": broker,
    });
    let title = format!("footprint: {} events of {PAYLOAD_BYTES} bytes, one a transaction", whole(events.into()));
    Ok(Measured { key: "footprint", title, rows, panels: Vec::new(), json })
}

async fn own(stage: &Stage, db: &Database, events: u32) -> Outcome<Footprint> {
    let emit = format!("SELECT {}", workload::emit("123456"));
    repeat(db, &emit, events / 10 + 1).await;
    until_stored(stage, db).await;
    workload::stop_relay(stage).await;
    let size =
        "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('sea_mq.outbox_log')";
    let (disk, wal) = (number(db, size).await, wal(db).await);
    repeat(db, &emit, events).await;
    let (disk, written) = (number(db, size).await - disk, self::wal(db).await);
    workload::start_relay(stage).await;
    until_stored(stage, db).await;
    let relayed = self::wal(db).await;
    say("footprint: the events are published");
    let dead =
        "SELECT coalesce(sum(pg_stat_get_dead_tuples(relid)), 0)::bigint FROM pg_partition_tree('sea_mq.outbox_log')";
    Ok(Footprint::new(events, [wal, written, relayed], disk, settled(db, dead).await))
}

/// The same with an outbox table, of which a relay marks a hundred rows at a time as published.
async fn conventional(db: &Database, events: u32) -> Outcome<Footprint> {
    let insert = conventional::insert(1, 1);
    repeat(db, &insert, events / 10 + 1).await;
    db.run(MARK).await;
    let size = "SELECT pg_total_relation_size('outbox')";
    let (disk, wal) = (number(db, size).await, wal(db).await);
    repeat(db, &insert, events).await;
    let written = self::wal(db).await;
    db.run(MARK).await;
    let (disk, relayed) = (number(db, size).await - disk, self::wal(db).await);
    say("footprint: the outbox table is marked as published");
    let dead = "SELECT pg_stat_get_dead_tuples('outbox'::regclass)";
    Ok(Footprint::new(events, [wal, written, relayed], disk, settled(db, dead).await))
}

/// Marks all rows as published, a hundred in a transaction.
const MARK: &str = "DO $$
    DECLARE
        marked bigint;
    BEGIN
        LOOP
            UPDATE outbox SET published_at = now() WHERE id IN (
                SELECT id FROM outbox WHERE published_at IS NULL ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED);
            GET DIAGNOSTICS marked = ROW_COUNT;
            COMMIT;
            EXIT WHEN marked = 0;
        END LOOP;
    END $$";

/// Runs a statement so many times, each in a transaction of its own. Their commits are not waited for.
async fn repeat(db: &Database, statement: &str, times: u32) {
    let statement = match statement.strip_prefix("SELECT") {
        Some(rest) => format!("PERFORM{rest}"),
        None => statement.to_owned(),
    };
    db.run("SET synchronous_commit = off").await;
    db.run(&format!("DO $do$ BEGIN FOR n IN 1 .. {times} LOOP {statement}; COMMIT; END LOOP; END $do$")).await;
    db.run("RESET synchronous_commit").await;
}

async fn until_stored(stage: &Stage, db: &Database) {
    harness::until("all events are published", PATIENCE, async || {
        stage.broker.stream(EVENTS).await.is_some() && workload::is_drained(db).await
    })
    .await;
}

/// Bytes of WAL so far.
async fn wal(db: &Database) -> i64 {
    number(db, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await
}

async fn number(db: &Database, sql: &str) -> i64 {
    db.value(sql, &[]).await
}

/// A count of the statistics, which come late, once two looks a second apart agree.
async fn settled(db: &Database, sql: &str) -> i64 {
    let mut last = None;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        db.run("SELECT pg_stat_clear_snapshot()").await;
        let count = number(db, sql).await;
        if last.replace(count) == Some(count) {
            return count;
        }
    }
}
