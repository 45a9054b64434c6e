"""What consumers of an export do: clients and formats that share nothing with the gateway's code.

  peer.py nats URL STREAM           messages of a JetStream stream, of each encoding
  peer.py kafka BROKER TOPIC        records of a Kafka topic, of each encoding
  peer.py jsonl DIR SUFFIX          CloudEvents, one a line, in the files below a folder
  peer.py eml DIR                   files <id>.eml below a folder
  peer.py make-stream URL STREAM SUBJECT
  peer.py make-topic BROKER TOPIC

Reading prints a line for each message: its id, and the SHA-256 of the mail data or, if it stands
elsewhere (claim check), its address.
"""
import asyncio
import base64
import hashlib
import json
import os
import sys


def tell(name, value):
    print(name, value)


def digest(octets):
    return hashlib.sha256(octets).hexdigest()


def event(text):
    """Id and content of a CloudEvent in JSON."""
    found = json.loads(text)
    raw = found["data"]["raw"]
    if "data" not in raw:
        return found["id"], raw["ref"]
    return found["id"], digest(base64.b64decode(raw["data"], validate=True))


async def read_nats(url, stream):
    import nats
    client = await nats.connect(url)
    jetstream = client.jetstream()
    left = (await jetstream.stream_info(stream)).state.messages
    reader = nats.js.api.ConsumerConfig(ack_policy=nats.js.api.AckPolicy.NONE)
    durable = await jetstream.pull_subscribe("", stream=stream, durable=f"reader{os.getpid()}",
                                             config=reader)
    while left:
        for message in await durable.fetch(min(left, 500), timeout=20):
            left -= 1
            headers = message.headers
            if headers["content-type"].startswith("application/cloudevents"):
                tell(*event(message.data))
            else:
                tell(headers["ce-id"], headers.get("ce-dataref") or digest(message.data))
    await client.close()


def read_kafka(broker, topic):
    from kafka import KafkaConsumer, TopicPartition
    # Its own check of the batches' CRC is in Python and takes a minute; the digest tells as much.
    consumer = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, check_crcs=False,
                             max_partition_fetch_bytes=16 << 20, fetch_max_bytes=64 << 20)
    for number in sorted(consumer.partitions_for_topic(topic)):
        partition = TopicPartition(topic, number)
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        consumer.seek_to_beginning(partition)
        while consumer.position(partition) < end:
            for record in consumer.poll(timeout_ms=1000, max_records=5000).get(partition, []):
                headers = {name: value.decode() for name, value in record.headers}
                if headers["content-type"].startswith("application/cloudevents"):
                    tell(*event(record.value))
                else:
                    tell(headers["ce_id"], headers.get("ce_dataref") or digest(record.value))
    consumer.close()


def files(directory, suffix):
    for folder, _, names in os.walk(directory):
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(suffix))


def is_complete(path):
    """Whether an object was put to its end. s3rver leaves on disk what had come of one whose client was
    killed, without the metadata that it writes last; S3 itself shows no such object."""
    name = path.removesuffix("._S3rver_object")
    return name == path or os.path.exists(name + "._S3rver_metadata.json")


def read_jsonl(directory, suffix):
    for path in filter(is_complete, files(directory, suffix)):
        with open(path, "rb") as lines:
            for line in lines:
                tell(*event(line))


def read_eml(directory):
    for path in files(directory, ".eml"):
        with open(path, "rb") as mail:
            tell(os.path.basename(path)[:-4], digest(mail.read()))


async def make_stream(url, stream, subject):
    import nats
    client = await nats.connect(url)
    await client.jetstream().add_stream(name=stream, subjects=[subject])
    await client.close()


def make_topic(broker, topic):
    from kafka.admin import KafkaAdminClient, NewTopic
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(name=topic, num_partitions=2, replication_factor=1)])
    admin.close()


work = {"nats": read_nats, "kafka": read_kafka, "jsonl": read_jsonl, "eml": read_eml,
        "make-stream": make_stream, "make-topic": make_topic}[sys.argv[1]]
result = work(*sys.argv[2:])
if asyncio.iscoroutine(result):
    asyncio.run(result)
