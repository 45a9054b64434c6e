#!/usr/bin/env python3
"""Reads mail from Mailrace's stream, at least once, and commits what it has dealt with.

    consumer.py [--url http://127.0.0.1:2580] [--group example] [--count N]

Standard library only. A record may come twice (after a crash, or a commit that was lost): its `id`
never changes, so keep it with what you store. `commit` names the next offset wanted, by shard.
"""

import argparse
import base64
import json
import time
import urllib.error
import urllib.request

COMMIT_EVERY = 100


def handle(event):
    """Put your own work here. It must be durable when this returns."""
    data = event["data"]
    raw = data["raw"]
    if "ref" in raw:  # a large message: fetch it
        with urllib.request.urlopen(raw["ref"], timeout=60) as answer:
            mail = answer.read()
    else:
        mail = base64.b64decode(raw["data"])
    sender, recipients = data["envelope"]["mail_from"], data["envelope"]["rcpt_to"]
    print(event["id"], len(mail), sender, ",".join(recipients), data["subject"], flush=True)


def commit(url, group, offsets):
    request = urllib.request.Request(
        f"{url}/v1/groups/{group}/commit",
        data=json.dumps(offsets).encode(),
        headers={"content-type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def consume(url, group, count):
    """Reads until the stream ends, or `count` records are committed; says how many those were."""
    done, offsets = 0, {}
    stream = f"{url}/v1/stream?group={group}&follow=1&max_inflight={10 * COMMIT_EVERY}"
    try:
        with urllib.request.urlopen(stream, timeout=None) as answer:
            for line in answer:
                event = json.loads(line)
                handle(event)
                log = event["data"]["log"]
                offsets[str(log["shard"])] = log["offset"] + 1
                done += 1
                if done % COMMIT_EVERY == 0 or done == count:
                    commit(url, group, offsets)
                if done == count:
                    break
    finally:
        # Also when the server went away: what was handled need not come again.
        if offsets and done != count:
            try:
                commit(url, group, offsets)
            except OSError:
                pass
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:2580")
    parser.add_argument("--group", default="example")
    parser.add_argument("--count", type=int, help="stop after this many records")
    options = parser.parse_args()
    left, wait = options.count, 0.5
    while left is None or left > 0:
        try:
            done = consume(options.url, options.group, left)
            left = None if left is None else left - done
            wait = 0.5
        except (OSError, urllib.error.URLError, json.JSONDecodeError) as error:
            print(f"again in {wait} s: {error}", flush=True)
        if left != 0:
            time.sleep(wait)
            wait = min(wait * 2, 30)


if __name__ == "__main__":
    main()
