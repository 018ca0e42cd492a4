//! Secrets of endpoints: signatures that the specification's own libraries verify, and rotation.

use harness::{Receiver, Reply, until};
use serde_json::json;

use crate::SOON;
use crate::endpoints::{create, emit, is_signed, stage, until_delivered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_are_good_while_one_takes_the_other_s_place() {
    let stage = stage("rotation").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    let old: String = db.value("SELECT sea_mq.rotate_secret('acme', grace => '0')", &[]).await;
    emit(&db, 1).await;
    until_delivered(&db, "acme", 1).await;
    let new: String = db.value("SELECT sea_mq.rotate_secret('acme', grace => '1 h')", &[]).await;
    for n in 2..=20 {
        emit(&db, n).await;
    }
    until_delivered(&db, "acme", 20).await;
    assert!(receiver.received().iter().all(|one| is_signed(one, &old)));
    let rotated = receiver.received();
    assert!(rotated.last().is_some_and(|last| is_signed(last, &new)));
    db.run("SELECT sea_mq.rotate_secret('acme', grace => '0')").await;
    emit(&db, 21).await;
    until_delivered(&db, "acme", 21).await;
    assert!(receiver.received().last().is_some_and(|last| !is_signed(last, &old) && !is_signed(last, &new)));
    // Nobody reads them in the tables, in a dump or in the log.
    let kept: String = db
        .value("SELECT string_agg(s::text || encode(s.sealed, 'escape'), ' ') FROM sea_mq.endpoint_secrets s", &[])
        .await;
    assert!(!kept.contains(&new[6..]) && !stage.cluster.log().contains(&new[6..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_a_receiver_with_either_secret_accepts_all() {
    let stage = stage("rotation_load").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), ", max_in_flight => 64").await;
    let mut secrets: Vec<String> = vec![db.value("SELECT sea_mq.rotate_secret('acme', grace => '0')", &[]).await];
    let writer = stage.connect().await;
    let writing = tokio::spawn(async move {
        for n in 0..1000 {
            emit(&writer, n).await;
        }
    });
    for round in 1..=4 {
        let some = "SELECT delivered >= $1 FROM sea_mq.endpoint_status";
        until("some more came", SOON, async || db.value(some, &[&(round * 150_i64)]).await).await;
        secrets.push(db.value("SELECT sea_mq.rotate_secret('acme', grace => '1 h')", &[]).await);
    }
    writing.await.expect("all are emitted");
    until_delivered(&db, "acme", 1000).await;
    let received = receiver.received();
    // Who has not come to take the new one over accepts all; who has both accepts all; and the new one comes into force at once.
    for (at, pair) in secrets.windows(2).enumerate() {
        let (old, new) = (&pair[0], &pair[1]);
        let first = |secret: &String| received.iter().position(|one| is_signed(one, secret));
        let (began, follows) = (first(old).expect("it was used"), first(new).expect("it is used"));
        assert!(began < follows, "secret {at} was used before the next");
        let either = received[began..].iter().all(|one| is_signed(one, old) || is_signed(one, new));
        assert!(either, "either of secrets {at} and {}", at + 1);
        assert!(received[began..].iter().filter(|one| !is_signed(one, old)).count() <= 64, "secret {at} was dropped");
        assert!(received[follows + 64..].iter().all(|one| is_signed(one, new)), "secret {} came and went", at + 1);
    }
}

/// What a program says of webhooks that it gets on its standard input.
pub(crate) fn said_by(program: &str, arguments: &[&str], lines: &str) -> String {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .current_dir(root)
        .env("NODE_PATH", root.join(".dev/node/node_modules"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_specifications_own_libraries_verify_what_is_sent() {
    let stage = stage("libraries").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    let old: String = db.value("SELECT sea_mq.rotate_secret('acme', grace => '0')", &[]).await;
    // Signatures of both kinds stand side by side.
    let public: String = db.value("SELECT sea_mq.rotate_secret('acme', '1 h', 'v1a')", &[]).await;
    let new: String = db.value("SELECT sea_mq.rotate_secret('acme', '1 h')", &[]).await;
    assert!(public.starts_with("whpk_"), "{public}");
    for n in 1..=10 {
        db.emit("ü", "OrderCreated", json!({"n": n, "text": "ünï – \u{1f980}", "sum": 1.50})).await;
    }
    until_delivered(&db, "acme", 10).await;
    let mut lines = String::new();
    for one in receiver.received() {
        assert!(one.header("webhook-signature").split(' ').any(|signature| signature.starts_with("v1a,")), "{one:?}");
        for secret in [&old, &new] {
            let body = String::from_utf8(one.body.clone()).expect("it is UTF-8");
            lines += &format!("{}\n", json!({"secret": secret, "headers": one.headers, "body": body}));
        }
    }
    assert_eq!(said_by("python", &["docs/examples/verify_webhook.py"], &lines), "20");
    assert_eq!(said_by("node", &["docs/examples/verify_webhook.cjs"], &lines), "20");
}
