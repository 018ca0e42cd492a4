//! Look-ups in large tables: what became of an event, and links between entities.

use std::time::Instant;

use harness::Database;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Amounts, Found, create, drop_all};
use crate::figures::{Series, whole};
use crate::report::Row;
use crate::{Outcome, say};

const QUESTIONS: u32 = 2000;

pub async fn measure(db: &Database, amounts: &Amounts, found: &mut Found) -> Outcome<()> {
    deliveries(db, amounts, found).await?;
    links(db, amounts, found).await
}

async fn deliveries(db: &Database, amounts: &Amounts, found: &mut Found) -> Outcome<()> {
    say(format!("endpoints: {} deliveries are retained", whole(f64::from(amounts.retained))));
    create(db, "kept", "http://localhost:1/", ", filter => '{}'").await;
    // Ids grow as those of events do.
    let id = "lpad(to_hex(n), 32, '0')::uuid";
    db.run(&format!(
        "INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status)
         SELECT r.current_slot, 200, 1, e.id, now(), {id}, 1000, 'delivered'
         FROM sea_mq.delivery_ring r, sea_mq.endpoints e, generate_series(1, {}) n",
        amounts.retained
    ))
    .await;
    db.run("ANALYZE sea_mq.delivery_log").await;
    let retained = i64::from(amounts.retained);
    let statement = db.prepare("SELECT status FROM sea_mq.delivery_status($1)").await?;
    let mut series = Series::default();
    for n in 0..QUESTIONS {
        // Spread over all of them.
        let place = (i64::from(n) * 7_919_311) % retained + 1;
        let id = Uuid::from_u128(u128::try_from(place)?);
        series.push(asked(db, &statement, &[&id]).await?);
    }
    let figure = format!("delivery_status, {} retained, p99", whole(f64::from(amounts.retained)));
    let row = Row::new(figure, format!("{:.2} ms", series.at(0.99)), format!("p50 {:.2} ms", series.median()));
    found.add("delivery_status", row.expecting("≤ 5 ms"), series.spread("ms"));
    drop_all(db).await;
    db.run("TRUNCATE sea_mq.delivery_log").await;
    Ok(())
}

async fn links(db: &Database, amounts: &Amounts, found: &mut Found) -> Outcome<()> {
    say(format!("endpoints: {} links", whole(f64::from(amounts.links))));
    db.run(&format!(
        "SELECT count(*) FROM (SELECT sea_mq.create_links(array_agg(jsonb_build_object('source_module', 'billing', 'source_type', 'invoice',
            'source_id', n::text, 'target_module', 'tasks', 'target_type', 'task', 'target_id', (n / 2)::text, 'link_type', 'reference')))
         FROM generate_series(1, {}) n GROUP BY n / 1000) made",
        amounts.links
    ))
    .await;
    for (key, sql) in [
        ("find_links_by_source", "SELECT count(*) FROM sea_mq.find_links_by_source('billing', 'invoice', $1)"),
        ("find_links_by_target", "SELECT count(*) FROM sea_mq.find_links_by_target('tasks', 'task', $1)"),
    ] {
        let statement = db.prepare(sql).await?;
        let mut series = Series::default();
        for n in 0..QUESTIONS {
            let id = (u64::from(n) * 7_919_311 % u64::from(amounts.links / 2) + 1).to_string();
            series.push(asked(db, &statement, &[&id]).await?);
        }
        let figure = format!("{key}, {} links, p99", whole(f64::from(amounts.links)));
        let row = Row::new(figure, format!("{:.2} ms", series.at(0.99)), format!("p50 {:.2} ms", series.median()));
        found.add(key, row.expecting("≤ 1 ms"), series.spread("ms"));
    }
    Ok(())
}

/// Milliseconds until the answer is here.
async fn asked(
    db: &Database,
    statement: &tokio_postgres::Statement,
    parameters: &[&(dyn ToSql + Sync)],
) -> Outcome<f64> {
    let began = Instant::now();
    if db.query(statement, parameters).await?.is_empty() {
        return Err("what was looked for is not there".into());
    }
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}
