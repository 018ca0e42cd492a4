// Drizzle, on node-postgres.
import assert from "node:assert";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { bigint, jsonb, pgSchema, pgTable, text, uuid } from "drizzle-orm/pg-core";

const db = drizzle(process.env.DATABASE_URL);
const orders = pgTable("orders", { id: bigint({ mode: "number" }).primaryKey() });
// docs:
const outboxEvents = pgSchema("sea_mq").table("outbox_events", {
  id: uuid().primaryKey().default(sql`NULL`),
  aggregateType: text("aggregate_type").notNull(),
  aggregateId: text("aggregate_id").notNull(),
  eventType: text("event_type").notNull(),
  payload: jsonb().notNull(),
});
// :docs
const emit = (tx, n) => tx.execute(sql`SELECT sea_mq.emit('order', ${n}, 'OrderCreated', ${{ n }})`);

// docs:
await db.transaction(async (tx) => {
  await tx.insert(orders).values({ id: 1 });
  await tx.execute(sql`SELECT sea_mq.emit('order', ${1}, 'OrderCreated', ${JSON.stringify({ n: 1 })})`);
});
// :docs
await assert.rejects(
  db.transaction(async (tx) => {
    await tx.insert(orders).values({ id: 2 });
    await emit(tx, 2);
    throw new RangeError("rolled back");
  }),
  RangeError,
);
await db.transaction(async (tx) => {
  await emit(tx, 3);
  await tx
    .transaction(async (savepoint) => {
      await emit(savepoint, 4);
      savepoint.rollback();
    })
    .catch(() => {});
});
const values = { aggregateType: "order", aggregateId: "5", eventType: "OrderCreated", payload: { n: 5 } };
const [{ id }] = await db.insert(outboxEvents).values(values).returning({ id: outboxEvents.id });
assert.match(id, /^[0-9a-f-]{14}7/);
const events = [6, 7].map((n) => ({ aggregate_type: "order", aggregate_id: n, event_type: "OrderCreated", payload: { n } }));
await db.execute(sql`SELECT sea_mq.emit_array(${JSON.stringify(events)})`);

for (let left = 5; left > 0; ) {
  const { rows } = await db.execute(sql`SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')`);
  for (const message of rows) {
    await db.transaction(async (tx) => {
      await tx.execute(sql`INSERT INTO parcels (order_id) VALUES (${message.payload.n})`);
      await tx.execute(sql`SELECT sea_mq.complete(${message.id})`);
    });
  }
  left -= rows.length;
}
await db.$client.end();
