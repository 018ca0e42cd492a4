use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// Random values that can be had again: `SEA_MQ_FUZZ_SEED` sets the seed, `SEA_MQ_FUZZ_CALLS` how much is tried. Without a
/// seed it is always the same one, so that a change is not blamed for what chance finds; `make fuzz` tries others.
pub struct Chance(StdRng);

const SEED: u64 = 1;

/// What is seldom in tests and often in attacks: controls, white space of all kinds, punctuation, letters whose cases are
/// odd, combining, bidirectional and invisible characters, the ends of planes.
const ODD: &[char] = &[
    '\u{1}',
    '\t',
    '\n',
    '\r',
    '\u{b}',
    '\u{c}',
    '\u{1b}',
    ' ',
    '\u{7f}',
    '\u{85}',
    '\u{9f}',
    '\u{a0}',
    '\u{ad}',
    '\u{1680}',
    '\u{180e}',
    '\u{2000}',
    '\u{200b}',
    '\u{200d}',
    '\u{2028}',
    '\u{2029}',
    '\u{202e}',
    '\u{202f}',
    '\u{205f}',
    '\u{2060}',
    '\u{3000}',
    '\u{feff}',
    'ß',
    'ẞ',
    'İ',
    'ı',
    'ſ',
    'K',
    'µ',
    'ς',
    'Σ',
    'ǅ',
    'ŉ',
    'ΐ',
    'ﬁ',
    '𝐀',
    '𝐚',
    'Ⅷ',
    'ⅷ',
    'Ⓐ',
    '🄰',
    'Ა',
    'ა',
    'ꭰ',
    'Ꭰ',
    'é',
    '\u{301}',
    '\u{345}',
    '٣',
    '²',
    'ª',
    '漢',
    '😀',
    '\u{d7ff}',
    '\u{e000}',
    '\u{fffd}',
    '\u{ffff}',
    '\u{10000}',
    '\u{10ffff}',
];

const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

impl Chance {
    /// Prints how to repeat the run. `calls` is what is tried unless the environment says otherwise; it is returned.
    ///
    /// # Panics
    /// When a variable is no number.
    pub fn new(calls: u64) -> (Self, u64) {
        let seed = number_of("SEA_MQ_FUZZ_SEED").unwrap_or(SEED);
        let calls = number_of("SEA_MQ_FUZZ_CALLS").unwrap_or(calls);
        eprintln!("SEA_MQ_FUZZ_SEED={seed} SEA_MQ_FUZZ_CALLS={calls}");
        (Self(StdRng::seed_from_u64(seed)), calls)
    }

    /// One whose values follow from `seed` alone.
    pub fn from_seed(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Another one, for a task of its own.
    pub fn fork(&mut self) -> Self {
        Self(StdRng::seed_from_u64(self.0.random()))
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    pub fn within<T: SampleUniform, R: SampleRange<T>>(&mut self, range: R) -> T {
        self.0.random_range(range)
    }

    /// # Panics
    /// When there are none.
    pub fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        values.choose(&mut self.0).expect("there are some")
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.within(0..=most)).map(|_| self.0.random()).collect()
    }

    pub fn uuid(&mut self) -> uuid::Uuid {
        uuid::Uuid::from_u128(self.0.random())
    }

    /// Any character that PostgreSQL's text has.
    pub fn character(&mut self) -> char {
        match self.within(0..10) {
            0..4 => self.within('a'..='z'),
            4 | 5 => self.within('A'..='Z'),
            6 => char::from(*self.of(PUNCTUATION.as_bytes())),
            7 => self.within('\u{1}'..='\u{10ffff}'),
            _ => *self.of(ODD),
        }
    }

    /// Any text, short mostly.
    pub fn text(&mut self, most: usize) -> String {
        let length = if self.one_in(20) { self.within(0..=most) } else { self.within(0..=most.min(12)) };
        (0..length).map(|_| self.character()).collect()
    }

    /// What programmers call things, in some spelling.
    pub fn word(&mut self) -> String {
        let words = ["order", "Created", "HTTP", "Paid", "_", "-", "2", "x", "A"];
        (0..self.within(1..5)).map(|_| *self.of(&words)).collect()
    }

    /// A name, good or bad.
    pub fn name(&mut self) -> String {
        match self.within(0..12) {
            0..3 => self.word(),
            // One odd character in it.
            3..7 => {
                let odd = if self.one_in(2) { *self.of(ODD) } else { char::from(*self.of(PUNCTUATION.as_bytes())) };
                format!("{}{odd}{}", self.word(), self.word())
            }
            7 => format!("{}{}", self.of(&["$", "$JS.", "_", "_INBOX", ""]), self.word()),
            8 => {
                let part = *self.of(&["a", "aB", "ΐ", "İ", "😀", "x漢"]);
                part.chars().cycle().take(self.within(20..140)).collect()
            }
            _ => self.text(150),
        }
    }

    /// JSON as text, with what serde_json's values cannot hold; almost always such that jsonb takes it.
    pub fn json(&mut self, depth: u32) -> String {
        match self.within(0..if depth == 0 { 7 } else { 11 }) {
            0 => (*self.of(&["null", "true", "false", "\"\"", "{}", "[]"])).to_owned(),
            1 | 2 => self.number(),
            3..7 => self.string(),
            7 | 8 => format!("[{}]", self.list(|chance| chance.json(depth - 1))),
            _ => format!("{{{}}}", self.list(|chance| format!("{}: {}", chance.string(), chance.json(depth - 1)))),
        }
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> String) -> String {
        (0..self.within(0..5)).map(|_| item(self)).collect::<Vec<_>>().join(" , ")
    }

    fn number(&mut self) -> String {
        let odd = [
            "0",
            "-0",
            "1.50",
            "1e400",
            "-1E+30",
            "1e-400",
            "18446744073709551616",
            "0.1000000000000000055511151231257827",
        ];
        match self.within(0..4) {
            0 => (*self.of(&odd)).to_owned(),
            1 => format!("{}{}", self.within(1..10), "0".repeat(self.within(0..300))),
            _ => self.0.random::<i64>().to_string(),
        }
    }

    fn string(&mut self) -> String {
        match self.within(0..8) {
            0 => {
                (*self.of(&[r#""\ud83d\ude00\u0001\u007f\u2028""#, r#""\"\\\/\b\f\n\r\t""#, r#""\\u0000""#])).to_owned()
            }
            // jsonb has neither of them.
            1 if self.one_in(30) => (*self.of(&[r#""\u0000""#, r#""\ud800""#])).to_owned(),
            _ => Value::String(self.text(200)).to_string(),
        }
    }

    /// Arrays and objects in each other, as deep as wanted.
    pub fn nested(&mut self, levels: usize) -> String {
        let (open, close) = *self.of(&[("[", "]"), ("{\"a\":", "}"), ("[{\"b\": [", "]}]")]);
        format!("{}1{}", open.repeat(levels), close.repeat(levels))
    }

    /// Headers as a caller might give them, good or bad; JSON text.
    pub fn headers(&mut self) -> String {
        if self.one_in(12) {
            return self.json(2);
        }
        let mut headers = Map::new();
        for _ in 0..self.within(0..4) {
            let name = match self.within(0..20) {
                0 => self.text(10),
                1 => (*self.of(&["Nats-Msg-Id", "nats-rollup", "X-Event-Type", "x-aggregate-id", "Nats-", ""]))
                    .to_owned(),
                2 => (*self.of(&["traceparent", "Status", "Description", "Content-Type", "Reply-To"])).to_owned(),
                _ => format!("X-{}", self.within('a'..='z')),
            };
            let value = match self.within(0..20) {
                0 => json!(self.within(0..9)),
                1..4 => json!(self.text(1100)),
                _ => json!(self.word()),
            };
            headers.insert(name, value);
        }
        Value::Object(headers).to_string()
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
