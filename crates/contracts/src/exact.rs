//! Numbers that a double cannot hold.
//!
//! serde_json reads what is no 64-bit integer as a double, and so takes 9007199254740993.5 for 9007199254740994. Its feature
//! for exact numbers is one of the whole build and breaks others' types in it. So the text is looked at beforehand: most has
//! no such number, and where one is, the validator is told what stands there. Schemas hold none.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Number, Value};

/// A decimal number: its sign, its digits without zeros at either end, and where the point is: 0.digits × 10^point.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    /// Of a number as JSON writes it.
    pub fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let unsigned = mantissa.trim_start_matches('-');
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
        let zeros = all.iter().take_while(|digit| **digit == 0).count();
        let digits: Vec<u8> = all[zeros..].to_vec();
        let end = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        let digits = digits[..end].to_vec();
        if digits.is_empty() {
            return Self { negative: false, digits, point: 0 };
        }
        let negative = mantissa.starts_with('-');
        // Nothing that was read is so long, or has such an exponent, that this is not exact.
        let exponent: i64 = exponent.parse().unwrap_or(if exponent.starts_with('-') { -1 << 40 } else { 1 << 40 });
        let point =
            i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_sub(zeros as i64).saturating_add(exponent);
        Self { negative, digits, point }
    }

    pub fn of(number: &Number) -> Self {
        Self::read(&number.to_string())
    }

    pub fn is_integer(&self) -> bool {
        i64::try_from(self.digits.len()).is_ok_and(|length| length <= self.point) || self.digits.is_empty()
    }

    /// Whether it is a multiple of a number that serde_json holds.
    pub fn is_multiple_of(&self, divisor: &Self) -> bool {
        let value = |digits: &[u8]| digits.iter().fold(0_u128, |sum, digit| sum * 10 + u128::from(*digit));
        // A double is written with 17 digits at most, a 64-bit integer with 20.
        let by = value(&divisor.digits);
        // As whole numbers with the same unit behind both: what is left over is a power of ten of one of them.
        let unit = |of: &Self| of.point - of.digits.len() as i64;
        let shift = unit(self) - unit(divisor);
        if self.digits.is_empty() || by == 0 {
            return self.digits.is_empty();
        }
        // The digits do not end with 0, so they are no multiple of ten.
        if shift < 0 {
            return false;
        }
        let modulo = |digits: &[u8]| digits.iter().fold(0_u128, |rest, digit| (rest * 10 + u128::from(*digit)) % by);
        let mut rest = modulo(&self.digits);
        for _ in 0..shift {
            if rest == 0 {
                break;
            }
            rest = rest * 10 % by;
        }
        rest == 0
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |of: &Self| if of.digits.is_empty() { 0 } else { 1 - 2 * i8::from(of.negative) };
        let size = || self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| if self.negative { size().reverse() } else { size() })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A number that serde_json cannot hold as it stands in the text, if there is one. For text that it can read.
pub fn first_long(text: &str) -> Option<&str> {
    numbers(text).find(|number| is_long(number))
}

/// What stands in the text for those numbers of `value`, which was read from it, that it does not hold. They are known by
/// their places in memory.
pub fn long_numbers(text: &str, value: &Value) -> HashMap<usize, Decimal> {
    let mut found = HashMap::new();
    if first_long(text).is_some() {
        let mut written = numbers(text);
        pair(value, &mut written, &mut found);
    }
    found
}

/// How [`long_numbers`] knows a number.
pub fn place(number: &Number) -> usize {
    std::ptr::from_ref(number).addr()
}

fn pair<'a>(value: &Value, written: &mut impl Iterator<Item = &'a str>, found: &mut HashMap<usize, Decimal>) {
    match value {
        Value::Number(number) => {
            let text = written.next().unwrap_or_default();
            if is_long(text) {
                found.insert(place(number), Decimal::read(text));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| pair(item, written, found)),
        // In the order of the text: what jsonb writes has no name twice.
        Value::Object(members) => members.values().for_each(|member| pair(member, written, found)),
        _ => {}
    }
}

fn is_long(number: &str) -> bool {
    // Doubles hold 15 digits.
    if number.len() <= 15 && !number.contains(['e', 'E']) {
        return false;
    }
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return false;
    }
    let held = serde_json::from_str::<Number>(number);
    held.is_ok_and(|held| Decimal::of(&held) != Decimal::read(number))
}

/// The numbers of a JSON text, in their order.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            match bytes[at] {
                b'"' => at = after_string(bytes, at),
                b'-' | b'0'..=b'9' => {
                    let begin = at;
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    at += bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                    return Some(&text[begin..at]);
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// The place after the string that begins here.
fn after_string(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_equal_however_they_are_written() {
        for (a, b) in [
            ("1", "1.0"),
            ("10", "1e1"),
            ("0", "-0.000"),
            ("0.001", "1E-3"),
            ("-120", "-1.2e+2"),
            ("1e20", "100000000000000000000"),
        ] {
            assert_eq!(Decimal::read(a), Decimal::read(b), "{a} {b}");
        }
        for (less, more) in [
            ("-2", "-1"),
            ("-1", "0"),
            ("0", "0.1"),
            ("9", "10"),
            ("9007199254740993", "9007199254740993.5"),
            ("-1e30", "-1e29"),
            ("0.09", "0.1"),
        ] {
            assert_eq!(Decimal::read(less).cmp(&Decimal::read(more)), Ordering::Less, "{less} {more}");
            assert_eq!(Decimal::read(more).cmp(&Decimal::read(less)), Ordering::Greater, "{less} {more}");
        }
    }

    #[test]
    fn integers_and_multiples_are_told_exactly() {
        for (text, is) in
            [("9007199254740993.5", false), ("9007199254740993.0", true), ("1e30", true), ("0.5", false), ("0.0", true)]
        {
            assert_eq!(Decimal::read(text).is_integer(), is, "{text}");
        }
        for (a, b, is) in [
            ("18446744073709551617", "2", false),
            ("18446744073709551618", "2", true),
            ("9007199254740993.5", "0.5", true),
            ("9007199254740993.5", "1", false),
            ("0.30000000000000000001", "0.1", false),
            ("1e30", "7", false),
            ("0", "7", true),
        ] {
            assert_eq!(Decimal::read(a).is_multiple_of(&Decimal::read(b)), is, "{a} {b}");
        }
    }

    #[test]
    fn what_a_double_does_not_hold_is_found_in_its_place() {
        assert_eq!(
            first_long(r#"{"1e400 9007199254740993.5\"1": [1, 0.1, 123456789012345678, 1.50, 18446744073709551615]}"#),
            None
        );
        let text = r#"{"a": [1, {"b": -9007199254740993.5}], "18446744073709551617": 100000000000000000000.0, "c": 18446744073709551617}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let long = long_numbers(text, &value);
        let held = |pointer: &str| match value.pointer(pointer) {
            Some(Value::Number(number)) => long.get(&place(number)).cloned(),
            _ => None,
        };
        assert_eq!(held("/a/1/b"), Some(Decimal::read("-9007199254740993.5")));
        assert_eq!(held("/c"), Some(Decimal::read("18446744073709551617")));
        assert_eq!((held("/a/0"), held("/18446744073709551617"), long.len()), (None, None, 2));
    }
}
