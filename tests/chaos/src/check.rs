//! Whether the promises held: what is stored and handled, against what was committed.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use harness::{Database, Stored, read, until_some};
use uuid::Uuid;

use crate::LONG;
use crate::ledger::{Emitted, Fate, Transaction};
use crate::partner;
use crate::scene::{DATABASES, PRODUCERS, SUBSCRIPTIONS, Scene, Subscription, stream_of};

/// How long nothing more may happen once all is there.
const STILL: Duration = Duration::from_secs(1);

const BILLING: &str = "billing";

/// Messages that a transaction of a consumer handles at most.
const HANDLED_AT_ONCE: i64 = 500;

/// What the faults of a run may do without breaking a promise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// A crash of PostgreSQL takes back what was committed with `synchronous_commit = off`.
    pub lazy_commits_lost: bool,
    /// Handlers may be ended when they have written their events and not committed them: those rows are dead.
    pub handlers_end: bool,
    /// Deliveries to the partner that may be made twice.
    pub deliveries_repeated: usize,
}

/// What is remembered of a message in a stream.
struct Seen {
    id: Uuid,
    /// The transaction that its body names.
    key: Option<i64>,
    sequence: u64,
    /// In microseconds since 1970.
    stored_at: i128,
    /// The sequence that its publisher expected the stream to have reached.
    expected: Option<u64>,
}

impl Seen {
    fn of(message: &Stored) -> Self {
        Self {
            id: message.id(),
            key: message.json()["tx"].as_i64(),
            sequence: message.sequence,
            stored_at: message.stored_at,
            expected: message.header("Nats-Expected-Last-Sequence").parse().ok(),
        }
    }
}

/// What committed, and what is wrong with it so far.
pub struct Checker<'a> {
    scene: &'a Scene,
    /// Events of transactions that committed, by context.
    committed: HashMap<&'static str, HashMap<Uuid, (Emitted, i64)>>,
    transactions: Vec<Transaction>,
    /// Rows that transactions left dead which failed after they had written them.
    may_be_dead: HashMap<&'static str, i64>,
    /// Deliveries that may be made twice.
    may_be_repeated: usize,
    findings: Vec<String>,
}

impl<'a> Checker<'a> {
    /// Asks the databases which transactions committed; what their writers were told must agree.
    ///
    /// # Panics
    /// When a database does not answer.
    pub async fn new(scene: &'a Scene, transactions: Vec<Transaction>, tolerance: Tolerance) -> Self {
        let mut checker = Self {
            scene,
            committed: HashMap::new(),
            transactions: Vec::new(),
            may_be_dead: HashMap::new(),
            may_be_repeated: tolerance.deliveries_repeated,
            findings: Vec::new(),
        };
        if tolerance.handlers_end {
            checker.may_be_dead.insert(BILLING, HANDLED_AT_ONCE);
        }
        for producer in &PRODUCERS {
            let db = scene.cluster.connect(producer.database).await;
            let witnesses: HashSet<i64> = db.values("SELECT key FROM witness", &[]).await.into_iter().collect();
            for transaction in transactions.iter().filter(|one| one.database == producer.database) {
                checker.settle(transaction, witnesses.contains(&transaction.key), tolerance);
            }
        }
        checker
    }

    fn settle(&mut self, transaction: &Transaction, witnessed: bool, tolerance: Tolerance) {
        let key = transaction.key;
        let lost = match transaction.fate {
            Fate::Committed => !witnessed,
            Fate::CommittedLazily => !witnessed && !tolerance.lazy_commits_lost,
            Fate::RolledBack | Fate::Unknown => false,
        };
        if lost {
            self.findings.push(format!("transaction {key} was committed and is not there"));
        }
        if witnessed && transaction.fate == Fate::RolledBack {
            self.findings.push(format!("transaction {key} was rolled back and is there"));
        }
        if witnessed {
            for event in &transaction.events {
                self.committed.entry(event.context).or_default().insert(event.id, (*event, key));
            }
            self.transactions.push(transaction.clone());
        } else {
            // Killed in its commit, or prepared and rolled back.
            *self.may_be_dead.entry(transaction.database).or_default() +=
                i64::try_from(transaction.events.len()).unwrap_or(0);
        }
    }

    /// How many events committed.
    pub fn events(&self) -> usize {
        self.committed.values().map(HashMap::len).sum()
    }

    fn count(&self, context: &str) -> usize {
        let count = |context: &str| self.committed.get(context).map_or(0, HashMap::len);
        // Each event of `orders` causes one of `billing`.
        count(context) + if context == BILLING { count("orders") } else { 0 }
    }

    /// Waits until all that committed is stored and handled and every view says that all is well; what is lacking after two
    /// minutes is a finding.
    ///
    /// # Panics
    /// When a database does not answer.
    pub async fn until_quiet(&mut self) {
        let begin = Instant::now();
        loop {
            let lacking = self.lacking().await;
            if lacking.is_empty() {
                break;
            }
            if begin.elapsed() > LONG {
                self.findings.push(format!("after {LONG:?}: {}", lacking.join("; ")));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Doubles may come behind.
        tokio::time::sleep(STILL).await;
    }

    async fn lacking(&self) -> Vec<String> {
        let mut lacking = Vec::new();
        for context in PRODUCERS.iter().flat_map(|producer| producer.contexts) {
            let (wanted, found) = (self.count(context) as u64, self.scene.broker().count(&stream_of(context)).await);
            if found < wanted {
                lacking.push(format!("{context}: {found} of {wanted} stored"));
            }
        }
        for Subscription { name, database, context, .. } in &SUBSCRIPTIONS {
            let wanted = self.count(context);
            let db = self.scene.cluster.connect(database).await;
            let found: i64 = db.value("SELECT count(*) FROM effects WHERE subscription = $1", &[name]).await;
            if usize::try_from(found).unwrap_or(0) < wanted {
                lacking.push(format!("{name}: {found} of {wanted} handled"));
            }
        }
        let (wanted, found) = (self.count(partner::CONTEXT), self.scene.partner.count());
        if found < wanted {
            lacking.push(format!("partner: {found} of {wanted} delivered"));
        }
        for database in DATABASES {
            let db = self.scene.cluster.connect(database).await;
            partner::resume(&db).await;
            let problems = "SELECT problem FROM sea_mq.problems
                UNION ALL SELECT 'pending: ' || pending FROM sea_mq.outbox_status WHERE pending > 0
                UNION ALL SELECT subscription || ' has ' || (received + processing + retrying) FROM sea_mq.subscription_status
                    WHERE received + processing + retrying > 0";
            lacking
                .extend(db.values::<String>(problems, &[]).await.into_iter().map(|one| format!("{database}: {one}")));
        }
        lacking
    }

    /// Compares everything; returns what is wrong.
    ///
    /// # Panics
    /// When a server does not answer.
    pub async fn findings(mut self) -> Vec<String> {
        let mut chained = Vec::new();
        for database in DATABASES {
            let db = self.scene.cluster.connect(database).await;
            chained.extend(self.check_database(&db, database).await);
        }
        self.check_chained(&chained);
        let mut positions: HashMap<Uuid, usize> = HashMap::new();
        for context in PRODUCERS.iter().flat_map(|producer| producer.contexts) {
            // Of three brokers one may just be taking over.
            let stored = until_some("the stream can be read", LONG, async || {
                let stream = self.scene.broker().stream(&stream_of(context)).await?;
                let mut stored = Vec::new();
                read(&stream, 1, |message| stored.push(Seen::of(&message))).await.ok()?;
                Some(stored)
            })
            .await;
            self.check_stream(context, &stored, &chained);
            positions.extend(stored.iter().enumerate().map(|(place, seen)| (seen.id, place)));
        }
        self.check_transactions(&positions);
        for subscription in &SUBSCRIPTIONS {
            self.check_subscription(subscription, &chained).await;
        }
        self.check_partner(&chained);
        self.findings
    }

    /// Dead tuples and dead letters; returns what the database's handlers emitted, by the events that caused it.
    async fn check_database(&mut self, db: &Database, database: &str) -> Vec<(Uuid, Uuid)> {
        let dead: i64 = db
            .value(
                "SELECT coalesce(sum(n_dead_tup), 0)::int8 FROM pg_stat_user_tables WHERE relname ~ '^outbox_log_'",
                &[],
            )
            .await;
        let most = self.may_be_dead.get(database).copied().unwrap_or(0);
        if dead > most {
            self.findings.push(format!(
                "{database}: {dead} dead tuples in the log, and {most} rows of transactions that failed"
            ));
        }
        // Those that the scene began with are decided.
        let letters = "SELECT message_id || ': ' || error FROM sea_mq.dlq_messages WHERE replayed_at IS NULL AND discarded_at IS NULL";
        let letters: Vec<String> = db.values(letters, &[]).await;
        if !letters.is_empty() {
            self.findings.push(format!("{database}: dead letters {:?}", first(&letters)));
        }
        let rows = db.query("SELECT source, event_id FROM chained", &[]).await.expect("cannot read chained");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    fn check_chained(&mut self, chained: &[(Uuid, Uuid)]) {
        let sources: Vec<Uuid> = chained.iter().map(|(source, _)| *source).collect();
        let wanted: HashSet<Uuid> = self.committed.get("orders").into_iter().flat_map(HashMap::keys).copied().collect();
        self.compare("events that handlers emitted", &wanted, &sources);
    }

    fn wanted(&self, context: &str, chained: &[(Uuid, Uuid)]) -> HashSet<Uuid> {
        let mut wanted: HashSet<Uuid> =
            self.committed.get(context).into_iter().flat_map(HashMap::keys).copied().collect();
        if context == BILLING {
            wanted.extend(chained.iter().map(|(_, event)| *event));
        }
        wanted
    }

    fn check_stream(&mut self, context: &'static str, stored: &[Seen], chained: &[(Uuid, Uuid)]) {
        let ids: Vec<Uuid> = stored.iter().map(|seen| seen.id).collect();
        self.compare(&format!("stream of {context}"), &self.wanted(context, chained), &ids);
        self.describe_doubled(stored);
        let Some(committed) = self.committed.get(context) else { return };
        let mut last: HashMap<i64, i64> = HashMap::new();
        let mut wrong = Vec::new();
        for seen in stored {
            let Some((event, key)) = committed.get(&seen.id) else { continue };
            let before = last.insert(event.aggregate, event.n).unwrap_or(0);
            if event.n != before + 1 {
                wrong.push(format!("{}: {} after {before}, at {}", event.aggregate, event.n, seen.sequence));
            }
            if seen.key != Some(*key) {
                wrong.push(format!("{}: the body is that of transaction {:?}, not {key}", seen.sequence, seen.key));
            }
        }
        if !wrong.is_empty() {
            self.findings.push(format!("stream of {context}: {} out of order: {:?}", wrong.len(), first(&wrong)));
        }
    }

    /// Says where the copies of doubled events are, and what their publishers expected.
    fn describe_doubled(&mut self, stored: &[Seen]) {
        let mut earlier: HashMap<Uuid, &Seen> = HashMap::new();
        let doubled = stored.iter().filter_map(|seen| Some((earlier.insert(seen.id, seen)?, seen)));
        let place = |seen: &Seen| format!("{} at {} behind {:?}", seen.sequence, seen.stored_at, seen.expected);
        let lines: Vec<String> =
            doubled.take(20).map(|(one, other)| format!("{}, {}", place(one), place(other))).collect();
        self.findings.extend(lines);
    }

    /// Events of one transaction and one stream are in the order of the calls.
    fn check_transactions(&mut self, positions: &HashMap<Uuid, usize>) {
        let mut wrong = Vec::new();
        for transaction in &self.transactions {
            let mut last: HashMap<&str, usize> = HashMap::new();
            for event in &transaction.events {
                let Some(&place) = positions.get(&event.id) else { continue };
                if last.insert(event.context, place).is_some_and(|before| before >= place) {
                    wrong.push(format!("transaction {}: {} at {place}", transaction.key, event.id));
                }
            }
        }
        if !wrong.is_empty() {
            self.findings.push(format!("{} not in the order of the calls: {:?}", wrong.len(), first(&wrong)));
        }
    }

    async fn check_subscription(&mut self, subscription: &Subscription, chained: &[(Uuid, Uuid)]) {
        let db = self.scene.cluster.connect(subscription.database).await;
        let sql = "SELECT message_id, attempt, stream_seq || ' at ' || at FROM effects WHERE subscription = $1 ORDER BY place";
        let rows = db.query(sql, &[&subscription.name]).await.expect("cannot read effects");
        let handled: Vec<(Uuid, i32, Option<&str>)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let ids: Vec<Uuid> = handled.iter().map(|(id, ..)| *id).collect();
        self.compare(subscription.name, &self.wanted(subscription.context, chained), &ids);
        let Some(committed) = self.committed.get(subscription.context).filter(|_| subscription.in_order) else {
            return;
        };
        let mut last: HashMap<i64, (i64, Option<&str>)> = HashMap::new();
        let mut wrong = Vec::new();
        let mut around = Vec::new();
        // What was tried again comes later, by design.
        for (index, (id, _, place)) in handled.iter().enumerate().filter(|(_, (_, attempt, _))| *attempt == 1) {
            let Some((event, _)) = committed.get(id) else { continue };
            let before = last.insert(event.aggregate, (event.n, *place));
            if let Some((n, earlier)) = before.filter(|(n, _)| event.n <= *n) {
                let Emitted { aggregate, n: late, .. } = event;
                around.push(index);
                wrong.push(format!("{aggregate}: {late} ({id}, {place:?}) after {n} ({earlier:?})"));
            }
        }
        if let Some(&index) = around.first() {
            let neighbours = handled.iter().skip(index.saturating_sub(15)).take(25);
            let neighbours: Vec<String> =
                neighbours.map(|(_, attempt, place)| format!("{} ({attempt})", place.unwrap_or_default())).collect();
            let text = format!(
                "{}: {} handled out of order: {:?}; around the first, in the order in which they were handled: {}",
                subscription.name,
                wrong.len(),
                first(&wrong),
                neighbours.join(", ")
            );
            self.findings.push(text);
        }
    }

    /// The partner has each event, with the same bytes each time, and no more of them twice than were in flight when a dispatcher ended.
    fn check_partner(&mut self, chained: &[(Uuid, Uuid)]) {
        let (accepted, wrong) = self.scene.partner.found();
        let ids: Vec<Uuid> = accepted.iter().map(|(id, _)| *id).collect();
        self.compare("partner", &self.wanted(partner::CONTEXT, chained), &ids);
        let repeated: usize = accepted.iter().map(|(_, count)| count - 1).sum();
        if repeated > self.may_be_repeated {
            self.findings.push(format!("partner: {repeated} came twice, and {} may", self.may_be_repeated));
        }
        if !wrong.is_empty() {
            self.findings.push(format!("partner: {:?}", first(&wrong)));
        }
    }

    fn compare<T: Copy + Eq + Hash + Debug>(&mut self, what: &str, wanted: &HashSet<T>, found: &[T]) {
        let mut seen = HashSet::new();
        let doubled: Vec<T> = found.iter().copied().filter(|one| !seen.insert(*one)).collect();
        let lost: Vec<T> = wanted.iter().copied().filter(|one| !seen.contains(one)).collect();
        let made_up: Vec<T> = seen.iter().copied().filter(|one| !wanted.contains(one)).collect();
        for (kind, all) in [("lost", lost), ("doubled", doubled), ("unexpected", made_up)] {
            if !all.is_empty() {
                self.findings.push(format!("{what}: {} {kind}: {:?}", all.len(), first(&all)));
            }
        }
    }
}

fn first<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(5)]
}
