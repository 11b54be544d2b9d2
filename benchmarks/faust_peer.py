"""The peer: the same job in plain Faust, one agent per topic, one event at a time, state in Faust's own tables.

Exact dedupe, arms of all experiments, clicks and purchases attributed by impression id, or by user and item where an
interaction has none, late assignments repaired; 10 s windows per arm. No expiry, no lateness, no snapshot: less than
liftstream does. Run as a process of its own; its argument is a JSON object of bootstrap, prefix, experiments, by_item,
events and result, the file to which it writes its cost and its counts after the last record.
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
from benchmarks.workload import PARTITIONS
from stream.contracts.limits import EARLY_MS
from stream.contracts.topics import Topic
from stream.contracts.versions import as_numbers, newest

JOB = json.loads(sys.argv[1])
WINDOW_MS = 86_400_000
ANSWERED = {"click": "clicked_impressions", "purchase": "converted_impressions"}
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
shown_at = app.Table("shown_at", default=int, partitions=PARTITIONS)  # by impression
answered = app.Table("answered", default=bool, partitions=PARTITIONS)
early = app.Table("early", default=list, partitions=PARTITIONS)  # interactions before their impression
shown = app.Table("shown", default=list, partitions=PARTITIONS)  # by user and item: (time, impression)
asked = app.Table("asked", default=list, partitions=PARTITIONS)  # the same of interactions: (time, kind)
credited = app.Table("credited", default=list, partitions=PARTITIONS)  # the same: (impression, kind, pane)
unassigned = app.Table("unassigned", default=list, partitions=PARTITIONS)  # counts before their assignment
counts = app.Table("counts", default=int, partitions=PARTITIONS)


def is_new(event_id: str) -> bool:
    if seen[event_id]:
        return False
    seen[event_id] = True
    return True


def count(user_id: str, column: str, pane: int, amount: int = 1) -> None:
    of = arms[user_id]
    for experiment in JOB["experiments"]:
        if experiment in of:
            counts[f"{column}|{experiment}|{of[experiment]}|{pane}"] += amount
        else:
            unassigned[user_id] = [*unassigned[user_id], (column, experiment, pane, amount)]


def answer(user_id: str, impression_id: str, kind: str, at: int) -> None:
    of_ms, mark = shown_at[impression_id], f"{kind}|{impression_id}"
    if -EARLY_MS <= at - of_ms <= WINDOW_MS and not answered[mark]:
        answered[mark] = True
        count(user_id, ANSWERED[kind], of_ms // PANE_MS * PANE_MS)


def answer_by_item(user_id: str, item_id: str) -> None:
    """Each interaction goes to the latest impression before it; what that changes is taken back and added."""
    key = f"{user_id}|{item_id}"
    if not asked[key]:
        return
    now = set()
    for at, kind in asked[key]:
        of_ms, impression_id = max((one for one in shown[key] if one[0] <= at), default=(-1, ""))
        if impression_id and at - of_ms <= WINDOW_MS:
            now.add((impression_id, kind, of_ms // PANE_MS * PANE_MS))
    before = {tuple(one) for one in credited[key]}
    for amount, changed in ((1, now - before), (-1, before - now)):
        for _, kind, pane in changed:
            count(user_id, ANSWERED[kind], pane, amount)
    credited[key] = sorted(now)


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
                for column, wanted, pane, amount in waiting:
                    if wanted == experiment:
                        counts[f"{column}|{experiment}|{arm}|{pane}"] += amount
                unassigned[user_id] = [entry for entry in waiting if entry[1] != experiment]
        progress.count()


@app.agent(topic_of(Topic.IMPRESSIONS))
async def show(stream: Any) -> None:
    async for event in stream:
        if is_new(event["event_id"]):
            impression_id, user_id, item_id = event["impression_id"], event["user_id"], event["item_id"]
            shown_at[impression_id] = event["at"]
            count(user_id, "impressions", event["at"] // PANE_MS * PANE_MS)
            if impression_id in early:
                for kind, at in early.pop(impression_id):
                    answer(user_id, impression_id, kind, at)
            if JOB["by_item"]:
                key = f"{user_id}|{item_id}"
                shown[key] = [*shown[key], (event["at"], impression_id)]
                answer_by_item(user_id, item_id)
        progress.count()


def interact_once(event: Any) -> None:
    user_id, impression_id, item_id, kind = (
        event[n] for n in ("user_id", "impression_id", "item_id", "kind")
    )
    if kind not in ANSWERED:
        return
    if impression_id is None:
        key = f"{user_id}|{item_id}"
        asked[key] = [*asked[key], (event["at"], kind)]
        answer_by_item(user_id, item_id)
    elif impression_id in shown_at:
        answer(user_id, impression_id, kind, event["at"])
    else:
        early[impression_id] = [*early[impression_id], (kind, event["at"])]


@app.agent(topic_of(Topic.INTERACTIONS))
async def interact(stream: Any) -> None:
    async for event in stream:
        if is_new(event["event_id"]):
            interact_once(event)
        progress.count()


if __name__ == "__main__":
    sys.argv = ["faust_peer", "worker", "-l", "error", "--without-web"]
    app.main()
