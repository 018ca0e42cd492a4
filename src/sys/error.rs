//! Errors as PostgreSQL reports them: SQLSTATE, message, hint.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use sea_mq_contracts::invalid::{Invalid, InvalidKind};

/// The SQLSTATE of a refused value (PostgreSQL documentation, appendix A).
fn sqlstate(kind: InvalidKind) -> PgSqlErrorCode {
    match kind {
        InvalidKind::Missing => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        InvalidKind::Value => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        InvalidKind::TooLarge => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        InvalidKind::Reused => PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        InvalidKind::Unknown => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        InvalidKind::Broken => PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
    }
}

/// Raises an ERROR. Does not return; control leaves by unwinding to the nearest guard.
pub fn raise(code: PgSqlErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ! {
    ErrorReport::new(code, message.into(), "sea_mq").set_hint(hint.into()).report(PgLogLevel::ERROR);
    unreachable!("an ERROR was raised")
}

/// Raises a refused value as an ERROR.
pub fn refuse(invalid: Invalid) -> ! {
    report(invalid, PgLogLevel::ERROR);
    unreachable!("an ERROR was raised")
}

/// Reports a refused value. At the level of an ERROR, control leaves by unwinding to the nearest guard.
pub fn report(invalid: Invalid, level: PgLogLevel) {
    let report = ErrorReport::new(sqlstate(invalid.kind), invalid.message, "sea_mq").set_hint(invalid.hint);
    match invalid.detail {
        Some(detail) => report.set_detail(detail).report(level),
        None => report.report(level),
    }
}

/// The value, or its refusal raised as an ERROR.
pub trait OrRefuse<T> {
    fn or_refuse(self) -> T;
}

impl<T> OrRefuse<T> for Result<T, Invalid> {
    fn or_refuse(self) -> T {
        self.unwrap_or_else(|invalid| refuse(invalid))
    }
}
