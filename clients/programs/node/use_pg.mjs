// node-postgres.
import assert from "node:assert";
import pg from "pg";

const db = new pg.Client(process.env.DATABASE_URL);
await db.connect();
const EMIT = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2)";

// docs:
await db.query("BEGIN");
await db.query("INSERT INTO orders (id) VALUES ($1)", [1]);
await db.query("SELECT sea_mq.emit('order', $1, 'OrderCreated', $2)", [1, { n: 1 }]);
await db.query("COMMIT");
// :docs

await db.query("BEGIN");
await db.query("INSERT INTO orders (id) VALUES (2)");
await db.query(EMIT, [2, { n: 2 }]);
await db.query("ROLLBACK");

await db.query("BEGIN");
await db.query(EMIT, ["3", JSON.stringify({ n: 3 })]);
await db.query("SAVEPOINT s");
await db.query(EMIT, [4n, { n: 4 }]);
await db.query("ROLLBACK TO s");
await db.query("COMMIT");

const insert = `INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
  VALUES ('order', $1, 'OrderCreated', $2) RETURNING id`;
assert.match((await db.query(insert, [5, { n: 5 }])).rows[0].id, /^[0-9a-f-]{14}7/);
const events = [6, 7].map((n) => ({ aggregate_type: "order", aggregate_id: n, event_type: "OrderCreated", payload: { n } }));
assert.equal((await db.query("SELECT sea_mq.emit_array($1)", [JSON.stringify(events)])).rowCount, 2);

for (let left = 5; left > 0; ) {
  // docs:
  const { rows } = await db.query("SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')");
  for (const message of rows) {
    await db.query("BEGIN");
    await db.query("INSERT INTO parcels (order_id) VALUES ($1)", [message.payload.n]);
    await db.query("SELECT sea_mq.complete($1)", [message.id]);
    await db.query("COMMIT");
  }
  // :docs
  left -= rows.length;
}
await db.end();
