//! An application with its own NATS consumer: `sea_mq.inbox_accept` makes its effects happen once.
//!
//! `accept-rust STREAM SUBSCRIPTION [IDLE_SECONDS]` with `NATS_URL` and `DATABASE_URL` in the environment. SUBSCRIPTION is
//! the durable name of the consumer, and its name in the inbox. You may run any number of these programs at once. A program
//! ends when nothing has come for IDLE_SECONDS (default: never). In the database, once:
//!
//! ```sql
//! CREATE TABLE parcels (order_id text, message_id text);
//! GRANT sea_mq_consumer TO shipping_app;
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, AckKind, Message};
use futures_util::StreamExt;
use serde_json::Value;
use tokio_postgres::{Client, NoTls, Transaction};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (stream, subscription, idle) = match arguments.as_slice() {
        [stream, subscription] => (stream, subscription, None),
        [stream, subscription, idle] => (stream, subscription, idle.parse().ok().map(Duration::from_secs)),
        _ => {
            eprintln!("usage: accept-rust STREAM SUBSCRIPTION [IDLE_SECONDS]");
            return ExitCode::from(2);
        }
    };
    match run(stream, subscription, idle.unwrap_or(Duration::MAX)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accept-rust: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(stream: &str, subscription: &str, idle: Duration) -> Outcome<()> {
    let (mut db, connection) = tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(connection);
    let nats = async_nats::connect(std::env::var("NATS_URL")?).await?;
    // One consumer for all processes: the first one creates it, all use it.
    let config = pull::Config {
        durable_name: Some(subscription.to_owned()),
        ack_wait: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer = jetstream::new(nats).get_stream(stream).await?.get_or_create_consumer(subscription, config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(10).messages().await?;
    while let Ok(Some(message)) = tokio::time::timeout(idle, messages.next()).await {
        let message = message?;
        match handle(&mut db, subscription, &message).await {
            // Only after the commit.
            Ok(()) => message.ack().await?,
            // An unacknowledged message is delivered again after ack_wait.
            Err(error) if db.is_closed() => return Err(error),
            Err(error) => {
                eprintln!("message on {}: {error}", message.subject);
                message.ack_with(AckKind::Nak(Some(Duration::from_secs(5)))).await?;
            }
        }
    }
    Ok(())
}

async fn handle(db: &mut Client, subscription: &str, message: &Message) -> Outcome<()> {
    let header = |name: &str| {
        let value = message.headers.as_ref().and_then(|headers| headers.get(name));
        value.map(|value| value.as_str()).ok_or_else(|| format!("the message has no header {name}"))
    };
    let message_id = header("Nats-Msg-Id")?;
    let (context, event_type) = (header("X-Source-Context")?, header("X-Event-Type")?);
    let payload: Value = serde_json::from_slice(&message.payload)?;
    // Dropping the transaction rolls it back. That happens if something fails.
    let transaction = db.transaction().await?;
    let accept = "SELECT sea_mq.inbox_accept($1, $2, $3, $4, $5)";
    let row = transaction.query_one(accept, &[&message_id, &context, &event_type, &payload, &subscription]).await?;
    // False: the message came again. This or another process has handled it.
    if row.get(0) {
        pack(&transaction, message_id, &payload).await?;
    }
    Ok(transaction.commit().await?)
}

/// The work. If it fails, its changes in the database are undone.
async fn pack(transaction: &Transaction<'_>, message_id: &str, payload: &Value) -> Outcome<()> {
    let order = payload["order"].to_string();
    let insert = "INSERT INTO parcels (order_id, message_id) VALUES ($1, $2)";
    transaction.execute(insert, &[&order, &message_id]).await?;
    Ok(())
}
