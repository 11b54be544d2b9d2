"""The budget: what each stage of a worker may cost, CPU microseconds per event on the peers' workload.

A stage is the functions that are its own; what they call of another stage is that stage's. So the stages and the rest
together are all that the process does. Names are `module:name` as the caller sees them; a name that is gone is an
error, for its cost would move to another stage unnoticed.
"""

from dataclasses import dataclass

TOTAL_US = 2.0
NETWORK_US = 0.30  # sockets, Kafka's protocol and Faust's event loop: what only a run on real Kafka has


@dataclass(frozen=True, slots=True)
class Stage:
    """budget_us: CPU microseconds per event."""

    name: str
    budget_us: float
    functions: tuple[str, ...]


STAGES = (
    Stage(
        "fetch and parse",
        0.12,
        (
            "stream.intake.fetch:RawPartitionRecords.__next__",
            "stream.intake.transport:Fetched.columns",
            "stream.app.feed:Feed.accept",
            "stream.app.feed:Feed.peek",
        ),
    ),
    Stage("decode", 0.25, ("stream.app.decoder:Decoder.decode",)),
    Stage(
        "plan and journal entry",
        0.10,
        (
            "stream.app.held:Held.turn",
            "stream.durability.partition:Partition.offer",
            "stream.durability.partition:Partition.advance",
            "stream.durability.partition:digest",
            "stream.durability.journal:Journal.append",
        ),
    ),
    Stage(
        "screen and dedupe",
        0.22,
        (
            "stream.engine.engine:screen",
            "stream.engine.engine:ledger_rows_of",
            "stream.engine.engine:count_outcomes",
            "stream.engine.engine:Engine._hash",
            "stream.engine.engine:dedupe",
        ),
    ),
    Stage(
        "assign and join",
        0.18,
        (
            "stream.engine.engine:encode_users",
            "stream.engine.engine:encode_combos",
            "stream.engine.names:Names.encode",
            "stream.engine.engine:Engine._arms_of",
            "stream.engine.engine:apply_assignments",
        ),
    ),
    Stage(
        "attribute",
        0.33,
        ("stream.engine.engine:apply_impressions", "stream.engine.engine:apply_interactions"),
    ),
    Stage("rest of the engine", 0.15, ("stream.engine.engine:Engine.execute",)),
    Stage(
        "fold and emit",
        0.12,
        ("stream.engine.emit:Emitter.begin", "stream.engine.emit:Emitter.outputs"),
    ),
    Stage(
        "snapshot",
        0.08,
        (
            "stream.durability.checkpoint:Checkpoints.begin",
            "stream.durability.checkpoint:Checkpoints.go_on",
            "stream.durability.checkpoint:Checkpoints.capture",
        ),
    ),
    Stage(
        "partials and rolling windows",
        0.04,
        (
            "stream.app.outlets:Outlets.put",
            "stream.app.outlets:Outlets.republish",
            "stream.app.outlets:KafkaOutlet.put",
            "stream.app.rolling:RollingWindows.take",
            "stream.app.rolling:RollingWindows.write",
        ),
    ),
    Stage(
        "sink rows",
        0.11,
        (
            "stream.sink.writer:Writer.put",
            "stream.sink.writer:Writer.put_rows",
            "stream.sink.writer:Writer._write",
            "stream.sink.writer:Writer._acknowledge",
        ),
    ),
)
