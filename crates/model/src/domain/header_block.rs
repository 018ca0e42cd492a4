//! The headers of a message to send, written once.
//!
//! A message has two dozen headers. Pairs of strings that end up in the client library's hash map, each with a list of its
//! own, cost more than all the rest of publishing; lines in one string cost next to nothing.

/// Room for the lines of an ordinary event.
const CAPACITY: usize = 1024;

/// Header lines as they stand in the protocol, from the value of `Nats-Msg-Id` on and without the last line's end. What
/// would break the protocol's framing does not get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderBlock {
    lines: String,
    id_length: usize,
    /// Name of the first header that cannot be sent.
    unusable: Option<String>,
}

impl HeaderBlock {
    /// With `Nats-Msg-Id`, which is always the first.
    pub fn new(id: &str) -> Self {
        let mut lines = String::with_capacity(CAPACITY);
        lines.push_str(id);
        let unusable = breaks_line(id).then(|| "Nats-Msg-Id".to_owned());
        Self { lines, id_length: id.len(), unusable }
    }

    pub fn push(&mut self, name: &str, value: &str) {
        if self.admits(name, value) {
            self.lines.extend(["\r\n", name, ": ", value]);
        }
    }

    /// Puts a header before those that were pushed: nats-server looks for some in each message, from the front.
    pub fn put_first(&mut self, name: &str, value: &str) {
        if self.admits(name, value) {
            self.lines.insert_str(self.id_length, &["\r\n", name, ": ", value].concat());
        }
    }

    /// Whether a header can be sent; the first that cannot is noted.
    fn admits(&mut self, name: &str, value: &str) -> bool {
        // No way out in the middle: so the compiler looks at many bytes at once.
        let fits = name.bytes().fold(!name.is_empty(), |fits, byte| fits & byte.is_ascii_graphic() & (byte != b':'))
            && !breaks_line(value);
        if !fits {
            self.unusable.get_or_insert_with(|| name.to_owned());
        }
        fits
    }

    /// `Nats-Msg-Id`.
    pub fn id(&self) -> &str {
        &self.lines[..self.id_length]
    }

    /// Bytes, but for the name of the first header.
    pub fn size(&self) -> usize {
        self.lines.len()
    }

    /// The lines, or the name of a header that cannot be sent.
    pub fn into_lines(self) -> Result<String, String> {
        self.unusable.map_or(Ok(self.lines), Err)
    }
}

fn breaks_line(value: &str) -> bool {
    value.bytes().fold(false, |breaks, byte| breaks | (byte == b'\r') | (byte == b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_protocol() {
        let mut block = HeaderBlock::new("id");
        block.push("X-A", "Grüße: 1");
        block.push("N", "7");
        let lines = "id\r\nX-A: Grüße: 1\r\nN: 7";
        assert_eq!((block.id(), block.size()), ("id", lines.len()));
        assert_eq!(block.into_lines().unwrap(), lines);
    }

    #[test]
    fn what_is_put_first_stands_behind_the_id() {
        let mut block = HeaderBlock::new("id");
        block.push("X-A", "1");
        block.put_first("N", "7");
        block.put_first("E", "8");
        assert_eq!(block.id(), "id");
        assert_eq!(block.clone().into_lines().unwrap(), "id\r\nE: 8\r\nN: 7\r\nX-A: 1");
        block.put_first("a:b", "1");
        assert_eq!(block.into_lines().unwrap_err(), "a:b");
    }

    #[test]
    fn what_would_break_the_framing_does_not_get_in() {
        assert!(HeaderBlock::new("a\nb").into_lines().is_err());
        for (name, value) in [("X", "1\r\nPUB x 0"), ("X", "\n"), ("a:b", "1"), ("a b", "1"), ("ä", "1"), ("", "1")] {
            let mut block = HeaderBlock::new("id");
            block.push(name, value);
            block.push("Y", "2");
            assert_eq!(block.into_lines().unwrap_err(), name);
        }
    }
}
