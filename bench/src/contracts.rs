//! What a check against the contract adds to an `emit`: a payload of 20 fields, with the setting off and at enforce.
//!
//! One session, one transaction per run that is rolled back: what is compared is the call alone, without the writing.

use std::time::Instant;

use harness::Database;
use serde_json::json;

use crate::figures::Series;
use crate::plot::{Bar, Panel, Scale};
use crate::report::{Measured, Row};
use crate::{Options, Outcome, say, workload};

/// Calls of one run.
const EVENTS: u32 = 20_000;

const SCHEMA: &str = r#"{
    "type": "object", "additionalProperties": false,
    "required": ["order", "customer", "email", "currency", "total", "lines", "address", "placed_at"],
    "properties": {
        "order": {"type": "integer", "minimum": 1}, "customer": {"type": "string", "minLength": 1, "maxLength": 200},
        "email": {"type": "string", "pattern": "^[^@]+@[^@]+$"}, "currency": {"enum": ["EUR", "USD", "GBP"]},
        "total": {"type": "number", "minimum": 0}, "tax": {"type": "number"}, "discount": {"type": ["number", "null"]},
        "channel": {"const": "web"}, "priority": {"type": "integer", "minimum": 0, "maximum": 9},
        "gift": {"type": "boolean"}, "note": {"type": "string", "maxLength": 1000}, "placed_at": {"type": "string"},
        "lines": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["sku", "quantity", "price"],
            "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer"}, "price": {"type": "number"}}}},
        "address": {"type": "object", "required": ["street", "city"],
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string"}}},
        "phone": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
        "warehouse": {"type": "string"}, "carrier": {"type": "string"}, "weight": {"type": "number"},
        "coupon": {"type": ["string", "null"]}
    }}"#;

const PAYLOAD: &str = r#"{"order": 123456, "customer": "Ada Lovelace", "email": "ada@example.org", "currency": "EUR",
    "total": 42.50, "tax": 6.79, "discount": null, "channel": "web", "priority": 3, "gift": false, "note": "ring twice",
    "placed_at": "2026-11-20T12:00:00Z", "lines": [{"sku": "SM-1001", "quantity": 2, "price": 19.95},
    {"sku": "SM-2002", "quantity": 1, "price": 2.60}], "address": {"street": "12 St James Square", "city": "London",
    "zip": "SW1Y 4LB"}, "phone": "+44 20 7946 0000", "tags": ["new", "vip"], "warehouse": "L1", "carrier": "mail",
    "weight": 1.25, "coupon": null}"#;

/// # Errors
/// When something breaks.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("contracts").await;
    let versions = workload::versions(&stage).await?;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders')").await;
    let register = "SELECT sea_mq.register_event('orders', 'OrderPlaced', 1, $1)";
    let _: bool = db.value(register, &[&serde_json::from_str::<serde_json::Value>(SCHEMA)?]).await;
    for policy in ["off", "enforce"] {
        run(&db, policy).await;
    }
    let (mut off, mut enforce) = (Series::default(), Series::default());
    for round in 1..=options.rounds {
        off.push(run(&db, "off").await);
        enforce.push(run(&db, "enforce").await);
        say(format!(
            "contracts, {round} of {}: off {:.2} µs, enforce {:.2} µs",
            options.rounds,
            off.median(),
            enforce.median()
        ));
    }
    let added: Series = enforce.values.iter().zip(&off.values).map(|(enforce, off)| enforce - off).collect();
    let row = |figure, series: &Series| Row::new(figure, format!("{:.2} µs", series.median()), series.range(2, " µs"));
    let json = json!({
        "events": EVENTS, "payload_bytes": PAYLOAD.len(), "fields": 20, "versions": versions,
        "off": off.json("µs"), "enforce": enforce.json("µs"), "added": added.json("µs"),
    });
    let bar = |label, series: &Series| Bar::of(label, series, format!("{:.2}", series.median()));
    let bars = vec![bar("off", &off), bar("enforce", &enforce)];
    let title = format!("contracts: {EVENTS} calls of emit, a payload of 20 fields, {} rounds", options.rounds);
    let panel = Panel { title: title.clone(), unit: "µs".into(), scale: Scale::Linear, bars };
    let rows = vec![
        row("sea_mq.contracts = off", &off),
        row("sea_mq.contracts = enforce", &enforce),
        row("… what the check adds", &added).expecting("< 15 µs"),
    ];
    Ok(Measured { key: "contracts", title, rows, panels: vec![panel], json })
}

/// Microseconds per call.
async fn run(db: &Database, policy: &str) -> f64 {
    db.run(&format!("SET sea_mq.contracts = '{policy}'; BEGIN")).await;
    let payload = PAYLOAD.replace('\n', " ");
    let sql = format!(
        "SELECT count(sea_mq.emit('order', n::text, 'OrderPlaced', '{payload}'::jsonb)) FROM generate_series(1, {EVENTS}) n"
    );
    let begin = Instant::now();
    let _: i64 = db.value(&sql, &[]).await;
    let elapsed = begin.elapsed();
    db.run("ROLLBACK").await;
    elapsed.as_secs_f64() * 1e6 / f64::from(EVENTS)
}
