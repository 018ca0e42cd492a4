//! The registry's functions that SQL cannot do by itself.

use pgrx::pg_sys;
use ring::hmac;
use sea_mq_contracts::event_key::EventKey;
use sea_mq_contracts::invalid::Invalid;
use sea_mq_contracts::sensitive::Treatment;

use crate::registry::contracts;
use crate::sys::datum::{Call, return_set, sql_function, text_array_datum, text_datum};
use crate::sys::error::OrRefuse;

sql_function!(check_schema_wrapper, pg_finfo_check_schema_wrapper, |call| {
    let (schema, uri) = (call.jsonb(0).unwrap_or_default(), call.text(1).unwrap_or_default());
    contracts::compile(&schema, &uri).map(drop).or_refuse();
    pg_sys::Datum::from(0)
});

sql_function!(contract_uri_wrapper, pg_finfo_contract_uri_wrapper, |call| text_datum(&key(call).or_refuse().uri()));

sql_function!(contract_violations_wrapper, pg_finfo_contract_violations_wrapper, |call| {
    let contract = key(call).and_then(|key| contracts::require(&key)).or_refuse();
    let violations = contract.violations(&call.jsonb(3).unwrap_or_default()).or_refuse();
    return_set(call, |row| {
        for violation in violations {
            row(&mut [text_datum(&violation.pointer), text_datum(&violation.message)], &mut [false, false]);
        }
    })
});

sql_function!(sensitive_places_wrapper, pg_finfo_sensitive_places_wrapper, |call| {
    let contract = contracts::find(&key(call).or_refuse());
    let payload = call.jsonb(3).unwrap_or_default();
    let places = contract.map_or_else(Vec::new, |contract| contract.sensitive_places(&payload).or_refuse());
    return_set(call, |row| {
        for place in places {
            let treatment = match place.treatment {
                Treatment::Hash => "hash",
                Treatment::Strip => "strip",
            };
            row(&mut [text_array_datum(&place.path), text_datum(treatment)], &mut [false, false]);
        }
    })
});

sql_function!(hmac_sha256_wrapper, pg_finfo_hmac_sha256_wrapper, |call| {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &call.bytea(0).unwrap_or_default());
    let tag = hmac::sign(&key, call.text(1).unwrap_or_default().as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    text_datum(&hex)
});

/// Context, event name and version: the first three arguments.
fn key(call: Call) -> Result<EventKey, Invalid> {
    EventKey::new(&call.text(0).unwrap_or_default(), &call.text(1).unwrap_or_default(), call.int4(2).unwrap_or(0))
}
