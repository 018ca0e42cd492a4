//! What is secret in `sea_mq.nats_url` is nowhere to be seen.

use harness::{BrokerOptions, EVENTS, Stage, StageOptions, until};

use crate::SOON;

async fn set_url(stage: &Stage, url: &str) {
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{url}'")).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
}

/// All that the extension says to people, in one text.
async fn said(stage: &Stage) -> String {
    let db = stage.connect().await;
    let sql = "SELECT concat_ws(' ', (SELECT string_agg(r::text, ' ') FROM sea_mq.relay_status r),
        (SELECT string_agg(p::text, ' ') FROM sea_mq.problems p), (SELECT string_agg(s::text, ' ') FROM sea_mq.status s),
        (SELECT string_agg(i::text, ' ') FROM sea_mq.install_report() i),
        (SELECT string_agg(s::text, ' ') FROM sea_mq.subscription_status s),
        (SELECT string_agg(s::text, ' ') FROM sea_mq.stream_status s),
        (SELECT string_agg(a.application_name || a.query, ' ') FROM pg_stat_activity a WHERE a.backend_type LIKE 'sea_mq%'))";
    db.value(sql, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_the_url_is_shown_nowhere() {
    let stage = Stage::new("url_secrets").await.described().await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION take(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT';
         SELECT sea_mq.subscribe('app__all', 'orders', 'take')",
    )
    .await;
    let port = stage.broker.port();
    let urls = [
        "nats://app:Xk9/SECRET@127.0.0.1".to_owned(),
        "nats://app:Xk9,SECRET@127.0.0.1:1".to_owned(),
        "nats://app:4222,SECRET@127.0.0.1:1".to_owned(),
        "nats://app:Xk9@SECRET@127.0.0.1:1".to_owned(),
        "nats://app:SECRET".to_owned(),
        "nats://app:SECRET@".to_owned(),
        "nats://SECRET@no-such-host.invalid".to_owned(),
        "http://app:SECRET@127.0.0.1".to_owned(),
        format!("nats://app:SECRET@127.0.0.1:{port}0"),
    ];
    for url in urls {
        set_url(&stage, &url).await;
        db.emit("1", "Emitted", serde_json::json!({})).await;
        until(&format!("the relay has tried {url}"), SOON, async || {
            let sql = "SELECT r.error IS NOT NULL AND r.hint IS NOT NULL AND r.state <> 'connected'
                AND current_setting('sea_mq.nats_url') = $1 AND r.since > pg_conf_load_time() FROM sea_mq.relay_status r";
            stage.connect().await.value(sql, &[&url]).await
        })
        .await;
        let said = said(&stage).await;
        assert!(!said.contains("SECRET") && !said.contains("Xk9"), "{url}: {said}");
    }
    // The server's log has what was set, in the statement that set it and nowhere else.
    let log = stage.cluster.log();
    let told = log.lines().filter(|line| line.contains("SECRET") || line.contains("Xk9"));
    let told: Vec<&str> = told
        .filter(|line| !line.contains("ALTER SYSTEM") && !line.contains("parameter \"sea_mq.nats_url\" changed"))
        .collect();
    assert_eq!(told, Vec::<&str>::new());
    set_url(&stage, &stage.broker.url()).await;
    stage.broker.until_count(EVENTS, 9, SOON).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_escaped_password_in_the_url_is_used_and_not_shown() {
    let broker = BrokerOptions {
        configuration:
            "authorization { users: [{ user: sea, password: \"a/b@c,SECRET\" }, { user: test, password: test }] }"
                .into(),
        login: Some(("test".into(), "test".into())),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, no_url: true, ..StageOptions::default() }.start("url_escaped").await;
    set_url(&stage, &format!("nats://sea:a%2Fb%40c%2CSECRET@127.0.0.1:{}", stage.broker.port())).await;
    stage.until_connected().await;
    let said = said(&stage).await;
    assert!(!said.contains("SECRET"), "{said}");
    assert!(said.contains(&format!("nats://***@127.0.0.1:{}", stage.broker.port())), "{said}");
}
