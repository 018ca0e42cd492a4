// Knex, on node-postgres.
import assert from "node:assert";
import knex from "knex";

const db = knex({ client: "pg", connection: process.env.DATABASE_URL });
const emit = (trx, n) => trx.raw("SELECT sea_mq.emit('order', ?, 'OrderCreated', ?)", [n, { n }]);

// docs:
await db.transaction(async (trx) => {
  await trx("orders").insert({ id: 1 });
  await trx.raw("SELECT sea_mq.emit('order', ?, 'OrderCreated', ?)", [1, { n: 1 }]);
});
// :docs
await assert.rejects(
  db.transaction(async (trx) => {
    await trx("orders").insert({ id: 2 });
    await emit(trx, 2);
    throw new RangeError("rolled back");
  }),
  RangeError,
);
await db.transaction(async (trx) => {
  await emit(trx, 3);
  const savepoint = await trx.transaction();
  await emit(savepoint, 4);
  await savepoint.rollback();
});
// docs:
const [{ id }] = await db
  .withSchema("sea_mq")
  .table("outbox_events")
  .insert({ aggregate_type: "order", aggregate_id: 5, event_type: "OrderCreated", payload: { n: 5 } })
  .returning("id");
// :docs
assert.match(id, /^[0-9a-f-]{14}7/);
const events = [6, 7].map((n) => ({ aggregate_type: "order", aggregate_id: n, event_type: "OrderCreated", payload: { n } }));
await db.raw("SELECT sea_mq.emit_array(?)", [JSON.stringify(events)]);

for (let left = 5; left > 0; ) {
  const { rows } = await db.raw("SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')");
  for (const message of rows) {
    await db.transaction(async (trx) => {
      await trx("parcels").insert({ order_id: message.payload.n });
      await trx.raw("SELECT sea_mq.complete(?)", [message.id]);
    });
  }
  left -= rows.length;
}
await db.destroy();
