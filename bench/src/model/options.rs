//! The command line of the model.

use std::path::{Path, PathBuf};

use super::size::Load;

/// How the model is called.
pub const USAGE: &str = "usage: sea-mq-bench model [OPTION]…
  --costs FILE            results.json of make bench ONLY=costs (bench/costs.json)
  --rate N[,N…]           events per second, a column each (100,1000,10000,100000)
  --payload BYTES         of an event (1000)
  --replicas N            of each stream (3)
  --subscriptions N       how many subscriptions get each event (2)
  --retention TIME        of the streams, as 7d, 12h, 30min or 90s (7d)
  --outbox-retention TIME as sea_mq.retention (1d)
  --inbox-retention TIME  as sea_mq.inbox_retention (7d)
  --share PERCENT         of what a relay or a consumer can do (50)";

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    pub costs: PathBuf,
    /// The same load at each of the rates asked for.
    pub loads: Vec<Load>,
}

impl ModelOptions {
    /// Reads the command line, without the program's name and `model`.
    ///
    /// # Errors
    /// When it cannot be understood, with the reason.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut costs = Path::new(env!("CARGO_MANIFEST_DIR")).join("costs.json");
        let mut rates = vec![100.0, 1000.0, 10_000.0, 100_000.0];
        let week = seconds("7d")?;
        let mut load = Load {
            rate: 0.0,
            payload_bytes: 1000.0,
            replicas: 3.0,
            subscriptions: 2.0,
            stream_retention: week,
            outbox_retention: seconds("1d")?,
            inbox_retention: week,
            share: 0.5,
        };
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{argument} needs a value"))?;
            match argument.as_str() {
                "--costs" => costs = value.into(),
                "--rate" => rates = value.split(',').map(number).collect::<Result<_, _>>()?,
                "--payload" => load.payload_bytes = number(&value)?,
                "--replicas" => load.replicas = number(&value)?,
                "--subscriptions" => load.subscriptions = number(&value)?,
                "--retention" => load.stream_retention = seconds(&value)?,
                "--outbox-retention" => load.outbox_retention = seconds(&value)?,
                "--inbox-retention" => load.inbox_retention = seconds(&value)?,
                "--share" => load.share = number(&value)? / 100.0,
                unknown => return Err(format!("{unknown} is not known")),
            }
        }
        if load.share <= 0.0 || load.share > 1.0 {
            return Err("--share is a percentage above 0".into());
        }
        Ok(Self { costs, loads: rates.into_iter().map(|rate| Load { rate, ..load }).collect() })
    }
}

fn number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| format!("{text:?} is not a number from 0"))
}

/// A time with its unit, in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let (amount, unit) = text.split_at(text.find(|sign: char| sign.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "d" => 86_400.0,
        "h" => 3600.0,
        "min" => 60.0,
        "s" => 1.0,
        _ => return Err(format!("{text:?} is not a time such as 7d, 12h, 30min or 90s")),
    };
    Ok(number(amount)? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ModelOptions, String> {
        ModelOptions::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn each_rate_has_the_same_load() {
        let options = parse("--rate 10,20000 --payload 500 --retention 12h --share 80 --costs x.json").unwrap();
        assert_eq!(options.costs, Path::new("x.json"));
        assert_eq!(options.loads.iter().map(|load| load.rate).collect::<Vec<_>>(), [10.0, 20_000.0]);
        let load = options.loads[1];
        assert_eq!((load.payload_bytes, load.stream_retention, load.share), (500.0, 43_200.0, 0.8));
        assert_eq!((load.outbox_retention, load.inbox_retention), (86_400.0, 604_800.0));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--rate",
            "--rate x",
            "--rate -1",
            "--retention 7",
            "--retention 7w",
            "--share 0",
            "--share 200",
            "--speed 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
