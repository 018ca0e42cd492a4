//! Who sends a request: tokens and their attacks, and roles that are more than roles.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::shared::{Answer, as_role, ask, key, shared};

fn with_token(token: &str) -> Answer {
    ask("GET", &format!("{}/v1/me", shared().url), &[("Authorization", &format!("Bearer {token}"))], None)
}

fn claims() -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    json!({"iss": "https://issuer.test", "aud": "sea-mq", "exp": now + 300, "role": "t_monitor", "sub": "service"})
}

fn signed(claims: &Value, header: &Header, pkcs8: &[u8]) -> String {
    encode(header, claims, &EncodingKey::from_ed_der(pkcs8)).expect("signed")
}

fn header() -> Header {
    Header { kid: Some("one".into()), ..Header::new(Algorithm::EdDSA) }
}

#[test]
fn a_signed_token_is_taken_and_says_who_it_is() {
    let answer = with_token(&signed(&claims(), &header(), &shared().key.0));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let me = answer.json();
    assert_eq!(
        (&me["role"], &me["actor"], &me["roles"]),
        (&json!("t_monitor"), &json!("service"), &json!(["sea_mq_monitor"]))
    );
}

#[test]
fn a_token_that_proves_nothing_is_refused() {
    let pkcs8 = &shared().key.0;
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().expect("an object").remove(name);
        claims
    };
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let mut bad = vec![
        ("no aud", signed(&without("aud"), &header(), pkcs8)),
        ("no exp", signed(&without("exp"), &header(), pkcs8)),
        ("no iss", signed(&without("iss"), &header(), pkcs8)),
        ("no role", signed(&without("role"), &header(), pkcs8)),
        ("another aud", signed(&with("aud", json!("other")), &header(), pkcs8)),
        ("another iss", signed(&with("iss", json!("https://other.test")), &header(), pkcs8)),
        ("expired", signed(&with("exp", json!(1)), &header(), pkcs8)),
        ("not yet", signed(&with("nbf", json!(99_999_999_999_i64)), &header(), pkcs8)),
        ("another key", signed(&claims(), &header(), &key().0)),
    ];
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    bad.push(("alg none", format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(&claims()))));
    // The public key as the secret of another algorithm.
    let confused = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    bad.push((
        "key confusion",
        encode(&confused, &claims(), &EncodingKey::from_secret(&shared().key.1)).expect("signed"),
    ));
    let good = signed(&claims(), &header(), pkcs8);
    let parts: Vec<&str> = good.split('.').collect();
    bad.push(("changed", format!("{}.{}.{}", parts[0], part(&with("role", json!("t_operator"))), parts[2])));
    for (what, token) in bad {
        assert_eq!(with_token(&token).status, 401, "{what}");
    }
}

#[test]
fn a_role_that_is_no_mere_role_is_refused() {
    for role in ["super", "nobody"] {
        let answer = as_role(role, "GET", "/me", None);
        assert_eq!((answer.status, &answer.json()["details"]["sqlstate"]), (403, &json!("42501")), "{role}");
    }
}

#[test]
fn a_right_that_is_revoked_is_gone_at_the_next_request() {
    assert_eq!(as_role("brief", "GET", "/problems", None).status, 200);
    shared().db().batch_execute("REVOKE sea_mq_monitor FROM t_brief").expect("revoked");
    assert_eq!(as_role("brief", "GET", "/problems", None).status, 403);
    assert_eq!(as_role("brief", "GET", "/me", None).status, 200);
    shared().db().batch_execute("REVOKE t_brief FROM sea_mq_gateway").expect("revoked");
    assert_eq!(as_role("brief", "GET", "/me", None).status, 403);
}

#[test]
fn what_a_request_sets_is_gone_with_it() {
    // Of eight connections, each has served somebody else before.
    for round in 0..40 {
        let role = ["all", "monitor", "producer", "viewer"][round % 4];
        assert_eq!(as_role(role, "GET", "/me", None).json()["role"], format!("t_{role}"));
    }
}
