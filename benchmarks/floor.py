"""The floor: what aiokafka's own consumer takes to fetch the records and drop them.

A worker can be below it: it parses what is fetched in a kernel, where aiokafka makes an object of each record.

Run as a process of its own: `python -m benchmarks.floor BOOTSTRAP PREFIX EVENTS` prints its cost as a JSON object.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.meter import Cost, sample
from benchmarks.workload import PARTITIONS
from stream.contracts.topics import Topic


async def fetch_and_drop(bootstrap: str, prefix: str, events: int) -> Cost:
    """Read `events` records of the three topics; counted from the first fetch."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        everything = [TopicPartition(prefix + topic.word, p) for topic in Topic for p in range(PARTITIONS)]
        consumer.assign(everything)
        await consumer.seek_to_beginning(*everything)
        start = sample(os.getpid())
        left = events
        while left > 0:
            fetched = await consumer.getmany(timeout_ms=1_000)
            left -= sum(map(len, fetched.values()))
        return sample(os.getpid()).cost_since(start)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(fetch_and_drop(sys.argv[1], sys.argv[2], int(sys.argv[3]))))))
