//! What an SQLSTATE means over HTTP. One table, and it answers for each of them.

use std::time::Duration;

/// What is done about an error of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The request is not acceptable as it is (422).
    Unprocessable,
    /// What the request names is not there: 404 if the path names it, else 422.
    Missing,
    /// It is in conflict with what is there (409).
    Conflict,
    /// The role may not (403).
    Forbidden,
    /// It is too large (413).
    TooLarge,
    /// Later it may work (503 with Retry-After).
    Later(Duration),
    /// Others were in the way: once more at once, then as `Later`.
    Again,
    /// It took too long (504).
    Timeout,
    /// The database's fault or ours (500); the text stands in the log only.
    Internal,
}

const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(5);

/// The table. What is not named falls to the last line.
pub fn meaning(sqlstate: &str) -> Meaning {
    match sqlstate {
        // null_value_not_allowed, invalid_parameter_value, check_violation, invalid_function_definition, feature_not_supported
        "22004" | "22023" | "23514" | "42P13" | "0A000" => Meaning::Unprocessable,
        // What the text of a parameter cannot be read as: numbers, times, uuids, JSON, names of functions.
        "22P02" | "22007" | "22008" | "22003" | "22030" | "22032" | "22P05" | "22021" | "42883" | "42725" | "42602"
        | "23502" | "22026" | "22001" => Meaning::Unprocessable,
        // undefined_object, undefined_table
        "42704" => Meaning::Missing,
        // unique_violation, duplicate_object, object_not_in_prerequisite_state, object_in_use, dependent_objects_still_exist
        "23505" | "42710" | "55000" | "55006" | "2BP01" | "23503" => Meaning::Conflict,
        "42501" => Meaning::Forbidden,
        // program_limit_exceeded, statement_too_complex
        "54000" | "54001" => Meaning::TooLarge,
        // configuration_limit_exceeded, read_only_sql_transaction, too_many_connections, lock_not_available
        "53400" | "53300" | "25006" => Meaning::Later(LATER),
        "55P03" => Meaning::Later(SOON),
        "40001" | "40P01" => Meaning::Again,
        "57014" => Meaning::Timeout,
        state if state.starts_with("08") || state.starts_with("57P") || state.starts_with("53") => {
            Meaning::Later(LATER)
        }
        _ => Meaning::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_documented_table_means_what_it_says() {
        let table = [
            ("22004 22023 23514 42P13 0A000", Meaning::Unprocessable),
            ("42704", Meaning::Missing),
            ("23505 42710 55000 55006 2BP01", Meaning::Conflict),
            ("42501", Meaning::Forbidden),
            ("54000", Meaning::TooLarge),
            ("53400 25006 53300 08000 08003 08006 57P01 57P02 57P03", Meaning::Later(LATER)),
            ("55P03", Meaning::Later(SOON)),
            ("40001 40P01", Meaning::Again),
            ("57014", Meaning::Timeout),
            ("XX000 XX001 42601 42P01 P0001 F0000 58030", Meaning::Internal),
        ];
        for (states, expected) in table {
            for state in states.split(' ') {
                assert_eq!(meaning(state), expected, "{state}");
            }
        }
    }
}
