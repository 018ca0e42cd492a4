//! The console, as a browser without JavaScript sees it.

use serde_json::Value;

use crate::shared::{Answer, ask, name, serve, shared};

fn log_in(url: &str, role: &str, password: &str) -> Answer {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let agent = |headers: &[(&str, &str)]| {
        crate::shared::ask_once(
            "POST",
            &format!("{url}/login"),
            headers,
            Some(&format!("role={role}&password={password}")),
        )
    };
    agent(&form)
}

fn cookie(url: &str) -> String {
    let answer = log_in(url, "t_person", "secret");
    assert_eq!(answer.status, 303, "{}", answer.text);
    let cookie = &answer.headers["set-cookie"];
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    cookie.split(';').next().expect("a pair").to_owned()
}

fn letter() -> i64 {
    let sql = "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id, payload, headers,
            reason, failure_count, error, errors, last_failed_at, dlq_message_id)
        VALUES ('orders', 'orders.event.made.v1', $1, 'made', 1, 'order', '1', '{\"text\": \"<b>&\"}', '{}', 'poison', 1, '<script>alert(1)</script>',
            '[{\"at\": \"2026-01-01T00:00:00Z\", \"attempt\": 1, \"kind\": \"error\", \"error\": \"no\"}]', now(), $1) RETURNING id";
    shared().db().query_one(sql, &[&name("console__s")]).expect("inserted").get(0)
}

#[test]
fn every_page_is_shown_to_who_has_logged_in_and_to_nobody_else() {
    let (url, id) = (&shared().url, letter());
    let cookie = cookie(url);
    let pages = [
        "/",
        "/streams",
        "/streams/ORDERS_EVENTS",
        "/subscriptions",
        "/dead-letters",
        "/contracts",
        "/endpoints",
        &format!("/dead-letters/{id}"),
        "/dead-letters/replay?subscription=nobody",
        "/login",
    ];
    for page in pages {
        let answer = ask("GET", &format!("{url}{page}"), &[("Cookie", &cookie)], None);
        assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        let policy = &answer.headers["content-security-policy"];
        let expected = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
            form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
        assert_eq!(policy, expected);
        // Nothing inline, which the policy would not let run.
        assert!(
            !answer.text.contains("style=")
                && !answer.text.contains("onclick")
                && answer.text.matches("<script").count() == 2,
            "{page}"
        );
        assert!(
            answer.text.starts_with("<!doctype html>")
                && answer.text.contains("<h1>")
                && answer.text.contains("lang=\"en\"")
        );
        if page != "/login" {
            let other =
                crate::shared::ask_once("GET", &format!("{url}{page}"), &[("Cookie", "sea_mq_session=AAAA")], None);
            assert_eq!((other.status, other.headers["location"].as_str()), (303, "/login"), "{page}");
        }
    }
    let shown = ask("GET", &format!("{url}/dead-letters/{id}"), &[("Cookie", &cookie)], None).text;
    assert!(!shown.contains("<script>alert"), "what others wrote is escaped");
}

#[test]
fn a_password_is_proved_to_the_database() {
    for (role, password) in [("t_person", "wrong"), ("t_nobody", "secret"), ("t_trusted", "secret"), ("t_person", "")] {
        let answer = log_in(&shared().url, role, password);
        assert_eq!((answer.status, answer.headers.contains_key("set-cookie")), (401, false), "{role} {password}");
    }
}

#[test]
fn a_letter_is_mended_and_replayed_by_a_form_that_was_sent_from_here() {
    let (url, id) = (&shared().url, letter());
    let cookie = cookie(url);
    let host = url.trim_start_matches("http://");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let path = format!("{url}/dead-letters/{id}/replay");
    let body = "payload=%7B%22text%22%3A+2%7D&before=%7B%7D";
    let send = |more: &[(&str, &str)]| {
        crate::shared::ask_once("POST", &path, &[&[form, ("Cookie", &cookie)], more].concat(), Some(body)).status
    };
    assert_eq!(send(&[("Origin", "https://elsewhere.test")]), 403);
    assert_eq!(send(&[("Sec-Fetch-Site", "cross-site"), ("Origin", url)]), 403);
    let discard = format!("{url}/v1/dead-letters/{id}/discards");
    let forged =
        crate::shared::ask_once("POST", &discard, &[("Cookie", &cookie), ("Origin", "http://127.0.0.1:1")], None);
    assert_eq!(forged.status, 403, "{}", forged.text);
    assert_eq!(send(&[("Origin", &format!("http://{host}"))]), 303);
    let row = shared()
        .db()
        .query_one("SELECT replayed_by::text, actor, replay_event_id FROM sea_mq.dlq_messages WHERE id = $1", &[&id])
        .expect("a row");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("t_person", "console:t_person"));
    let event: uuid::Uuid = row.get(2);
    let payload: Value = shared()
        .db()
        .query_one("SELECT payload FROM sea_mq.outbox_events WHERE id = $1", &[&event])
        .expect("a row")
        .get(0);
    assert_eq!(payload, serde_json::json!({"text": 2}));
}

#[test]
fn under_a_base_path_all_links_have_it() {
    let gateway = serve(&shared().database, &shared().directory.join("base.log"), &["--base-path", "/mq/"]);
    let base = format!("{}/mq", gateway.url);
    let cookie = cookie(&base);
    let answer = ask("GET", &format!("{base}/streams"), &[("Cookie", &cookie)], None);
    assert_eq!(answer.status, 200);
    for link in answer.text.split(['"']).filter(|part| part.starts_with('/')) {
        assert!(link.starts_with("/mq/"), "{link}");
    }
    assert_eq!(ask("GET", &format!("{base}/assets/console.css"), &[], None).status, 200);
    assert_eq!(ask("GET", &format!("{base}/v1/openapi.json"), &[], None).status, 200);
}

#[test]
fn scripts_are_small() {
    let size: usize = ["uplot.js", "console.js"]
        .iter()
        .map(|name| ask("GET", &format!("{}/assets/{name}", shared().url), &[], None).text.len())
        .sum();
    // 60 kB gzipped is the limit, and this is before that.
    assert!(size < 60_000, "{size}");
}
