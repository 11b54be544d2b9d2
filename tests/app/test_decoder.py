import time

import numpy as np
from faust.types import TP

from stream.app.decoder import LOOK_UPS, MOST_WARNINGS, Decoder
from stream.contracts.reasons import Reason
from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas
from stream.engine.batch import Columns
from stream.intake.decode import columns_of
from tests.app.fakes import NAMES


class FetchedValues:
    """As much of a Fetched as a decoder needs."""

    def __init__(self, values: list[bytes]) -> None:
        self.tp = TP(NAMES[Topic.IMPRESSIONS], 0)
        self._values = values

    def columns(self) -> Columns:
        n = len(self._values)
        return columns_of(self._values, np.arange(n), np.zeros(n, np.int64))


class CountingSchemas(Schemas):
    """Counts what is asked."""

    asked = 0

    def resolve(self, schema_id: int) -> object:
        self.asked += 1
        return super().resolve(schema_id)


def test_a_flood_of_schema_ids_that_nobody_knows_costs_little(caplog: object) -> None:
    schemas = CountingSchemas()
    decoder = Decoder(schemas, partitions=1)
    flood = [b"\0" + i.to_bytes(4, "big") + b"x" for i in range(10**6, 10**6 + 50_000)]
    started = time.monotonic()
    for _ in range(3):
        batch = decoder.decode(Topic.IMPRESSIONS, FetchedValues(flood))  # type: ignore[arg-type]
    assert time.monotonic() - started < 30
    assert set((batch.status & 255).tolist()) == {Reason.UNKNOWN_SCHEMA}
    assert schemas.asked <= 3 * LOOK_UPS
    warnings = [r for r in caplog.records if r.name == "stream.app.decoder"]  # type: ignore[attr-defined]
    assert len(warnings) == MOST_WARNINGS
