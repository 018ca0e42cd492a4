//! Subjects with wildcards: `*` stands for one token, a final `>` for one or more.

/// Whether every subject that `inner` matches is matched by `outer` too.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// The subjects among `inner` that no single one of `outer` covers.
pub(super) fn uncovered<'a>(outer: &[&str], inner: &'a [String]) -> Vec<&'a str> {
    inner.iter().map(String::as_str).filter(|subject| !outer.iter().any(|outer| covers(outer, subject))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_they_match() {
        for (outer, inner) in [
            ("a.b", "a.b"),
            ("a.*", "a.b"),
            ("a.*", "a.*"),
            ("a.>", "a.b"),
            ("a.>", "a.*.c"),
            ("a.>", "a.b.>"),
            ("a.>", "a.>"),
            (">", "a"),
            (">", ">"),
            ("*.*", "a.*"),
        ] {
            assert!(covers(outer, inner), "{outer} covers {inner}");
        }
    }

    #[test]
    fn wildcards_do_not_cover_more() {
        for (outer, inner) in [
            ("a.b", "a.c"),
            ("a.b", "a.*"),
            ("a.*", "a.>"),
            ("a.*", "a"),
            ("a.*", "a.b.c"),
            ("a.>", "a"),
            ("a.>", ">"),
            ("a.b.>", "a.>"),
            ("*", ">"),
            ("a", "a.b"),
        ] {
            assert!(!covers(outer, inner), "{outer} does not cover {inner}");
        }
    }

    #[test]
    fn what_is_left_uncovered_is_named() {
        let wanted = ["a.>".to_owned(), "b.c".to_owned()];
        assert_eq!(uncovered(&["b.*"], &wanted), ["a.>"]);
        assert!(uncovered(&[">"], &wanted).is_empty());
    }
}
