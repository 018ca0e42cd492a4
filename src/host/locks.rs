//! Our advisory locks.

use pgrx::pg_sys;

/// Our classes in the lock space of advisory locks; SQL functions use 1 and 2, so nobody else's locks are met.
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum LockClass {
    /// One event id.
    EventId = 0x5EA0,
    /// All event ids: shared by those who lock some, exclusive for those who would have to lock too many.
    AllEventIds = 0x5EA1,
    /// The description of one stream.
    Stream = 0x5EA2,
    /// What sessions ask of the relay, one at a time.
    Inquiry = 0x5EA3,
}

/// A lock of the current database.
pub fn lock_tag(key1: u32, key2: u32, class: LockClass) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: read by the main thread, constant in a process.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: key1,
        locktag_field3: key2,
        locktag_field4: class as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}
