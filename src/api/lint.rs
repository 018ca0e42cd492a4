//! Contracts compared, checked as a set, and by the names of their files.

use pgrx::pg_sys;
use sea_mq_contracts::compare::compare;
use sea_mq_contracts::event_key::EventKey;
use sea_mq_contracts::invalid::Invalid;
use sea_mq_contracts::lint::lint;
use sea_mq_contracts::schema;
use sea_mq_contracts::set::{self, ContractSet, Kind};
use serde_json::Value;

use crate::sys::datum::{Call, return_set, sql_function, text_datum};
use crate::sys::error::OrRefuse;

sql_function!(compare_schemas_wrapper, pg_finfo_compare_schemas_wrapper, |call| {
    let (old, new) = (schema(call, 0).or_refuse(), schema(call, 1).or_refuse());
    let differences = compare(&old, &new);
    return_set(call, |row| {
        for one in differences {
            let values = [one.pointer.as_str(), &one.change, one.compatibility.as_str()];
            row(&mut values.map(text_datum), &mut [false; 3]);
        }
    })
});

sql_function!(lint_contracts_wrapper, pg_finfo_lint_contracts_wrapper, |call| {
    let findings = lint(&files(call).or_refuse(), None);
    return_set(call, |row| {
        for one in findings {
            let values = [one.rule, one.severity.as_str(), &one.path, &one.message, &one.hint];
            row(&mut values.map(text_datum), &mut [false; 5]);
        }
    })
});

sql_function!(contract_path_wrapper, pg_finfo_contract_path_wrapper, |call| {
    let uri = call.text(0).unwrap_or_default();
    let event = if call.boolean(1) { None } else { EventKey::from_uri(&uri) };
    text_datum(&event.map_or_else(|| set::definition_path(&uri), |key| key.path()))
});

sql_function!(contract_files_wrapper, pg_finfo_contract_files_wrapper, |call| {
    let files = files(call).or_refuse();
    let kinds: Vec<(&str, Kind)> = files.in_order().into_iter().map(|path| (path, set::kind(path))).collect();
    let misnamed = kinds.iter().find_map(|(path, kind)| match kind {
        Kind::Misnamed(better) => Some((*path, better.as_deref())),
        Kind::Event(_) | Kind::Definition => None,
    });
    if let Some((path, better)) = misnamed {
        Err(no_contract(path, better)).or_refuse()
    }
    return_set(call, |row| {
        for (path, kind) in kinds {
            let (path, uri) = (text_datum(path), text_datum(&set::uri_of(path)));
            let none = pg_sys::Datum::from(0);
            match kind {
                Kind::Event(key) => row(
                    &mut [path, uri, text_datum(&key.context), text_datum(&key.event_type), key.version.into()],
                    &mut [false; 5],
                ),
                Kind::Definition | Kind::Misnamed(_) => {
                    row(&mut [path, uri, none, none, none], &mut [false, false, true, true, true]);
                }
            }
        }
    })
});

fn schema(call: Call, n: usize) -> Result<Value, Invalid> {
    let schema = read(&call.jsonb(n).unwrap_or_default())?;
    schema::check(&schema).map(|()| schema)
}

/// The first argument: an object of schemas by path.
fn files(call: Call) -> Result<ContractSet, Invalid> {
    let mut files = ContractSet::default();
    let Value::Object(members) = read(&call.jsonb(0).unwrap_or_default())? else {
        return Err(Invalid::value("files must be an object of schemas", "Its keys are paths below schemas/events."));
    };
    for (path, schema) in members {
        if !set::is_schema_path(&path) {
            return Err(no_contract(&path, None));
        }
        files.schemas.insert(path, schema);
    }
    Ok(files)
}

fn no_contract(path: &str, better: Option<&str>) -> Invalid {
    let grammar = "Use {context}/{name}.v{version}.schema.json for an event, any other *.schema.json for a definition.";
    let hint = better.map_or_else(|| grammar.to_owned(), |better| format!("Name it {better}."));
    Invalid::value(format!("\"{path}\" names no contract"), hint)
}

fn read(json: &str) -> Result<Value, Invalid> {
    serde_json::from_str(json).map_err(|error| {
        Invalid::value(
            format!("the schema cannot be read: {error}"),
            "It may be 128 levels deep, and its numbers as large as double precision allows.",
        )
    })
}
