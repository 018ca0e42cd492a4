//! Secrets at rest: AES-256-GCM with a key that is in a file and not in the database. A dump has the encrypted texts alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::host::gucs;

const KEY: usize = 32;
/// In the data directory.
const DEFAULT_FILE: &str = "sea_mq.key";

/// Whose secret it is: what is encrypted for one opens for no other.
pub struct Label<'a> {
    pub endpoint: i64,
    pub name: &'a str,
    pub version: i64,
}

impl Label<'_> {
    fn bytes(&self) -> Vec<u8> {
        format!("sea_mq:{}:{}:{}", self.endpoint, self.name, self.version).into_bytes()
    }
}

fn data_directory() -> PathBuf {
    // SAFETY: set once in a process, before anything else runs.
    let path = unsafe { std::ffi::CStr::from_ptr(pgrx::pg_sys::DataDir) };
    PathBuf::from(path.to_string_lossy().into_owned())
}

fn key_file() -> PathBuf {
    data_directory().join(gucs::secret_key_file().unwrap_or_else(|| DEFAULT_FILE.into()))
}

/// Which data directory this is. A file that is never written again has another place, and another time of birth, in a copy.
pub fn place() -> String {
    let Ok(found) = fs::metadata(data_directory().join("PG_VERSION")) else { return String::new() };
    let born = found.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{}-{}", found.ino(), born.map_or(0, |born| born.as_micros()))
}

/// Encrypts a text. The key is made if there is none.
///
/// # Errors
/// If the key cannot be read or made.
pub fn seal(label: &Label, text: &str) -> Result<Vec<u8>, String> {
    let path = key_file();
    let key = match read_key(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(&path).and_then(|()| read_key(&path)),
        other => other,
    };
    let key = key.map_err(|error| format!("the key of secrets, {}: {error}", path.display()))?;
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| "the system gives no random numbers".to_owned())?;
    let mut bytes = text.as_bytes().to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(label.bytes()), &mut bytes)
        .map_err(|_| "the secret is too large".to_owned())?;
    Ok([&nonce[..], &bytes].concat())
}

/// # Errors
/// If the key cannot be read, or is another one.
pub fn open(label: &Label, sealed: &[u8]) -> Result<String, String> {
    let path = key_file();
    let key = read_key(&path).map_err(|error| format!("the key of secrets, {}: {error}", path.display()))?;
    let other = || format!("secret \"{}\" was encrypted with another key than that in {}", label.name, path.display());
    let (nonce, bytes) = sealed.split_at_checked(NONCE_LEN).ok_or_else(other)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| other())?;
    let mut bytes = bytes.to_vec();
    let text = key.open_in_place(nonce, Aad::from(label.bytes()), &mut bytes).map_err(|_| other())?;
    String::from_utf8(text.to_vec()).map_err(|_| other())
}

fn read_key(path: &Path) -> io::Result<LessSafeKey> {
    let bytes = fs::read(path)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("it has not {KEY} bytes"));
    UnboundKey::new(&AES_256_GCM, &bytes).map(LessSafeKey::new).map_err(|_| bad())
}

/// Whole or not at all: another session may make one at the same time, and the first one counts.
fn make_key(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY];
    SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let written =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(&key)?;
            file.sync_all()
        });
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let _ = fs::remove_file(&draft);
    linked?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
