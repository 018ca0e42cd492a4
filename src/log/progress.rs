//! Subscriptions' progress: how far each has come in its stream, and what it has done so far.

use std::marker::PhantomData;

use super::cursors;
use super::positions::{self, Columns, Ring, add, int8};
use crate::host::spi::{self, Arg};
use crate::sys::clock;
use crate::sys::relation::Relation;
use sea_mq_model::broker::{ConsumerInfo, Resume, SubscriptionId};
use sea_mq_model::domain::position::Position;
use sea_mq_model::domain::reader::ReaderId;

const COLUMNS: usize = 13;
const RING: Ring<SubscriptionId, COLUMNS> = Ring {
    table: "progress_log",
    current_sql: "SELECT slot FROM sea_mq.progress_log ORDER BY number DESC LIMIT 1",
    // Of those that were unsubscribed nothing is left once the ring has turned.
    keys_sql: "SELECT id FROM sea_mq.subscriptions",
    key: PhantomData,
};
/// Slots of `sea_mq.outcome_log`. `sql/inbox/inbox.sql` creates as many partitions.
const OUTCOME_SLOTS: i64 = 4;
/// Outcomes are added up when a slot takes so many blocks: a status counts a few thousand rows at most.
const OUTCOME_BLOCKS: u32 = 16;

/// Places of the columns behind slot and number.
mod column {
    pub const SUBSCRIPTION: usize = 2;
    pub const STREAM_SEQUENCE: usize = 3;
    pub const STREAM_CREATED_US: usize = 4;
    pub const PENDING: usize = 5;
    pub const PROCESSED: usize = 6;
    pub const SKIPPED: usize = 7;
    pub const FAILED: usize = 8;
    pub const DEAD: usize = 9;
    pub const DUPLICATES: usize = 10;
    pub const REDELIVERED: usize = 11;
    pub const LAST_PROCESSED_AT: usize = 12;
    pub const COUNTERS: [usize; 7] = [STREAM_SEQUENCE, PROCESSED, SKIPPED, FAILED, DEAD, DUPLICATES, REDELIVERED];
}

/// What a batch adds.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub processed: i64,
    pub duplicates: i64,
    pub redelivered: i64,
    pub pending: Option<u64>,
    pub resume: Option<Resume>,
    /// How far it has come in this database's log.
    pub position: Option<Position>,
}

/// The ring of progress, for the consumer's housekeeping.
pub fn ring() -> &'static Ring<SubscriptionId, COLUMNS> {
    &RING
}

/// Notes a subscription's progress.
pub fn save(id: SubscriptionId, progress: &Progress) {
    let mut row = newest(id);
    if let Some(position) = &progress.position {
        cursors::save(ReaderId::Subscription(id), position);
    }
    add(&mut row, column::PROCESSED, progress.processed);
    add(&mut row, column::DUPLICATES, progress.duplicates);
    add(&mut row, column::REDELIVERED, progress.redelivered);
    if let Some(pending) = progress.pending {
        row[column::PENDING] = int8(pending.cast_signed());
    }
    if let Some(resume) = progress.resume {
        row[column::STREAM_SEQUENCE] = int8(resume.sequence.cast_signed());
    }
    if progress.processed > 0 {
        row[column::LAST_PROCESSED_AT] = int8(clock::now());
    }
    RING.append(row);
}

/// Notes what the broker says of a subscription's consumer.
pub fn save_info(id: SubscriptionId, info: &ConsumerInfo) {
    let mut row = newest(id);
    row[column::PENDING] = int8(info.pending.cast_signed());
    if row[column::STREAM_CREATED_US].map(|datum| datum.value() as i64) != Some(info.stream_created_us) {
        row[column::STREAM_SEQUENCE] = int8(0);
    }
    row[column::STREAM_CREATED_US] = int8(info.stream_created_us);
    RING.append(row);
}

/// Slots of the outcomes that have grown, but for those to which is being appended: the current one and the one before.
pub fn grown_outcomes() -> Vec<i64> {
    let rows = spi::query("SELECT sea_mq.outcome_slot()", &[]);
    let Some(current) = rows.first().and_then(|row| spi::optional::<i64>(row, 0)) else { return Vec::new() };
    let others = [1, 2].map(|ahead| (current + ahead).rem_euclid(OUTCOME_SLOTS));
    let has_grown = |slot: &i64| Relation::open(&format!("outcome_log_{slot}")).blocks() >= OUTCOME_BLOCKS;
    others.into_iter().filter(has_grown).collect()
}

/// Adds a slot's outcomes to the subscriptions' progress, and empties it. An ERROR if somebody uses it: another time will do.
pub fn add_outcomes(slot: i64) {
    spi::execute_dynamic(&format!("LOCK TABLE ONLY sea_mq.outcome_log_{slot} IN ACCESS EXCLUSIVE MODE NOWAIT"));
    let sums = positions::with_latest_snapshot(|| {
        spi::query(
            "SELECT s.id, sum(o.processed), sum(o.skipped), sum(o.failed), sum(o.dead),
                (extract(epoch FROM max(o.at) FILTER (WHERE o.processed > 0) - '2000-01-01 00:00:00+00') * 1000000)::bigint
             FROM sea_mq.outcome_log o JOIN sea_mq.subscriptions s ON s.id = o.subscription_id
             WHERE o.slot = $1::smallint GROUP BY s.id ORDER BY s.id",
            &[Arg::Int8(slot)],
        )
    });
    for sum in &sums {
        let mut row = newest(spi::parsed(sum, 0));
        let counters = [column::PROCESSED, column::SKIPPED, column::FAILED, column::DEAD];
        counters.into_iter().zip(1..).for_each(|(counter, place)| add(&mut row, counter, spi::parsed(sum, place)));
        let last = row[column::LAST_PROCESSED_AT].map(|datum| datum.value() as i64);
        row[column::LAST_PROCESSED_AT] = spi::optional(sum, 5).max(last).and_then(int8);
        RING.append(row);
    }
    spi::execute_dynamic(&format!("TRUNCATE ONLY sea_mq.outcome_log_{slot}"));
}

/// The newest row of a subscription; that of the beginning if it has none.
fn newest(id: SubscriptionId) -> Columns<COLUMNS> {
    RING.newest(id).unwrap_or_else(|| {
        let mut row = [None; COLUMNS];
        row[column::SUBSCRIPTION] = int8(id);
        column::COUNTERS.into_iter().for_each(|counter| row[counter] = int8(0));
        row
    })
}
