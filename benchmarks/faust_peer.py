"""The peer: the same job in plain Faust, one agent per topic, one event at a time, state in Faust's own tables.

Exact dedupe, arms of two experiments, clicks and purchases attributed by impression id, late assignments repaired;
10 s windows per arm. No attribution by item, no expiry, no lateness, no snapshot: less than liftstream does.
Run as a process of its own; its argument is a JSON object of bootstrap, prefix, events and result, the file to
which it writes its cost and its counts after the last record.
"""

import io
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fastavro
import faust

from benchmarks.meter import Sample, sample
from benchmarks.oracle import PANE_MS
from benchmarks.workload import EXPERIMENTS, PARTITIONS
from stream.contracts.topics import Topic
from stream.contracts.versions import as_numbers, newest

JOB = json.loads(sys.argv[1])
SCHEMAS = {
    newest(topic).schema_id: fastavro.parse_schema(as_numbers(newest(topic).schema)) for topic in Topic
}


class AvroCodec(faust.Codec):  # type: ignore[misc]
    """One datum at a time with fastavro."""

    def _loads(self, data: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), SCHEMAS[data[4]], None)

    def _dumps(self, value: Any) -> bytes:
        raise NotImplementedError


app = faust.App(
    f"{JOB['prefix']}faust-{int(time.time())}",
    broker=f"kafka://{JOB['bootstrap']}",
    store="memory://",
    topic_partitions=PARTITIONS,
    web_enabled=False,
    stream_wait_empty=False,
    broker_max_poll_records=5000,
    stream_buffer_maxsize=32768,
    producer_linger=0.05,
    topic_disable_leader=True,
)


def topic_of(topic: Topic) -> Any:
    return app.topic(
        JOB["prefix"] + topic.word,
        key_type=bytes,
        key_serializer="raw",
        value_serializer=AvroCodec(),
        partitions=PARTITIONS,
    )


arms = app.Table("arms", default=dict, partitions=PARTITIONS)
seen = app.Table("seen", default=bool, partitions=PARTITIONS)
panes = app.Table("panes", default=int, partitions=PARTITIONS)  # of impressions
answered = app.Table("answered", default=bool, partitions=PARTITIONS)
early = app.Table("early", default=list, partitions=PARTITIONS)  # interactions before their impression
unassigned = app.Table("unassigned", default=list, partitions=PARTITIONS)  # counts before their assignment
counts = app.Table("counts", default=int, partitions=PARTITIONS)


def is_new(event_id: str) -> bool:
    if seen[event_id]:
        return False
    seen[event_id] = True
    return True


def count(user_id: str, column: str, pane: int) -> None:
    of = arms[user_id]
    for experiment in EXPERIMENTS:
        if experiment in of:
            counts[f"{column}|{experiment}|{of[experiment]}|{pane}"] += 1
        else:
            unassigned[user_id] = [*unassigned[user_id], (column, experiment, pane)]


def answer(user_id: str, impression_id: str, kind: str, pane: int) -> None:
    mark = f"{kind}|{impression_id}"
    if not answered[mark]:
        answered[mark] = True
        count(user_id, "clicked_impressions" if kind == "click" else "converted_impressions", pane)


class Progress:
    """From the first record to the last, after which the process ends."""

    def __init__(self) -> None:
        self.left: int = JOB["events"]
        self.start: Sample | None = None

    def count(self) -> None:
        self.start = self.start or sample(os.getpid())
        self.left -= 1
        if self.left == 0:
            cost = sample(os.getpid()).cost_since(self.start)
            Path(JOB["result"]).write_text(json.dumps({"cost": asdict(cost), "counts": dict(counts.data)}))
            os._exit(0)


progress = Progress()


@app.agent(topic_of(Topic.ASSIGNMENTS))
async def assign(stream: Any) -> None:
    async for event in stream:
        if is_new(event["event_id"]):
            user_id, experiment, arm = event["user_id"], event["experiment"], event["arm"]
            arms[user_id] = {**arms[user_id], experiment: arm}
            waiting = unassigned[user_id]
            if waiting:
                for column, wanted, pane in waiting:
                    if wanted == experiment:
                        counts[f"{column}|{experiment}|{arm}|{pane}"] += 1
                unassigned[user_id] = [entry for entry in waiting if entry[1] != experiment]
        progress.count()


@app.agent(topic_of(Topic.IMPRESSIONS))
async def show(stream: Any) -> None:
    async for event in stream:
        if is_new(event["event_id"]):
            impression_id, user_id = event["impression_id"], event["user_id"]
            pane = panes[impression_id] = event["at"] // PANE_MS * PANE_MS
            count(user_id, "impressions", pane)
            if impression_id in early:
                for kind in early.pop(impression_id):
                    answer(user_id, impression_id, kind, pane)
        progress.count()


@app.agent(topic_of(Topic.INTERACTIONS))
async def interact(stream: Any) -> None:
    async for event in stream:
        if is_new(event["event_id"]):
            impression_id, pane = event["impression_id"], panes[event["impression_id"]]
            if pane:
                answer(event["user_id"], impression_id, event["kind"], pane)
            else:
                early[impression_id] = [*early[impression_id], event["kind"]]
        progress.count()


if __name__ == "__main__":
    sys.argv = ["faust_peer", "worker", "-l", "error"]
    app.main()
