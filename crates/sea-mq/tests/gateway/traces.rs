//! Traces for a collector of OpenTelemetry. The collector is a small one, which reads what it gets with the official types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Receiver, Reply};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use crate::shared::{Gateway, ask, name, serve, shared, until};

const PARENT: &str = "b7ad6b7169203331";

struct Collector {
    receiver: Receiver,
    is_up: Arc<AtomicBool>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start(is_up: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let is_up = Arc::new(AtomicBool::new(is_up));
        let answers = Arc::clone(&is_up);
        let answer = move |_: &_| if answers.load(Ordering::SeqCst) { Reply::status(200) } else { Reply::status(503) };
        let receiver = runtime.block_on(Receiver::start(answer));
        Self { receiver, is_up, _runtime: runtime }
    }

    fn set(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::SeqCst);
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let received = self.receiver.received();
        received
            .iter()
            .map(|one| ExportTraceServiceRequest::decode(one.body.as_slice()).expect("a request for spans"))
            .collect()
    }

    /// Those that it got about a message, in the order in which they came.
    fn spans_of(&self, id: &str) -> Vec<Span> {
        let requests = self.requests();
        let spans = requests.into_iter().flat_map(|one| one.resource_spans).flat_map(|one| one.scope_spans);
        spans.flat_map(|one| one.spans).filter(|span| of(span, "messaging.message.id") == id).collect()
    }

    fn serve(&self, database: &str, more: &[&str]) -> Exporter {
        let log = shared().directory.join(name("traces")).with_extension("log");
        let url = self.receiver.url("");
        let gateway = serve(database, &log, &[&["--otlp-endpoint", url.as_str()], more].concat());
        Exporter { gateway, log }
    }
}

struct Exporter {
    gateway: Gateway,
    log: std::path::PathBuf,
}

impl Exporter {
    /// A counter of its own.
    fn count(&self, what: &str) -> u64 {
        let text = ask("GET", &format!("{}/metrics", self.gateway.admin_url), &[], None).text;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("sea_mq_traces_{what}_total ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{what} is not in\n{text}"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Ends it as an operator would.
    fn end(mut self) {
        let pid = self.gateway.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("it runs").success());
        let status = self.gateway.child.wait().expect("it ends");
        assert!(status.success(), "{status}\n{}", self.log());
    }
}

/// An attribute as a text; empty if it is not there.
fn of(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key).and_then(|one| one.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        None => String::new(),
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Emits an event and returns its id, once it is stored in its stream. `trace`: the trace context's id, and its flags.
fn emit(db: &mut postgres::Client, context: &str, aggregate: &str, trace: Option<(&str, &str)>) -> String {
    let headers = trace.map(|(id, flags)| serde_json::json!({"traceparent": format!("00-{id}-{PARENT}-{flags}")}));
    let sql = "SELECT sea_mq.emit('order', $1, 'Traced', '{}', context => $2, headers => $3)";
    let id: uuid::Uuid = db.query_one(sql, &[&aggregate, &context, &headers]).expect("emitted").get(0);
    let is_stored: bool = db.query_one("SELECT sea_mq.wait_published($1, '60 s')", &[&id]).expect("a row").get(0);
    assert!(is_stored, "{id} is stored");
    id.to_string()
}

fn trace_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A database, since an exporter sends all that is traced in it: as the gateway connects to it, and a connection.
fn database() -> (String, postgres::Client) {
    let name = name("tracing");
    (shared().address("sea_mq_gateway", &name), shared().own_database(&name))
}

/// A context that has a stream and a subscription of this database, whose handler refuses the aggregate `bad` for good.
fn context(db: &mut postgres::Client) -> (String, String) {
    let (context, subscription) = (name("traced"), name("traced__s"));
    db.batch_execute(&format!(
        "CREATE OR REPLACE FUNCTION public.{context}(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF e.aggregate_id = 'bad' THEN PERFORM sea_mq.poison('words that are nobody''s business'); END IF;
         END $$;
         SELECT sea_mq.create_stream('{context}');
         SELECT sea_mq.subscribe('{subscription}', '{context}', 'public.{context}', start_from => 'all');"
    ))
    .expect("made");
    (context, subscription)
}

#[test]
fn what_is_sampled_is_traced_from_its_emit_to_its_handling_and_nothing_else_is() {
    let (database, mut db) = database();
    let (context, subscription) = context(&mut db);
    let collector = Collector::start(true);
    let _exporter =
        collector.serve(&database, &["--otlp-headers", "authorization=Bearer%20secret", "--otlp-service-name", "shop"]);
    let trace = trace_id();
    let [untraced, unsampled] = [None, Some((trace.as_str(), "00"))].map(|trace| emit(&mut db, &context, "1", trace));
    let good = emit(&mut db, &context, "1", Some((&trace, "01")));
    let bad = emit(&mut db, &context, "bad", Some((&trace, "03")));
    until("all spans have come", || [&good, &bad].iter().all(|id| collector.spans_of(id).len() == 2));

    let subject = format!("{context}.event.traced.v1");
    let stream = format!("{}_EVENTS", context.to_uppercase());
    for id in [&good, &bad] {
        let by_kind: BTreeMap<i32, Span> = collector.spans_of(id).into_iter().map(|span| (span.kind, span)).collect();
        let [sent, handled] = [SpanKind::Producer, SpanKind::Consumer]
            .map(|kind| by_kind.get(&i32::from(kind)).expect("a span of this kind"));
        assert_eq!((&sent.name, &handled.name), (&format!("send {subject}"), &format!("process {subscription}")));
        for (span, operation) in [(sent, "send"), (handled, "process")] {
            assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (trace.clone(), PARENT.to_owned()));
            assert_eq!(span.links.iter().map(|link| hex(&link.span_id)).collect::<Vec<_>>(), [PARENT]);
            assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano);
            let told = ["system", "operation.name", "operation.type", "destination.name", "message.conversation_id"]
                .map(|key| of(span, &format!("messaging.{key}")));
            assert_eq!(told, ["nats", operation, operation, &subject, id]);
        }
        assert!(sent.start_time_unix_nano <= handled.start_time_unix_nano);
        assert_eq!(of(sent, "sea_mq.stream"), stream);
        assert_eq!(of(sent, "sea_mq.stream_seq"), of(handled, "sea_mq.stream_seq"));
        assert_eq!(of(handled, "messaging.consumer.group.name"), subscription);
        let (status, error, code) = if id == &bad { ("dead", "SM001", 2) } else { ("processed", "", 0) };
        assert_eq!((of(handled, "sea_mq.status").as_str(), of(handled, "error.type").as_str()), (status, error));
        assert_eq!(handled.status.as_ref().map_or(0, |status| status.code), code);
        assert_eq!((sent.status.as_ref(), of(sent, "error.type").as_str()), (None, ""));
    }
    // They were emitted before.
    assert!(collector.spans_of(&untraced).is_empty() && collector.spans_of(&unsampled).is_empty());
    for request in collector.requests() {
        let resource = &request.resource_spans[0];
        assert_eq!(resource.scope_spans[0].schema_url, "https://opentelemetry.io/schemas/1.42.0");
        let attributes = resource.resource.clone().expect("a resource").attributes;
        assert!(of(&Span { attributes, ..Span::default() }, "service.name") == "shop");
    }
    for received in collector.receiver.received() {
        let told = [received.path.as_str(), received.header("authorization"), received.header("content-type")];
        assert_eq!(told, ["/v1/traces", "Bearer secret", "application/x-protobuf"]);
        assert!(!String::from_utf8_lossy(&received.body).contains("business"));
    }
}

#[test]
fn a_collector_that_was_away_gets_what_it_missed_and_requests_do_not_wait_for_it() {
    let (database, mut db) = database();
    let (context, _) = context(&mut db);
    let collector = Collector::start(false);
    let tokens = shared().directory.join("tokens");
    let exporter = collector.serve(&database, &["--tokens", tokens.to_str().expect("a text")]);
    let id = emit(&mut db, &context, "1", Some((&trace_id(), "01")));
    until("the collector has refused twice", || exporter.count("export_failures") > 1);
    let token = format!("Bearer {}", shared().tokens["all"]);
    let answer = ask("GET", &format!("{}/v1/me", exporter.gateway.url), &[("Authorization", &token)], None);
    assert_eq!((answer.status, exporter.count("exported_spans")), (200, 0));
    let refused = collector.spans_of(&id).len();
    collector.set(true);
    until("both spans are taken", || {
        exporter.count("exported_spans") >= 2 && collector.spans_of(&id).len() >= refused + 2
    });
    until("its end is logged", || exporter.log().contains("traces are exported again"));
    let log = exporter.log();
    assert_eq!(
        (log.matches("traces are not exported").count(), log.matches("exported again").count()),
        (1, 1),
        "{log}"
    );
    assert!(log.contains("the collector: HTTP 503"), "{log}");
}

#[test]
fn what_is_too_old_is_dropped_and_counted() {
    let (database, mut db) = database();
    let (context, _) = context(&mut db);
    let collector = Collector::start(false);
    let exporter = collector.serve(&database, &["--otlp-max-age", "2s"]);
    let old = emit(&mut db, &context, "1", Some((&trace_id(), "01")));
    until("both spans are dropped", || exporter.count("dropped_spans") >= 2);
    collector.set(true);
    let before = collector.spans_of(&old).len();
    // Until the next attempt, these become too old as well.
    let mut new = Vec::new();
    until("a new one is taken", || {
        new.push(emit(&mut db, &context, "1", Some((&trace_id(), "01"))));
        new.iter().any(|id| !collector.spans_of(id).is_empty())
    });
    assert_eq!(collector.spans_of(&old).len(), before);
}

#[test]
fn a_restart_loses_nothing_and_exports_the_same_spans() {
    let (database, mut db) = database();
    let (context, _) = context(&mut db);
    let collector = Collector::start(true);
    let exporter = collector.serve(&database, &[]);
    let before = emit(&mut db, &context, "1", Some((&trace_id(), "01")));
    until("both spans have come", || collector.spans_of(&before).len() == 2);
    exporter.end();
    let between = emit(&mut db, &context, "1", Some((&trace_id(), "01")));
    let _again = collector.serve(&database, &[]);
    until("what came between is exported", || collector.spans_of(&between).len() >= 2);
    until("what came before is exported again", || collector.spans_of(&before).len() >= 4);
    for id in [before, between] {
        let mut spans = collector.spans_of(&id);
        spans.sort_by_key(|span| span.span_id.clone());
        spans.dedup();
        assert_eq!(spans.len(), 2, "{spans:?}");
    }
}

#[test]
fn what_is_stored_when_it_ends_is_exported() {
    let (database, mut db) = database();
    let context = name("traced");
    db.execute("SELECT sea_mq.create_stream($1)", &[&context]).expect("made");
    let collector = Collector::start(true);
    let exporter = collector.serve(&database, &[]);
    // It is through with what others have left.
    let first = emit(&mut db, &context, "1", Some((&trace_id(), "01")));
    until("it is exported", || !collector.spans_of(&first).is_empty());
    let id = emit(&mut db, &context, "1", Some((&trace_id(), "01")));
    // The relay knows that an event is stored shortly before it has recorded it.
    let stream = format!("{}_EVENTS", context.to_uppercase());
    let recorded = "SELECT EXISTS (SELECT FROM sea_mq.traced_events($1) e WHERE e.id::text = $2)";
    until("it is recorded", || db.query_one(recorded, &[&stream, &id]).expect("a row").get(0));
    exporter.end();
    assert!(!collector.spans_of(&id).is_empty());
}

#[test]
fn a_message_that_is_done_after_its_successors_is_exported() {
    let (database, mut db) = database();
    let (context, subscription) = (name("traced"), name("traced__s"));
    db.batch_execute(&format!(
        "SELECT sea_mq.create_stream('{context}'), sea_mq.subscribe('{subscription}', '{context}', start_from => 'all')"
    ))
    .expect("made");
    let collector = Collector::start(true);
    let _exporter = collector.serve(&database, &[]);
    let ids = [(), ()].map(|()| emit(&mut db, &context, "1", Some((&trace_id(), "01"))));
    let mut leases = BTreeMap::new();
    until("both are received", || {
        let sql = "SELECT r.message_id, r.id FROM sea_mq.receive($1, 2, '60 s') r";
        let rows = db.query(sql, &[&subscription]).expect("received");
        leases.extend(rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1))));
        leases.len() == 2
    });
    for id in ids.iter().rev() {
        db.execute("SELECT sea_mq.complete($1)", &[&leases[id]]).expect("completed");
        let is_handled = |span: &Span| span.kind == i32::from(SpanKind::Consumer);
        until("it is exported", || collector.spans_of(id).iter().any(is_handled));
    }
}

#[test]
fn a_collector_that_cannot_be_one_is_an_error_at_the_start() {
    for more in [&["--otlp-endpoint", "nowhere"][..], &["--otlp-endpoint", "http://c:4317", "--otlp-protocol", "grpc"]]
    {
        let mut command = crate::shared::command();
        command.args([
            "serve",
            "--database",
            &shared().database,
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        let output = command.args(more).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
}
