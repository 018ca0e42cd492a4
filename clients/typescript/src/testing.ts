import type { Queryable } from "./emit.js";
import { Worker, type Message, type Pool, type PoolClient } from "./worker.js";

/** An event that the transaction will send if it commits; the columns of sea_mq.pending_events. */
export interface PendingEvent {
  id: string;
  context: string;
  subject: string;
  aggregate_type: string;
  aggregate_id: string;
  event_type: string;
  event_version: number;
  payload: any;
  headers: Record<string, string> | null;
  created_at: Date;
  available_at: Date | null;
  correlation_id: string;
  causation_id: string | null;
}

/** Makes the database one of tests: nothing goes to a broker. Call it once, as a superuser or a member of sea_mq_operator. */
export async function testMode(db: Queryable): Promise<void> {
  await db.query("SELECT sea_mq.test_mode()", []);
}

/** What the current transaction of `db` will send, in order. */
export async function pendingEvents(db: Queryable): Promise<PendingEvent[]> {
  const { rows } = await db.query("SELECT * FROM sea_mq.pending_events()", []);
  return rows;
}

/** Runs `test` in a transaction that is rolled back. */
export async function rolledBack<T>(pool: Pool, test: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    return await test(client);
  } finally {
    await client.query("ROLLBACK").finally(() => client.release());
  }
}

/** Hands what waits for a subscription to `handle`, until nothing has come for `idle` seconds. Returns how many were completed. */
export async function deliver(
  pool: Pool,
  subscription: string,
  handle: (client: PoolClient, message: Message) => Promise<void>,
  idle = 1,
): Promise<number> {
  const worker = new Worker(pool, subscription, handle, { wait: Math.min(idle, 1), log: () => {} });
  return (await worker.run({ idle })).completed;
}
