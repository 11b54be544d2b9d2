"""Fetched records into batches, looking up schemas that were not seen before."""

import logging

from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas
from stream.engine.batch import Batch
from stream.intake.avro_program import Program
from stream.intake.decode import decode, unknown_ids
from stream.intake.reading import Reading
from stream.intake.transport import Fetched

log = logging.getLogger(__name__)

# Poison may put any number where the schema id stands. Real ids are small, so the smallest are asked about first.
LOOK_UPS = 100  # new ids asked about in one fetch
MOST_UNKNOWN = 100_000  # ids remembered as known to nobody
MOST_WARNINGS = 20


class Decoder:
    """Decodes for all partitions; grows a program per topic. Not thread-safe."""

    def __init__(self, schemas: Schemas, *, partitions: int) -> None:
        self._schemas = schemas
        self._partitions = partitions
        self._readings = {topic: Reading.of(Program.of(topic, {}), partitions) for topic in Topic}
        self._unknown: set[int] = set()
        self.slow_records = 0  # decoded by fastavro, one by one

    def decode(self, topic: Topic, fetched: Fetched) -> Batch:
        """Every record with a status.

        Raises Unavailable when the registry does not answer about a new schema id, UnreadableRecords.
        """
        columns = fetched.columns()
        new = unknown_ids(columns, self._readings[topic].program) - self._unknown
        for schema_id in sorted(new)[:LOOK_UPS]:
            self._learn(topic, schema_id)
        return decode(
            topic, columns, self._readings[topic].program,
            partition=fetched.tp.partition, partitions=self._partitions, on_slow=self._count_slow,
        )  # fmt: skip

    def _count_slow(self, records: int) -> None:
        self.slow_records += records

    def reading(self, topic: Topic) -> Reading:
        """What the topic's last batch was decoded with."""
        return self._readings[topic]

    def _learn(self, topic: Topic, schema_id: int) -> None:
        schema = self._schemas.resolve(schema_id)
        if schema is None:
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown.add(schema_id)
            if len(self._unknown) <= MOST_WARNINGS:
                log.warning(
                    "Records of %s are rejected: schema id %d is neither in schemas/ nor in the registry.",
                    topic.word, schema_id,
                )  # fmt: skip
            return
        program = self._readings[topic].program.adding(schema_id, schema)
        self._readings[topic] = Reading.of(program, self._partitions)
        if why := program.refused.get(schema_id):
            log.warning("Records of %s are rejected: %s.", topic.word, why)
