//! JSON Web Tokens of services: signed by a key of a JWKS file, for this gateway, and not expired.

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Caller;

/// What a token must be.
pub struct Verifier {
    keys: Vec<Key>,
    issuer: String,
    audience: String,
    claim: String,
}

/// A key, and the one algorithm that it is for: what the token says of itself decides nothing.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier {
    /// `claim`: the member that names the role.
    ///
    /// # Errors
    /// In words, when the file cannot be read or has no key that is usable.
    pub fn open(path: &Path, issuer: &str, audience: &str, claim: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let set: JwkSet = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut keys = Vec::new();
        for jwk in &set.keys {
            // Symmetric keys, and algorithms that are not allowed, are passed over.
            let Some(algorithm) = algorithm(&jwk.algorithm) else { continue };
            let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("{}: {error}", path.display()))?;
            keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key });
        }
        if keys.is_empty() {
            return Err(format!("{}: no key for EdDSA, ES256 or RS256", path.display()));
        }
        Ok(Self { keys, issuer: issuer.into(), audience: audience.into(), claim: claim.into() })
    }

    /// Whom a token stands for; `None`: it proves nothing.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let header = decode_header(token).ok()?;
        let fits = |key: &&Key| header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        let claims = self.keys.iter().filter(fits).find_map(|key| self.claims(token, key))?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let role = text(&self.claim)?.to_owned();
        Some(Caller { label: text("sub").map_or_else(|| role.clone(), str::to_owned), role })
    }

    fn claims(&self, token: &str, key: &Key) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(key.algorithm);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        decode::<Map<String, Value>>(token, &key.key, &validation).ok().map(|data| data.claims)
    }
}

fn algorithm(parameters: &AlgorithmParameters) -> Option<Algorithm> {
    match parameters {
        AlgorithmParameters::OctetKeyPair(_) => Some(Algorithm::EdDSA),
        AlgorithmParameters::EllipticCurve(curve) => (curve.curve == EllipticCurve::P256).then_some(Algorithm::ES256),
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        AlgorithmParameters::OctetKey(_) => None,
    }
}
