// Prisma 7. The functions are called with $queryRaw, in an interactive transaction.
import assert from "node:assert";
import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaClient } from "./generated/client.js";

const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }) });

// docs:
await prisma.$transaction(async (tx) => {
  await tx.order.create({ data: { id: 1n } });
  await tx.$queryRaw`SELECT sea_mq.emit('order', ${1}, 'OrderCreated', ${{ n: 1 }})`;
});
// :docs

await prisma
  .$transaction(async (tx) => {
    await tx.order.create({ data: { id: 2n } });
    await tx.$queryRaw`SELECT sea_mq.emit('order', ${2n}, 'OrderCreated', ${{ n: 2 }})`;
    throw new RangeError("rolled back");
  })
  .catch((error) => assert(error instanceof RangeError, error));

// Prisma has no savepoints of its own.
await prisma.$transaction(async (tx) => {
  await tx.$queryRaw`SELECT sea_mq.emit('order', ${"3"}, 'OrderCreated', ${JSON.stringify({ n: 3 })}::jsonb)`;
  await tx.$executeRaw`SAVEPOINT s`;
  await tx.$queryRaw`SELECT sea_mq.emit('order', ${4}, 'OrderCreated', ${{ n: 4 }})`;
  await tx.$executeRaw`ROLLBACK TO s`;
});

const inserted = await prisma.$queryRaw<{ id: string }[]>`INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
  VALUES ('order', ${"5"}, 'OrderCreated', ${{ n: 5 }}) RETURNING id`;
assert.match(inserted[0]!.id, /^[0-9a-f-]{14}7/);
const events = [6, 7].map((n) => ({ aggregate_type: "order", aggregate_id: n, event_type: "OrderCreated", payload: { n } }));
await prisma.$queryRaw`SELECT sea_mq.emit_array(${JSON.stringify(events)}::jsonb)`;

for (let left = 5; left > 0; ) {
  // docs:
  const messages = await prisma.$queryRaw<{ id: bigint; payload: { n: number } }[]>`
    SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')`;
  for (const { id, payload } of messages) {
    await prisma.$transaction(async (tx) => {
      await tx.parcel.create({ data: { order_id: String(payload.n) } });
      await tx.$queryRaw`SELECT sea_mq.complete(${id})`;
    });
  }
  // :docs
  left -= messages.length;
}
await prisma.$disconnect();
