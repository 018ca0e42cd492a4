//! The registry's functions that SQL cannot do by itself.

use pgrx::pg_sys;
use sea_mq_contracts::event_key::EventKey;

use crate::pg::contracts;
use crate::pg::datum::{Call, return_set, sql_function, text_datum};
use crate::pg::error::OrRefuse;

sql_function!(contracts_changed_wrapper, pg_finfo_contracts_changed_wrapper, |_call| {
    contracts::announce_change();
    pg_sys::Datum::from(0)
});

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

/// Context, event name and version: the first three arguments.
fn key(call: Call) -> Result<EventKey, sea_mq_contracts::invalid::Invalid> {
    EventKey::new(&call.text(0).unwrap_or_default(), &call.text(1).unwrap_or_default(), call.int4(2).unwrap_or(0))
}
