//! Names that become NATS subject tokens, and how they are written.
//!
//! The grammar is that of the [NATS documentation](https://docs.nats.io/nats-concepts/subjects): a token is one or more
//! characters without white space, `.`, `*` and `>`. Names are normalised to snake case first, so that `OrderCreated`,
//! `orderCreated` and `order_created` are one name.

use crate::invalid::{Invalid, InvalidKind};

/// Longest token in bytes. NATS itself bounds the whole protocol line (4 KiB by default), not the token.
pub const MAX_TOKEN: usize = 128;

const HINT_CONTEXT: &str = "Use letters, digits, \"_\" and \"-\", as in \"orders\".";
const HINT: &str = "Use letters, digits, \"_\" and \"-\", as in \"order_created\".";

/// The snake case form of a name: `OrderCreated` → `order_created`, `HTTPRequestSent` → `http_request_sent`.
pub fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (i, &c) in chars.iter().enumerate() {
        // Some capitals have no small letter: left as they are, they must not be taken for capitals the next time.
        if !c.is_uppercase() || c.to_lowercase().eq([c]) {
            out.push(c);
            continue;
        }
        let before = i.checked_sub(1).map(|j| chars[j]);
        let after_lower = before.is_some_and(|b| b.is_lowercase() || b.is_numeric());
        let acronym_ends = before.is_some_and(char::is_uppercase) && chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        if after_lower || acronym_ends {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The name of an event type as it stands in subjects, or why it cannot stand there.
pub fn event_name(name: &str) -> Result<String, Invalid> {
    normalised("event_type", name)
}

/// The name of a context as it stands in subjects and, in capitals, in stream names.
pub fn context_name(name: &str) -> Result<String, Invalid> {
    let normal = normalised("context", name)?;
    if let Some(c) = name.chars().find(|c| matches!(c, '/' | '\\')) {
        return Err(Invalid::value(
            format!("context \"{name}\" contains \"{c}\", which a JetStream stream name cannot contain"),
            HINT_CONTEXT,
        ));
    }
    // What nats-server holds for unprintable it writes as \U0010ffff, which is no JSON, into its answers about the stream.
    if let Some(c) = name.chars().find(|&c| c > '\u{ffff}') {
        return Err(Invalid::value(
            format!("context \"{name}\" contains {c:?}, which nats-server cannot name in its answers about a stream"),
            HINT_CONTEXT,
        ));
    }
    if name.starts_with('$') || name.starts_with('_') {
        return Err(Invalid::value(
            format!("context \"{name}\" begins with \"{}\", which NATS reserves for itself", &name[..1]),
            "Begin the context with a letter, as in \"orders\".",
        ));
    }
    Ok(normal)
}

/// A version of an event type, or why it is none.
pub fn event_version(version: i32) -> Result<i32, Invalid> {
    if version >= 1 {
        return Ok(version);
    }
    Err(Invalid::value(
        format!("event_version is {version}"),
        "Versions count from 1; a changed meaning gets the next version.",
    ))
}

/// `{context}.event.{name}.v{version}`.
pub fn event_subject(context: &str, event_type: &str, version: i32) -> String {
    format!("{context}.event.{event_type}.v{version}")
}

/// The normal form of a name. It may be longer than the name, and must be a name itself.
fn normalised(parameter: &str, name: &str) -> Result<String, Invalid> {
    check_length(parameter, name)?;
    check_token(parameter, name)?;
    let normal = snake_case(name);
    check_length(parameter, &normal)?;
    Ok(normal)
}

fn check_length(parameter: &str, token: &str) -> Result<(), Invalid> {
    if token.len() <= MAX_TOKEN {
        return Ok(());
    }
    Err(Invalid::new(
        InvalidKind::TooLarge,
        format!("{parameter} is {} bytes long, the limit is {MAX_TOKEN}", token.len()),
        HINT,
    ))
}

fn check_token(parameter: &str, token: &str) -> Result<(), Invalid> {
    if token.is_empty() {
        return Err(Invalid::value(format!("{parameter} must not be empty"), HINT));
    }
    match token.chars().find(|c| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>')) {
        None => Ok(()),
        Some(c) => Err(Invalid::value(
            format!(
                "{parameter} \"{}\" contains {c:?}, which a NATS subject token cannot contain",
                token.escape_debug()
            ),
            HINT,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one_name() {
        for spelling in ["OrderCreated", "orderCreated", "order_created", "Order_Created"] {
            assert_eq!(event_name(spelling).unwrap(), "order_created", "{spelling}");
        }
        assert_eq!(snake_case("HTTPRequestSent"), "http_request_sent");
        assert_eq!(snake_case("Invoice2Paid"), "invoice2_paid");
        assert_eq!(snake_case("ORDER"), "order");
        assert_eq!(snake_case("order-created"), "order-created");
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        // The last ones have capitals without a small letter, and letters whose small form is longer.
        for name in ["OrderCreated", "HTTPRequestSent", "aB1C", "ÄrgerGemeldet", "x_Y_z", "A𝐁", "🄰b", "İİ"] {
            assert_eq!(snake_case(&snake_case(name)), snake_case(name), "{name}");
        }
        for part in ["aB", "İ", "x"] {
            let longest = (1..=MAX_TOKEN).rev().find_map(|n| event_name(&part.repeat(n)).ok()).unwrap();
            assert_eq!(event_name(&longest), Ok(longest.clone()), "{part}");
        }
    }

    #[test]
    fn what_nats_cannot_carry_is_refused() {
        for bad in ["", "a b", "a.b", "a*", ">", "a\tb", "a\nb", "a\u{a0}b", "a\0"] {
            assert_eq!(event_name(bad).unwrap_err().kind, InvalidKind::Value, "{bad:?}");
        }
        assert_eq!(event_name(&"x".repeat(MAX_TOKEN + 1)).unwrap_err().kind, InvalidKind::TooLarge);
    }

    #[test]
    fn a_context_must_also_be_a_stream_name() {
        for bad in ["a/b", "a\\b", "$JS", "_INBOX", "a\u{10ffff}"] {
            assert_eq!(context_name(bad).unwrap_err().kind, InvalidKind::Value, "{bad:?}");
        }
        assert_eq!(context_name("Orders").unwrap(), "orders");
    }
}
