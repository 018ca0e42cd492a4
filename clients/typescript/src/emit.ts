/** Whatever runs a query in the transaction that the caller has open: a Client or PoolClient of pg, or what looks like one. */
export interface Queryable {
  /** Rows are what the statement says. */
  query(sql: string, values?: unknown[]): Promise<{ rows: any[] }>;
}

/** An event; the parameters of sea_mq.emit. */
export interface Emitted {
  aggregateType: string;
  aggregateId: string | number | bigint;
  eventType: string;
  /** Any JSON value, null included. */
  payload: unknown;
  eventVersion?: number;
  context?: string;
  /** Makes emit idempotent. */
  eventId?: string;
  correlationId?: string;
  causationId?: string;
  headers?: Record<string, string>;
  visibility?: "public" | "partner" | "internal" | "sensitive";
  availableAt?: Date;
}

// Every parameter has its type: what the driver binds does not matter.
const PARAMETERS: [keyof Emitted, string, string][] = [
  ["aggregateType", "aggregate_type", "text"],
  ["aggregateId", "aggregate_id", "text"],
  ["eventType", "event_type", "text"],
  ["payload", "payload", "jsonb"],
  ["eventVersion", "event_version", "integer"],
  ["context", "context", "text"],
  ["eventId", "event_id", "uuid"],
  ["correlationId", "correlation_id", "text"],
  ["causationId", "causation_id", "text"],
  ["headers", "headers", "jsonb"],
  ["visibility", "visibility", "text"],
  ["availableAt", "available_at", "timestamptz"],
];

/** Emits an event in the transaction of `db`, and returns its id. It exists if and only if that transaction commits. */
export async function emit(db: Queryable, event: Emitted): Promise<string> {
  const given = PARAMETERS.filter(([key]) => event[key] !== undefined);
  const values = given.map(([key, , type]) => text(event[key], type));
  const call = given.map(([, name, type], at) => `${name} => $${at + 1}::text::${type}`).join(", ");
  const { rows } = await db.query(`SELECT sea_mq.emit(${call}) AS id`, values);
  return String(rows[0]?.id);
}

/** Emits many events in order, all or none, and returns their ids. */
export async function emitMany(db: Queryable, events: Emitted[]): Promise<string[]> {
  const named = events.map((event) =>
    Object.fromEntries(
      PARAMETERS.filter(([key]) => event[key] !== undefined).map(([key, name]) => {
        const value = event[key];
        return [name, typeof value === "bigint" ? value.toString() : value];
      }),
    ),
  );
  const { rows } = await db.query("SELECT sea_mq.emit_array($1::text::jsonb) AS id", [JSON.stringify(named)]);
  return rows.map((row) => String(row.id));
}

function text(value: unknown, type: string): string {
  if (type === "jsonb") return JSON.stringify(value);
  return value instanceof Date ? value.toISOString() : String(value);
}
