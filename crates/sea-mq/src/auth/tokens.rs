//! Static tokens: a file with their hashes. It is read anew when it changes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest;
use serde::{Deserialize, Serialize};

use super::Caller;

/// A line of the file: one JSON object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// SHA-256 of the token, in hexadecimal
    pub sha256: String,
    /// Role of the database that it stands for
    pub role: String,
    /// Who has it
    pub label: String,
    /// Until when it holds, in seconds since 1970
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// The file's content as of its last change.
pub struct Tokens {
    path: PathBuf,
    read: Mutex<Read>,
}

struct Read {
    changed: Option<SystemTime>,
    entries: Vec<Entry>,
}

impl Tokens {
    /// # Errors
    /// In words, when the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, String> {
        let entries = read(path)?;
        Ok(Self { path: path.to_owned(), read: Mutex::new(Read { changed: changed(path), entries }) })
    }

    /// Who has this token.
    pub fn find(&self, token: &str) -> Option<Caller> {
        let hash = hash(token);
        let mut read_last = self.read.lock().ok()?;
        let now_changed = changed(&self.path);
        if now_changed != read_last.changed {
            match read(&self.path) {
                // A file that cannot be read takes nothing away: it may be half written.
                Ok(entries) => *read_last = Read { changed: now_changed, entries },
                Err(error) => crate::serve::log::event("error", &format!("tokens: {error}")),
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let mut entries = read_last.entries.iter();
        let entry =
            entries.find(|entry| same(&entry.sha256, &hash) && entry.expires.is_none_or(|expires| now < expires))?;
        Some(Caller { role: entry.role.clone(), label: entry.label.clone() })
    }
}

/// As the file has it.
pub fn hash(token: &str) -> String {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn same(left: &str, right: &str) -> bool {
    left.len() == right.len()
        && left.bytes().zip(right.bytes()).fold(0, |sum, (a, b)| sum | (a.to_ascii_lowercase() ^ b)) == 0
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| format!("{} line {}: {error}", path.display(), at + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_until_it_expires_and_the_file_says_so_at_once() {
        let path = std::env::temp_dir().join(format!("sea-mq-tokens-{}", std::process::id()));
        let line = |expires: u64| {
            format!("{{\"sha256\":\"{}\",\"role\":\"r\",\"label\":\"l\",\"expires\":{expires}}}\n", hash("t"))
        };
        std::fs::write(&path, line(u64::MAX)).expect("can be written");
        let tokens = Tokens::open(&path).expect("can be read");
        assert_eq!(tokens.find("t"), Some(Caller { role: "r".into(), label: "l".into() }));
        assert_eq!(tokens.find("other"), None);
        std::fs::write(&path, format!("# expired\n{}", line(1))).expect("can be written");
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(later)).expect("has a time");
        assert_eq!(tokens.find("t"), None);
        std::fs::remove_file(path).expect("can be removed");
    }
}
