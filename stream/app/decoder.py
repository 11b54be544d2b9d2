"""Fetched records into batches, looking up schemas that were not seen before."""

import logging

from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas
from stream.engine.batch import Batch
from stream.intake.avro_program import Program
from stream.intake.decode import decode, unknown_ids
from stream.intake.transport import Fetched

log = logging.getLogger(__name__)


class Decoder:
    """Decodes for all partitions; grows a program per topic. Not thread-safe."""

    def __init__(self, schemas: Schemas, *, partitions: int) -> None:
        self._schemas = schemas
        self._partitions = partitions
        self._programs = {topic: Program.of(topic, {}) for topic in Topic}

    def decode(self, topic: Topic, fetched: Fetched) -> Batch:
        """Every record with a status.

        Raises Unavailable when the registry does not answer about a new schema id, UnreadableRecords.
        """
        columns = fetched.columns()
        for schema_id in sorted(unknown_ids(columns, self._programs[topic])):
            self._learn(topic, schema_id)
        program = self._programs[topic]
        return decode(topic, columns, program, partition=fetched.tp.partition, partitions=self._partitions)

    def _learn(self, topic: Topic, schema_id: int) -> None:
        program = self._programs[topic]
        schema = self._schemas.resolve(schema_id)
        if schema is None:
            program = program.refusing(
                schema_id, f"schema id {schema_id} is neither in schemas/ nor in the registry"
            )
        else:
            program = program.adding(schema_id, schema)
        if why := program.refused.get(schema_id):
            log.warning("Records of %s are rejected: %s.", topic.word, why)
        self._programs[topic] = program
