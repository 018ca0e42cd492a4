#!/usr/bin/env python3
"""stored.py URL STREAM: the id of each message that the stream holds, a line each, in the order in which they are stored."""
import asyncio
import sys

import nats


async def main(url, name):
    client = await nats.connect(url, connect_timeout=5)
    stream = client.jetstream()
    state = (await stream.stream_info(name)).state
    for sequence in range(state.first_seq, state.last_seq + 1):
        print((await stream.get_msg(name, seq=sequence)).headers["Nats-Msg-Id"])
    await client.close()


asyncio.run(main(*sys.argv[1:]))
