#!/usr/bin/env python3
"""Prints the events of a stream as CloudEvents, one JSON object a line, as the CloudEvents SDK reads them.

    NATS_URL=nats://localhost:4222 python3 cloud_events.py STREAM

The stream has the setting metadata => 'cloudevents' or 'full', or the body 'envelope'; messages that are no CloudEvents are passed
over. With a payload, the attributes are in the headers (binary content mode); with an envelope, they are in the body (structured
content mode). It reads what the stream holds now, and acknowledges nothing. Needs nats-py
and cloudevents 2.
"""

import asyncio
import os
import sys

import nats
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat


def is_cloud_event(message):
    headers = message.headers or {}
    return "ce-specversion" in headers or headers.get("Content-Type", "").startswith("application/cloudevents")


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
        if is_cloud_event(message):
            print(JSONFormat().write(read(message)).decode())
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
