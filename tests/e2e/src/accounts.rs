use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with a system account and an account for the application, as JWTs made for one test.
pub struct Accounts {
    operator_jwt: String,
    system: (KeyPair, String),
    application: KeyPair,
    application_jwt: String,
}

impl Accounts {
    /// `limits`: of the application's account, in the terms of its JWT; what is not said has no limit.
    ///
    /// # Panics
    /// Not in practice.
    pub fn new(limits: &Value) -> Self {
        let (operator, system, application) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let subject = operator.public_key();
        let claims = json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
        let operator_jwt = signed(&operator, &subject, "operator", claims);
        let no_limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1
        });
        let claims = json!({ "type": "account", "version": 2, "limits": no_limits });
        let system_jwt = signed(&operator, &system.public_key(), "system", claims);
        let mut all = no_limits;
        let jetstream = json!({ "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
        for more in [&jetstream, limits] {
            all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        }
        let claims = json!({ "type": "account", "version": 2, "limits": all });
        let application_jwt = signed(&operator, &application.public_key(), "application", claims);
        Self { operator_jwt, system: (system, system_jwt), application, application_jwt }
    }

    /// Lines for the server's configuration.
    pub fn configuration(&self) -> String {
        let (system, system_jwt) = &self.system;
        format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
            self.operator_jwt,
            system.public_key(),
            system.public_key(),
            system_jwt,
            self.application.public_key(),
            self.application_jwt
        )
    }

    /// The content of a `.creds` file of a user of the application's account. `more`: claims, such as permissions.
    ///
    /// # Panics
    /// Not in practice.
    pub fn credentials(&self, more: &Value) -> String {
        self.credentials_until(more, None)
    }

    /// As [`Self::credentials`], good until `end`, in seconds since 1970.
    ///
    /// # Panics
    /// Not in practice.
    pub fn credentials_until(&self, more: &Value, end: Option<u64>) -> String {
        let user = KeyPair::new_user();
        let mut claims =
            json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let jwt = signed_until(&self.application, &user.public_key(), "user", claims, end);
        let seed = user.seed().expect("a new key has a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn signed(issuer: &KeyPair, subject: &str, name: &str, nats: Value) -> String {
    signed_until(issuer, subject, name, nats, None)
}

fn signed_until(issuer: &KeyPair, subject: &str, name: &str, nats: Value, end: Option<u64>) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let mut claims = json!({ "iat": 1_700_000_000, "iss": issuer.public_key(), "jti": STANDARD.encode(subject), "name": name, "sub": subject, "nats": nats });
    if let Some(end) = end {
        claims["exp"] = json!(end);
    }
    let signed = format!("{header}.{}", encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).expect("a new key can sign"));
    format!("{signed}.{signature}")
}
