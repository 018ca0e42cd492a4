//! A temporary file of the transaction.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::sys::error::raise;
use crate::sys::versions;

const WAIT_READ: u32 = pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_READ;
const WAIT_WRITE: u32 = pg_sys::WaitEventIO::WAIT_EVENT_BUFFILE_WRITE;

/// A file in the tablespaces of `temp_tablespaces`, which counts towards `temp_file_limit`. What is written says where, and
/// there is no buffer: a write that fails leaves all before it as it was, and the next one goes to the same place.
///
/// The transaction's abort closes and removes it.
pub struct TempFile(pg_sys::File);

/// As long as it lives, what is opened belongs to the top-level transaction.
struct TopOwner(pg_sys::ResourceOwner);

impl TopOwner {
    fn begin() -> Self {
        // SAFETY: in a transaction; put back on drop, also if an ERROR passes.
        unsafe {
            let before = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            Self(before)
        }
    }
}

impl Drop for TopOwner {
    fn drop(&mut self) {
        // SAFETY: the owner that was the current one.
        unsafe { pg_sys::CurrentResourceOwner = self.0 }
    }
}

impl TempFile {
    pub fn create() -> Self {
        // SAFETY: in a transaction. The catalog is read before the owner changes.
        unsafe {
            pg_sys::PrepareTempTablespaces();
            let _owner = TopOwner::begin();
            Self(pg_sys::OpenTemporaryFile(false))
        }
    }

    /// `at`: in words, as all lengths here.
    pub fn write(&self, at: usize, words: &[u64]) {
        // SAFETY: the bytes of the words.
        let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) };
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            // SAFETY: the file is open, and the buffer as long as it says.
            let written = unsafe { versions::write_file(self.0, rest, offset(at, done), WAIT_WRITE) };
            match usize::try_from(written) {
                Ok(count) if count > 0 => done += count,
                _ => failed("write to"),
            }
        }
    }

    /// Fills `words` with what was written at `at`.
    pub fn read(&self, at: usize, words: &mut [u64]) {
        let length = size_of_val(words);
        // SAFETY: the bytes of the words, of which all values are valid.
        let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), length) };
        let mut done = 0;
        while done < length {
            let rest = &mut bytes[done..];
            // SAFETY: as in `write`.
            let read = unsafe { versions::read_file(self.0, rest, offset(at, done), WAIT_READ) };
            match usize::try_from(read) {
                Ok(count) if count > 0 => done += count,
                _ => failed("read from"),
            }
        }
    }

    /// Before the transaction commits: PostgreSQL complains about files that it has to close itself.
    pub fn close(self) {
        // SAFETY: the file is open and is not used again.
        unsafe { pg_sys::FileClose(self.0) }
    }
}

fn offset(words: usize, bytes: usize) -> i64 {
    i64::try_from(words * size_of::<u64>() + bytes).unwrap_or(i64::MAX)
}

/// To be called before anything else can set `errno`.
fn failed(what: &str) -> ! {
    let error = std::io::Error::last_os_error();
    let code = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    raise(
        code,
        format!("could not {what} the temporary file in which the transaction's events wait: {error}"),
        "Give the tablespaces of temp_tablespaces room, raise work_mem, or emit less in one transaction.",
    )
}
