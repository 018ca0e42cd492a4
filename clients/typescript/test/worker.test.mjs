// The helpers against a real server. DATABASE_URL names a database in test mode.
import assert from "node:assert";
import { after, test } from "node:test";
import pg from "pg";
import { Reject, Retry, Worker, emit, emitMany } from "../dist/index.js";
import { deliver, pendingEvents, rolledBack, testMode } from "../dist/testing.js";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 8 });
pool.on("error", () => {});
after(() => pool.end());
await testMode(pool);
await pool.query("CREATE TABLE effects (subscription text, n int)");

async function subscribed(name) {
  const sql = "SELECT sea_mq.subscribe($1, $2, start_from => 'all', context => 'worker', retry_delay => '10 ms')";
  await pool.query(sql, [`worker__${name}`, name]);
  const emitNumbers = async (...numbers) => {
    for (const n of numbers) await emit(pool, { aggregateType: "thing", aggregateId: n, eventType: "Counted", payload: n, context: name });
  };
  const effects = async () =>
    (await pool.query("SELECT n FROM effects WHERE subscription = $1 ORDER BY n", [`worker__${name}`])).rows.map((row) => row.n);
  const record = (client, message) => client.query("INSERT INTO effects VALUES ($1, $2)", [`worker__${name}`, message.payload]);
  return { subscription: `worker__${name}`, emitNumbers, effects, record };
}

test("all parameters arrive, in the caller's transaction", async () => {
  const later = new Date(Date.now() + 86_400_000);
  const event = {
    aggregateType: "order", aggregateId: 7n, eventType: "OrderPaid", payload: null, eventVersion: 2, context: "sales",
    eventId: "01890a5d-ac96-774b-bcce-b302099a8057", correlationId: "corr", causationId: "cause", headers: { "X-Tenant": "acme" },
    visibility: "public", availableAt: later,
  };
  await rolledBack(pool, async (client) => {
    assert.equal(await emit(client, event), event.eventId);
    const ids = await emitMany(client, [1, 2n].map((aggregateId) => ({ ...event, eventId: undefined, aggregateId, payload: { a: 1 } })));
    const [first, second, third] = await pendingEvents(client);
    assert.deepEqual([first.subject, first.aggregate_id, first.payload], ["sales.event.order_paid.v2", "7", null]);
    assert.deepEqual([first.headers, first.available_at], [{ "X-Tenant": "acme" }, later]);
    assert.deepEqual([first.correlation_id, first.causation_id], ["corr", "cause"]);
    assert.deepEqual([second.id, third.id, second.aggregate_id, third.payload], [...ids, "1", { a: 1 }]);
  });
  assert.equal((await pool.query("SELECT FROM sea_mq.outbox_events WHERE context = 'sales'")).rowCount, 0);
});

test("failures are retried, rejections are dead", async () => {
  const { subscription, emitNumbers, effects, record } = await subscribed("failures");
  await emitNumbers(1, 2, 3, 4, 5);
  const worker = new Worker(pool, subscription, async (client, message) => {
    await record(client, message);
    if (message.payload === 3) throw new Reject("never");
    if (message.attempts > 1) return;
    if (message.payload === 2) throw new RangeError("not now");
    if (message.payload === 4) throw new Retry("soon", 0.05);
    if (message.payload === 5) await client.query("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$");
  }, { wait: 1, log: () => {} });
  assert.deepEqual(await worker.run({ idle: 2 }), { completed: 4, failed: 3, rejected: 1, lost: 0 });
  assert.deepEqual(await effects(), [1, 2, 4, 5]);
});

test("a killed connection is made again", async () => {
  const { subscription, emitNumbers, effects, record } = await subscribed("killed");
  await emitNumbers(1);
  const worker = new Worker(pool, subscription, async (client, message) => {
    if (message.attempts === 1) {
      const { rows } = await client.query("SELECT pg_backend_pid() AS pid");
      await pool.query("SELECT pg_terminate_backend($1)", [rows[0].pid]);
    }
    await record(client, message);
  }, { wait: 1, lease: 1, log: () => {} });
  assert.equal((await worker.run({ idle: 4 })).completed, 1);
  assert.deepEqual(await effects(), [1]);
});

test("leases are renewed", async () => {
  const { subscription, emitNumbers, effects, record } = await subscribed("renewed");
  await emitNumbers(1);
  const options = { wait: 1, lease: 1, log: () => {} };
  const worker = new Worker(pool, subscription, async (client, message) => {
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await record(client, message);
  }, options);
  const running = worker.run({ idle: 1 });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(await deliver(pool, subscription, record, 3), 0);
  assert.equal((await running).completed, 1);
  assert.deepEqual(await effects(), [1]);
});

test("stop ends after what is in hand", async () => {
  const { subscription, emitNumbers, effects, record } = await subscribed("stopped");
  await emitNumbers(1, 2, 3, 4, 5, 6);
  // Otherwise the first batch may be a smaller one.
  const stored = "SELECT FROM sea_mq.inbox_messages WHERE subscription = $1";
  while ((await pool.query(stored, [subscription])).rowCount < 6) await new Promise((resolve) => setTimeout(resolve, 20));
  const worker = new Worker(pool, subscription, async (client, message) => {
    await record(client, message);
    if (message.payload === 2) worker.stop();
  }, { batch: 3, log: () => {} });
  await worker.run();
  assert.deepEqual(await effects(), [1, 2, 3]);
});
