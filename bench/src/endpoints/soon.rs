//! From the return of COMMIT to the receiver: alone, and beside an endpoint that hangs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use harness::{Database, Stage};
use uuid::Uuid;

use super::server::{HUNG, Server};
use super::{Amounts, Found, create, drop_all};
use crate::figures::Series;
use crate::pace::{self, Sent, milliseconds};
use crate::report::Row;
use crate::{Outcome, say};

const RATE: u32 = 200;
/// Events a second where each goes to 99 endpoints.
const RATE_OF_MANY: u32 = 20;
const OTHERS: u32 = 99;
const LONG: Duration = Duration::from_secs(60);

pub async fn measure(stage: &Stage, db: &Database, amounts: &Amounts, found: &mut Found) -> Outcome<()> {
    let server = Server::start(Duration::ZERO, None).await?;
    create(db, "acme", &server.url("/one"), "").await;
    at_rate(stage, &server, "/one", RATE, 1, RATE).await?;
    let series = at_rate(stage, &server, "/one", RATE, 1, RATE * amounts.seconds).await?;
    let row = Row::new(format!("{RATE}/s: COMMIT returned to received, p50"), ms(series.median()), String::new());
    found.add("soon", row.expecting("≤ 2 ms"), series.spread("ms"));
    found.rows.push(Row::new("… p99", ms(series.at(0.99)), String::new()).expecting("≤ 20 ms"));
    drop_all(db).await;
    for n in 0..OTHERS {
        create(db, &format!("e{n}"), &server.url(&format!("/many/{n}")), "").await;
    }
    let events = RATE_OF_MANY * amounts.seconds;
    at_rate(stage, &server, "/many", RATE_OF_MANY, OTHERS, RATE_OF_MANY).await?;
    let alone = at_rate(stage, &server, "/many", RATE_OF_MANY, OTHERS, events).await?;
    create(db, "hung", &server.url(HUNG), ", timeout => '5 s'").await;
    let beside = at_rate(stage, &server, "/many", RATE_OF_MANY, OTHERS, events).await?;
    let ratio = beside.at(0.99) / alone.at(0.99);
    let range = format!("p99 {} alone, {} beside it", ms(alone.at(0.99)), ms(beside.at(0.99)));
    let row = Row::new("a hung endpoint beside 99: their p99, of that without it", format!("{ratio:.2}"), range);
    found.add("hung_alone", Row::new("99 endpoints, p50", ms(alone.median()), String::new()), alone.spread("ms"));
    found.add("hung_beside", row.expecting("≤ 1.2"), beside.spread("ms"));
    drop_all(db).await;
    Ok(())
}

fn ms(value: f64) -> String {
    format!("{value:.2} ms")
}

/// Milliseconds of each delivery of so many events, each to so many endpoints.
async fn at_rate(stage: &Stage, server: &Server, prefix: &str, rate: u32, each: u32, events: u32) -> Outcome<Series> {
    say(format!("endpoints: {events} events at {rate}/s to {each}"));
    server.forget();
    let sent: HashMap<Uuid, Sent> = pace::emit(&stage.connector(), rate, events).await?;
    let begin = Instant::now();
    let wanted = (events * each) as usize;
    let arrivals = loop {
        let arrivals = server.arrivals(prefix);
        if arrivals.len() >= wanted {
            break arrivals;
        }
        if begin.elapsed() > LONG {
            return Err(format!("{} of {wanted} deliveries came", arrivals.len()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let of = |(id, at): (String, i64)| {
        let sent = sent.get(&id.parse().ok()?)?;
        Some(milliseconds(sent.commit_returned, at))
    };
    Ok(arrivals.into_iter().filter_map(of).collect())
}
