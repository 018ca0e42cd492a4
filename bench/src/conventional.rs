//! The outbox that applications write by hand, and the relay that goes with it.

use std::time::Duration;

use async_nats::jetstream::{self, ContextBuilder, message::PublishMessage};
use bytes::Bytes;
use harness::{Connector, Database};
use uuid::Uuid;

use crate::raw::Template;
use crate::{Outcome, workload};

/// As applications have it: a bigserial key, a unique random id, timestamps and a partial index on what is not published.
pub const OUTBOX: &str = "CREATE TABLE outbox (
    id bigserial PRIMARY KEY, event_id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    aggregate_type text NOT NULL, aggregate_id text NOT NULL, event_type text NOT NULL,
    payload jsonb NOT NULL, headers jsonb, created_at timestamptz NOT NULL DEFAULT now(), published_at timestamptz);
    CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL";

/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the relay publishes what it has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A hundred rows a transaction, each published and acknowledged before the next.
    OneAckAtATime,
    /// Its best form: a thousand rows a transaction, all published, then all acknowledged.
    Pipelined,
}

impl Form {
    pub const ALL: [Self; 2] = [Self::OneAckAtATime, Self::Pipelined];

    pub const fn label(self) -> &'static str {
        match self {
            Self::OneAckAtATime => "SKIP LOCKED, ack by ack",
            Self::Pipelined => "SKIP LOCKED, pipelined",
        }
    }

    pub const fn key(self) -> &'static str {
        match self {
            Self::OneAckAtATime => "skip_locked_ack_by_ack",
            Self::Pipelined => "skip_locked_pipelined",
        }
    }

    /// The context that this form publishes in; as long a word as the relay's.
    pub const fn context(self) -> &'static str {
        match self {
            Self::OneAckAtATime => "skipon",
            Self::Pipelined => "skippi",
        }
    }

    const fn batch(self) -> i64 {
        match self {
            Self::OneAckAtATime => 100,
            Self::Pipelined => 1000,
        }
    }
}

/// A statement that inserts events about the orders `first` to `last`.
pub fn insert(first: u32, last: u32) -> String {
    let payload = workload::payload("(100000 + i % 900000)");
    format!(
        "INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload)
         SELECT 'order', (100000 + i % 900000)::text, 'OrderPlaced', {payload} FROM generate_series({first}, {last}) AS i"
    )
}

/// Publishes all that is in the outbox to `subject`, with the headers that sea_mq's messages have.
///
/// # Errors
/// When something is refused, or not acknowledged in time.
pub async fn relay(connector: &Connector, url: &str, form: Form, subject: &str, template: &Template) -> Outcome<()> {
    let job = Job {
        db: connector.try_connect().await?,
        jetstream: ContextBuilder::new().timeout(PATIENCE).build(async_nats::connect(url).await?),
        form,
        subject: subject.to_owned(),
        template: template.clone(),
    };
    // Off the thread that blocks on the whole run: that one is no worker of the runtime.
    tokio::spawn(async move {
        while job.pass().await? {}
        Ok(())
    })
    .await?
}

struct Job {
    db: Database,
    jetstream: jetstream::Context,
    form: Form,
    subject: String,
    template: Template,
}

impl Job {
    /// One transaction. Returns whether there was something to publish.
    async fn pass(&self) -> Outcome<bool> {
        self.db.batch_execute("BEGIN").await?;
        let select = self
            .db
            .prepare(
                "SELECT id, event_id, payload::text FROM outbox WHERE published_at IS NULL ORDER BY id LIMIT $1
                 FOR UPDATE SKIP LOCKED",
            )
            .await?;
        let rows = self.db.query(&select, &[&self.form.batch()]).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let mut acks = Vec::with_capacity(rows.len());
        for row in &rows {
            let (id, payload): (Uuid, String) = (row.get(1), row.get(2));
            let headers = self.template.headers(&id.to_string());
            let message = PublishMessage::build().payload(Bytes::from(payload)).headers(headers);
            let ack = self.jetstream.send_publish(self.subject.clone(), message).await?;
            match self.form {
                Form::OneAckAtATime => drop(ack.await?),
                Form::Pipelined => acks.push(ack),
            }
        }
        for ack in acks {
            ack.await?;
        }
        self.db.execute("UPDATE outbox SET published_at = now() WHERE id = ANY ($1)", &[&ids]).await?;
        self.db.batch_execute("COMMIT").await?;
        Ok(!ids.is_empty())
    }
}
