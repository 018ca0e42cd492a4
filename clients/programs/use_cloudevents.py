"""The CloudEvents SDK at the receiving side: messages of sea_mq are CloudEvents, which NATS carries as HTTP does."""

import asyncio
import os

import nats
import psycopg
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from psycopg.types.json import Jsonb


async def main():
    connection = await nats.connect(os.environ["NATS_URL"])
    consumer = await connection.jetstream().pull_subscribe("", durable="shipping__events", stream="ORDERS_EVENTS")
    left = 5
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
        while left > 0:
            # docs:
            for message in await consumer.fetch(10, timeout=5):
                event = from_http_event(HTTPMessage(headers=message.headers, body=message.data))
                with db.transaction():
                    accepted = db.execute(
                        "SELECT sea_mq.inbox_accept(%s, %s, %s, %s, 'shipping__events')",
                        (event.get_id(), event.get_source(), event.get_type(), Jsonb(event.get_data())),
                    )
                    if accepted.fetchone()[0]:
                        db.execute("INSERT INTO parcels (order_id) VALUES (%s)", (event.get_data()["n"],))
                await message.ack()
                # :docs
                left -= 1
    await connection.close()


asyncio.run(main())
