"""FastStream on NATS, at the receiving side: the stream is sea_mq's, and inbox_accept makes each message count once."""

import asyncio
import os

import psycopg
from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from psycopg.types.json import Jsonb

broker = NatsBroker(os.environ["NATS_URL"])
app = FastStream(broker)


# docs:
async def ids(message, original):
    """FastStream makes ids of its own unless it is told which headers have them."""
    parsed = await original(message)
    parsed.message_id = parsed.headers["Nats-Msg-Id"]
    parsed.correlation_id = parsed.headers["X-Correlation-Id"]
    return parsed


# declare=False: the stream is sea_mq's. With the default, FastStream updates it to its own settings.
@broker.subscriber(
    "orders.event.>",
    stream=JStream("ORDERS_EVENTS", declare=False),
    durable="shipping__orders",
    pull_sub=PullSub(timeout=1),
    parser=ids,
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def pack(payload: dict, message: NatsMessage):
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"]) as db:
        accepted = await db.execute(
            "SELECT sea_mq.inbox_accept(%s, %s, %s, %s, 'shipping__orders')",
            (message.message_id, message.headers["X-Source-Context"], message.headers["X-Event-Type"], Jsonb(payload)),
        )
        if (await accepted.fetchone())[0]:
            await db.execute("INSERT INTO parcels (order_id) VALUES (%s)", (payload["n"],))
    # :docs
    if payload["n"] == 7:
        app.exit()


asyncio.run(asyncio.wait_for(app.run(), 60))
