//! Values as JSON, as `to_json` writes them, but the same whatever the session's settings.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::sys::datum::{jsonb_text, text};
use sea_mq_model::domain::capture::{push_json, push_string};

/// How the values of a column are written.
pub enum Codec {
    Bool,
    Int2,
    Int4,
    Int8,
    Text,
    Uuid,
    Bytes,
    Json,
    Jsonb,
    /// `date`, `timestamp`, `timestamptz`.
    Time(pg_sys::Oid),
    /// What the type's output function gives, which is a number unless it begins with a letter: NaN, Infinity.
    Number(Box<pg_sys::FmgrInfo>),
    /// `to_json`.
    Other(Box<pg_sys::FmgrInfo>),
}

impl Codec {
    /// # Safety
    /// `type_oid` is the OID of a type. What is allocated lives in the current memory context.
    pub unsafe fn of(type_oid: pg_sys::Oid) -> Self {
        // SAFETY: as the caller's.
        let base = unsafe { pg_sys::getBaseType(type_oid) };
        match base {
            pg_sys::BOOLOID => Self::Bool,
            pg_sys::INT2OID => Self::Int2,
            pg_sys::INT4OID => Self::Int4,
            pg_sys::INT8OID => Self::Int8,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Self::Text,
            pg_sys::UUIDOID => Self::Uuid,
            pg_sys::BYTEAOID => Self::Bytes,
            pg_sys::JSONOID => Self::Json,
            pg_sys::JSONBOID => Self::Jsonb,
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Self::Time(base),
            pg_sys::NUMERICOID => Self::Number(function(pg_sys::F_NUMERIC_OUT)),
            pg_sys::FLOAT4OID => Self::Number(function(pg_sys::F_FLOAT4OUT)),
            pg_sys::FLOAT8OID => Self::Number(function(pg_sys::F_FLOAT8OUT)),
            _ => Self::Other(to_json(type_oid)),
        }
    }

    /// Whether what is written depends on settings of the session.
    pub fn follows_settings(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Other(_))
    }

    /// Whether a function of the type's owner may run: a cast to `json`.
    pub fn runs_casts(&self) -> bool {
        matches!(self, Self::Other(_))
    }

    /// Appends a value.
    ///
    /// # Safety
    /// `datum` is a non-null value of the codec's type. What is allocated on the way is the current memory context's.
    pub unsafe fn push(&mut self, json: &mut String, datum: pg_sys::Datum) {
        // SAFETY: the codec was chosen by the type.
        unsafe {
            match self {
                Self::Bool => json.push_str(if datum.value() & 1 == 1 { "true" } else { "false" }),
                Self::Int2 => push_display(json, datum.value() as i16),
                Self::Int4 => push_display(json, datum.value() as i32),
                Self::Int8 => push_display(json, datum.value() as i64),
                Self::Text => with_text(datum, |value| push_string(json, value)),
                Self::Uuid => push_string(json, &crate::sys::datum::uuid(datum).to_string()),
                Self::Bytes => push_bytes(json, datum),
                Self::Json => push_json(json, &text(datum)),
                Self::Jsonb => json.push_str(&jsonb_text(datum)),
                Self::Time(type_oid) => push_time(json, datum, *type_oid),
                Self::Number(output) => {
                    let value = pg_sys::OutputFunctionCall(&raw mut **output, datum);
                    let value = CStr::from_ptr(value).to_string_lossy();
                    if value.bytes().any(|byte| byte.is_ascii_alphabetic() && byte != b'e') {
                        push_string(json, &value);
                    } else {
                        json.push_str(&value);
                    }
                }
                Self::Other(to_json) => {
                    let value = pg_sys::FunctionCall1Coll(&raw mut **to_json, pg_sys::InvalidOid, datum);
                    with_text(value, |value| push_json(json, value));
                }
            }
        }
    }
}

fn push_display(json: &mut String, value: impl std::fmt::Display) {
    use std::fmt::Write;
    let _ = write!(json, "{value}");
}

fn function(oid: u32) -> Box<pg_sys::FmgrInfo> {
    let mut info = Box::<pg_sys::FmgrInfo>::default();
    // SAFETY: the built-in function exists.
    unsafe { pg_sys::fmgr_info(pg_sys::Oid::from(oid), &raw mut *info) };
    info
}

/// `to_json` asks the call's expression for the type of its argument.
fn to_json(type_oid: pg_sys::Oid) -> Box<pg_sys::FmgrInfo> {
    let mut info = function(pg_sys::F_TO_JSON);
    // SAFETY: nodes in the current memory context, which is the function's.
    unsafe {
        let argument = pg_sys::makeNullConst(type_oid, -1, pg_sys::InvalidOid);
        let call = pg_sys::makeFuncExpr(
            pg_sys::Oid::from(pg_sys::F_TO_JSON),
            pg_sys::JSONOID,
            pg_sys::lappend(std::ptr::null_mut(), argument.cast()),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        info.fn_expr = call.cast();
    }
    info
}

/// # Safety
/// `datum` is a non-null value that is stored like `text`.
unsafe fn with_bytes<T>(datum: pg_sys::Datum, f: impl FnOnce(&[u8]) -> T) -> T {
    // SAFETY: as the caller's; a copy that detoasting makes is the current memory context's.
    unsafe {
        let value = datum.cast_mut_ptr::<pg_sys::varlena>();
        let plain = pgrx::varatt_is_4b_u(value) || (pgrx::varatt_is_1b(value) && !pgrx::varatt_is_1b_e(value));
        let value = if plain { value } else { pg_sys::pg_detoast_datum_packed(value) };
        f(pgrx::varlena_to_byte_slice(value))
    }
}

/// # Safety
/// As `with_bytes`.
unsafe fn with_text<T>(datum: pg_sys::Datum, f: impl FnOnce(&str) -> T) -> T {
    // SAFETY: as the caller's.
    unsafe { with_bytes(datum, |bytes| f(&String::from_utf8_lossy(bytes))) }
}

/// # Safety
/// `datum` is a `bytea`.
unsafe fn push_bytes(json: &mut String, datum: pg_sys::Datum) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // SAFETY: as the caller's.
    unsafe {
        with_bytes(datum, |bytes| {
            json.push_str("\"\\\\x");
            for byte in bytes {
                json.push(char::from(DIGITS[usize::from(byte >> 4)]));
                json.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
            json.push('"');
        });
    }
}

/// # Safety
/// `datum` has the type, which is one of dates and times.
unsafe fn push_time(json: &mut String, datum: pg_sys::Datum, type_oid: pg_sys::Oid) {
    const UTC: i32 = 0;
    let mut buffer = [0; pg_sys::MAXDATELEN as usize + 1];
    // SAFETY: the buffer has the size that the function asks for; it ends what it writes with NUL.
    unsafe {
        pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), datum, type_oid, &UTC);
        push_string(json, &CStr::from_ptr(buffer.as_ptr()).to_string_lossy());
    }
}

/// Whether two values are stored with the same bytes; `false` says nothing.
///
/// # Safety
/// Both are non-null values of a type with that length.
pub unsafe fn same(old: pg_sys::Datum, new: pg_sys::Datum, length: i16, by_value: bool) -> bool {
    // SAFETY: as the caller's.
    unsafe {
        let bytes = |datum: pg_sys::Datum| {
            let start = datum.cast_mut_ptr::<u8>();
            let length = match length {
                -1 => pgrx::varsize_any(start.cast()),
                -2 => CStr::from_ptr(start.cast()).count_bytes(),
                fixed => usize::try_from(fixed).unwrap_or(0),
            };
            std::slice::from_raw_parts(start, length)
        };
        old.value() == new.value() || (!by_value && bytes(old) == bytes(new))
    }
}
