//! Memory that processes share for a while: a segment of PostgreSQL's dynamic shared memory.

use pgrx::pg_sys;

/// A segment that this process has mapped. It is gone when the last process that has it lets it go.
pub struct Segment(*mut pg_sys::dsm_segment);

impl Segment {
    /// Makes one. In a transaction: an ERROR if there is no memory for it (`/dev/shm`, as a rule) or no slot.
    pub fn create(size: usize) -> Self {
        // SAFETY: in a transaction, whose end would unmap it if it were not pinned.
        unsafe {
            let segment = pg_sys::dsm_create(size, 0);
            pg_sys::dsm_pin_mapping(segment);
            Self(segment)
        }
    }

    /// Maps another process's. In a transaction. `None`: nobody has it any more. One that this process has mapped already is an
    /// ERROR.
    pub fn attach(handle: u32) -> Option<Self> {
        // SAFETY: as above; null if there is no such segment.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            if segment.is_null() {
                return None;
            }
            pg_sys::dsm_pin_mapping(segment);
            Some(Self(segment))
        }
    }

    /// What other processes map it by.
    pub fn handle(&self) -> u32 {
        // SAFETY: mapped as long as this value lives.
        unsafe { pg_sys::dsm_segment_handle(self.0) }
    }

    pub fn size(&self) -> usize {
        // SAFETY: as above.
        unsafe { pg_sys::dsm_segment_map_length(self.0) }
    }

    /// Writes bytes at a place. `false`: they do not fit. Nobody else may read or write there meanwhile, which those who use
    /// a segment see to.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.size());
        if fits {
            // SAFETY: within what is mapped; the source is another piece of memory.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start().add(at), bytes.len()) }
        }
        fits
    }

    /// Reads so many bytes at a place, or as many as there are. As for `write`.
    pub fn read(&self, at: usize, count: usize) -> Vec<u8> {
        let at = at.min(self.size());
        let count = count.min(self.size() - at);
        let mut bytes = vec![0; count];
        // SAFETY: within what is mapped; the target is another piece of memory.
        unsafe { std::ptr::copy_nonoverlapping(self.start().add(at), bytes.as_mut_ptr(), count) }
        bytes
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: mapped as long as this value lives.
        unsafe { pg_sys::dsm_segment_address(self.0).cast() }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by this value alone.
        unsafe { pg_sys::dsm_detach(self.0) }
    }
}
