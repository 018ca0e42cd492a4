//! tokio-postgres. It asks the server for the types of parameters: `aggregate_id` is text there, unless it is cast.

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const EMIT: &str = "SELECT sea_mq.emit('order', $1::int8, 'OrderCreated', $2)";
const INSERT: &str = "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
    VALUES ('order', $1, 'OrderCreated', $2) RETURNING id";

#[tokio::main]
async fn main() -> Outcome<()> {
    let (mut db, connection) = tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    // docs:
    let order = db.transaction().await?;
    order.execute("INSERT INTO orders (id) VALUES ($1)", &[&1_i64]).await?;
    let emit = "SELECT sea_mq.emit('order', $1::int8, 'OrderCreated', $2)";
    order.execute(emit, &[&1_i64, &json!({"n": 1})]).await?;
    order.commit().await?;
    // :docs

    let undone = db.transaction().await?;
    undone.execute("INSERT INTO orders (id) VALUES (2)", &[]).await?;
    undone.execute(EMIT, &[&2_i64, &json!({"n": 2})]).await?;
    undone.rollback().await?;

    let mut outer = db.transaction().await?;
    let text = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2)";
    outer.execute(text, &[&"3", &json!({"n": 3})]).await?;
    let savepoint = outer.transaction().await?;
    savepoint.execute(EMIT, &[&4_i64, &json!({"n": 4})]).await?;
    savepoint.rollback().await?;
    outer.commit().await?;

    let id: Uuid = db.query_one(INSERT, &[&"5", &json!({"n": 5})]).await?.get(0);
    assert_eq!(id.get_version_num(), 7);
    let event =
        |n| json!({"aggregate_type": "order", "aggregate_id": n, "event_type": "OrderCreated", "payload": {"n": n}});
    db.execute("SELECT sea_mq.emit_many($1)", &[&[event(6), event(7)].as_slice()]).await?;
    receive(&mut db).await
}

async fn receive(db: &mut Client) -> Outcome<()> {
    let mut left = 5;
    while left > 0 {
        // docs:
        let receive = "SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')";
        let messages = db.query(receive, &[]).await?;
        for message in &messages {
            let (id, payload): (i64, Value) = (message.get(0), message.get(1));
            let work = db.transaction().await?;
            work.execute("INSERT INTO parcels (order_id) VALUES ($1)", &[&payload["n"].to_string()]).await?;
            work.execute("SELECT sea_mq.complete($1)", &[&id]).await?;
            work.commit().await?;
        }
        // :docs
        left -= messages.len();
    }
    Ok(())
}
