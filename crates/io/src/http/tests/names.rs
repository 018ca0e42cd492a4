//! Names and addresses: nothing forbidden is reached, whatever a name server says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_mq_model::deliver::outcome::FaultKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::{Host, Url};

use super::stand::{Dns, Server, name_server, request};
use super::*;
use crate::http::dial::Dialer;
use crate::http::guard::Guard;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server that must not be reached.
async fn forbidden() -> Server {
    Server::start(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await
}

/// A network in which nothing but public addresses is reached, and names are what `answer` says.
async fn strict(answer: impl Fn(&str, usize) -> Dns + Send + Sync + 'static) -> Network {
    Network { resolvers: vec![name_server(answer).await], allow_http: true, ..Network::default() }
}

#[tokio::test]
async fn a_name_that_stands_for_a_forbidden_address_in_any_form_is_not_dialled() {
    let server = forbidden().await;
    let port = server.address.port();
    let forms = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "2001:0:808:808::80ff:fffe",
        "10.0.0.1",
        "169.254.169.254",
        "fd00::1",
        "fe80::1",
        "0.0.0.0",
        "::",
    ];
    for form in forms {
        let network = strict(move |_, _| Dns::Addresses(vec![address(form)])).await;
        let answered = try_once(network, target(format!("http://hook.example.com:{port}/"))).await;
        assert_eq!(fault(&answered), Some(FaultKind::Blocked), "{form}: {answered:?}");
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn one_forbidden_address_among_others_refuses_all() {
    let server = forbidden().await;
    let port = server.address.port();
    for mixed in [
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "::ffff:127.0.0.1"],
        ["2606:4700::1", "10.0.0.1"],
    ] {
        let network = strict(move |_, _| Dns::Addresses(mixed.iter().map(|text| address(text)).collect())).await;
        let answered = try_once(network, target(format!("http://hook.example.com:{port}/"))).await;
        assert_eq!(fault(&answered), Some(FaultKind::Blocked), "{mixed:?}: {answered:?}");
    }
    assert_eq!(server.count(), 0);
}

/// The address that was looked at is the one that is dialled: what the name server says the next time makes no difference.
#[tokio::test]
async fn a_name_that_changes_its_address_is_looked_at_at_each_connection() {
    let server = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    })
    .await;
    let port = server.address.port();
    let resolver =
        name_server(|_, times| Dns::Addresses(vec![address(if times == 1 { "127.0.0.9" } else { "127.0.0.1" })])).await;
    let network = Network {
        allowed: vec!["127.0.0.9/32".parse().unwrap()],
        allow_http: true,
        resolvers: vec![resolver],
        ..Network::default()
    };
    let speaker = Speaker::new(&Shared::new(network).unwrap(), target(format!("http://hook.example.com:{port}/")));
    // Nothing listens at the first address, and nobody tries the second.
    let first = send(&speaker, attempt()).await;
    assert_eq!(fault(&first), Some(FaultKind::Connect), "{first:?}");
    let second = send(&speaker, attempt()).await;
    assert_eq!(fault(&second), Some(FaultKind::Blocked), "{second:?}");
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_the_names_fault() {
    for code in [2, 3, 5] {
        let network = strict(move |_, _| Dns::Fails(code)).await;
        let answered = try_once(network, target("http://hook.example.com/".into())).await;
        assert_eq!(fault(&answered), Some(FaultKind::Dns), "{code}: {answered:?}");
    }
    let network = strict(|_, _| Dns::Addresses(Vec::new())).await;
    assert_eq!(fault(&try_once(network, target("http://hook.example.com/".into())).await), Some(FaultKind::Dns));
}

/// Whatever a name stands for: it is vetted if, and only if, each of its addresses may be reached.
#[tokio::test]
async fn nothing_forbidden_is_ever_dialled() {
    let answers: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let said = Arc::clone(&answers);
    let network = strict(move |_, _| Dns::Addresses(said.lock().unwrap().clone())).await;
    let dialer = Dialer::new(&network).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut blocked = 0;
    for round in 0..400 {
        let mut some = Vec::new();
        for _ in 0..=random() % 3 {
            let v4 = Ipv4Addr::from(u32::try_from(random() >> 32).unwrap());
            let near = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(10, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8), v4]
                [random() as usize % 4];
            some.push(match random() % 6 {
                0 => IpAddr::V6(near.to_ipv6_mapped()),
                1 => IpAddr::V6(Ipv6Addr::from(u128::from(u32::from(near)) | (0x64_ff9b_u128 << 96))),
                2 => IpAddr::V6(Ipv6Addr::from((u128::from(random()) << 64) | u128::from(random()))),
                _ => IpAddr::V4(near),
            });
        }
        *answers.lock().unwrap() = some.clone();
        let name = format!("n{round}.example.com");
        let lets = some.iter().all(|one| Guard::default().lets(*one));
        let found = dialer.vetted(&Host::Domain(&name)).await;
        assert_eq!(found.is_ok(), lets, "{some:?}: {found:?}");
        assert!(found.is_ok_and(|found| found.iter().all(|one| some.contains(one))) == lets);
        blocked += usize::from(!lets);
    }
    assert!((50..390).contains(&blocked), "{blocked}");
}

#[tokio::test]
async fn a_proxy_gets_the_vetted_address_and_no_name() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&asked);
    let proxy = Server::start(move |mut stream| {
        let heard = Arc::clone(&heard);
        async move {
            let head = request(&mut stream).await.unwrap_or_default();
            heard.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await;
            let inner = request(&mut stream).await.unwrap_or_default();
            heard.lock().unwrap().push(inner.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let mut network =
        strict(|name, _| Dns::Addresses(vec![address(if name.starts_with("in") { "10.0.0.1" } else { "8.8.8.8" })]))
            .await;
    network.proxy = Some(Url::parse(&proxy.url()).unwrap());
    let answered = try_once(network.clone(), target("http://out.example.com:8080/x".into())).await;
    assert_eq!(status(&answered), Some(204), "{answered:?}");
    assert_eq!(*asked.lock().unwrap(), ["connect 8.8.8.8:8080 http/1.1", "post /x http/1.1"]);
    let inside = try_once(network, target("http://inside.example.com/".into())).await;
    assert_eq!((fault(&inside), proxy.count()), (Some(FaultKind::Blocked), 1), "{inside:?}");
}

#[tokio::test]
async fn a_token_is_fetched_once_and_from_no_forbidden_address() {
    let server = Server::start(|mut stream| async move {
        while let Some(head) = request(&mut stream).await {
            let body = if head.starts_with("post /token") { r#"{"access_token": "T1", "expires_in": 60}"# } else { "" };
            let code =
                if head.starts_with("post /token") || head.contains("authorization: bearer t1") { 200 } else { 401 };
            let reply = format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(reply.as_bytes()).await.is_err() {
                break;
            }
        }
    })
    .await;
    let auth = |token_url: String| crate::http::target::Auth::OAuth2 {
        token_url,
        client_id: "id".into(),
        client_secret: "s".into(),
        scope: Some("a b".into()),
    };
    let mut good = target(server.url());
    good.auth = auth(format!("{}token", server.url()));
    let speaker = Speaker::new(&Shared::new(network()).unwrap(), good.clone());
    for _ in 0..3 {
        assert_eq!(status(&send(&speaker, attempt()).await), Some(200));
    }
    good.auth = auth("http://10.0.0.1/token".into());
    assert_eq!(fault(&try_once(network(), good).await), Some(FaultKind::Blocked));
    let mut byte = [0];
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await;
    assert!(silent.is_err());
}
