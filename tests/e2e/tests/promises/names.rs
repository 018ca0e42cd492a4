//! Names: what is accepted, a real server carries as it is; what a real server cannot carry, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, Stream};
use harness::{Chance, Stage, Stored, until};
use sea_mq_contracts::name::{context_name, event_name, event_subject, snake_case};
use uuid::Uuid;

use crate::SOON;
use crate::receiving::publish;

const CONTEXT: &str = "names";

/// Publishes without asking whether the subject is one, as a client library would.
struct Raw {
    address: String,
    connection: TcpStream,
}

impl Raw {
    fn new(stage: &Stage) -> Self {
        let address = stage.broker.url().replace("nats://", "");
        let connection = Self::connect(&address);
        Self { address, connection }
    }

    fn connect(address: &str) -> TcpStream {
        let mut connection = TcpStream::connect(address).expect("cannot connect");
        // A name may say that more bytes follow than do: then the server waits as well.
        connection.set_read_timeout(Some(Duration::from_secs(5))).expect("cannot set a timeout");
        connection.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n").expect("cannot greet");
        connection
    }

    fn say(&mut self, text: &str) {
        // The server may have hung up on what came before.
        let _ = self.connection.write_all(text.as_bytes());
    }

    /// Waits for the server to have read it, and connects anew if that was too much for it.
    fn publish(&mut self, subject: &str, body: &str) {
        self.say(&format!("PUB {subject} {}\r\n{body}\r\nPING\r\n", body.len()));
        let mut answer = Vec::new();
        while !answer.ends_with(b"PONG\r\n") {
            let mut part = [0; 1024];
            match self.connection.read(&mut part) {
                Ok(length) if length > 0 && !String::from_utf8_lossy(&answer).contains("-ERR") => {
                    answer.extend_from_slice(&part[..length]);
                }
                _ => {
                    self.connection = Self::connect(&self.address);
                    return;
                }
            }
        }
    }
}

async fn matching(stream: &Stream, filter: &str) -> u64 {
    let config = pull::Config {
        filter_subject: filter.to_owned(),
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(60),
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer =
        stream.create_consumer(config).await.unwrap_or_else(|error| panic!("no consumer of {filter:?}: {error}"));
    let found = consumer.cached_info().num_pending;
    stream.delete_consumer(&consumer.cached_info().name).await.expect("cannot delete the consumer");
    found
}

/// Asserts what is true of a name without any server.
fn assert_normal(given: &str, normalise: fn(&str) -> Result<String, sea_mq_contracts::invalid::Invalid>) {
    match normalise(given) {
        Ok(normal) => assert_eq!(normalise(&normal).as_ref(), Ok(&normal), "{given:?} has two normal forms"),
        Err(invalid) => assert!(!invalid.message.is_empty() && !invalid.hint.is_empty(), "{given:?}: {invalid:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_name_is_accepted_only_if_the_server_carries_it() {
    let (mut chance, names) = Chance::new(1500);
    let stage = Stage::new("names").await;
    let config = Config { name: "NAMES".into(), subjects: vec![format!("{CONTEXT}.>")], ..Config::default() };
    let stream = stage.broker.jetstream().create_stream(config).await.expect("cannot create the stream");
    let mut raw = Raw::new(&stage);
    let mut given: Vec<String> = Vec::new();
    // Each character of the first plane's beginning by itself, and then at random.
    given.extend((1..0x180).filter_map(char::from_u32).map(|c| format!("a{c}b")));
    given.extend((0..names).map(|_| chance.name()));
    for (place, name) in given.iter().enumerate() {
        assert_normal(name, event_name);
        raw.publish(&event_subject(CONTEXT, &snake_case(name), 1), &place.to_string());
    }
    // Having read a message, the server has yet to store it; what it acknowledges is stored behind all of them.
    publish(&stage, &format!("{CONTEXT}.end"), &[], "").await;
    let mut stored: BTreeMap<usize, String> = BTreeMap::new();
    for message in stage.broker.stored("NAMES").await {
        let place = String::from_utf8_lossy(&message.body).parse().unwrap_or(usize::MAX);
        stored.insert(place, message.subject);
    }
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    for (place, name) in given.iter().enumerate() {
        let carried =
            stored.get(&place).is_some_and(|subject| *subject == event_subject(CONTEXT, &snake_case(name), 1));
        match event_name(name) {
            Ok(normal) => {
                assert!(carried, "{name:?} is accepted, and the server stores {:?}", stored.get(&place));
                *accepted.entry(normal).or_default() += 1;
            }
            Err(_) => continue,
        }
    }
    eprintln!(
        "{} names, {} accepted, {} different subjects",
        given.len(),
        accepted.values().sum::<u64>(),
        accepted.len()
    );
    // Exactly those that were published under the name, whatever else is there.
    for (normal, count) in &accepted {
        let subject = event_subject(CONTEXT, normal, 1);
        let same = stored.values().filter(|found| **found == subject).count() as u64;
        assert_eq!(matching(&stream, &subject).await, same.max(*count), "{subject:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_is_accepted_only_if_it_has_a_stream_of_its_own() {
    let (mut chance, contexts) = Chance::new(25);
    let stage = Stage::new("contexts").await;
    let db = stage.connect().await;
    let odd = ["i", "ı", "s", "ſ", "ss", "ß", "μ", "µ", "ß-", "straße", "strasse", "é", "e\u{301}", "ǅ", "ǆ"]
        .map(str::to_owned);
    let long = ["ΐ".repeat(64), "aB".repeat(64), "aB".repeat(42), "x".repeat(128), "ŉ".repeat(40)];
    let random: Vec<String> = (0..contexts).map(|_| chance.name()).collect();
    let mut expected: BTreeMap<String, Uuid> = BTreeMap::new();
    for name in odd.iter().chain(&long).chain(&random) {
        assert_normal(name, context_name);
        let sql = "SELECT sea_mq.emit('order', '1', 'Named', '{}', context => $1)";
        match (context_name(name), db.query_one(sql, &[&name]).await) {
            (Ok(normal), Ok(row)) => drop(expected.entry(normal).or_insert(row.get(0))),
            (Err(_), Err(error)) => {
                let code = error.code().expect("an error of the server").code();
                assert!(["22023", "54000", "42704"].contains(&code), "{name:?}: {error}");
            }
            (rule, emitted) => panic!("{name:?}: the rule says {rule:?}, emit {emitted:?}"),
        }
    }
    let published = "SELECT count(*) FILTER (WHERE NOT published) = 0 FROM sea_mq.outbox_events";
    until("all is published", SOON, async || db.value(published, &[]).await).await;
    let mut streams = BTreeSet::new();
    for (context, id) in &expected {
        let sql = "SELECT name FROM sea_mq.streams WHERE context = $1 AND kind = 'event'";
        let name: String = db.value(sql, &[context]).await;
        let stored: Vec<Stored> = stage.broker.stored(&name).await;
        assert!(stored.iter().any(|one| one.id() == *id), "{context:?} is not in {name:?}");
        let subject = event_subject(context, "named", 1);
        assert!(stored.iter().all(|one| one.subject == subject), "{name:?}: {stored:?}");
        let stream = stage.broker.stream(&name).await.expect("the stream is there");
        assert_eq!(matching(&stream, &subject).await, stored.len() as u64, "{subject:?}");
        assert!(streams.insert(name), "two contexts have one stream");
    }
    eprintln!("{} contexts, {} accepted", odd.len() + long.len() + random.len(), expected.len());
}
