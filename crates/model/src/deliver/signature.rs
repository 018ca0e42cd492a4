//! Signatures as Standard Webhooks has them: `v1` (HMAC-SHA-256) and `v1a` (Ed25519), over id, time and body.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

const SYMMETRIC: &str = "whsec_";
const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
/// Bytes that a symmetric secret may have.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SEED: usize = 32;

/// A secret that deliveries are signed with.
pub enum Secret {
    V1(hmac::Key),
    V1a(Ed25519KeyPair),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1(_) => "V1(..)",
            Self::V1a(_) => "V1a(..)",
        })
    }
}

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signing secret is whsec_ and 24 to 64 bytes in base64, or whsk_ and the 32 bytes of an Ed25519 key")]
pub struct NotASecret;

impl std::str::FromStr for Secret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<Self, NotASecret> {
        let bytes = |text| STANDARD.decode(text).map_err(|_| NotASecret);
        if let Some(key) = text.strip_prefix(SYMMETRIC) {
            let key = bytes(key)?;
            return BYTES
                .contains(&key.len())
                .then(|| Self::V1(hmac::Key::new(hmac::HMAC_SHA256, &key)))
                .ok_or(NotASecret);
        }
        let key = bytes(text.strip_prefix(PRIVATE).ok_or(NotASecret)?)?;
        // The seed, or as libsodium writes it: the seed and the public key.
        let pair = match key.len() {
            SEED => Ed25519KeyPair::from_seed_unchecked(&key),
            64 => Ed25519KeyPair::from_seed_and_public_key(&key[..SEED], &key[SEED..]),
            _ => return Err(NotASecret),
        };
        pair.map(Self::V1a).map_err(|_| NotASecret)
    }
}

impl Secret {
    /// What whoever verifies gets, if it is not the secret itself.
    pub fn public(&self) -> Option<String> {
        match self {
            Self::V1(_) => None,
            Self::V1a(pair) => Some(format!("{PUBLIC}{}", STANDARD.encode(pair.public_key().as_ref()))),
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match self {
            Self::V1(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, content).as_ref())),
            Self::V1a(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(content).as_ref())),
        }
    }
}

/// The header `webhook-signature`, with a signature by each secret. `timestamp`: seconds since 1970.
pub fn header(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let content = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    secrets.iter().map(|secret| secret.sign(&content)).collect::<Vec<_>>().join(" ")
}

/// A new secret. `None`: the system gives no random numbers.
pub fn generate(asymmetric: bool) -> Option<String> {
    let mut bytes = [0; SEED];
    SystemRandom::new().fill(&mut bytes).ok()?;
    if !asymmetric {
        return Some(format!("{SYMMETRIC}{}", STANDARD.encode(bytes)));
    }
    let pair = Ed25519KeyPair::from_seed_unchecked(&bytes).ok()?;
    Some(format!("{PRIVATE}{}", STANDARD.encode([&bytes[..], pair.public_key().as_ref()].concat())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_signed(public: &str, content: &[u8], signed: &str) -> bool {
        let decoded = |text: &str, prefix| STANDARD.decode(text.strip_prefix(prefix).unwrap_or("-")).ok();
        let (Some(key), Some(signed)) = (decoded(public, PUBLIC), decoded(signed, "v1a,")) else { return false };
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key).verify(content, &signed).is_ok()
    }

    #[test]
    fn v1_is_as_the_specification_has_it() {
        // The example of the specification's libraries.
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let header = header(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_live_secret_signs() {
        let v1 = generate(false).unwrap();
        let v1a = generate(true).unwrap();
        let secrets: Vec<Secret> = [&v1, &v1a].map(|text| text.parse().unwrap()).into();
        let public = secrets[1].public().unwrap();
        let header = header(&secrets, "id", 7, b"body");
        let (first, second) = header.split_once(' ').unwrap();
        assert!(first.starts_with("v1,") && is_signed(&public, b"id.7.body", second));
        assert!(!is_signed(&public, b"id.8.body", second));
        assert!(secrets[0].public().is_none() && !format!("{secrets:?}").contains(&v1[6..]));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = format!("{SYMMETRIC}{}", STANDARD.encode([7; 23]));
        let long = format!("{SYMMETRIC}{}", STANDARD.encode([7; 65]));
        for text in ["", "whsec_", "whsec_?", "secret", "whsk_AAAA", "whpk_AAAA", &short, &long] {
            assert_eq!(text.parse::<Secret>().err(), Some(NotASecret), "{text}");
        }
    }
}
