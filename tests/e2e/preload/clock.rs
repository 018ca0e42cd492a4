//! Loaded into a server before libc (`LD_PRELOAD`), this adds to the wall clock what a file says: eight bytes, a signed
//! number of microseconds. The file is mapped, so whoever writes to it sets the clock of all processes at once.
//!
//! No standard library: its code would run in every process of the server.

#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

#[repr(C)]
pub struct Time {
    seconds: i64,
    /// Micro- or nanoseconds.
    fraction: i64,
}

#[link(name = "c")]
unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn mmap(at: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void;
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;
const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;
const READ: c_int = 1;
const SHARED: c_int = 1;

static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());
static NONE: AtomicI64 = AtomicI64::new(0);

/// Microseconds to add.
fn offset() -> i64 {
    let mut offset = OFFSET.load(Ordering::Acquire);
    if offset.is_null() {
        // SAFETY: as their manuals want it; the mapping is never undone, and who maps it twice has it twice.
        let mapped = unsafe {
            let path = getenv(c"SEA_MQ_TEST_CLOCK".as_ptr());
            let file = if path.is_null() { -1 } else { open(path, 0) };
            if file < 0 { null_mut() } else { mmap(null_mut(), 8, READ, SHARED, file, 0) }
        };
        let failed = mapped.is_null() || mapped as isize == -1;
        offset = if failed { (&raw const NONE).cast_mut() } else { mapped.cast() };
        OFFSET.store(offset, Ordering::Release);
    }
    // SAFETY: NONE or the mapping, which is aligned to a page.
    unsafe { (*offset).load(Ordering::Relaxed) }
}

/// # Safety
/// As the manual of `clock_gettime` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Time) -> c_int {
    // SAFETY: the caller's.
    let result = unsafe { syscall(CLOCK_GETTIME, clock, time) } as c_int;
    if result == 0 && (clock == REALTIME || clock == REALTIME_COARSE) {
        // SAFETY: it was just written.
        let time = unsafe { &mut *time };
        let micros = time.seconds * 1_000_000 + time.fraction / 1000 + offset();
        let nanos = micros.rem_euclid(1_000_000) * 1000 + time.fraction % 1000;
        *time = Time { seconds: micros.div_euclid(1_000_000), fraction: nanos };
    }
    result
}

/// # Safety
/// As the manual of `gettimeofday` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Time, _zone: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    let result = unsafe { clock_gettime(REALTIME, time) };
    if result == 0 {
        // SAFETY: it was just written.
        unsafe { (*time).fraction /= 1000 };
    }
    result
}

/// # Safety
/// As the manual of `time` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(result: *mut i64) -> i64 {
    let mut now = Time { seconds: 0, fraction: 0 };
    // SAFETY: `now` is there to be written to.
    unsafe { clock_gettime(REALTIME, &raw mut now) };
    if !result.is_null() {
        // SAFETY: the caller's.
        unsafe { *result = now.seconds };
    }
    now.seconds
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
