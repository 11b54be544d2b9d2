"""What goes to ClickHouse: one step's outputs, and all that one flush writes."""

from dataclasses import dataclass, field

import pyarrow as pa

from stream.engine.outputs import Outputs
from stream.sink.origins import Origins
from stream.sink.outbox import Outbox
from stream.sink.tables import SHAPES


@dataclass(frozen=True, slots=True)
class Emission:
    """A step's outputs on their way to ClickHouse.

    lag: records of the partition that wait in Kafka. origins: the Kafka record times of the step's records.
    """

    generation: int
    partition: int
    outputs: Outputs
    planned_at_ms: int
    lag: int
    origins: Origins

    @property
    def status(self) -> dict[str, int | None]:
        """What partition_status says of the step, without what only the writer knows."""
        o = self.outputs
        return {
            "watermark_ms": o.clock_ms if o.clock_ms >= 0 else None,
            "horizon_ms": o.horizon_ms if o.clock_ms >= 0 else None,
            "lag": self.lag,
            "records": o.rows,
            "last_step": o.step,
            "last_step_at_ms": self.planned_at_ms,
        }


@dataclass(slots=True)
class Batch:
    """What one flush writes. newest: the latest emission of each partition; origins: of all that wait."""

    outbox: Outbox = field(default_factory=Outbox)
    newest: dict[int, Emission] = field(default_factory=dict)
    origins: dict[int, Origins] = field(default_factory=dict)

    @property
    def is_worth_writing(self) -> bool:
        """Rows, or a step to acknowledge."""
        return bool(self.newest) or self.outbox.rows > 0

    def extend(self, later: "Batch") -> None:
        """Take over what came after this batch."""
        self.outbox.extend(later.outbox)
        for emission in later.newest.values():
            self.note(emission, later.origins[emission.partition])

    def note(self, emission: Emission, origins: Origins) -> None:
        """Make this the newest emission of its partition, with the record times of all its origins."""
        p = emission.partition
        self.newest[p] = emission
        self.origins[p] = Origins.merged([self.origins[p], origins]) if p in self.origins else origins

    def status_rows(self, written_at_ms: int) -> pa.Table:
        """A row of partition_status for each partition whose rows were in ClickHouse at that time."""
        shape = SHAPES["status"]
        rows = []
        for partition, emission in self.newest.items():
            origins = self.origins[partition]
            p50, p95, p99 = origins.latencies_ms(written_at_ms)
            row = emission.status | {
                "latency_p50_ms": p50,
                "latency_p95_ms": p95,
                "latency_p99_ms": p99,
                "written_at_ms": written_at_ms,
                "data_as_of_ms": origins.newest_ms,
            }
            columns = {name: [value] for name, value in row.items()}
            version = emission.outputs.step
            rows.append(
                shape.rows(columns, generation=emission.generation, partition=partition, version=version)
            )
        return pa.concat_tables(rows)
