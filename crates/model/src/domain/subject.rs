//! Subjects and their wildcards (<https://docs.nats.io/nats-concepts/subjects>).

/// Whether a filter covers a subject: `*` stands for one token, `>` at the end for one or more.
pub fn covers(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = filter.split('.').peekable();
    while let Some(pattern) = wanted.next() {
        match (pattern, tokens.next()) {
            (">", Some(_)) if wanted.peek().is_none() => return true,
            ("*", Some(_)) => {}
            (_, Some(token)) if token == pattern => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_whole_tokens() {
        assert!(covers("orders.event.>", "orders.event.paid.v1"));
        assert!(covers("orders.event.*.v1", "orders.event.paid.v1"));
        assert!(covers(">", "a"));
        assert!(!covers("orders.event.>", "orders.event"));
        assert!(!covers("orders.event.*", "orders.event.paid.v1"));
        assert!(!covers("orders.*.paid", "orders.event.paid.v1"));
        assert!(!covers("a.b", "a"));
    }
}
