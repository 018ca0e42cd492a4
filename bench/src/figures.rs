//! Repeated measurements, and how they are written.

use serde_json::{Value, json};

/// One quantity, measured several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// In the order of measurement.
    pub values: Vec<f64>,
}

impl Series {
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    pub fn least(&self) -> f64 {
        self.at(0.0)
    }

    pub fn most(&self) -> f64 {
        self.at(1.0)
    }

    /// A percentile: interpolated between the two nearest values; 0 if there is none.
    pub fn at(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let place = share.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        match (sorted.get(below), sorted.get(above)) {
            (Some(low), Some(high)) => low + (high - low) * place.fract(),
            _ => 0.0,
        }
    }

    /// Each value divided by the one of `other` that was measured beside it.
    pub fn over(&self, other: &Self) -> Self {
        Self { values: self.values.iter().zip(&other.values).map(|(a, b)| a / b).collect() }
    }

    pub fn json(&self, unit: &str) -> Value {
        json!({ "unit": unit, "median": self.median(), "min": self.least(), "max": self.most(), "values": self.values })
    }

    /// For latencies, of which the tail matters.
    pub fn spread(&self, unit: &str) -> Value {
        json!({ "unit": unit, "p50": self.median(), "p90": self.at(0.9), "p99": self.at(0.99), "p999": self.at(0.999),
            "min": self.least(), "max": self.most() })
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self { values: values.into_iter().collect() }
    }
}

/// A count or a rate, with thousands separated.
pub fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_the_values() {
        let series: Series = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!((series.least(), series.median(), series.most()), (1.0, 2.5, 4.0));
        assert_eq!(Series::default().median(), 0.0);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!(whole(1_234_567.4), "1,234,567");
        assert_eq!(whole(999.0), "999");
        assert_eq!(whole(-1000.0), "-1,000");
    }
}
