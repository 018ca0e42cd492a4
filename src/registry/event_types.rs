//! The registry of event types, as a backend reads it: with the rights of the extension's owner, as of now.

use sea_mq_contracts::event_key::EventKey;

use crate::host::door::as_owner;
use crate::host::spi::{self, Arg, TextRow};
use crate::sys::relation::Relation;

/// A registered version.
pub struct Registered {
    /// JSON text.
    pub schema: String,
    pub visibility: String,
    /// It is deprecated, and what was said about that.
    pub deprecated: Option<Option<String>>,
}

/// The version, if it is registered.
pub fn find(key: &EventKey) -> Option<Registered> {
    // Where nobody registers anything, nobody pays for a query.
    if Relation::open("event_types").is_empty() {
        return None;
    }
    let row = one_row(
        "SELECT * FROM sea_mq.find_contract($1, $2, $3::integer)",
        &[Arg::Text(&key.context), Arg::Text(&key.event_type), Arg::Int8(i64::from(key.version))],
    )?;
    Some(Registered {
        schema: spi::parsed(&row, 0),
        visibility: spi::parsed(&row, 1),
        deprecated: spi::flag(&row, 2).then(|| spi::optional(&row, 3)),
    })
}

/// The schema that a `$ref` names by its URI, as JSON text.
pub fn find_schema(uri: &str) -> Option<String> {
    let key = EventKey::from_uri(uri);
    let row = one_row(
        "SELECT sea_mq.find_schema($1, $2, $3, $4::integer)",
        &[
            Arg::Text(uri),
            Arg::OptionalText(key.as_ref().map(|key| key.context.as_str())),
            Arg::OptionalText(key.as_ref().map(|key| key.event_type.as_str())),
            Arg::OptionalInt8(key.as_ref().map(|key| i64::from(key.version))),
        ],
    )?;
    spi::optional(&row, 0)
}

fn one_row(sql: &'static str, args: &[Arg]) -> Option<TextRow> {
    as_owner(|| spi::query(sql, args).into_iter().next())
}
