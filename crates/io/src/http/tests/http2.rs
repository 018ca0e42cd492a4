//! HTTP/2, frame by frame: a server that says it goes away.

use std::sync::Arc;

use sea_mq_model::deliver::outcome::FaultKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::stand::{Server, Stream};
use super::tls::{authority, config, https, issued, trusting};
use super::*;

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END: u8 = 1;
/// The end of the stream, and of its headers.
const ALL: u8 = 5;
/// `:status: 204`, as the static table has it.
const NO_CONTENT: [u8; 1] = [0x89];

async fn write(stream: &mut impl Stream, kind: u8, flags: u8, id: u32, body: &[u8]) -> Option<()> {
    let length = u32::try_from(body.len()).ok()?.to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(id.to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame).await.ok()
}

/// Kind, flags and stream of the next frame.
async fn read(stream: &mut impl Stream) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut body = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut body).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// Answers requests, and goes away with the first: having taken it, or not.
async fn serve(mut stream: impl Stream, takes: bool) -> Option<()> {
    stream.read_exact(&mut [0; PREFACE]).await.ok()?;
    write(&mut stream, SETTINGS, 0, 0, &[]).await?;
    loop {
        match read(&mut stream).await? {
            (SETTINGS, 0, _) => write(&mut stream, SETTINGS, ACK, 0, &[]).await?,
            (HEADERS | DATA, flags, id) if flags & END != 0 => {
                let last = if takes { id } else { 0 };
                write(&mut stream, GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()).await?;
                if takes {
                    write(&mut stream, HEADERS, ALL, id, &NO_CONTENT).await?;
                }
                stream.flush().await.ok()?;
            }
            _ => {}
        }
        stream.flush().await.ok()?;
    }
}

#[tokio::test]
async fn what_a_server_takes_before_it_goes_away_is_delivered_and_the_next_goes_to_another_connection() {
    let ours = authority();
    let network = trusting(&ours, "goaway");
    for takes in [true, false] {
        let mut config = (*config(issued(&ours, "127.0.0.1", false), None)).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let server = Server::start(move |stream| {
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, takes).await;
                }
            }
        })
        .await;
        let speaker = Speaker::new(&Shared::new(network.clone()).unwrap(), https(&server));
        for n in 1..=3 {
            let answered = send(&speaker, attempt()).await;
            if takes {
                assert_eq!(status(&answered), Some(204), "{answered:?}");
                assert_eq!(server.count(), n);
            } else {
                // It is tried again later, as after any failure.
                assert_eq!(fault(&answered), Some(FaultKind::Broken), "{answered:?}");
            }
        }
    }
    let _ = std::fs::remove_file(network.ca_file.unwrap());
}
