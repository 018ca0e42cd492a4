//! Deliveries a second: plain and with TLS beside the floor, to a hundred endpoints, and to a server that takes its time.

use std::time::{Duration, Instant};

use harness::{Database, EVENTS, Stage, TestCertificates, resident_bytes, until};
use serde_json::json;

use super::server::{self, Server};
use super::{Amounts, Found, backlog, create, drop_all, floor};
use crate::figures::{Series, whole};
use crate::report::Row;
use crate::{Outcome, workload};

const IN_FLIGHT: u32 = 64;
const LONG: Duration = Duration::from_secs(180);
const WAL: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
const DEAD: &str = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_all_tables WHERE schemaname = 'sea_mq'
    AND (relname ~ '^(delivery_log|delivery_pending|endpoint_progress|cursor_log|outbox_log)')";

pub async fn measure(
    stage: &Stage,
    db: &Database,
    certificates: &TestCertificates,
    amounts: &Amounts,
    found: &mut Found,
) -> Outcome<()> {
    beside_the_floor(stage, db, certificates, amounts, found).await?;
    to_a_hundred(stage, db, amounts, found).await?;
    to_a_slow_one(stage, db, amounts, found).await
}

async fn beside_the_floor(
    stage: &Stage,
    db: &Database,
    certificates: &TestCertificates,
    amounts: &Amounts,
    found: &mut Found,
) -> Outcome<()> {
    let acceptor = server::tls(&certificates.certificate, &certificates.key)?;
    let connector = floor::trusting(&certificates.certificate)?;
    let plain = Server::start(Duration::ZERO, None).await?;
    let secure = Server::start(Duration::ZERO, Some(acceptor)).await?;
    let mut wal = Series::default();
    let dead_before: i64 = db.value(DEAD, &[]).await;
    for (key, server, tls, expected) in [("plain", &plain, None, "≥ 5,000/s"), ("tls", &secure, Some(&connector), "")]
    {
        let (mut rates, mut floors) = (Series::default(), Series::default());
        for repetition in 0..=amounts.repetitions {
            let (rate, bytes) = drain(stage, db, server, amounts.deliveries).await?;
            let floor = floor::rate(server, tls, &server.last(), IN_FLIGHT, amounts.deliveries).await?;
            // The first is the warm-up.
            if repetition > 0 {
                rates.push(rate);
                floors.push(floor);
                wal.push(bytes);
            }
        }
        let of_floor = rates.over(&floors);
        let figure = format!("{key}: signed, {IN_FLIGHT} in flight");
        found.add(key, Row::rate(&figure, &rates, "/s").expecting(expected), rates.json("deliveries/s"));
        let row = Row::rate(&format!("{key}: floor, a bare hyper client"), &floors, "/s");
        found.add(&format!("{key}_floor"), row, floors.json("requests/s"));
        let row = Row::new(format!("{key}: of the floor"), format!("{:.2}", of_floor.median()), of_floor.range(2, ""));
        found.add(&format!("{key}_of_floor"), row.expecting("≥ 0.5"), of_floor.json("ratio"));
    }
    let row = Row::new(
        "WAL of a delivery at the first attempt",
        format!("{:.0} bytes", wal.median()),
        wal.range(0, " bytes"),
    );
    found.add("wal", row.expecting("≤ 350 bytes"), wal.json("bytes"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let dead: i64 = db.value(DEAD, &[]).await;
    let events = amounts.deliveries * (amounts.repetitions + 1) * 2;
    let row = Row::new(
        format!("dead tuples after {} of them", whole(f64::from(events))),
        format!("{}", dead - dead_before),
        String::new(),
    );
    found.add("dead_tuples", row.expecting("0"), json!(dead - dead_before));
    Ok(())
}

/// Deliveries a second of a backlog, and bytes of WAL of each.
async fn drain(stage: &Stage, db: &Database, server: &Server, events: u32) -> Outcome<(f64, f64)> {
    create(db, "acme", &server.url("/"), &format!(", max_in_flight => {IN_FLIGHT}")).await;
    db.run("SELECT sea_mq.pause_endpoint('acme')").await;
    backlog(stage, events).await;
    until("the relay has published", LONG, async || workload::is_drained(db).await).await;
    db.run("CHECKPOINT").await;
    server.forget();
    let before: i64 = db.value(WAL, &[]).await;
    let begin = Instant::now();
    db.run("SELECT sea_mq.resume_endpoint('acme')").await;
    until_count(server, events.into()).await;
    let rate = f64::from(events) / begin.elapsed().as_secs_f64();
    let done = "SELECT delivered >= $1 FROM sea_mq.endpoint_status WHERE endpoint = 'acme'";
    until("all are recorded", LONG, async || db.value(done, &[&i64::from(events)]).await).await;
    let bytes: i64 = db.value::<i64>(WAL, &[]).await - before;
    drop_all(db).await;
    Ok((rate, bytes as f64 / f64::from(events)))
}

async fn until_count(server: &Server, count: u64) {
    let begin = Instant::now();
    while server.count() < count {
        assert!(begin.elapsed() < LONG, "waited in vain for {count} deliveries: {}", server.count());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn to_a_hundred(stage: &Stage, db: &Database, amounts: &Amounts, found: &mut Found) -> Outcome<()> {
    let server = Server::start(Duration::ZERO, None).await?;
    let mut rates = Series::default();
    for repetition in 0..=amounts.repetitions {
        for n in 0..100 {
            create(db, &format!("e{n}"), &server.url(&format!("/{n}")), "").await;
        }
        db.run("SELECT sea_mq.pause_endpoint(endpoint) FROM sea_mq.endpoints").await;
        backlog(stage, amounts.to_hundred).await;
        until("the relay has published", LONG, async || workload::is_drained(db).await).await;
        server.forget();
        let begin = Instant::now();
        db.run("SELECT sea_mq.resume_endpoint(endpoint) FROM sea_mq.endpoints").await;
        let deliveries = amounts.to_hundred * 100;
        until_count(&server, deliveries.into()).await;
        if repetition > 0 {
            rates.push(f64::from(deliveries) / begin.elapsed().as_secs_f64());
        }
        drop_all(db).await;
    }
    let row = Row::rate("100 endpoints, each event to all", &rates, "/s").expecting("≥ 8,000/s");
    found.add("hundred", row, rates.json("deliveries/s"));
    Ok(())
}

/// A server that answers after a second, 1,024 at a time, and what it costs the relay.
async fn to_a_slow_one(stage: &Stage, db: &Database, amounts: &Amounts, found: &mut Found) -> Outcome<()> {
    let alone = relayed(stage, db, amounts.relayed).await?;
    let server = Server::start(Duration::from_secs(1), None).await?;
    create(db, "slow", &server.url("/"), ", max_in_flight => 1024, timeout => '30 s'").await;
    backlog(stage, amounts.slow).await;
    let begin = Instant::now();
    let mut megabytes: f64 = 0.0;
    // The window is at its full width after the first thousand.
    let (ramp, all) = (u64::from(amounts.slow / 10), u64::from(amounts.slow));
    until_count(&server, ramp).await;
    let ramped = Instant::now();
    while server.count() < all && begin.elapsed() < LONG {
        let pid: i32 = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'sea_mq dispatcher'", &[]).await;
        megabytes = megabytes.max(resident_bytes(pid) as f64 / f64::from(1 << 20));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rate = (all - ramp) as f64 / ramped.elapsed().as_secs_f64();
    let row = Row::new("answers after 1 s, 1,024 in flight", format!("{}/s", whole(rate)), String::new());
    found.add("slow", row.expecting("≥ 950/s"), json!({ "unit": "deliveries/s", "value": rate }));
    let row = Row::new("… the dispatcher's own memory", format!("{megabytes:.0} MiB"), String::new());
    found.add("slow_memory", row.expecting("≤ 100 MB"), json!(megabytes));
    let beside = relayed(stage, db, amounts.relayed).await?;
    let row = Row::new("… the relay beside it, of what it does alone", format!("{:.2}", beside / alone), String::new());
    found.add("slow_relay", row.expecting("≥ 0.9"), json!({ "alone": alone, "beside": beside }));
    drop_all(db).await;
    Ok(())
}

/// Events a second that the relay publishes while they are emitted and until the last is stored.
async fn relayed(stage: &Stage, db: &Database, events: u32) -> Outcome<f64> {
    let before = stage.broker.count(EVENTS).await;
    let begin = Instant::now();
    backlog(stage, events).await;
    stage.broker.until_count(EVENTS, before + u64::from(events), LONG).await;
    until("the relay has published", LONG, async || workload::is_drained(db).await).await;
    Ok(f64::from(events) / begin.elapsed().as_secs_f64())
}
