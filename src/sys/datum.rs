//! Values between SQL and Rust, without detours: JSON travels as the text that `jsonb_out` gives.

use std::ffi::CStr;

use pgrx::{fcinfo, pg_sys};
use uuid::Uuid;

/// A call of one of our functions.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` is that of the call being executed.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self(fcinfo)
    }

    pub fn info(self) -> pg_sys::FunctionCallInfo {
        self.0
    }

    /// Returns NULL.
    pub fn null(self) -> pg_sys::Datum {
        // SAFETY: the call is being executed.
        unsafe { (*self.0).isnull = true };
        pg_sys::Datum::from(0)
    }

    /// What the call is about if it is a trigger's.
    pub fn trigger<'a>(self) -> Option<&'a pg_sys::TriggerData> {
        // SAFETY: the call is being executed; as CALLED_AS_TRIGGER.
        unsafe {
            let context = (*self.0).context;
            let is_trigger = !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData;
            is_trigger.then(|| &*context.cast::<pg_sys::TriggerData>())
        }
    }

    fn datum(self, n: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the call is being executed, and the SQL declaration fixes the number of arguments.
        unsafe { fcinfo::pg_getarg_datum(self.0, n) }
    }

    pub fn text(self, n: usize) -> Option<String> {
        // SAFETY: the SQL declaration gives the argument the type text.
        self.datum(n).map(|datum| unsafe { text(datum) })
    }

    /// A `jsonb` argument as text.
    pub fn jsonb(self, n: usize) -> Option<String> {
        // SAFETY: the SQL declaration gives the argument the type jsonb.
        self.datum(n).map(|datum| unsafe { jsonb_text(datum) })
    }

    /// A `sea_mq.json_text` argument as `jsonb` would write it; an error for text that is not JSON.
    pub fn json(self, n: usize) -> Option<String> {
        // SAFETY: the value was just made.
        self.text(n).map(|json| unsafe { jsonb_text(jsonb_datum(&json)) })
    }

    /// An argument of any type that is written in one way alone, as text; otherwise the name of its type.
    pub fn written(self, n: usize) -> Result<Option<String>, String> {
        // SAFETY: the call is being executed; what the output function gives is a C string.
        unsafe {
            let given = pg_sys::get_fn_expr_argtype((*self.0).flinfo, i32::try_from(n).unwrap_or(0));
            let base = pg_sys::getBaseType(given);
            let is_plain = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID, pg_sys::UUIDOID]
                .contains(&base)
                || pg_sys::type_is_enum(base);
            if !is_plain {
                return Err(CStr::from_ptr(pg_sys::format_type_be(given)).to_string_lossy().into_owned());
            }
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(base, &raw mut output, &raw mut is_varlena);
            let written =
                |datum| CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, datum)).to_string_lossy().into_owned();
            Ok(self.datum(n).map(written))
        }
    }

    pub fn bytea(self, n: usize) -> Option<Vec<u8>> {
        // SAFETY: the SQL declaration gives the argument the type bytea; the copy is freed with the call's memory.
        self.datum(n).map(|datum| unsafe {
            pgrx::varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())).to_vec()
        })
    }

    /// A `boolean` argument; false for NULL.
    pub fn boolean(self, n: usize) -> bool {
        self.datum(n).is_some_and(|datum| datum.value() != 0)
    }

    pub fn int4(self, n: usize) -> Option<i32> {
        self.datum(n).map(|datum| datum.value() as i32)
    }

    pub fn int8(self, n: usize) -> Option<i64> {
        self.datum(n).map(|datum| datum.value() as i64)
    }

    pub fn oid(self, n: usize) -> Option<pg_sys::Oid> {
        self.datum(n).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    /// A `timestamptz` argument: microseconds since 2000-01-01 UTC.
    pub fn timestamp(self, n: usize) -> Option<i64> {
        self.datum(n).map(|datum| datum.value() as i64)
    }

    pub fn uuid(self, n: usize) -> Option<Uuid> {
        // SAFETY: the SQL declaration gives the argument the type uuid.
        self.datum(n).map(|datum| unsafe { uuid(datum) })
    }

    /// A `jsonb[]` argument as texts; `None` for a NULL array, inner `None` for a NULL element.
    pub fn jsonb_array(self, n: usize) -> Option<Vec<Option<String>>> {
        // SAFETY: the SQL declaration gives the argument the type jsonb[]; the array is copied by detoasting if need be.
        self.datum(n).map(|datum| unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (mut datums, mut nulls, mut length) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                pg_sys::JSONBOID,
                -1,
                false,
                pg_sys::TYPALIGN_INT as _,
                &mut datums,
                &mut nulls,
                &mut length,
            );
            let length = usize::try_from(length).unwrap_or(0);
            (0..length).map(|i| (!*nulls.add(i)).then(|| jsonb_text(*datums.add(i)))).collect()
        })
    }
}

/// Bytes of a varlena value, detoasted, as UTF-8 (which the extension requires of the database).
///
/// # Safety
/// `datum` is a non-null value of type `text` or `json`.
pub unsafe fn text(datum: pg_sys::Datum) -> String {
    unsafe {
        let original = datum.cast_mut_ptr::<pg_sys::varlena>();
        let varlena = pg_sys::pg_detoast_datum_packed(original);
        let value = String::from_utf8_lossy(pgrx::varlena_to_byte_slice(varlena)).into_owned();
        if varlena != original {
            pg_sys::pfree(varlena.cast());
        }
        value
    }
}

/// What `jsonb_out` gives.
///
/// # Safety
/// `datum` is a non-null value of type `jsonb`.
pub unsafe fn jsonb_text(datum: pg_sys::Datum) -> String {
    unsafe {
        let original = datum.cast_mut_ptr::<pg_sys::varlena>();
        let varlena = pg_sys::pg_detoast_datum(original);
        let jsonb = varlena.cast::<pg_sys::Jsonb>();
        let size = i32::try_from(pgrx::varsize_any(varlena)).unwrap_or(i32::MAX);
        let out = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*jsonb).root, size);
        let value = CStr::from_ptr(out).to_string_lossy().into_owned();
        pg_sys::pfree(out.cast());
        if varlena != original {
            pg_sys::pfree(varlena.cast());
        }
        value
    }
}

/// # Safety
/// `datum` is a non-null value of type `uuid`.
pub unsafe fn uuid(datum: pg_sys::Datum) -> Uuid {
    unsafe { Uuid::from_bytes(*datum.cast_mut_ptr::<[u8; 16]>()) }
}

/// A `uuid` value in the current memory context.
pub fn uuid_datum(uuid: Uuid) -> pg_sys::Datum {
    // SAFETY: sixteen bytes are allocated and written.
    unsafe {
        let bytes = pg_sys::palloc(16).cast::<[u8; 16]>();
        *bytes = uuid.into_bytes();
        pg_sys::Datum::from(bytes)
    }
}

/// A `text` or `json` value in the current memory context.
pub fn text_datum(value: &str) -> pg_sys::Datum {
    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and length are those of a valid slice.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(value.as_ptr().cast(), length)) }
}

/// A `bytea` value in the current memory context.
pub fn bytea_datum(value: &[u8]) -> pg_sys::Datum {
    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and length are those of a valid slice; text and bytea are laid out alike.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(value.as_ptr().cast(), length)) }
}

/// A `text[]` argument without its NULLs.
pub fn text_array(call: Call, n: usize) -> Vec<String> {
    // SAFETY: the SQL declaration gives the argument the type text[]; the array is copied by detoasting if need be.
    let values = call.datum(n).map(|datum| unsafe {
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut datums, mut nulls, mut length) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        let align = pg_sys::TYPALIGN_INT as _;
        pg_sys::deconstruct_array(array, pg_sys::TEXTOID, -1, false, align, &mut datums, &mut nulls, &mut length);
        let length = usize::try_from(length).unwrap_or(0);
        (0..length).filter(|i| !*nulls.add(*i)).map(|i| text(*datums.add(i))).collect()
    });
    values.unwrap_or_default()
}

/// A `text[]` value in the current memory context.
pub fn text_array_datum(values: &[String]) -> pg_sys::Datum {
    let mut datums: Vec<pg_sys::Datum> = values.iter().map(|value| text_datum(value)).collect();
    let length = i32::try_from(datums.len()).unwrap_or(i32::MAX);
    // SAFETY: the datums are texts, and the alignment is that of text.
    unsafe {
        let align = pg_sys::TYPALIGN_INT as _;
        let array = pg_sys::construct_array(datums.as_mut_ptr(), length, pg_sys::TEXTOID, -1, false, align);
        pg_sys::Datum::from(array)
    }
}

/// A `text` value or NULL, as a pair of value and whether it is NULL.
pub fn nullable_text(value: Option<&str>) -> (pg_sys::Datum, bool) {
    (value.map_or(pg_sys::Datum::from(0), text_datum), value.is_none())
}

/// A `jsonb` value in the current memory context; an error for text that is not JSON.
pub fn jsonb_datum(json: &str) -> pg_sys::Datum {
    let Ok(text) = std::ffi::CString::new(json) else { return text_datum("null") };
    // SAFETY: jsonb_in takes a C string.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(text.as_ptr()))]) }
        .unwrap_or_else(|| pg_sys::Datum::from(0))
}

/// Declares a function that SQL calls: `sql_function!(name, |call| -> Datum)` gives the symbol `name_wrapper`.
/// The SQL declaration in `sql/` names it.
macro_rules! sql_function {
    ($wrapper:ident, $finfo:ident, $body:expr) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const VERSION_1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &VERSION_1
        }

        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub unsafe extern "C-unwind" fn $wrapper(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            #[pgrx::pg_guard]
            unsafe extern "C-unwind" fn guarded(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
                // SAFETY: PostgreSQL passes the call being executed.
                let call = unsafe { $crate::sys::datum::Call::new(fcinfo) };
                $crate::sys::passage::run(call, $body)
            }
            // SAFETY: a plain frame, called by PostgreSQL.
            unsafe {
                let value = guarded(fcinfo);
                $crate::sys::passage::raise_noted();
                value
            }
        }
    };
}
pub(crate) use sql_function;

/// Returns a set: `rows` are stored and handed to the executor at once.
pub fn return_set(call: Call, rows: impl FnOnce(&mut dyn FnMut(&mut [pg_sys::Datum], &mut [bool]))) -> pg_sys::Datum {
    // SAFETY: the protocol of set-returning functions in materialize mode (src/backend/utils/fmgr/README): the tuple store
    // lives in the per-query memory context, and the executor takes it over.
    unsafe {
        let info = call.info();
        let result = (*info).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let allowed = !result.is_null()
            && (*result).type_ == pg_sys::NodeTag::T_ReturnSetInfo
            && ((*result).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize as i32) != 0;
        if !allowed {
            super::error::raise(
                pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "the set cannot be returned here",
                "Call the function in FROM or in a SELECT list.",
            );
        }
        let caller = pg_sys::MemoryContextSwitchTo((*(*result).econtext).ecxt_per_query_memory);
        let descriptor = pg_sys::CreateTupleDescCopy((*result).expectedDesc);
        let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
        pg_sys::MemoryContextSwitchTo(caller);
        (*result).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
        (*result).setResult = store;
        (*result).setDesc = descriptor;
        rows(&mut |values, nulls| {
            pg_sys::tuplestore_putvalues(store, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        });
        (*info).isnull = true;
        pg_sys::Datum::from(0)
    }
}
