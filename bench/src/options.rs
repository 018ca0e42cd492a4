use std::path::{Path, PathBuf};

/// How the program is called.
pub const USAGE: &str =
    "usage: sea-mq-bench [drain|burden|footprint|latency|writer|inbox|contracts|capture|gateway|neighbours|endpoints|costs|
        databases]… [OPTION]…
       sea-mq-bench model [OPTION]…, which reckons with the costs: sea-mq-bench model --help
  --amount N       how much: events of a drain; with latency alone, seconds at each rate; with writer, contracts
                   or capture alone, rounds; with inbox alone, messages; with costs alone, seconds of each phase
  --repetitions N  how often the drain and the inbox are repeated (3)
  --in-flight N    messages without an acknowledgement while publishing raw (4096)
  --rates N[,N…]   events per second of the latency runs (100,1000,5000)
  --seconds N      length of one pgbench run (5)
  --clients N[,N…] pgbench clients (1,8,32)
  --retained N     events that the large log of the burden retains (10000000)
  --quick          a small run of everything, to see that it works; its figures mean little
  --output DIR     where results.json and results.svg are written (target/bench)";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartName {
    Drain,
    Burden,
    Footprint,
    Latency,
    Writer,
    Inbox,
    Contracts,
    Capture,
    Gateway,
    Neighbours,
    Endpoints,
    Costs,
    Databases,
}

impl PartName {
    fn named(word: &str) -> Option<Self> {
        match word {
            "drain" => Some(Self::Drain),
            "burden" => Some(Self::Burden),
            "footprint" => Some(Self::Footprint),
            "latency" => Some(Self::Latency),
            "writer" => Some(Self::Writer),
            "inbox" => Some(Self::Inbox),
            "contracts" => Some(Self::Contracts),
            "capture" => Some(Self::Capture),
            "gateway" => Some(Self::Gateway),
            "neighbours" => Some(Self::Neighbours),
            "endpoints" => Some(Self::Endpoints),
            "costs" => Some(Self::Costs),
            "databases" => Some(Self::Databases),
            _ => None,
        }
    }
}

/// What to measure, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub parts: Vec<PartName>,
    /// Events of one drain.
    pub drain_events: u32,
    /// Drains that count, and rounds of the inbox.
    pub repetitions: u32,
    /// Messages without an acknowledgement while publishing raw.
    pub in_flight: usize,
    /// Seconds at each rate.
    pub latency_seconds: u32,
    /// Events per second.
    pub rates: Vec<u32>,
    /// Rounds of pgbench runs, each of every kind of transaction; and of calls with and without a check.
    pub rounds: u32,
    /// Length of one pgbench run.
    pub seconds: u32,
    pub clients: Vec<u32>,
    /// Messages that a subscription handles.
    pub inbox_messages: u32,
    /// Messages of a handler that waits.
    pub waiting_messages: u32,
    /// Rows of a captured table.
    pub captured_rows: u32,
    /// Events that the large log of the burden retains.
    pub retained_events: u32,
    pub footprint_events: u32,
    /// Events per second while costs are measured.
    pub costs_rate: u32,
    /// Seconds of each of its phases.
    pub costs_seconds: u32,
    /// Events of the backlogs that say how far one relay and one consumer go.
    pub costs_backlog: u32,
    /// How many databases one server has, one run after the other.
    pub databases: Vec<usize>,
    pub output: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parts: vec![
                PartName::Drain,
                PartName::Burden,
                PartName::Footprint,
                PartName::Latency,
                PartName::Writer,
                PartName::Inbox,
                PartName::Contracts,
                PartName::Capture,
                PartName::Gateway,
                PartName::Neighbours,
                PartName::Endpoints,
                PartName::Costs,
                PartName::Databases,
            ],
            drain_events: 200_000,
            repetitions: 3,
            in_flight: 4096,
            latency_seconds: 12,
            rates: vec![100, 1000, 5000],
            rounds: 5,
            seconds: 5,
            clients: vec![1, 8, 32],
            inbox_messages: 200_000,
            waiting_messages: 5000,
            captured_rows: 100_000,
            retained_events: 10_000_000,
            footprint_events: 20_000,
            costs_rate: 2000,
            costs_seconds: 10,
            costs_backlog: 50_000,
            databases: vec![1, 50, 500],
            output: target().join("bench"),
        }
    }
}

fn target() -> PathBuf {
    let beside_the_code = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(beside_the_code, PathBuf::from)
}

impl Options {
    /// Reads the command line, without the program's name.
    ///
    /// # Errors
    /// When it cannot be understood, with the reason.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let arguments: Vec<String> = arguments.into_iter().collect();
        let mut options = Self::default();
        if arguments.iter().any(|argument| argument == "--quick") {
            options.shrink();
        }
        let (mut parts, mut amount) = (Vec::new(), None);
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            if let Some(part) = PartName::named(&argument) {
                parts.push(part);
                continue;
            }
            let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => {}
                "--amount" => amount = Some(number(&value()?)?),
                "--repetitions" => options.repetitions = number(&value()?)?,
                "--in-flight" => options.in_flight = number(&value()?)? as usize,
                "--rates" => options.rates = numbers(&value()?)?,
                "--seconds" => options.seconds = number(&value()?)?,
                "--clients" => options.clients = numbers(&value()?)?,
                "--retained" => options.retained_events = number(&value()?)?,
                "--output" => options.output = value()?.into(),
                unknown => return Err(format!("{unknown} is not known")),
            }
        }
        if !parts.is_empty() {
            options.parts = parts;
        }
        if let Some(amount) = amount {
            options.set_amount(amount);
        }
        // Rates are taken between two messages, and the latency run has three segments.
        options.drain_events = options.drain_events.max(2);
        options.inbox_messages = options.inbox_messages.max(2);
        Ok(options)
    }

    /// The number of clients that write while the relay runs as well.
    pub fn clients_beside_relay(&self) -> u32 {
        self.clients.iter().copied().find(|clients| *clients == 8).unwrap_or(self.clients[0])
    }

    /// Events at a rate, in whole segments.
    pub fn latency_events(&self, rate: u32) -> u32 {
        (rate * self.latency_seconds).max(30)
    }

    /// What the amount is of depends on the parts.
    fn set_amount(&mut self, amount: u32) {
        match self.parts.as_slice() {
            [PartName::Latency] => self.latency_seconds = amount,
            [PartName::Footprint] => self.footprint_events = amount,
            [PartName::Writer | PartName::Contracts | PartName::Capture] => self.rounds = amount,
            [PartName::Inbox] => self.inbox_messages = amount,
            [PartName::Costs] => self.costs_seconds = amount,
            _ => self.drain_events = amount,
        }
    }

    fn shrink(&mut self) {
        self.drain_events = 5000;
        self.repetitions = 2;
        self.latency_seconds = 1;
        self.retained_events = 20_000;
        self.footprint_events = 500;
        self.costs_rate = 200;
        self.costs_seconds = 2;
        self.costs_backlog = 2000;
        self.databases = vec![1, 5, 20];
        self.inbox_messages = 5000;
        self.waiting_messages = 200;
        self.captured_rows = 5000;
        self.rounds = 2;
        self.seconds = 1;
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{text:?} is not a number above 0"))
}

fn numbers(text: &str) -> Result<Vec<u32>, String> {
    text.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn amount_belongs_to_the_part_asked_for() {
        assert_eq!(parse("--amount 77").unwrap().drain_events, 77);
        assert_eq!(parse("latency --amount 77").unwrap().latency_seconds, 77);
        assert_eq!(parse("writer --amount 77").unwrap().rounds, 77);
        assert_eq!(parse("inbox --amount 77").unwrap().inbox_messages, 77);
    }

    #[test]
    fn what_is_given_counts_more_than_quick() {
        let options = parse("drain --amount 9000 --quick").unwrap();
        assert_eq!((options.drain_events, options.repetitions), (9000, 2));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["dran", "--amount", "--amount 0", "--clients 8,x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
