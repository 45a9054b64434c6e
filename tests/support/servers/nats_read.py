"""Prints each message of a JetStream stream, one a line: a client that shares nothing with ours.

Arguments: server URL, stream, number of messages.
"""
import asyncio
import hashlib
import json
import sys

import nats


async def main(url, stream, count):
    client = await nats.connect(url)
    jetstream = client.jetstream()
    durable = await jetstream.pull_subscribe("", stream=stream, durable="reader")
    left = count
    while left:
        for message in await durable.fetch(min(left, 500), timeout=10):
            left -= 1
            print(json.dumps({
                "subject": message.subject,
                "headers": message.headers,
                "sha256": hashlib.sha256(message.data).hexdigest(),
                "sequence": message.metadata.sequence.stream,
            }))
    await client.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
