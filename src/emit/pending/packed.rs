//! Events, packed: one after the other in memory that can be written to a file as it is, and read as rows without being
//! unpacked.
//!
//! ```text
//! length, nulls │ available_at │ created_at │ sink │ version │ id (two words) │ texts … │ length
//! ```
//!
//! Lengths are in words of eight bytes. The texts are `text` values with a header of four bytes, each from a word's start.
//! The length at the end leads to the record's start from behind.

use std::collections::TryReserveError;

use pgrx::pg_sys::{self, Datum};

use crate::log::rows::{Columns, SCHEDULED_COLUMNS};
use sea_mq_model::domain::event::Event;

const WORD: usize = size_of::<u64>();
/// Bytes before a text.
const HEADER: usize = 4;
/// Words before the texts.
const FIXED: usize = 7;
const ID: usize = 5;
const TEXTS: usize = 10;

#[derive(Default)]
pub struct Packed {
    words: Vec<u64>,
    count: usize,
}

/// In the order of the columns of the scheduled events.
fn texts(event: &Event) -> [Option<&str>; TEXTS] {
    [
        Some(&event.context),
        event.subject.as_deref(),
        Some(&event.aggregate_type),
        Some(&event.aggregate_id),
        Some(&event.event_type),
        Some(&event.payload),
        event.headers.as_deref(),
        event.correlation_id.as_deref(),
        event.causation_id.as_deref(),
        Some(&event.visibility),
    ]
}

impl Packed {
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn bytes(&self) -> usize {
        self.words.len() * WORD
    }

    /// # Errors
    /// When there is no memory for it. Nothing has changed then.
    pub fn push(&mut self, event: &Event) -> Result<(), TryReserveError> {
        let texts = texts(event);
        let words = |text: &&str| (HEADER + text.len()).div_ceil(WORD);
        let length = FIXED + texts.iter().flatten().map(words).sum::<usize>() + 1;
        self.words.try_reserve(length)?;
        // From here on nothing fails.
        let nulls = (0..).zip(&texts).filter(|(_, text)| text.is_none()).fold(0, |nulls, (n, _)| nulls | (2 << n));
        let (high, low) = event.id.as_u64_pair();
        self.words.extend([
            ((length as u64) << 32) | nulls | u64::from(event.available_at.is_none()),
            event.available_at.unwrap_or_default().cast_unsigned(),
            event.created_at.cast_unsigned(),
            event.sink.cast_unsigned(),
            i64::from(event.event_version).cast_unsigned(),
            high.to_be(),
            low.to_be(),
        ]);
        for text in texts.iter().flatten() {
            self.push_text(text, words(text));
        }
        self.words.push(length as u64);
        self.count += 1;
        Ok(())
    }

    fn push_text(&mut self, text: &str, words: usize) {
        let start = self.words.len();
        self.words.resize(start + words, 0);
        let length = i32::try_from(HEADER + text.len()).unwrap_or(i32::MAX);
        // SAFETY: the words have room for header and text.
        unsafe {
            let value = self.words.as_mut_ptr().add(start).cast::<u8>();
            pgrx::set_varsize_4b(value.cast(), length);
            std::ptr::copy_nonoverlapping(text.as_ptr(), value.add(HEADER), text.len());
        }
    }

    /// Keeps its memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.count = 0;
    }

    /// Leaves the first `count` events. Takes as long as there are others, and does not fail.
    pub fn truncate(&mut self, count: usize) {
        while self.count > count {
            let length = self.words.last().map_or(0, |length| *length as usize);
            self.words.truncate(self.words.len().saturating_sub(length));
            self.count -= 1;
        }
    }

    pub fn each_row(&self, visitor: &mut dyn FnMut(Columns<SCHEDULED_COLUMNS>)) {
        each_row(&self.words, self.count, visitor);
    }
}

/// How many of the words the first `count` events take.
pub fn length(words: &[u64], count: usize) -> usize {
    (0..count).fold(0, |at, _| at + record_length(words[at]))
}

fn record_length(first_word: u64) -> usize {
    (first_word >> 32) as usize
}

/// Visits the first `count` events that were packed into the words. The columns are valid until the visitor returns.
pub fn each_row(words: &[u64], count: usize, visitor: &mut dyn FnMut(Columns<SCHEDULED_COLUMNS>)) {
    let mut rest = words;
    for _ in 0..count {
        let (record, others) = rest.split_at(record_length(rest[0]));
        visitor(columns(record));
        rest = others;
    }
}

fn columns(record: &[u64]) -> Columns<SCHEDULED_COLUMNS> {
    let nulls = record[0];
    let mut at = FIXED;
    let mut bit = 1;
    let mut text = || {
        bit <<= 1;
        (nulls & bit == 0).then(|| {
            let start = record[at..].as_ptr();
            // SAFETY: a text begins here.
            let bytes = unsafe { pgrx::varsize_any(start.cast::<pg_sys::varlena>()) };
            at += bytes.div_ceil(WORD);
            Datum::from(start.cast_mut())
        })
    };
    [
        (nulls & 1 == 0).then(|| Datum::from(record[1])),
        None,
        Some(Datum::from(record[ID..].as_ptr().cast_mut())),
        Some(Datum::from(record[2])),
        Some(Datum::from(record[3])),
        Some(Datum::from(record[4])),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
        text(),
    ]
}
