//! A subscription with a handler working off a stream.

use std::time::Duration;

use harness::{Database, EVENTS, Stage};

use crate::{Outcome, now};

/// How often it is looked whether all is handled.
const LOOK: Duration = Duration::from_millis(200);

/// The handlers, and the table of the one that inserts.
pub const HANDLERS: &str = "
    CREATE TABLE shipments (id bigserial PRIMARY KEY, event uuid NOT NULL, number bigint NOT NULL, customer text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now());
    CREATE FUNCTION handle_nothing(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE FUNCTION handle_insert(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO shipments (event, number, customer)
        VALUES (e.id, (e.payload ->> 'order')::bigint, e.payload ->> 'customer');
    END $$";

/// What handles, and how.
#[derive(Clone, Copy, Debug)]
pub struct Handling {
    /// Whether the handler inserts a row; else it does nothing.
    pub inserts: bool,
    pub workers: u32,
    pub max_ack_pending: i64,
}

/// One stream worked off.
pub struct Handled {
    /// Messages per second, from the first that was received to the last that was handled.
    pub rate: f64,
    /// Milliseconds from `subscribe()` to the first message received.
    pub first: f64,
}

/// Subscribes under `name`, which is to be a new one, waits until all `count` messages of the stream are handled, and
/// unsubscribes. It begins with an empty inbox and after a checkpoint.
///
/// # Errors
/// When a message was not handled exactly once.
pub async fn run(stage: &Stage, name: &str, handling: Handling, count: u32) -> Outcome<Handled> {
    let db = stage.connect().await;
    db.run("TRUNCATE shipments, sea_mq.inbox_log, sea_mq.inbox_pending").await;
    db.run("CHECKPOINT").await;
    let Handling { inserts, workers, max_ack_pending } = handling;
    let handler = if inserts { "handle_insert" } else { "handle_nothing" };
    let start = now();
    db.run(&format!(
        "SELECT sea_mq.subscribe('{name}', 'orders', '{handler}', start_from => 'all', workers => {workers},
            max_ack_pending => {max_ack_pending})"
    ))
    .await;
    until_handled(&db, name, count).await?;
    let (begin, end) = times(&db, name, count, inserts).await?;
    db.run(&format!("SELECT sea_mq.unsubscribe('{name}')")).await;
    until_gone(stage, name).await;
    let seconds = (end - begin).max(1) as f64 / 1e6;
    Ok(Handled { rate: f64::from(count - 1) / seconds, first: (begin - start) as f64 / 1e3 })
}

async fn until_handled(db: &Database, name: &str, count: u32) -> Outcome<()> {
    let limit = std::time::Instant::now() + Duration::from_secs(60) + Duration::from_millis(count.into());
    let sql =
        "SELECT processed, failures + dead + skipped, state FROM sea_mq.subscription_status WHERE subscription = $1";
    loop {
        tokio::time::sleep(LOOK).await;
        let row = db.query_one(sql, &[&name]).await?;
        let (processed, wrong, state): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
        if wrong > 0 {
            return Err(format!("{name}: {wrong} attempts of the handler failed").into());
        }
        if processed >= count.into() {
            return Ok(());
        }
        if std::time::Instant::now() > limit {
            return Err(format!("{name} is {state} and has handled {processed} of {count} messages").into());
        }
    }
}

/// When the first message was received and the last one handled (microseconds since 1970), if each was handled once.
async fn times(db: &Database, name: &str, count: u32, inserts: bool) -> Outcome<(i64, i64)> {
    let sql =
        "SELECT count(*) FILTER (WHERE status = 'processed' AND attempts = 1), count(DISTINCT message_id), count(*),
            (extract(epoch FROM min(created_at)) * 1000000)::bigint,
            (extract(epoch FROM max(processed_at)) * 1000000)::bigint
        FROM sea_mq.inbox_messages WHERE subscription = $1";
    let row = db.query_one(sql, &[&name]).await?;
    let found: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    if found != [i64::from(count); 3] {
        return Err(
            format!("{name}: (handled at once, messages, rows) should be {count} each, and are {found:?}").into()
        );
    }
    let inserted = db.query_one("SELECT count(*), count(DISTINCT event) FROM shipments", &[]).await?;
    let (inserted, wanted): ([i64; 2], i64) =
        ([inserted.get(0), inserted.get(1)], if inserts { count.into() } else { 0 });
    if inserted != [wanted; 2] {
        return Err(format!("{name}: the handler should have inserted {wanted} rows, there are {inserted:?}").into());
    }
    let processed: i64 =
        db.value("SELECT processed FROM sea_mq.subscription_status WHERE subscription = $1", &[&name]).await;
    if processed != i64::from(count) {
        return Err(format!("{name}: {count} messages were handled, and {processed} are counted").into());
    }
    Ok((row.get(3), row.get(4)))
}

/// Waits until nats-server does not have the consumer any more.
pub async fn until_gone(stage: &Stage, name: &str) {
    harness::until("the consumer is gone", Duration::from_secs(30), async || {
        let Some(stream) = stage.broker.stream(EVENTS).await else { return false };
        stream.consumer_info(name).await.is_err()
    })
    .await;
}
