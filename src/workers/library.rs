//! Whether the library and the SQL of the database are of one version, for the server's log; `sea_mq.problems` says it in the database.

use pgrx::warning;

use crate::host::session;
use crate::host::spi;

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// Said once by each relay, for all workers of the database. That a restart is to be followed by an update is easily forgotten,
/// and an older library may fail in ways that do not show why.
pub fn say_if_it_differs() {
    let found = session::transaction(|| {
        let sql = "SELECT extversion, current_database() FROM pg_catalog.pg_extension WHERE extname = 'sea_mq'";
        spi::query(sql, &[]).first().map(|row| (spi::parsed::<String>(row, 0), spi::parsed::<String>(row, 1)))
    });
    let Ok(Some((script, database))) = found else { return };
    if let Some(remedy) = remedy(LIBRARY, &script) {
        warning!(
            "sea_mq relay: the library is version {LIBRARY} and the SQL of database {database} {script}: {remedy}"
        );
    }
}

fn remedy(library: &str, script: &str) -> Option<String> {
    match numbers(library).cmp(&numbers(script)) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Less => Some(format!("install version {script} of the library and restart the server")),
        std::cmp::Ordering::Greater => Some("ALTER EXTENSION sea_mq UPDATE; there".into()),
    }
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(remedy("0.2.0", "0.2.0"), None);
        assert!(remedy("0.9.0", "0.10.0").is_some_and(|it| it.contains("install version 0.10.0")));
        assert!(remedy("0.10.0", "0.9.0").is_some_and(|it| it.contains("UPDATE")));
    }
}
