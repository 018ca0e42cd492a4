//! Many clients of a stream's tail.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Found;
use super::serve::{Client, Gateway};
use crate::figures::Series;
use crate::{Options, Outcome};

/// Clients of a tail, and events a second.
const TAILS: u32 = 200;
const TAIL_RATE: u32 = 1000;

/// From before the request that emits until a tail has the event.
pub fn measure(gateway: &Gateway, options: &Options, found: &mut Found) -> Outcome<()> {
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let mut connections = Vec::new();
    for _ in 0..TAILS {
        let mut stream = TcpStream::connect(&address)?;
        write!(
            stream,
            "GET /v1/streams/ORDERS_EVENTS/tail HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
            gateway.token
        )?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        connections.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let readers: Vec<_> = connections.into_iter().map(|stream| std::thread::spawn(move || ages(stream))).collect();
    let client = Client::new(gateway);
    let (url, began) = (format!("{}/v1/event-batches", gateway.url), Instant::now());
    let mut turn = 0;
    while began.elapsed() < Duration::from_secs(options.seconds.into()) {
        let mut one = super::event(turn);
        one["payload"] = json!({ "sent_at": crate::now() });
        client.post(&url, &json!({ "events": vec![one; TAIL_RATE as usize / 10] }).to_string())?;
        turn += 1;
        std::thread::sleep((began + Duration::from_millis(100) * turn).saturating_duration_since(Instant::now()));
    }
    let all = readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default());
    let taken: Vec<f64> = all.collect();
    if taken.is_empty() {
        return Err("no tail got an event".into());
    }
    let taken: Series = taken.into_iter().collect();
    found.tail("tails", "200 tails at 1,000 events/s, p99", &taken, 0.99, "≤ 1 s");
    Ok(())
}

/// Milliseconds from each event's `sent_at` until it was read, until nothing comes for two seconds.
fn ages(mut stream: TcpStream) -> Vec<f64> {
    const MARK: &[u8] = b"\"sent_at\": ";
    let (mut taken, mut rest, mut buffer) = (Vec::new(), Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let now = crate::now();
        rest.extend_from_slice(&buffer[..count]);
        let mut from = 0;
        while let Some(at) = rest[from..].windows(MARK.len()).position(|window| window == MARK) {
            let digits = &rest[from + at + MARK.len()..];
            let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == digits.len() {
                break;
            }
            let sent = std::str::from_utf8(&digits[..length]).ok().and_then(|text| text.parse::<i64>().ok());
            taken.extend(sent.map(|sent| (now - sent) as f64 / 1000.0));
            from += at + MARK.len() + length;
        }
        rest.drain(..from);
    }
    taken
}
