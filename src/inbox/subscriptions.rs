//! Subscriptions: their descriptions, how to run their handlers, and how they are doing.

use std::time::Duration;

use pgrx::pg_sys;
use uuid::Uuid;

use super::done::millis;
use super::handler::Handler;
use crate::host::gucs;
use crate::host::spi::{self, Arg, TextRow};
use crate::streams::consumers::Trouble;
use sea_mq_model::broker::{ConsumerSpec, DeliverFrom, Resume, SubscriptionId};
use sea_mq_model::consume::missed::Gap;
use sea_mq_model::domain::message::POSTGRES_EPOCH_US;
use sea_mq_model::domain::policy::ContractPolicy;
use sea_mq_model::pipeline::Effect;

/// A subscription as it is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub name: String,
    pub stream: String,
    pub source_context: Option<String>,
    pub subject_filter: String,
    /// Without one, messages wait for `sea_mq.receive`.
    pub has_handler: bool,
    pub priority: i64,
    pub ack_wait: Duration,
    pub max_ack_pending: usize,
    /// Nobody has given that number: where the broker allows fewer, so many will do.
    pub fewer_pending: bool,
    /// So many messages may wait for another attempt; then nothing new is tried.
    pub max_retrying: usize,
    pub start: DeliverFrom,
    /// It began with what was committed after it was subscribed; its cursor says what that is.
    pub from_now: bool,
    /// The number of workers in force.
    pub workers: i16,
    /// The number that is wanted. Nothing new is taken until it is in force.
    pub wanted_workers: i16,
    pub paused: bool,
    /// Whether what arrives is checked against its contract.
    pub contracts: ContractPolicy,
    /// The installation that its consumer is for.
    pub owner: Uuid,
    /// Whether its consumer may be taken over from another installation.
    pub take_over: bool,
}

impl Subscription {
    /// What is done with its messages.
    pub fn effect(&self) -> Effect {
        Effect::of(self.has_handler)
    }

    /// The durable consumer that it needs.
    pub fn consumer(&self, resume: Option<Resume>) -> ConsumerSpec {
        ConsumerSpec {
            stream: self.stream.clone(),
            name: self.name.clone(),
            filter_subject: self.subject_filter.clone(),
            ack_wait: self.ack_wait,
            // Attempts are counted here: a limit of the broker's would make it give messages up without a word.
            max_deliver: -1,
            max_ack_pending: i64::try_from(self.max_ack_pending).unwrap_or(i64::MAX),
            fewer_pending: self.fewer_pending,
            deliver_from: self.start,
            owner: self.owner,
            take_over: self.take_over,
            with_stream: false,
            resume,
        }
    }

    /// Whether it wants an event of this time (microseconds since 2000-01-01 UTC) and place, where it does not go by a
    /// stream's word.
    pub fn begins_before(&self, event_at: i64, seq: i64) -> bool {
        match self.start {
            _ if self.from_now => true,
            DeliverFrom::All | DeliverFrom::New => true,
            DeliverFrom::Sequence(first) => u64::try_from(seq).is_ok_and(|seq| seq >= first),
            DeliverFrom::Time(unix_us) => event_at >= unix_us - POSTGRES_EPOCH_US,
        }
    }
}

/// All subscriptions as they were read.
#[derive(Default)]
pub struct All {
    /// Those that go first before the others, and how far each had come.
    pub sound: Vec<(Subscription, Option<Resume>)>,
    /// Those that cannot be served as they are described (the table allows none, but a row can come by another way), and
    /// why. They are nobody else's trouble.
    pub unusable: Vec<(String, Trouble)>,
}

/// All subscriptions. Every expression has a value for whatever a row says: an error would be that of all of them.
pub fn all() -> All {
    let rows = spi::query(
        "SELECT s.id, s.subscription, s.stream, s.source_context, s.subject_filter, s.handler IS NOT NULL, s.priority,
            (extract(epoch FROM greatest(least(s.ack_wait, '1 day'), '1 s')) * 1000)::bigint, s.max_ack_pending, s.start_sequence,
            CASE WHEN s.start_at >= '1970-01-01 00:00:00+00' AND s.start_at < '2262-01-01 00:00:00+00'
                THEN (extract(epoch FROM s.start_at) * 1000000)::bigint END,
            CASE WHEN s.handler IS NULL THEN s.workers ELSE coalesce(t.lanes, s.workers) END, s.paused, t.stream_created_us, t.stream_sequence,
            i.install_id, s.take_over, s.start_from = 'new', s.workers, s.contracts,
            CASE WHEN s.start_at < '1970-01-01 00:00:00+00' OR s.start_at >= '2262-01-01 00:00:00+00' THEN 'start_from'
                WHEN s.ack_wait < '1 s' OR s.ack_wait > '1 day' THEN 'ack_wait'
                WHEN s.timeout < '1 ms' OR s.timeout > '1 day' THEN 'timeout'
                WHEN s.max_ack_pending < 1 THEN 'max_ack_pending'
                WHEN s.max_retrying < 1 THEN 'max_retrying'
                WHEN s.workers NOT BETWEEN 1 AND 6 THEN 'workers' END,
            coalesce(s.max_retrying, least(s.max_ack_pending, 50)), NOT s.max_ack_pending_given
         FROM sea_mq.subscriptions s CROSS JOIN sea_mq.installation i LEFT JOIN sea_mq.subscription_state t ON t.subscription = s.subscription
         ORDER BY s.priority DESC, s.subscription",
        &[],
    );
    let mut all = All::default();
    for row in &rows {
        match spi::optional::<String>(row, 20) {
            None => all.sound.push((described(row), resume(row))),
            Some(setting) => all.unusable.push((spi::parsed(row, 1), unusable(&setting))),
        }
    }
    all
}

fn unusable(setting: &str) -> Trouble {
    let hint = match setting {
        "start_from" => {
            "Unsubscribe, and subscribe again with new, all, a stream sequence or a time from 1970 to 2261."
        }
        _ => "Set it anew with sea_mq.alter_subscription; what waits is handled then.",
    };
    Trouble { kind: "Settings".into(), error: format!("its {setting} is out of range"), hint: Some(hint.into()) }
}

/// The installation that consumers are for.
pub fn owner() -> Uuid {
    let rows = spi::query("SELECT install_id FROM sea_mq.installation", &[]);
    rows.first().and_then(|row| spi::optional(row, 0)).unwrap_or_default()
}

/// The consumer was taken over; from now on another owner is a conflict again.
pub fn taken_over(name: &str) {
    spi::execute(
        "UPDATE sea_mq.subscriptions SET take_over = false WHERE subscription = $1 AND take_over",
        &[Arg::Text(name)],
    );
}

/// Changes with any description.
pub fn fingerprint() -> String {
    let sql = "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(s::text, coalesce(t.lanes, 0))), 0)
            || ' ' || (SELECT count(*) FROM sea_mq.streams d WHERE d.kind = 'dlq')
        FROM sea_mq.subscriptions s LEFT JOIN sea_mq.subscription_health t ON t.subscription = s.subscription";
    spi::query(sql, &[]).first().map(|row| spi::parsed(row, 0)).unwrap_or_default()
}

fn described(row: &TextRow) -> Subscription {
    let start = match (spi::optional(row, 9), spi::optional(row, 10)) {
        (Some(sequence), _) => DeliverFrom::Sequence(sequence),
        (None, Some(at)) => DeliverFrom::Time(at),
        (None, None) => DeliverFrom::All,
    };
    Subscription {
        id: spi::parsed(row, 0),
        name: spi::parsed(row, 1),
        stream: spi::parsed(row, 2),
        source_context: spi::optional(row, 3),
        subject_filter: spi::parsed(row, 4),
        has_handler: spi::flag(row, 5),
        priority: spi::parsed(row, 6),
        ack_wait: Duration::from_millis(spi::parsed(row, 7)),
        max_ack_pending: spi::parsed(row, 8),
        fewer_pending: spi::flag(row, 22),
        max_retrying: spi::parsed(row, 21),
        start,
        from_now: spi::flag(row, 17),
        workers: spi::parsed(row, 11),
        wanted_workers: spi::parsed(row, 18),
        paused: spi::flag(row, 12),
        contracts: ContractPolicy::from_token(&spi::parsed::<String>(row, 19)).unwrap_or_default(),
        owner: spi::optional(row, 15).unwrap_or_default(),
        take_over: spi::flag(row, 16),
    }
}

fn resume(row: &TextRow) -> Option<Resume> {
    let sequence: u64 = spi::parsed(row, 14);
    let stream_created_us = spi::optional(row, 13)?;
    (sequence > 0).then_some(Resume { stream_created_us, sequence })
}

/// How to run a subscription's handler, or why it cannot be run: nothing that a message could be blamed for. Asked before each
/// batch, so the usual case, a function that is still there and is the owner's, calls no function of SQL.
pub fn handler(name: &str) -> Result<Handler, Trouble> {
    let rows = spi::query(
        "SELECT s.handler, coalesce(r.rolname, s.owner), f.oid, r.oid, has_function_privilege(r.oid, f.oid, 'EXECUTE'),
            CASE WHEN s.timeout >= '1 ms' THEN (extract(epoch FROM least(s.timeout, '1 day')) * 1000)::bigint END,
            CASE WHEN f.proowner = r.oid THEN true ELSE sea_mq.may_be(f.proowner, r.oid) END, pg_get_userbyid(f.proowner)
         FROM sea_mq.subscriptions s
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.owner_oid
         LEFT JOIN pg_catalog.pg_proc f ON f.oid = CASE WHEN s.handler = (
                SELECT format('%I.%I', n.nspname, p.proname) FROM pg_catalog.pg_proc p
                JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = s.handler_oid
            ) THEN s.handler_oid ELSE sea_mq.current_handler(s) END
         WHERE s.subscription = $1",
        &[Arg::Text(name)],
    );
    let blocked = |error: String, hint: String| Err(Trouble { kind: "Handler".into(), error, hint: Some(hint) });
    let Some(row) = rows.first() else {
        return blocked("the subscription is gone".into(), "Subscribe again.".into());
    };
    let (handler, owner) = (spi::parsed::<String>(row, 0), spi::parsed::<String>(row, 1));
    let oid = |column| spi::optional::<u32>(row, column).map(pg_sys::Oid::from);
    match (oid(2), oid(3)) {
        (_, None) => blocked(
            format!("its owner, role \"{owner}\", does not exist"),
            "Give it another with sea_mq.alter_subscription(owner => ...); what waits is handled then.".into(),
        ),
        (None, _) => blocked(
            format!("its handler {handler}(sea_mq.event) does not exist, or is not the function that it was"),
            "Create it, or name another with sea_mq.alter_subscription(handler => ...); what waits is handled then."
                .into(),
        ),
        _ if !spi::flag(row, 6) => blocked(
            format!(
                "its handler {handler}(sea_mq.event) belongs to \"{}\", which is no member of \"{owner}\"",
                spi::parsed::<String>(row, 7)
            ),
            format!("Have \"{owner}\" own the function, or use sea_mq.alter_subscription(owner => ...)."),
        ),
        _ if !spi::flag(row, 4) => blocked(
            format!("its owner \"{owner}\" may not execute {handler}(sea_mq.event)"),
            format!("GRANT EXECUTE ON FUNCTION {handler}(sea_mq.event) TO \"{owner}\"; what waits is handled then."),
        ),
        (Some(function), Some(_)) if !can_handle(function) => blocked(
            format!("its handler {handler}(sea_mq.event) returns a set, or is no function"),
            "Make it a function that RETURNS void, or name another with sea_mq.alter_subscription(handler => ...); what waits is handled then."
                .into(),
        ),
        (Some(function), Some(owner)) => Ok(Handler {
            function,
            owner,
            timeout: spi::optional(row, 5).map_or_else(gucs::handler_timeout, Duration::from_millis),
        }),
    }
}

/// Whether what has a handler's argument can be called as one: `sea_mq.handler_name` refuses what cannot, but another function
/// may have taken its place.
fn can_handle(function: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in a transaction.
    unsafe {
        pg_sys::get_func_prokind(function) == std::ffi::c_char::from_ne_bytes([b'f'])
            && !pg_sys::get_func_retset(function)
    }
}

/// What waits in the table for a subscription.
#[derive(Default)]
pub struct Waiting {
    /// How many messages, counted up to `max_ack_pending`.
    pub messages: usize,
    /// Those of them that wait for another attempt.
    pub retrying: usize,
    /// The smallest number of one that waits for its first attempt.
    pub first: Option<i64>,
}

/// What waits for a subscription. `floor`: no message waits for its first attempt with a smaller number.
pub fn waiting(subscription: &Subscription, floor: i64) -> Waiting {
    let sql = "WITH lanes AS (SELECT l::smallint AS lane FROM generate_series(0, $2 - 1) l), w AS (
            SELECT f.id FROM lanes CROSS JOIN LATERAL (SELECT p.id FROM sea_mq.inbox_pending p
                WHERE p.subscription = $1 AND p.lane = lanes.lane AND p.due_at = 'epoch' AND p.id >= $4 ORDER BY p.id LIMIT $3) f
            UNION ALL
            SELECT NULL FROM lanes CROSS JOIN LATERAL (SELECT FROM sea_mq.inbox_pending p
                WHERE p.subscription = $1 AND p.lane = lanes.lane AND p.due_at > 'epoch' LIMIT $3) r)
        SELECT count(*), min(w.id), count(*) - count(w.id) FROM w";
    let max = subscription.max_ack_pending;
    let lanes = subscription.workers.max(subscription.wanted_workers).max(1);
    let args = [
        Arg::Text(&subscription.name),
        Arg::Int8(i64::from(lanes)),
        Arg::Int8(i64::try_from(max).unwrap_or(i64::MAX)),
        Arg::Int8(floor),
    ];
    let rows = spi::query(sql, &args);
    let Some(row) = rows.first() else { return Waiting::default() };
    let count = |column| spi::parsed::<usize>(row, column).min(max);
    Waiting { messages: count(0), retrying: count(2), first: spi::optional(row, 1) }
}

/// How long until a message of a lane is due, zero if one is; `None` if none waits. `floor`: as for [`waiting`].
pub fn due_in(name: &str, lane: i16, floor: i64) -> Option<Duration> {
    let sql = "SELECT CASE WHEN EXISTS (SELECT FROM sea_mq.inbox_pending
                WHERE subscription = $1 AND lane = $2 AND status <> 'processing' AND due_at = 'epoch' AND id >= $3)
            THEN 0
            ELSE (SELECT ceil(extract(epoch FROM least(min(due_at), clock_timestamp() + '1 day') - clock_timestamp()) * 1000)::bigint
                FROM sea_mq.inbox_pending WHERE subscription = $1 AND lane = $2 AND status <> 'processing' AND due_at > 'epoch'
                HAVING min(due_at) IS NOT NULL)
            END";
    let rows = spi::query(sql, &[Arg::Text(name), Arg::Int8(i64::from(lane)), Arg::Int8(floor)]);
    let millis: i64 = rows.first().and_then(|row| spi::optional(row, 0))?;
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// Notes how a subscription is doing.
pub fn save_state(name: &str, state: &str, trouble: Option<&Trouble>) {
    spi::execute(
        "INSERT INTO sea_mq.subscription_health AS t (subscription, state, error_kind, error, hint) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (subscription) DO UPDATE SET state = excluded.state, error_kind = excluded.error_kind,
            error = excluded.error, hint = excluded.hint, since = now()",
        &[
            Arg::Text(name),
            Arg::Text(state),
            Arg::OptionalText(trouble.map(|trouble| trouble.kind.as_str())),
            Arg::OptionalText(trouble.map(|trouble| trouble.error.as_str())),
            Arg::OptionalText(trouble.and_then(|trouble| trouble.hint.as_deref())),
        ],
    );
}

/// Notes for how long a subscription's stream keeps messages.
pub fn save_max_age(name: &str, max_age: Option<Duration>) {
    spi::execute(
        "UPDATE sea_mq.subscription_health SET stream_max_age = make_interval(secs => $2::float8 / 1000)
         WHERE subscription = $1 AND stream_max_age IS DISTINCT FROM make_interval(secs => $2::float8 / 1000)",
        &[Arg::Text(name), Arg::OptionalInt8(max_age.map(millis))],
    );
}

/// Notes how many unacknowledged messages the broker lets a subscription have. Returns whether they are others than before.
pub fn save_allowed(name: &str, max_ack_pending: i64) -> bool {
    let sql = "UPDATE sea_mq.subscription_health SET max_ack_pending = $2
        WHERE subscription = $1 AND max_ack_pending IS DISTINCT FROM $2 RETURNING 1";
    !spi::execute(sql, &[Arg::Text(name), Arg::Int8(max_ack_pending)]).is_empty()
}

/// Adds to what was removed from the stream before the subscription got it.
pub fn save_missed(name: &str, gap: &Gap, removed: u64) {
    spi::execute(
        "INSERT INTO sea_mq.removed_messages AS r (subscription, stream, messages, at_most, first_sequence, last_sequence)
         SELECT s.subscription, s.stream, $2, $3 <> 0, $4, $5 FROM sea_mq.subscriptions s WHERE s.subscription = $1
         ON CONFLICT (subscription) DO UPDATE SET messages = r.messages + excluded.messages, at_most = r.at_most OR excluded.at_most,
            first_sequence = least(r.first_sequence, excluded.first_sequence),
            last_sequence = greatest(r.last_sequence, excluded.last_sequence), found_at = now()",
        &[
            Arg::Text(name),
            Arg::Int8(removed.cast_signed()),
            Arg::Int8(gap.at_most.is_some().into()),
            Arg::Int8(gap.first.cast_signed()),
            Arg::Int8(gap.last.cast_signed()),
        ],
    );
}

/// Consumers of subscriptions that are gone (stream, name).
pub fn deletions() -> Vec<(String, String)> {
    let rows = spi::query("SELECT stream, name FROM sea_mq.consumer_deletions", &[]);
    rows.iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

/// Notes how the removal of a consumer went: without an error, there is nothing left to remove.
pub fn save_deletion(stream: &str, name: &str, error: Option<&str>) {
    let (stream, name) = (Arg::Text(stream), Arg::Text(name));
    match error {
        None => {
            let sql = "DELETE FROM sea_mq.consumer_deletions WHERE stream = $1 AND name = $2";
            spi::execute(sql, &[stream, name])
        }
        Some(error) => {
            let sql = "UPDATE sea_mq.consumer_deletions SET error = $3
                WHERE stream = $1 AND name = $2 AND error IS DISTINCT FROM $3";
            spi::execute(sql, &[stream, name, Arg::Text(error)])
        }
    };
}
