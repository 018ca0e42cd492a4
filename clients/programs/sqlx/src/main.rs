//! sqlx. A value that is bound has the type of Rust, so an integer is an integer; `query!` asks the server instead, as tokio-postgres
//! does.

use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Acquire, PgPool, Row};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const EMIT: &str = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2)";
/// sqlx keeps a statement by its text, with the types that it was bound with first: other types need another text.
const EMIT_TEXT: &str = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2) AS id";
const INSERT: &str = "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
    VALUES ('order', $1, 'OrderCreated', $2) RETURNING id";

#[tokio::main]
async fn main() -> Outcome<()> {
    let pool = PgPoolOptions::new().max_connections(2).connect(&std::env::var("DATABASE_URL")?).await?;
    // docs:
    let mut order = pool.begin().await?;
    sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(1_i64).execute(&mut *order).await?;
    let emit = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2)";
    sqlx::query(emit).bind(1_i64).bind(json!({"n": 1})).execute(&mut *order).await?;
    order.commit().await?;
    // :docs

    let mut undone = pool.begin().await?;
    sqlx::query("INSERT INTO orders (id) VALUES (2)").execute(&mut *undone).await?;
    sqlx::query(EMIT).bind(2_i64).bind(json!({"n": 2})).execute(&mut *undone).await?;
    undone.rollback().await?;

    let mut outer = pool.begin().await?;
    // Text as well, and the payload as a JSON string.
    sqlx::query(EMIT_TEXT).bind("3").bind("{\"n\": 3}").execute(&mut *outer).await?;
    let mut savepoint = outer.begin().await?;
    sqlx::query(EMIT).bind(4_i64).bind(json!({"n": 4})).execute(&mut *savepoint).await?;
    savepoint.rollback().await?;
    outer.commit().await?;

    let id: Uuid = sqlx::query_scalar(INSERT).bind("5").bind(json!({"n": 5})).fetch_one(&pool).await?;
    assert_eq!(id.get_version_num(), 7);
    // An id of the application's own, as uuid or as text: the second time is the same event.
    let own = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2, event_id => $3)";
    let id = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);
    sqlx::query(own).bind(6_i64).bind(json!({"n": 6})).bind(id).execute(&pool).await?;
    let again = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2, event_id => $3) AS id";
    sqlx::query(again).bind(6_i64).bind(json!({"n": 6})).bind(id.to_string()).execute(&pool).await?;
    let event = json!({"aggregate_type": "order", "aggregate_id": 7, "event_type": "OrderCreated", "payload": {"n": 7}});
    sqlx::query("SELECT sea_mq.emit_many($1)").bind([event].as_slice()).execute(&pool).await?;
    receive(&pool).await
}

async fn receive(pool: &PgPool) -> Outcome<()> {
    let mut left = 5;
    while left > 0 {
        // docs:
        let receive = "SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')";
        let messages = sqlx::query(receive).fetch_all(pool).await?;
        for message in &messages {
            let (id, payload): (i64, Value) = (message.get("id"), message.get("payload"));
            let mut work = pool.begin().await?;
            let parcel = sqlx::query("INSERT INTO parcels (order_id) VALUES ($1)");
            parcel.bind(payload["n"].to_string()).execute(&mut *work).await?;
            sqlx::query("SELECT sea_mq.complete($1)").bind(id).execute(&mut *work).await?;
            work.commit().await?;
        }
        // :docs
        left -= messages.len();
    }
    Ok(())
}
