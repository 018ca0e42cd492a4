#!/usr/bin/env python3
"""Prints the events of a stream as CloudEvents, one JSON object a line, as the CloudEvents SDK reads them.

    NATS_URL=nats://localhost:4222 python3 cloud_events.py STREAM

It works with both kinds of body: with a payload, the attributes are in the headers (binary content mode); with an envelope,
they are in the body (structured content mode). It reads what the stream holds now, and acknowledges nothing. Needs nats-py
and cloudevents 2.
"""

import asyncio
import os
import sys

import nats
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat


def read(message):
    """NATS carries a CloudEvent as HTTP does: the same headers, encoded by the same rule."""
    return from_http_event(HTTPMessage(headers=message.headers or {}, body=message.data))


async def main(stream):
    connection = await nats.connect(os.environ["NATS_URL"])
    jetstream = connection.jetstream()
    left = (await jetstream.stream_info(stream)).state.messages
    subscription = await jetstream.subscribe("", stream=stream, ordered_consumer=True)
    for _ in range(left):
        message = await subscription.next_msg(timeout=10)
        print(JSONFormat().write(read(message)).decode())
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
