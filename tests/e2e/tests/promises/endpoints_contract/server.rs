//! A server for each kind of endpoint, and the checks' endpoints on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use futures_util::StreamExt;
use harness::{Database, Receiver, Reply, Stage, until};
use serde_json::Value;
use uuid::Uuid;

use crate::SOON;
use crate::endpoints::status;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Webhook,
    Http,
    Nats,
}

impl Kind {
    pub fn token(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Http => "http",
            Self::Nats => "nats",
        }
    }
}

/// What a server does with what it gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Takes,
    /// It fails, and will not for ever.
    Fails,
    /// It does not want this event.
    Refuses,
    /// It does not answer.
    Hangs,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub endpoint: String,
    pub id: String,
    pub body: Vec<u8>,
}

/// A server with an endpoint for each check: a path, or a subject with its stream.
pub struct Server {
    pub kind: Kind,
    pub manners: Arc<Mutex<HashMap<String, Manner>>>,
    pub receiver: Option<Receiver>,
    pub observed: Arc<Mutex<Vec<Attempt>>>,
}

pub const SLOW: Duration = Duration::from_millis(1500);

impl Server {
    pub async fn start(kind: Kind, stage: &Stage) -> Self {
        let manners: Arc<Mutex<HashMap<String, Manner>>> = Arc::default();
        let observed: Arc<Mutex<Vec<Attempt>>> = Arc::default();
        let receiver = if kind == Kind::Nats {
            // Whoever listens sees each attempt, whatever the stream says to it.
            let client = async_nats::connect(stage.broker.url()).await.expect("it connects");
            let mut messages = client.subscribe(">").await.expect("it listens");
            client.flush().await.expect("it is heard");
            let seen = Arc::clone(&observed);
            tokio::spawn(async move {
                while let Some(message) = messages.next().await {
                    let Some(id) = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")) else {
                        continue;
                    };
                    let (endpoint, id) = (message.subject.to_string(), id.to_string());
                    let attempt = Attempt { endpoint, id, body: message.payload.to_vec() };
                    seen.lock().expect("nobody panics with the lock").push(attempt);
                }
                drop(client);
            });
            None
        } else {
            let manners = Arc::clone(&manners);
            let receiver = Receiver::start(move |request| {
                let manners = manners.lock().expect("nobody panics with the lock");
                match manners.get(request.path.trim_start_matches('/')) {
                    None | Some(Manner::Takes) => Reply::status(200),
                    Some(Manner::Fails) => Reply::status(503),
                    Some(Manner::Refuses) => Reply::status(422),
                    Some(Manner::Hangs) => Reply::status(200).after(SLOW),
                }
            });
            Some(receiver.await)
        };
        Self { kind, manners, receiver, observed }
    }

    pub fn url(&self, stage: &Stage, name: &str) -> String {
        self.receiver
            .as_ref()
            .map_or_else(|| format!("{}/{name}", stage.broker.url()), |receiver| receiver.url(&format!("/{name}")))
    }

    pub async fn behaves(&self, stage: &Stage, name: &str, manner: Manner) {
        self.manners.lock().expect("nobody panics with the lock").insert(name.to_owned(), manner);
        if self.kind != Kind::Nats {
            return;
        }
        let jetstream = stage.broker.jetstream();
        let _ = jetstream.delete_stream(name.to_uppercase()).await;
        let sound = Config {
            name: name.to_uppercase(),
            subjects: vec![name.to_owned()],
            discard: DiscardPolicy::New,
            ..Config::default()
        };
        let config = match manner {
            Manner::Takes => sound,
            Manner::Fails => Config { max_messages: 1, ..sound },
            Manner::Refuses => Config { max_message_size: 1, ..sound },
            Manner::Hangs => return,
        };
        jetstream.create_stream(config).await.expect("the stream is made");
        if manner == Manner::Fails {
            let filler = jetstream.publish(name.to_owned(), "full".into()).await.expect("it is sent");
            filler.await.expect("it is stored");
        }
    }

    pub fn attempts(&self, name: &str) -> Vec<Attempt> {
        match &self.receiver {
            None => {
                let observed = self.observed.lock().expect("nobody panics with the lock");
                observed.iter().filter(|one| one.endpoint == name).cloned().collect()
            }
            Some(receiver) => {
                let header = if self.kind == Kind::Webhook { "webhook-id" } else { "idempotency-key" };
                let of = |one: harness::Received| Attempt {
                    endpoint: name.to_owned(),
                    id: one.header(header).to_owned(),
                    body: one.body,
                };
                receiver.received_on(&format!("/{name}")).into_iter().map(of).collect()
            }
        }
    }
}

/// A check's endpoint, which gets events of its own type.
pub struct Check<'a> {
    pub stage: &'a Stage,
    pub server: &'a Server,
    pub db: &'a Database,
    pub name: &'static str,
}

impl<'a> Check<'a> {
    pub async fn new(
        stage: &'a Stage,
        server: &'a Server,
        db: &'a Database,
        name: &'static str,
        manner: Manner,
        more: &str,
    ) -> Self {
        let check = Self { stage, server, db, name };
        check.behaves(manner).await;
        db.run(&format!(
            "SELECT sea_mq.register_event('orders', '{name}', 1, '{{\"type\": \"object\", \"properties\": {{\"card\": {{\"type\": \"string\", \"x-sea-sensitive\": true}}}}}}', 'partner')"
        ))
        .await;
        let url = server.url(stage, name);
        let kind = server.kind.token();
        db.run(&format!("SELECT sea_mq.create_endpoint('{name}', '{kind}', '{url}', filter => '{{{name}}}'{more})"))
            .await;
        check
    }

    pub async fn behaves(&self, manner: Manner) {
        self.server.behaves(self.stage, self.name, manner).await;
    }

    pub async fn emit(&self, payload: Value) -> Uuid {
        self.db.emit("1", self.name, payload).await
    }

    pub async fn until_status(&self, event: Uuid, expected: &str) -> Value {
        let what = format!("{event} is {expected} at {}", self.name);
        until(&what, SOON, async || status(self.db, event, self.name).await["status"] == expected).await;
        status(self.db, event, self.name).await
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        self.server.attempts(self.name)
    }
}
