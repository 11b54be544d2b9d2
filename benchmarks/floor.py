"""The floor: what it costs to fetch the records with aiokafka and drop them. Nothing in Python can be below it.

Run as a process of its own: `python -m benchmarks.floor BOOTSTRAP PREFIX EVENTS` prints one JSON object.
"""

import asyncio
import json
import resource
import sys
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.meter import peak_rss_kb
from benchmarks.workload import PARTITIONS
from stream.contracts.topics import Topic


async def fetch_and_drop(bootstrap: str, prefix: str, events: int) -> dict[str, float]:
    """Read `events` records of the three topics; CPU counts from the first fetch."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
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
            "peak_rss_mb": peak_rss_kb("self") / 1024,
        }
    finally:
        await consumer.stop()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(asyncio.run(fetch_and_drop(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
