"""The floor: what it costs to fetch the records with aiokafka and drop them. Nothing in Python can be below it.

Run as a process of its own: `python -m benchmarks.floor BOOTSTRAP PREFIX EVENTS` prints one JSON object.
"""

import asyncio
import json
import resource
import sys
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.workload import PARTITIONS
from stream.contracts.topics import Topic

# As generous as the worker's own fetches.
FETCH = {"fetch_max_bytes": 52_428_800, "max_partition_fetch_bytes": 4_194_304, "fetch_max_wait_ms": 100}


async def fetch_and_drop(bootstrap: str, prefix: str, events: int) -> dict[str, float]:
    """Read `events` records of the three topics; CPU counts from the first fetch."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, **FETCH)
    await consumer.start()
    try:
        everything = [TopicPartition(prefix + topic.word, p) for topic in Topic for p in range(PARTITIONS)]
        consumer.assign(everything)
        await consumer.seek_to_beginning(*everything)
        started, cpu = time.monotonic(), _cpu_seconds()
        left = events
        while left > 0:
            fetched = await consumer.getmany(timeout_ms=1_000)
            left -= sum(map(len, fetched.values()))
        return {
            "seconds": time.monotonic() - started,
            "cpu_seconds": _cpu_seconds() - cpu,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    finally:
        await consumer.stop()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(asyncio.run(fetch_and_drop(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
