#!/usr/bin/env python3
"""An application with its own NATS consumer: sea_mq.inbox_accept makes its effects happen once.

    NATS_URL=nats://localhost:4222 DATABASE_URL=postgresql://shipping_app@localhost/shipping \
        python3 accept.py STREAM SUBSCRIPTION [IDLE_SECONDS]

You may leave out DATABASE_URL if PGHOST, PGDATABASE and so on are set. SUBSCRIPTION is the durable name of the consumer,
and its name in the inbox. You may run any number of these programs at once. A program ends when nothing has come for
IDLE_SECONDS (default: never). Needs psycopg 3 and nats-py. In the database, once:

    CREATE TABLE parcels (order_id text, message_id text);
    GRANT sea_mq_consumer TO shipping_app;
"""

import asyncio
import json
import os
import sys
import time

import nats
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig
from psycopg.types.json import Jsonb


async def pack(db, message_id, payload):
    """The work. If it raises, its changes in the database are undone."""
    await db.execute("INSERT INTO parcels (order_id, message_id) VALUES (%s, %s)", (payload["order"], message_id))


async def handle(db, subscription, message):
    headers = message.headers
    message_id = headers["Nats-Msg-Id"]
    payload = json.loads(message.data)
    async with db.transaction():
        accepted = await db.execute(
            "SELECT sea_mq.inbox_accept(%s, %s, %s, %s, %s)",
            (message_id, headers["X-Source-Context"], headers["X-Event-Type"], Jsonb(payload), subscription),
        )
        # False: the message came again. This or another process has handled it.
        if (await accepted.fetchone())[0]:
            await pack(db, message_id, payload)


async def main(stream, subscription, idle=float("inf")):
    connection = await nats.connect(os.environ["NATS_URL"])
    jetstream = connection.jetstream()
    # One consumer for all processes: the first one creates it, all use it.
    config = ConsumerConfig(durable_name=subscription, ack_policy=AckPolicy.EXPLICIT, ack_wait=30)
    await jetstream.add_consumer(stream, config)
    consumer = await jetstream.pull_subscribe_bind(subscription, stream)
    async with await psycopg.AsyncConnection.connect(os.environ.get("DATABASE_URL", ""), autocommit=True) as db:
        last = time.monotonic()
        while time.monotonic() - last < idle:
            try:
                messages = await consumer.fetch(10, timeout=1)
            except asyncio.TimeoutError:
                continue
            for message in messages:
                try:
                    await handle(db, subscription, message)
                except Exception as error:  # noqa: BLE001
                    # Ask the connection, not the error: a deadlock or a timeout is an OperationalError too.
                    if db.closed:
                        raise  # An unacknowledged message is delivered again after ack_wait.
                    print(f"message {message.metadata.sequence.stream}: {error!r}", file=sys.stderr)
                    await message.nak(delay=5)
                else:
                    await message.ack()  # Only after the commit.
                last = time.monotonic()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], *map(float, sys.argv[3:4])))
