"""Fetched records into batches, looking up schemas that were not seen before."""

import logging

from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas
from stream.engine.batch import Batch, Columns
from stream.intake.avro_program import Program
from stream.intake.decode import decode, has_unknown, unknown_ids
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
        batch, slow = self._decode(topic, columns, fetched.tp.partition)
        if has_unknown(batch) and self._has_learnt(topic, columns):
            batch, slow = self._decode(topic, columns, fetched.tp.partition)
        self.slow_records += slow
        return batch

    def _decode(self, topic: Topic, columns: Columns, partition: int) -> tuple[Batch, int]:
        """As far as the schemas are known now; and how many records fastavro decoded."""
        program = self._readings[topic].program
        slow: list[int] = []
        batch = decode(
            topic, columns, program, partition=partition, partitions=self._partitions, on_slow=slow.append
        )
        return batch, sum(slow)

    def _has_learnt(self, topic: Topic, columns: Columns) -> bool:
        """Whether more is known after asking about ids that were not seen before."""
        known = self._readings[topic]
        new = unknown_ids(columns, known.program) - self._unknown
        for schema_id in sorted(new)[:LOOK_UPS]:
            self._learn(topic, schema_id)
        return self._readings[topic] is not known

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
