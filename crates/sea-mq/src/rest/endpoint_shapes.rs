//! What the routes of endpoints take and give.

use super::operation::{Member, Shape, may, must};

pub const NEW: Shape = Shape {
    name: "NewEndpoint",
    members: &[
        must("endpoint", "text", "Its name"),
        must("kind", "text", "webhook or http"),
        must("url", "text", "Where it is"),
        may("source", "text", "Context whose events it gets; all unless said"),
        may("start_from", "text", "new, all or a time"),
        FILTER,
        AUDIENCE,
        FORMAT,
        METHOD,
        HEADERS,
        BODY,
        AUTH,
        ORDERING,
        ON_EXHAUSTED,
        MAX_IN_FLIGHT,
        RATE,
        TIMEOUT,
        CONNECT_TIMEOUT,
        RETRY_SCHEDULE,
        MAX_AGE,
        MAX_SIZE,
        KEEP_RESPONSE,
    ],
};
pub const CHANGED: Shape = Shape {
    name: "ChangedEndpoint",
    members: &[
        may("url", "text", "Where it is"),
        FILTER,
        AUDIENCE,
        FORMAT,
        METHOD,
        HEADERS,
        BODY,
        AUTH,
        ORDERING,
        ON_EXHAUSTED,
        MAX_IN_FLIGHT,
        RATE,
        TIMEOUT,
        CONNECT_TIMEOUT,
        RETRY_SCHEDULE,
        MAX_AGE,
        MAX_SIZE,
        KEEP_RESPONSE,
    ],
};
pub const ENDPOINT_REF: Shape = Shape { name: "EndpointReference", members: &[must("endpoint", "text", "Its name")] };
pub const ENDPOINT: Shape = Shape {
    name: "Endpoint",
    members: &[
        must("endpoint", "text", "Its name"),
        must("kind", "text", "webhook, http or nats"),
        must("url", "text", "Where it is"),
        may("source", "text", "Context whose events it gets; null: all"),
        FILTER,
        AUDIENCE,
        FORMAT,
        METHOD,
        HEADERS,
        BODY,
        AUTH,
        ORDERING,
        ON_EXHAUSTED,
        MAX_IN_FLIGHT,
        RATE,
        TIMEOUT,
        CONNECT_TIMEOUT,
        RETRY_SCHEDULE,
        MAX_AGE,
        MAX_SIZE,
        KEEP_RESPONSE,
        may("start_from", "text", "new, all or a time"),
        may("created_by", "text", "Role that created it"),
        may("created_at", "timestamptz", "When it was created"),
        may("updated_at", "timestamptz", "When its description changed last"),
        may("state", "text", "active, throttled, open, probing, refused, gone, paused, disabled or copied"),
        may("error_kind", "text", "Kind of the last error"),
        may("error", "text", "What is wrong"),
        may("hint", "text", "What to do about it"),
        may("since", "timestamptz", "When this state began"),
        may("in_flight", "integer", "Deliveries in flight"),
        may("window", "integer", "Deliveries that may be in flight"),
        may("retrying", "bigint", "Deliveries that wait for another attempt"),
        may("lag", "bigint", "Events that it has before it; counted up to 1,001 a context"),
        may("oldest_undelivered_at", "timestamptz", "When the first of them was emitted"),
        may("delivered", "bigint", "Deliveries so far"),
        may("failed", "bigint", "Deliveries given up so far"),
        may("attempts", "bigint", "Attempts so far"),
        may("last_delivered_at", "timestamptz", "When the last delivery succeeded"),
        may("p50", "double precision", "Milliseconds that half of the last attempts took at most"),
        may("p99", "double precision", "Milliseconds that 99 of 100 took at most"),
    ],
};
pub const NEW_SECRET: Shape = Shape {
    name: "NewSecret",
    members: &[
        may("name", "text", "Which one, where a value is given; signing: what deliveries are signed with"),
        may("value", "text", "What it is. Without one a new one to sign with is made"),
        may("grace", "interval", "For how long the one before signs as well; 24 h unless said"),
        may("scheme", "text", "v1 (unless said) or v1a, a key pair"),
    ],
};
pub const SECRET: Shape = Shape {
    name: "Secret",
    members: &[
        must("name", "text", "Which one"),
        may("secret", "text", "The one that was made, or its public key. It is not shown again"),
    ],
};
pub const CHECKS: Shape = Shape {
    name: "EndpointCheck",
    members: &[must("steps", "jsonb", "How far the ping came: step, ok (null: not tried), detail")],
};
pub const NEW_DELIVERY: Shape = Shape {
    name: "NewDelivery",
    members: &[
        must("event_type", "text", "Event name"),
        must("payload", "jsonb", "Content"),
        may("event_id", "uuid", "Its id; a new one unless said"),
        may("event_version", "integer", "Version of the event type"),
        may("context", "text", "Context that sends it"),
        may("aggregate_type", "text", "Type of the aggregate"),
        may("aggregate_id", "text", "Id of the aggregate"),
        may("correlation_id", "text", "What it belongs to"),
    ],
};
pub const DELIVERY_REF: Shape = Shape {
    name: "DeliveryReference",
    members: &[must("event_id", "uuid", "Id of the event"), must("endpoint", "text", "The endpoint")],
};
pub const REDELIVERY: Shape = Shape { name: "OfEndpoint", members: &[must("endpoint", "text", "The endpoint")] };
pub const REDELIVERIES: Shape = Shape {
    name: "NewRedeliveries",
    members: &[
        must("since", "timestamptz", "From this time on"),
        may("until", "timestamptz", "Up to this time; now unless said"),
    ],
};
pub const DELIVERIES: Shape = Shape {
    name: "Deliveries",
    members: &[
        must("event_id", "uuid", "Id of the event"),
        must(
            "deliveries",
            "jsonb",
            "One for each endpoint that gets it: endpoint, status, attempts, http_status, error, times",
        ),
    ],
};
pub const DELIVERY: Shape = Shape {
    name: "Delivery",
    members: &[
        must("event_id", "uuid", "Id of the event"),
        must("endpoint", "text", "The endpoint"),
        must("status", "text", "pending, retrying, delivered, failed, exhausted, skipped or cancelled"),
        may("attempts", "integer", "Attempts so far"),
        may("http_status", "integer", "Status of the last answer"),
        may("error", "text", "The last error"),
        may("errors", "jsonb", "All errors: at, attempt, kind, http_status, error, response"),
        may("next_attempt_at", "timestamptz", "When the next attempt is made"),
        may("delivered_at", "timestamptz", "When it was delivered"),
        may("duration", "interval", "How long the last attempt took"),
        may("response", "text", "Beginning of the answer, where the endpoint keeps it"),
    ],
};

const FILTER: Member = may("filter", "text[]", "Event types or subjects; all unless said");
const AUDIENCE: Member = may("audience", "text", "Who reads it: public, partner, internal or sensitive");
const FORMAT: Member =
    may("format", "text", "standard, cloudevents, cloudevents_structured, cloudevents_batch, payload or template");
const METHOD: Member = may("method", "text", "POST, PUT, PATCH or DELETE");
const HEADERS: Member = may("headers", "jsonb", "Headers of every request: an object of strings");
const BODY: Member = may("body", "jsonb", "Template of the body, of format template");
const AUTH: Member = may("auth", "jsonb", "How it is shown who sends, with names of secrets");
const ORDERING: Member = may("ordering", "text", "none, key (each aggregate in order) or strict (one at a time)");
const ON_EXHAUSTED: Member = may("on_exhausted", "text", "What follows when a delivery is given up: continue or pause");
const MAX_IN_FLIGHT: Member = may("max_in_flight", "integer", "Deliveries in flight at once, at most");
const RATE: Member = may("rate", "double precision", "Deliveries a second, at most");
const TIMEOUT: Member = may("timeout", "interval", "How long an attempt may take");
const CONNECT_TIMEOUT: Member = may("connect_timeout", "interval", "How long a connection may take");
const RETRY_SCHEDULE: Member = may("retry_schedule", "interval[]", "Waits before each attempt, the first included");
const MAX_AGE: Member = may("max_age", "interval", "How long after the first attempt there is another one");
const MAX_SIZE: Member = may("max_size", "integer", "Largest body in bytes");
const KEEP_RESPONSE: Member = may("keep_response", "boolean", "Whether the answer's body is kept");
