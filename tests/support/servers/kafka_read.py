"""Prints each record of a Kafka topic, one a line: a client that shares nothing with ours.

Arguments: broker, topic. `expected` is the partition that its own hash of the key gives.
"""
import hashlib
import json
import sys

from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2

consumer = KafkaConsumer(bootstrap_servers=sys.argv[1], enable_auto_commit=False,
                         max_partition_fetch_bytes=16 << 20, fetch_max_bytes=64 << 20)
partitions = sorted(consumer.partitions_for_topic(sys.argv[2]))
for number in partitions:
    partition = TopicPartition(sys.argv[2], number)
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    consumer.seek_to_beginning(partition)
    while consumer.position(partition) < end:
        for record in consumer.poll(timeout_ms=1000).get(partition, []):
            key = record.key
            print(json.dumps({
                "partition": number,
                "offset": record.offset,
                "key": None if key is None else key.decode(),
                "expected": None if key is None
                else (murmur2(key) & 0x7fffffff) % len(partitions),
                "headers": {name: value.decode() for name, value in record.headers},
                "sha256": hashlib.sha256(record.value).hexdigest(),
                "timestamp": record.timestamp,
            }))
consumer.close()
