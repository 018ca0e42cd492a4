#!/usr/bin/env python3
"""An application with a NATS consumer of its own: sea_mq.inbox_accept makes its effects happen once.

    NATS_URL=nats://localhost:4222 DATABASE_URL=postgresql://shipping_app@localhost/shipping \
        python3 accept.py STREAM SUBSCRIPTION [IDLE_SECONDS]

DATABASE_URL may be left out if PGHOST, PGDATABASE and the like are set. SUBSCRIPTION is the durable name of the consumer
and what the inbox knows it by; any number of these may run at once. Ends when nothing has come for IDLE_SECONDS
(default: never). Needs psycopg 3 and nats-py. In the database, once:

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
    """The work. Whatever it does in the database is undone if it raises."""
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
        # False: it came again, and this or another process had done it.
        if (await accepted.fetchone())[0]:
            await pack(db, message_id, payload)


async def main(stream, subscription, idle=float("inf")):
    connection = await nats.connect(os.environ["NATS_URL"])
    jetstream = connection.jetstream()
    # One consumer for all processes: made by the first, used by all.
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
                except psycopg.OperationalError:
                    raise  # The connection is gone. What was not acknowledged is delivered again after ack_wait.
                except Exception as error:  # noqa: BLE001
                    print(f"message {message.metadata.sequence.stream}: {error!r}", file=sys.stderr)
                    await message.nak(delay=5)
                else:
                    await message.ack()  # Not before the commit.
                last = time.monotonic()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], *map(float, sys.argv[3:4])))
