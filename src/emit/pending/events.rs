//! Where the events of a transaction wait: as they are while they are few, then packed in memory, then in a temporary file.
//!
//! Whatever can fail, fails before anything has changed: a piece of events leaves the memory only when all of it is in the
//! file. So an ERROR in between, say of a full disk, costs what its own savepoint had added, and nothing else.

use std::borrow::Cow;

use pgrx::{PgSqlErrorCode, pg_sys};

use super::file::TempFile;
use super::packed::{self, Packed};
use crate::log::rows::{self, Columns, SCHEDULED_COLUMNS};
use crate::sys::error::raise;
use sea_mq_model::domain::event::Event;

/// Bytes and events that are kept as they are.
const LOOSE_BYTES: usize = 1 << 20;
const LOOSE_EVENTS: usize = 1 << 12;
/// Bytes of a piece of packed events, if no single event is longer.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Default)]
pub struct Events {
    /// Empty where others are packed.
    loose: Vec<Event>,
    loose_bytes: usize,
    /// Full pieces, in order.
    pieces: Vec<Piece>,
    in_pieces: usize,
    /// The events after them.
    open: Packed,
    /// Bytes of the pieces that are in memory.
    memory: usize,
    file: Option<TempFile>,
    /// Words of the file that pieces take.
    file_end: usize,
}

enum Piece {
    InMemory(Packed),
    InFile {
        /// Place in the file and length, in words.
        at: usize,
        length: usize,
        /// Events of it that were not rolled back: the first ones.
        count: usize,
        /// There are others, which take up room.
        is_torn: bool,
    },
}

impl Piece {
    fn count(&self) -> usize {
        match self {
            Self::InMemory(packed) => packed.count(),
            Self::InFile { count, .. } => *count,
        }
    }
}

impl Events {
    pub fn length(&self) -> usize {
        self.loose.len() + self.in_pieces + self.open.count()
    }

    /// Adds an event, or raises an ERROR and has not changed.
    pub fn push(&mut self, event: Cow<'_, Event>) {
        if self.loose_bytes > LOOSE_BYTES || self.loose.len() > LOOSE_EVENTS {
            self.pack();
        }
        if self.pieces.is_empty() && self.open.count() == 0 {
            self.loose_bytes += event.bytes();
            self.loose.push(event.into_owned());
            return;
        }
        if self.open.bytes() > PIECE_BYTES {
            self.end_piece();
        }
        or_no_memory(self.open.push(&event));
    }

    fn pack(&mut self) {
        let mut packed = Packed::default();
        self.loose.iter().for_each(|event| or_no_memory(packed.push(event)));
        self.open = packed;
        (self.loose, self.loose_bytes) = (Vec::new(), 0);
    }

    /// Puts the open piece away, in memory as far as `work_mem` goes.
    fn end_piece(&mut self) {
        or_no_memory(self.pieces.try_reserve(1));
        // SAFETY: a setting, read by the main thread.
        let most = usize::try_from(unsafe { pg_sys::work_mem }).unwrap_or(0) << 10;
        let count = self.open.count();
        let piece = if self.memory + self.open.bytes() <= most {
            self.memory += self.open.bytes();
            Piece::InMemory(std::mem::take(&mut self.open))
        } else {
            self.trim_last_piece();
            let (at, length) = (self.file_end, self.open.words().len());
            // What a write that failed has left there is written over.
            self.file.get_or_insert_with(TempFile::create).write(at, self.open.words());
            self.file_end += length;
            self.open.clear();
            Piece::InFile { at, length, count, is_torn: false }
        };
        self.pieces.push(piece);
        self.in_pieces += count;
    }

    /// Gives back the room of those of its events that were rolled back.
    fn trim_last_piece(&mut self) {
        if let Some(Piece::InFile { at, length, count, is_torn: true }) = self.pieces.last() {
            let (at, count) = (*at, *count);
            let length = packed::length(&self.read(at, *length), count);
            self.file_end = at + length;
            self.pieces.pop();
            self.pieces.push(Piece::InFile { at, length, count, is_torn: false });
        }
    }

    /// Leaves the first `length` events. Neither fails nor touches the file.
    pub fn truncate(&mut self, length: usize) {
        if length < self.loose.len() {
            self.loose.truncate(length);
            self.loose_bytes = self.loose.iter().map(Event::bytes).sum();
        }
        self.open.truncate(length.saturating_sub(self.in_pieces));
        while self.in_pieces > length {
            let Some(piece) = self.pieces.pop() else { break };
            self.in_pieces -= piece.count();
            let left = length.saturating_sub(self.in_pieces);
            match piece {
                Piece::InMemory(mut packed) => {
                    self.memory -= packed.bytes();
                    packed.truncate(left);
                    self.memory += packed.bytes();
                    self.put_back(Piece::InMemory(packed));
                }
                Piece::InFile { at, .. } if left == 0 => self.file_end = at,
                Piece::InFile { at, length, .. } => {
                    self.put_back(Piece::InFile { at, length, count: left, is_torn: true });
                }
            }
        }
    }

    /// There is room in the list: it was just taken from it.
    fn put_back(&mut self, piece: Piece) {
        if piece.count() > 0 {
            self.in_pieces += piece.count();
            self.pieces.push(piece);
        }
    }

    /// The events that are kept as they are. If there are any, there are no rows.
    pub fn loose(&self) -> &[Event] {
        &self.loose
    }

    /// The packed events, as rows of the scheduled ones. The columns are valid until the visitor returns.
    pub fn each_row(&self, visitor: &mut dyn FnMut(Columns<SCHEDULED_COLUMNS>)) {
        for piece in &self.pieces {
            match piece {
                Piece::InMemory(packed) => packed.each_row(visitor),
                Piece::InFile { at, length, count, .. } => {
                    packed::each_row(&self.read(*at, *length), *count, visitor);
                }
            }
        }
        self.open.each_row(visitor);
    }

    /// Words of the file.
    fn read(&self, at: usize, length: usize) -> Vec<u64> {
        let mut words = Vec::new();
        or_no_memory(words.try_reserve(length));
        words.resize(length, 0);
        self.file.iter().for_each(|file| file.read(at, &mut words));
        words
    }

    pub fn each(&self, visitor: &mut dyn FnMut(&Event)) {
        self.loose.iter().for_each(&mut *visitor);
        self.each_row(&mut |columns| visitor(&rows::read_scheduled(columns)));
    }

    /// To be called before the transaction commits.
    pub fn end(self) {
        if let Some(file) = self.file {
            file.close();
        }
    }
}

pub fn or_no_memory(result: Result<(), std::collections::TryReserveError>) {
    if result.is_err() {
        raise(
            PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            "out of memory for the transaction's events",
            "Give the server more memory, lower work_mem, or emit less in one transaction.",
        );
    }
}
