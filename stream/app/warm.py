"""Compiles every kernel before the worker joins its group: later, a compilation would look like a dead worker."""

import logging
import time

from stream.app.engines import Engines
from stream.contracts.avro import encode
from stream.contracts.definitions import Definitions
from stream.contracts.models import Assignment, Impression, Interaction
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.durability.digest import digest
from stream.durability.image import Image
from stream.durability.machine import Export
from stream.durability.piece import Piece
from stream.engine.batch import Batch
from stream.engine.engine import Step
from stream.intake.avro_program import Program
from stream.intake.decode import columns_of, decode, unknown_ids

log = logging.getLogger(__name__)

_AT_MS = 1_700_000_000_000


def warm_up(definitions: Definitions) -> None:
    """Decode and count one event of each kind in an engine of its own; compiled kernels are kept on disk."""
    log.info("Preparing the kernels; the first start on a machine takes up to a minute.")
    started = time.monotonic()
    batches = {topic: [_batch(topic, value)] for topic, value in _events().items()}
    engines = Engines(key=bytes(16), partitions=2)
    engine = engines.create(0, definitions)
    engine.execute(Step(1, _AT_MS, (True, True, True), definitions), batches)
    digest(batch for taken in batches.values() for batch in taken)
    engines.load(0, definitions, _saved_and_loaded(engine.export())).live_chunks()
    log.info("The kernels are ready after %.1f s.", time.monotonic() - started)


def _saved_and_loaded(export: Export) -> Export:
    """A state that has gone the way of a snapshot, without a store."""
    image = Image()
    image.compare(export)
    pieces = image.copy_unsaved(export, image.sizes.round_bytes)
    written = [(Piece("", 0, ""), iter(blocks)) for _, blocks in pieces]
    return Image.load(image.sizes, image.shapes, iter(written))[1]


def _events() -> dict[Topic, bytes]:
    at, user = _AT_MS, "user"
    assignment = Assignment(event_id="a", at=at, user_id=user, experiment="warm", arm="up")
    impression = Impression(
        event_id="b", at=at, user_id=user, impression_id="i", request_id="r", item_id="t", surface="s", position=0,
        model="m", model_version="1", score=0.5,
    )  # fmt: skip
    interaction = Interaction(event_id="c", at=at, user_id=user, impression_id="i", kind="click")
    return {
        Topic.ASSIGNMENTS: encode(Topic.ASSIGNMENTS, assignment),
        Topic.IMPRESSIONS: encode(Topic.IMPRESSIONS, impression),
        Topic.INTERACTIONS: encode(Topic.INTERACTIONS, interaction),
    }


def _batch(topic: Topic, value: bytes) -> Batch:
    columns = columns_of([value], [0], [_AT_MS])
    # What is fetched cannot be written to, and kernels are compiled per kind of array.
    columns.buf.setflags(write=False)
    program = Program.of(topic, {newest(topic).schema_id: newest(topic).schema})
    assert not unknown_ids(columns, program)
    return decode(topic, columns, program, partition=0, partitions=2)
