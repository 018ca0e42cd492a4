"""asyncpg. It asks the server for the types of parameters: aggregate_id is text there, and payload jsonb, as a text."""

import asyncio
import json
import os

import asyncpg

INSERT = """INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
    VALUES ('order', $1, 'OrderCreated', $2) RETURNING id"""


async def main():
    db = await asyncpg.connect(os.environ["DATABASE_URL"])
    # docs:
    async with db.transaction():
        await db.execute("INSERT INTO orders (id) VALUES ($1)", 1)
        await db.execute("SELECT sea_mq.emit('order', $1::bigint, 'OrderCreated', $2)", 1, json.dumps({"n": 1}))
    # :docs
    emit = "SELECT sea_mq.emit('order', $1, 'OrderCreated', $2)"
    transaction = db.transaction()
    await transaction.start()
    await db.execute("INSERT INTO orders (id) VALUES (2)")
    await db.execute(emit, "2", json.dumps({"n": 2}))
    await transaction.rollback()

    async with db.transaction():
        # With a codec for jsonb, payloads are objects.
        await db.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        await db.execute(emit, "3", {"n": 3})
        savepoint = db.transaction()
        await savepoint.start()
        await db.execute(emit, "4", {"n": 4})
        await savepoint.rollback()

    assert (await db.fetchval(INSERT, "5", {"n": 5})).version == 7
    events = [{"aggregate_type": "order", "aggregate_id": n, "event_type": "OrderCreated", "payload": {"n": n}} for n in (6, 7)]
    assert len(await db.fetch("SELECT sea_mq.emit_many($1)", events)) == 2

    left = 5
    while left > 0:
        # docs:
        messages = await db.fetch("SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')")
        for message in messages:
            async with db.transaction():
                await db.execute("INSERT INTO parcels (order_id) VALUES ($1)", str(message["payload"]["n"]))
                await db.execute("SELECT sea_mq.complete($1)", message["id"])
        # :docs
        left -= len(messages)
    await db.close()


asyncio.run(main())
