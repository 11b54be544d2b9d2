"""How one topic's records are decoded, as a value with a name: the journal says which one a step was read with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stream.contracts.topics import Topic
from stream.engine.batch import Batch, Columns
from stream.intake.avro_program import Program, Schema
from stream.intake.decode import decode


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """See durability.machine.Reading. An id that the program lacks is unknown, whatever a registry says by now."""

    program: Program
    partitions: int  # of the input topics
    document: bytes
    digest: str

    @classmethod
    def of(cls, program: Program, partitions: int) -> "Reading":
        """The reading of a program. A document is the same for the same schemas, in whatever order they were learnt."""
        schemas = {f"{schema_id:010d}": schema for schema_id, schema in program.schemas.items()}
        told = {"topic": program.topic.word, "schemas": schemas}
        document = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
        return cls(program, partitions, document, hashlib.sha256(document).hexdigest()[:32])

    def to_json(self) -> bytes:
        """See durability.machine.Reading."""
        return self.document

    def decode_again(self, batch: Batch, partition: int) -> Batch:
        """See durability.machine.Reading."""
        rows = len(batch)
        columns = Columns(
            buf=batch.buf,
            offset=batch.offset,
            record_at_ms=batch.record_at_ms,
            key_pos=np.zeros(rows, np.int64),
            key_len=np.full(rows, -1, np.int64),
            value_pos=batch.value_pos,
            value_len=batch.value_len,
        )
        return decode(batch.topic, columns, self.program, partition=partition, partitions=self.partitions)


@dataclass(frozen=True, slots=True)
class Readings:
    """See durability.machine.Readings. partitions: of the input topics."""

    partitions: int

    def from_json(self, topic: Topic, data: bytes) -> Reading:
        """See durability.machine.Readings."""
        told = json.loads(data)
        if told["topic"] != topic.word:
            raise ValueError(f"it is about {told['topic']}")
        schemas: Mapping[str, Schema] = told["schemas"]
        program = Program.of(topic, {int(schema_id): schema for schema_id, schema in schemas.items()})
        if program.refused:
            raise ValueError(next(iter(program.refused.values())))
        return Reading.of(program, self.partitions)
