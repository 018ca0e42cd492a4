//! Rows as they are answered: the columns of the extension's views and functions.

use super::operation::{Shape, may, must};

pub const EVENT_REF: Shape = Shape {
    name: "EventRef",
    members: &[must("id", "uuid", "The event"), must("subject", "text", "Its NATS subject")],
};
pub const EVENT_REFS: Shape =
    Shape { name: "EventRefs", members: &[must("events", "jsonb", "An EventRef for each, in order")] };
pub const EVENT_STATUS: Shape = Shape {
    name: "EventStatus",
    members: &[
        must("id", "uuid", "The event"),
        must("status", "text", "pending, retrying, delivered or failed"),
        may("subject", "text", "Its NATS subject"),
        may("created_at", "timestamptz", "When it was emitted"),
        may("available_at", "timestamptz", "Until when it is or was held back"),
        may("published_at", "timestamptz", "When the stream had stored it"),
        may("attempts", "integer", "Attempts that count"),
        may("error", "text", "What is in its way"),
        may("stream", "text", "Its stream"),
        may("stream_seq", "bigint", "Its sequence there"),
    ],
};
pub const COUNT: Shape = Shape { name: "Count", members: &[must("events", "bigint", "How many events it is about")] };
pub const FINDINGS: Shape = Shape {
    name: "Findings",
    members: &[must("findings", "jsonb", "Differences: kind, event_id, seq, stream_seq, detail")],
};
pub const STREAM: Shape = Shape {
    name: "Stream",
    members: &[
        must("stream", "text", "Name in JetStream"),
        must("context", "text", "Bounded context"),
        must("kind", "text", "event or dlq"),
        must("state", "text", "pending, ready, refused or paused"),
        may("error_kind", "text", "Kind of the error"),
        may("error", "text", "What is wrong"),
        may("hint", "text", "What to do about it"),
        may("ordering", "text", "strict or shared"),
        may("differences", "jsonb", "Settings that differ from the description"),
        may("losses", "bigint", "How often the broker had lost data"),
        may("last_loss", "text", "What was lost last"),
        may("last_sequence", "bigint", "Stream sequence of the last event stored"),
        may("published", "bigint", "Events published so far"),
        may("pending", "bigint", "Events not published yet; counted up to 10,001"),
        may("oldest_pending_at", "timestamptz", "When the first of them was emitted"),
        may("managed", "boolean", "Whether the relay creates and updates it"),
        may("since", "timestamptz", "When this state began"),
        may("atomic_transactions", "boolean", "Whether transactions are published as one"),
        may("not_atomic", "bigint", "Transactions that were not"),
        may("last_not_atomic", "text", "The last of them, and why"),
    ],
};
pub const STREAM_REF: Shape = Shape { name: "StreamRef", members: &[must("stream", "text", "Its name")] };
pub const STORED_EVENT: Shape = Shape {
    name: "StoredEvent",
    members: &[
        must("stream_seq", "bigint", "Its sequence in the stream"),
        must("id", "uuid", "The event"),
        must("seq", "bigint", "Its place in the log"),
        must("context", "text", "Bounded context"),
        must("aggregate_type", "text", "Type of the aggregate"),
        must("aggregate_id", "text", "Id of the aggregate"),
        must("event_type", "text", "Normalised event name"),
        must("event_version", "integer", "Version of the event type"),
        must("subject", "text", "NATS subject"),
        may("payload", "jsonb", "Content; what its contract calls sensitive is masked"),
        may("headers", "jsonb", "The caller's headers"),
        may("correlation_id", "text", "Correlation id"),
        may("causation_id", "text", "Causation id"),
        may("visibility", "text", "public, partner, internal or sensitive"),
        must("created_at", "timestamptz", "When it was emitted"),
        may("published_at", "timestamptz", "When the stream had stored it"),
    ],
};
pub const CONSUMER: Shape = Shape {
    name: "Consumer",
    members: &[
        must("stream", "text", "Its stream"),
        must("name", "text", "Its name"),
        may("filter", "text", "Subjects that it receives"),
        may("ack_wait", "interval", "How long it waits for an acknowledgement"),
        may("max_deliver", "integer", "Deliveries at most; -1: no limit"),
        may("max_ack_pending", "integer", "Unacknowledged messages at most; -1: no limit"),
        may("deliver_policy", "text", "all or new"),
        may("state", "text", "pending, ready, refused or removing"),
        may("error", "text", "What is wrong"),
        may("updated_at", "timestamptz", "When it was described last"),
    ],
};
pub const SUBSCRIPTION: Shape = Shape {
    name: "Subscription",
    members: &[
        must("subscription", "text", "Its name"),
        may("source", "text", "Context or stream, as given"),
        may("stream", "text", "Stream that it reads"),
        may("subject_filter", "text", "Subjects that it receives"),
        may("handler", "text", "Function that handles; null, and no endpoint: messages wait for leases"),
        may("endpoint", "text", "Endpoint that handles"),
        may("owner", "text", "Role that the handler runs as"),
        may("priority", "integer", "The greater number goes first"),
        may("workers", "integer", "Messages that are handled at the same time"),
        must("state", "text", "stopped, pending, active, waiting, blocked, refused or paused"),
        may("error_kind", "text", "Kind of the error"),
        may("error", "text", "What is wrong"),
        may("hint", "text", "What to do about it"),
        may("since", "timestamptz", "When this state began"),
        may("pending", "bigint", "Messages in the stream that are not delivered yet"),
        may("received", "bigint", "Messages that wait for their first attempt"),
        may("processing", "bigint", "Messages that an application or a worker has"),
        may("retrying", "bigint", "Messages that wait for another attempt"),
        may("oldest_waiting_at", "timestamptz", "When the oldest of the three was received"),
        may("next_attempt_at", "timestamptz", "When the next retry is due"),
        may("processed", "bigint", "Messages handled so far"),
        may("skipped", "bigint", "Messages skipped so far"),
        may("failures", "bigint", "Failed attempts so far"),
        may("dead", "bigint", "Dead letters so far"),
        may("duplicates", "bigint", "Messages that came again"),
        may("redelivered", "bigint", "Deliveries that were not the first"),
        may("last_processed_at", "timestamptz", "When the last message was handled"),
        may("last_sequence", "bigint", "All up to this stream sequence is in the inbox"),
        may("removed", "bigint", "Messages removed before it got them"),
        may("max_ack_pending", "bigint", "Messages that may be under way at once"),
    ],
};
pub const SUBSCRIPTION_REF: Shape =
    Shape { name: "SubscriptionRef", members: &[must("subscription", "text", "Its name")] };
pub const MESSAGE: Shape = Shape {
    name: "Message",
    members: &[
        must("id", "bigint", "Its number in the inbox"),
        must("message_id", "text", "Its id"),
        must("subscription", "text", "Subscription"),
        may("event_type", "text", "Normalised event name"),
        may("event_version", "integer", "Version of the event type"),
        may("subject", "text", "NATS subject"),
        may("aggregate_type", "text", "Type of the aggregate"),
        may("aggregate_id", "text", "Id of the aggregate"),
        must("status", "text", "received, processing, processed, failed, skipped or dead"),
        may("processing_error", "text", "The last error"),
        may("attempts", "integer", "Attempts so far"),
        may("next_attempt_at", "timestamptz", "When the next one is due"),
        may("created_at", "timestamptz", "When it was received"),
        may("delivered_at", "timestamptz", "When the last attempt began"),
        may("processed_at", "timestamptz", "When it was done"),
        may("stream_seq", "bigint", "Its sequence in the stream"),
    ],
};
pub const LEASES: Shape = Shape {
    name: "Leases",
    members: &[must("leases", "jsonb", "Messages to work on: what sea_mq.receive returns, a row each")],
};
pub const LEASE: Shape = Shape {
    name: "Lease",
    members: &[
        must("id", "bigint", "The message"),
        may("lease_until", "timestamptz", "How long it is the caller's"),
        may("status", "text", "What became of it"),
    ],
};
pub const LETTER: Shape = Shape {
    name: "DeadLetter",
    members: &[
        must("id", "bigint", "Its number"),
        must("state", "text", "open, replayed or discarded"),
        must("context", "text", "Context whose dead letter it is"),
        must("original_subject", "text", "Subject on which it had come"),
        may("subscription", "text", "Subscription that could not handle it"),
        may("message_id", "text", "Id of the message"),
        may("source_context", "text", "Context that emitted it"),
        may("event_type", "text", "Normalised event name"),
        may("event_version", "integer", "Version of the event type"),
        may("aggregate_type", "text", "Type of the aggregate"),
        may("aggregate_id", "text", "Id of the aggregate"),
        must("reason", "text", "poison, exhausted, foreign or unpublishable"),
        may("failure_count", "integer", "Failed attempts"),
        may("error", "text", "The last error"),
        may("first_failed_at", "timestamptz", "When it failed first"),
        may("last_failed_at", "timestamptz", "When it failed last"),
        may("created_at", "timestamptz", "When it became a dead letter"),
        may("replayed_at", "timestamptz", "When it was replayed"),
        may("replay_event_id", "uuid", "Message id that the replay has"),
        may("replayed_by", "text", "Role that replayed it"),
        may("discarded_at", "timestamptz", "When it was discarded"),
        may("discard_reason", "text", "Why"),
        may("discarded_by", "text", "Role that discarded it"),
        may("actor", "text", "Whom that role claimed to act for"),
        may("payload", "jsonb", "Content; for one letter only"),
        may("headers", "jsonb", "Headers; for one letter only"),
        may("errors", "jsonb", "History; for one letter only"),
    ],
};
pub const REPLAY: Shape = Shape {
    name: "Replay",
    members: &[must("id", "bigint", "The dead letter"), must("event_id", "uuid", "Message id that the replay has")],
};
pub const DISCARD: Shape = Shape { name: "Discard", members: &[must("id", "bigint", "The dead letter")] };
pub const REPLAYS: Shape = Shape {
    name: "Replays",
    members: &[
        may("replayed", "bigint", "How many were replayed"),
        may("failed", "jsonb", "Those that were not: id, sqlstate, error, hint"),
        may("next", "text", "`after_id` of the next page; null: there is none"),
        may("matching", "bigint", "Of a dry run: how many there are, counted up to 1,000"),
        may("capped", "boolean", "Of a dry run: whether there are more"),
    ],
};
pub const EVENT_TYPE: Shape = Shape {
    name: "EventType",
    members: &[
        must("context", "text", "Context that emits it"),
        must("event_type", "text", "Normalised event name"),
        must("version", "integer", "Version, from 1"),
        may("schema", "jsonb", "JSON Schema of the payload; for one version only"),
        must("visibility", "text", "Widest audience"),
        may("description", "text", "What the event says"),
        may("registered_at", "timestamptz", "When it was registered"),
        may("registered_by", "text", "Role that registered it"),
        may("deprecated_at", "timestamptz", "Since when it is deprecated"),
        may("deprecation", "text", "What to use instead"),
        may("subject", "text", "NATS subject of its events"),
    ],
};
pub const VALIDATION: Shape = Shape {
    name: "Validation",
    members: &[
        must("valid", "boolean", "Whether the payload keeps the contract"),
        must("violations", "jsonb", "Where it does not: pointer, message"),
    ],
};
pub const STATUS: Shape = Shape {
    name: "Status",
    members: &[
        must("ok", "boolean", "Whether all is well"),
        may("summary", "text", "The most urgent problem, or \"all is well\""),
        may("hint", "text", "What to do about it"),
        may("problems", "bigint", "How many problems there are"),
        may("relay", "text", "State of the relay"),
        may("relay_pid", "integer", "Process of the relay"),
        may("broker", "text", "nats-server connected to last"),
        may("pending", "bigint", "Events not published yet"),
        may("oldest_pending_age", "interval", "How long the oldest has waited"),
        may("published", "bigint", "Events published so far"),
        may("scheduled", "bigint", "Events held back"),
        may("failed", "bigint", "Events that the broker refused"),
        may("streams", "bigint", "Streams described"),
        may("subscriptions", "bigint", "Subscriptions; for a viewer"),
        may("dead_letters", "bigint", "Open dead letters; for a viewer"),
        may("log_bytes", "bigint", "Size of the log"),
        may("version", "text", "Version of the extension"),
    ],
};
pub const PROBLEM: Shape = Shape {
    name: "ProblemRow",
    members: &[
        must("rank", "integer", "1 is the most urgent"),
        must("problem", "text", "What is wrong"),
        may("hint", "text", "What to do about it"),
    ],
};
pub const ME: Shape = Shape {
    name: "Me",
    members: &[
        must("role", "text", "Role in force"),
        may("actor", "text", "Whom it claims to act for"),
        must("roles", "text[]", "Those of the extension's roles that it has"),
        must("functions", "text[]", "Functions of the extension that it may call"),
    ],
};
