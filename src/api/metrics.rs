//! The histograms that the workers keep in shared memory.

use pgrx::pg_sys;

use crate::host::latency::{BOUNDS_US, Histogram};
use crate::host::shmem;
use crate::sys::datum::{return_set, sql_function, text_datum};

type Row<'a> = dyn FnMut(&mut [pg_sys::Datum], &mut [bool]) + 'a;

sql_function!(latency_metrics_wrapper, pg_finfo_latency_metrics_wrapper, |call| return_set(call, |row| {
    let Some(database) = shmem::here() else { return };
    rows_of("store", &database.storing, row);
    rows_of("handle", &database.handling, row);
    rows_of("handler", &database.handlers, row);
}));

fn rows_of(name: &str, histogram: &Histogram, row: &mut Row) {
    let counted = histogram.counted();
    for (bound, count) in BOUNDS_US.iter().zip(counted.up_to) {
        row(&mut [text_datum(name), float(*bound as f64 / 1e6), float(count as f64)], &mut [false; 3]);
    }
    row(&mut [text_datum(name), float(f64::INFINITY), float(counted.count as f64)], &mut [false; 3]);
    row(&mut [text_datum(name), float(0.0), float(counted.sum_us as f64 / 1e6)], &mut [false, true, false]);
}

/// PostgreSQL passes a double precision by its bits.
fn float(value: f64) -> pg_sys::Datum {
    pg_sys::Datum::from(value.to_bits().cast_signed())
}
