//! What stands between the gateway and a database that is written to: a pooler, a pool without a connection left, a standby.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Port, Stage, make_for_server, until};
use serde_json::json;

use crate::shared::{Answer, Gateway, ROLES, ask, name, serve, shared};

fn tokens() -> String {
    shared().directory.join("tokens").display().to_string()
}

/// A request as a role to this gateway.
fn of(gateway: &Gateway, role: &str, method: &str, path: &str, body: Option<&str>) -> Answer {
    let token = format!("Bearer {}", shared().tokens[role]);
    ask(method, &format!("{}/v1{path}", gateway.url), &[("Authorization", &token)], body)
}

/// PgBouncer in front of the shared cluster, in transaction mode, with fewer connections than the gateway has.
struct Pooler {
    child: Child,
    port: Port,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pooler {
    fn start(directory: &Path) -> Self {
        let (port, ini) = (Port::claim(), directory.join("ini"));
        make_for_server(directory);
        let (users, log) = (directory.join("users"), directory.join("log"));
        std::fs::write(&users, "\"sea_mq_gateway\" \"\"\n").expect("written");
        let lines = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nauth_type = trust
auth_file = {}\npool_mode = transaction\ndefault_pool_size = 2\nunix_socket_dir =\nlogfile = {}\n",
            shared().port,
            port.number(),
            users.display(),
            log.display()
        );
        std::fs::write(&ini, lines).expect("written");
        // It refuses to run as root.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        command.args(["--", "/usr/sbin/pgbouncer", "--quiet"]).arg(&ini);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let pooler = Self { child, port };
        crate::shared::until("PgBouncer listens", || TcpStream::connect(("127.0.0.1", pooler.port.number())).is_ok());
        pooler
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[test]
fn behind_pgbouncer_in_transaction_mode_each_request_has_its_own_role() {
    let pooler = Pooler::start(&shared().directory.join("bouncer"));
    let database = shared().database.replace(&format!(":{}/", shared().port), &format!(":{}/", pooler.port.number()));
    assert_ne!(database, shared().database);
    let log = shared().directory.join("bouncer.log");
    let gateway = serve(&database, &log, &["--tokens", &tokens()]);
    // More clients than the pooler has connections, and every one another role.
    std::thread::scope(|scope| {
        for role in ROLES {
            let gateway = &gateway;
            scope.spawn(move || {
                for _ in 0..25 {
                    let answer = of(gateway, role, "GET", "/me", None);
                    assert_eq!((answer.status, answer.json()["role"].clone()), (200, json!(format!("t_{role}"))), "{}", answer.text);
                    let event = json!({"aggregate_type": "order", "aggregate_id": role, "event_type": "Made", "payload": {}, "context": "orders"});
                    let status = of(gateway, role, "POST", "/events", Some(&event.to_string())).status;
                    assert_eq!(status, if role == "producer" { 201 } else { 403 }, "{role}");
                }
            });
        }
    });
    // What a request has set is not there for the next one.
    let correlated = ask(
        "POST",
        &format!("{}/v1/events", gateway.url),
        &[("Authorization", &format!("Bearer {}", shared().tokens["producer"])), ("X-Correlation-Id", "theirs")],
        Some(&json!({"aggregate_type": "order", "aggregate_id": "c", "event_type": "Made", "payload": {}, "context": "orders"}).to_string()),
    );
    assert_eq!(correlated.status, 201, "{}", correlated.text);
    let aggregate = name("after");
    let event = json!({"aggregate_type": "order", "aggregate_id": aggregate, "event_type": "Made", "payload": {}, "context": "orders"});
    for _ in 0..10 {
        assert_eq!(of(&gateway, "producer", "POST", "/events", Some(&event.to_string())).status, 201);
    }
    let sql = "SELECT count(*) FROM sea_mq.outbox_events WHERE aggregate_id = $1 AND correlation_id = 'theirs'";
    assert_eq!(shared().db().query_one(sql, &[&aggregate]).expect("a row").get::<_, i64>(0), 0);
}

#[test]
fn who_finds_no_connection_left_is_told_to_come_again() {
    let database = name("exhausted");
    shared().db().batch_execute(&format!("CREATE DATABASE {database}")).expect("created");
    let of_user = |user: &str| format!("host=127.0.0.1 port={} user={user} dbname={database}", shared().port);
    let mut db = postgres::Client::connect(&of_user("postgres"), postgres::NoTls).expect("connected");
    db.batch_execute("CREATE EXTENSION sea_mq").expect("created");
    let log = shared().directory.join("exhausted.log");
    let more = ["--tokens", &tokens(), "--pool", "2", "--lock-timeout", "4s"];
    let gateway = serve(&of_user("sea_mq_gateway"), &log, &more);
    let ask_one = || of(&gateway, "all", "GET", "/dead-letters/1", None);
    let mut held = db.transaction().expect("begun");
    held.batch_execute("LOCK TABLE sea_mq.dlq_messages IN ACCESS EXCLUSIVE MODE").expect("locked");
    let statuses: Vec<(u16, bool, Duration)> = std::thread::scope(|scope| {
        let one = || {
            let begin = Instant::now();
            let answer = ask_one();
            (answer.status, answer.headers.contains_key("retry-after"), begin.elapsed())
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    // Two wait for the lock, the others for a connection, and all are told the same.
    assert!(statuses.iter().all(|(status, retry, _)| (*status, *retry) == (503, true)), "{statuses:?}");
    let soon = statuses.iter().filter(|(_, _, taken)| *taken < Duration::from_secs(3)).count();
    assert!(soon >= 3, "{statuses:?}");
    held.rollback().expect("rolled back");
    crate::shared::until("it serves again", || ask_one().status == 404);
    // Health does not wait for the pool.
    assert_eq!(ask("GET", &format!("{}/readyz", gateway.admin_url), &[], None).status, 200);
}

#[test]
fn a_standby_is_read_and_says_that_it_cannot_be_written_to() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stage = Stage::new("gateway_standby").await;
        let db = stage.connect().await;
        db.run(
            "CREATE ROLE t_all; GRANT sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor TO t_all;
             CREATE ROLE sea_mq_gateway LOGIN NOINHERIT; GRANT t_all, sea_mq_viewer TO sea_mq_gateway;
             SELECT sea_mq.create_stream('orders')",
        )
        .await;
        let id = db.emit("1", "Made", json!({})).await;
        stage.broker.until_count(harness::EVENTS, 1, Duration::from_secs(30)).await;
        let mut standby = stage.cluster.base_backup(&stage.directory.path().join("standby"));
        standby.follow(&stage.cluster);
        standby.start().await;
        let url = standby.connector("sea_mq_gateway", stage.database()).url();
        let gateway = serve(&url, &stage.directory.path().join("gateway.log"), &["--tokens", &tokens()]);
        let get = |path: &str| of(&gateway, "all", "GET", path, None);
        until("the standby has the event", Duration::from_secs(30), async || get(&format!("/events/{id}")).status == 200).await;
        for path in ["/status", "/problems", "/streams", "/subscriptions", "/dead-letters", "/endpoints", "/entity-links", "/event-types", "/me"] {
            let answer = get(path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        }
        let status = get("/status").json();
        assert!(status["summary"].as_str().is_some_and(|text| text.contains("standby")), "{status}");
        let event = json!({"aggregate_type": "order", "aggregate_id": 1, "event_type": "Made", "payload": {}, "context": "orders"});
        let refused = of(&gateway, "all", "POST", "/events", Some(&event.to_string()));
        let json = refused.json();
        assert_eq!((refused.status, &json["details"]["sqlstate"]), (503, &json!("25006")), "{}", refused.text);
        assert!(refused.headers.contains_key("retry-after"));
        let admin = |path: &str| ask("GET", &format!("{}{path}", gateway.admin_url), &[], None);
        assert_eq!((admin("/readyz").status, admin("/livez").status), (200, 200));
        assert!(admin("/metrics").text.contains("sea_mq_up 1"));
        drop(gateway);
    });
}
