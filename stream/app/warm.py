"""Compiles every kernel before the worker joins its group: later, a compilation would look like a dead worker."""

import logging
import time

from stream import heap
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
from stream.engine.pages import ask_for_no_huge_pages
from stream.engine.tables import Store
from stream.intake.avro_program import Program
from stream.intake.decode import columns_of, decode, unknown_ids
from stream.sink.outbox import newest as newest_rows
from stream.sink.tables import SHAPES

log = logging.getLogger(__name__)

_AT_MS = 1_700_000_000_000
_MANY = 100_000  # rows, or bytes


def warm_up(definitions: Definitions) -> None:
    """Prepare this process: count a few events in an engine of its own and let them go; kernels are kept on disk."""
    heap.use_again()
    ask_for_no_huge_pages()
    log.info("Preparing the kernels; the first start on a machine takes up to a minute.")
    started = time.monotonic()
    engines = Engines(key=bytes(16), partitions=2)
    engine = engines.create(0, definitions)
    # A better impression comes, then one so late that all others leave with the next step; the last one is too late.
    for number, at in enumerate((_AT_MS, _AT_MS + 1, _AT_MS + _held_ms(definitions), None, _AT_MS + 2), 1):
        batches = (
            {}
            if at is None
            else {topic: [_batch(topic, events, at)] for topic, events in _events(at).items()}
        )
        engine.execute(Step(number, at or _AT_MS, (True, True, True), definitions), batches)
        digest(batch for taken in batches.values() for batch in taken)
    engines.load(0, definitions, _saved_and_loaded(engine.export())).live_chunks()
    _grow(Store())
    _supersede()
    log.info("The kernels are ready after %.1f s.", time.monotonic() - started)


def _held_ms(definitions: Definitions) -> int:
    """Longer than any event is held."""
    return 1 + definitions.allowed_lateness_ms + definitions.attribution_window_ms


def _grow(store: Store) -> None:
    """Let tables become larger than they are at first."""
    store.room_for_users(_MANY)
    store.room_for_assignments(_MANY, _MANY)


def _supersede() -> None:
    """Let one row replace another: pyarrow loads what it needs for that when it is asked."""
    row = SHAPES["definitions"].rows({"definitions": [""]}, generation=0, partition=0, version=0)
    newest_rows("definitions", [row, row])


def _saved_and_loaded(export: Export) -> Export:
    """A state that has gone the way of a snapshot, without a store."""
    image = Image()
    image.compare(export, image.sizes.round_bytes)
    pieces = image.copy_unsaved(export, image.sizes.round_bytes)
    written = [(Piece("", 0, ""), iter(blocks)) for _, blocks in pieces]
    return Image.load(image.sizes, image.shapes, iter(written))[1]


def _events(at: int) -> dict[Topic, list[bytes]]:
    name, user = f"warm {at}", "user"
    assignment = Assignment(event_id=name, at=at, user_id=user, experiment="warm", arm="up")
    impression = Impression(
        event_id=name, at=at, user_id=user, impression_id=name, request_id="r", item_id="t", surface="s", position=0,
        model="m", model_version="1", score=0.5,
    )  # fmt: skip
    named = Interaction(event_id=name, at=at, user_id=user, impression_id=name, kind="click")
    by_item = Interaction(event_id=f"{name} by item", at=at + 1, user_id=user, item_id="t", kind="click")
    return {
        Topic.ASSIGNMENTS: [encode(Topic.ASSIGNMENTS, assignment)],
        Topic.IMPRESSIONS: [encode(Topic.IMPRESSIONS, impression)],
        Topic.INTERACTIONS: [encode(Topic.INTERACTIONS, event) for event in (named, by_item)],
    }


def _batch(topic: Topic, values: list[bytes], at: int) -> Batch:
    columns = columns_of(values, list(range(len(values))), [at] * len(values))
    program = Program.of(topic, {newest(topic).schema_id: newest(topic).schema})
    assert not unknown_ids(columns, program)
    return decode(topic, columns, program, partition=0, partitions=2)
