//! Whose rows a role may see in the events that the transaction will send: of a captured table, who may read the table.

use std::collections::HashSet;

use pgrx::pg_sys;

use crate::host::door::as_owner;
use crate::host::spi;
use sea_mq_model::domain::event::Event;

/// Event types, with their contexts.
pub type Types = HashSet<(String, String)>;

/// The types of events about tables that the role in force may not read. A type belongs to one table. What is captured of a
/// table does not change while a transaction that has written to it is open.
pub fn unreadable() -> Types {
    const SQL: &str = r#"SELECT c."table"::oid::bigint, c.context, e.value FROM sea_mq.captures c, jsonb_each_text(c.events) e
        WHERE e.value IS NOT NULL"#;
    let rows = as_owner(|| spi::query(SQL, &[]));
    let hidden = rows.into_iter().filter_map(|row| {
        let table: u32 = spi::optional(&row, 0)?;
        let mut names = row.into_iter().skip(1);
        let name = (names.next()??, names.next()??);
        (!may_read(table.into())).then_some(name)
    });
    hidden.collect()
}

pub fn is_one_of(types: &Types, event: &Event) -> bool {
    !types.is_empty() && types.contains(&(event.context.clone(), event.event_type.clone()))
}

/// Whether the role in force may read all rows of a table.
fn may_read(table: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in a transaction; of a table that is gone there is nothing to read.
    unsafe {
        if pg_sys::get_rel_relkind(table) == 0 {
            return false;
        }
        let user = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(table, user, pg_sys::ACL_SELECT as _) == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}
