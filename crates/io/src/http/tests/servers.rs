//! What a server can do to a client: be slow, be endless, break off, lie.

use std::time::{Duration, Instant};

use sea_mq_model::deliver::outcome::{Answer, FaultKind};
use tokio::io::AsyncWriteExt;

use super::stand::{Server, request};
use super::*;
use crate::http::client::ANSWER;

const TICK: Duration = Duration::from_millis(20);

/// One attempt, whose time is short.
async fn hurried(server: &Server) -> (Answered, Duration) {
    let begun = Instant::now();
    let mut target = target(server.url());
    target.timeout = SHORT;
    let answered = try_once(network(), target).await;
    (answered, begun.elapsed())
}

async fn answers(reply: &'static str) -> Answered {
    let server = Server::start(move |mut stream| async move {
        while request(&mut stream).await.is_some() && stream.write_all(reply.as_bytes()).await.is_ok() {}
    })
    .await;
    try_once(network(), target(server.url())).await
}

#[tokio::test]
async fn one_deadline_runs_to_the_last_byte() {
    // Accepts, and says nothing.
    let silent = Server::start(|mut stream| async move {
        request(&mut stream).await;
        tokio::time::sleep(SHORT * 100).await;
    })
    .await;
    // Header by header.
    let headers = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        for n in 0.. {
            tokio::time::sleep(TICK).await;
            if stream.write_all(format!("x-{n}: y\r\n").as_bytes()).await.is_err() {
                break;
            }
        }
    })
    .await;
    // Byte by byte.
    let body = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(TICK).await;
        }
    })
    .await;
    for server in [silent, headers, body] {
        let (answered, took) = hurried(&server).await;
        assert_eq!(fault(&answered), Some(FaultKind::Timeout), "{answered:?}");
        assert!(took >= SHORT && took < SHORT * 8, "{took:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_read_to_its_first_kibibytes() {
    let server = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let _ =
            stream.write_all(b"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: 10000000000\r\n\r\n").await;
        while stream.write_all(&[b'z'; 4096]).await.is_ok() {}
    })
    .await;
    let answered = try_once(network(), target(server.url())).await;
    assert_eq!(status(&answered), Some(500), "{answered:?}");
    // As it came: nothing is unpacked.
    assert_eq!(answered.response.map(|text| text.len()), Some(ANSWER));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let half = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let nothing = Server::start(|mut stream| async move {
        request(&mut stream).await;
    })
    .await;
    let nonsense = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await;
    })
    .await;
    for server in [half, nothing, nonsense] {
        let answered = try_once(network(), target(server.url())).await;
        assert_eq!(fault(&answered), Some(FaultKind::Broken), "{answered:?}");
    }
    let answered = try_once(network(), target("http://127.0.0.1:1/".into())).await;
    assert_eq!(fault(&answered), Some(FaultKind::Connect), "{answered:?}");
}

#[tokio::test]
async fn informational_answers_are_passed_over_and_redirects_are_not_followed() {
    let answered = answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(status(&answered), Some(204), "{answered:?}");
    let elsewhere = Server::start(|_| async {}).await;
    let reply = format!("HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    let answered = answers(reply.leak()).await;
    assert_eq!((status(&answered), elsewhere.count()), (Some(307), 0), "{answered:?}");
}

#[tokio::test]
async fn a_retry_after_is_told() {
    let answered = answers("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(answered.answer, Answer::Status { code: 429, retry_after: Some(Duration::from_secs(7)) });
}

#[tokio::test]
async fn connections_are_kept_and_requests_have_what_they_should() {
    let (sender, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let sender = sender.clone();
        async move {
            while let Some(head) = request(&mut stream).await {
                let _ = sender.send(head);
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let mut target = target(server.url());
    target.signing = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()];
    target.idempotency = true;
    target.keep_response = true;
    target.auth = crate::http::target::Auth::Basic { user: "u".into(), password: "p".into() };
    let speaker = Speaker::new(&Shared::new(network()).unwrap(), target);
    for _ in 0..5 {
        let answered = send(&speaker, attempt()).await;
        assert_eq!((status(&answered), answered.response.as_deref()), (Some(200), Some("ok")), "{answered:?}");
    }
    assert_eq!(server.count(), 1);
    let head = heads.recv().await.unwrap();
    let id = attempt().id;
    for wanted in [
        "accept-encoding: identity",
        "content-type: application/json",
        "authorization: basic dtpw",
        &format!("webhook-id: {id}"),
        &format!("idempotency-key: {id}"),
        "webhook-signature: v1,",
        "content-length: 7",
    ] {
        assert!(head.contains(wanted), "{wanted}: {head}");
    }
}
