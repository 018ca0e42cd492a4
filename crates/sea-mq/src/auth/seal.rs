//! The console's sessions: a role and a time, sealed with a key of this process. Nothing is kept on the server.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// How long a session lasts.
pub const LASTS: u64 = 8 * 3600;

pub struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Sealer {
    /// With a new key: sessions end with the process.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> Result<Self, String> {
        let random = SystemRandom::new();
        let mut bytes = [0; 32];
        random.fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| "the key cannot be used".to_owned())?;
        Ok(Self { key: LessSafeKey::new(key), random })
    }

    /// A session of a role, to be given to a browser.
    pub fn seal(&self, role: &str) -> Option<String> {
        self.seal_until(role, now()? + LASTS)
    }

    fn seal_until(&self, role: &str, until: u64) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut text = format!("{until} {role}").into_bytes();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    /// The role of a session that was sealed here and has not ended.
    pub fn open(&self, sealed: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        if bytes.len() <= NONCE_LEN {
            return None;
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).ok()?;
        let opened = self.key.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
        let (until, role) = std::str::from_utf8(opened).ok()?.split_once(' ')?;
        (now()? < until.parse().ok()?).then(|| role.to_owned())
    }
}

fn now() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_what_was_sealed_here_and_has_not_ended() {
        let (sealer, other) = (Sealer::new().expect("random"), Sealer::new().expect("random"));
        let sealed = sealer.seal("ann").expect("sealed");
        assert_eq!(sealer.open(&sealed).as_deref(), Some("ann"));
        assert_eq!(other.open(&sealed), None);
        assert_eq!(sealer.open(&sealer.seal_until("ann", 1).expect("sealed")), None);
        let mut changed = sealed.into_bytes();
        let last = changed.len() - 1;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(sealer.open(std::str::from_utf8(&changed).expect("text")), None);
        assert_eq!(sealer.open("nonsense"), None);
    }
}
