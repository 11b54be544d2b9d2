"""Snapshots: the whole state after a step, published once every output up to that step is durable elsewhere.

A snapshot is a manifest that lists pieces. Consecutive ones share the pieces of what did not change, so each piece is
stored twice: whichever object of the store is damaged, a snapshot can be read. Manifests are numbered, and each is
written with put-if-absent right behind the newest one its writer knows: of two writers one wins, and the other shares
nothing with what it wrote before. So a manifest lists only pieces that the one before it lists, or that were written
for its own number, and whatever else was written for decided numbers can be removed at any time, however late.
"""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

from stream.durability import format_1
from stream.durability.image import COMPARED, Image, Sizes
from stream.durability.journal import NEW_GENERATION
from stream.durability.machine import Export
from stream.durability.manifest import FORMAT, Mark, Snapshot
from stream.durability.piece import Blocks, Piece, checksum, pack, unpack
from stream.durability.seal import unsealed
from stream.durability.store import Store
from stream.engine.rows import Rows
from stream.errors import DamagedStore

KEPT = 2
READ_AHEAD = 4  # pieces
_DIGITS = 12
log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one partition number in one generation; `folder` is the partition's."""

    def __init__(self, store: Store, folder: str, sizes: Sizes | None = None) -> None:
        self._store = store
        self._folder = f"{folder}/snapshot"
        self._data_folder = f"{folder}/state"
        self._sizes = sizes or Sizes()
        self._damaged: set[int] = set()
        self._number = 0  # of the newest manifest we know
        self._steps: dict[int, int] = {}  # by number
        self._start_over()

    def _start_over(self) -> None:
        """Share nothing with what was written before."""
        self._image = Image(self._sizes)
        self._unwritten: deque[tuple[int, list[Blocks]]] = deque()
        self._uncopied: tuple[Piece, bytes] | None = None
        self._round_bytes = self._sizes.round_bytes
        self._missing_bytes: int | None = None  # after the last round

    # Writing

    def copy(self, export: Export) -> bool:
        """One round: compare and copy what has changed, up to a limit. Whether that was all: then it is a snapshot.

        Between rounds the state may go on: the next round takes what changed meanwhile with the rest. All pieces of
        the last round must be written.
        """
        self._image.compare(export, COMPARED * self._round_bytes)
        self._unwritten.extend(self._image.copy_unsaved(export, self._round_bytes))
        before, self._missing_bytes = self._missing_bytes, self._image.missing_bytes
        if not self._missing_bytes:
            self._missing_bytes, self._round_bytes = None, self._sizes.round_bytes
            return True
        if before is not None and self._missing_bytes >= before:
            self._round_bytes *= 2  # else it would never come to an end
        return False

    def write(self, writer: str) -> bool:
        """Write one object, a piece of what was copied or the last piece once more; whether all is written."""
        if self._uncopied:
            piece, data = self._uncopied
            self._store.put(piece.paths[1], data)
            self._uncopied = None
        elif self._unwritten:
            number, blocks = self._unwritten[0]
            data = pack(blocks)
            path = self._create(f"{self._data_folder}/{self._number + 1:0{_DIGITS}d}-{writer}-{number}", data)
            size = sum(item.contents.nbytes for item in blocks)
            self._image.pieces[number] = piece = Piece(path, size, checksum(data))
            self._uncopied = piece, data
            self._unwritten.popleft()
        return not self._unwritten and not self._uncopied

    def finish(self, mark: Mark) -> Snapshot:
        """The manifest of the last round's state, unpublished: nobody sees it before `publish`."""
        self._image.drop_dead_pieces()
        return Snapshot(mark, self._image.shapes, tuple(self._image.pieces.values()))

    def capture(self, mark: Mark, export: Export) -> Snapshot:
        """Write a whole state at once, whatever was begun before."""
        is_whole = False
        while not is_whole:
            while not self.write(mark.writer):
                pass
            is_whole = self.copy(export)
        while not self.write(mark.writer):
            pass
        return self.finish(mark)

    def publish(self, snapshot: Snapshot) -> bool:
        """Write the manifest. Call it when all outputs up to the snapshot's step are acknowledged.

        False when another writer has published one meanwhile: the next snapshot of ours shares nothing with it.
        """
        data = snapshot.to_json()
        while True:
            path = self._path(self._number + 1)
            is_ours = self._store.create(path, data)
            if not is_ours:
                found = self._store.get(path)
                is_ours = found == data
                if not is_ours and not _is_of(found, snapshot.mark.writer):
                    self._start_over()
                    self._number = max(self._numbers(), default=0)
                    return False
            self._number += 1  # else an earlier one of ours, whose answer was lost
            if is_ours:
                self._steps[self._number] = snapshot.step
                return True

    def _create(self, path: str, data: bytes) -> str:
        """Write under this path, or a similar one when something else is there; what we wrote before is no other."""
        for again in count():
            name = f"{path}.{again}" if again else path
            if self._store.create(name, data) or self._store.get(name) == data:
                return name
        raise AssertionError

    # Reading

    def newest_step(self) -> int:
        """The step of the newest published snapshot whose manifest can be read; 0 when there is none."""
        for number in reversed(self._numbers()):
            if number not in self._steps:
                try:
                    self._steps[number] = self._read(number).step
                except _Damaged:
                    continue
            return self._steps[number]
        return 0

    def newest(self) -> tuple[Snapshot, dict[str, Rows]] | None:
        """The newest snapshot that can be read, with its tables; None when there never was one.

        Falls back from a damaged one to the one before and logs it. Raises DamagedStore when none is left or
        when one was written in another format.
        """
        while True:
            self._start_over()
            numbers = self._numbers()
            self._number = numbers[-1] if numbers else 0
            for number in reversed(numbers):
                try:
                    return self._load(number)
                except _Damaged as damage:
                    if self._numbers() != numbers:
                        break  # it was collected while we read it
                    self._damaged.add(number)
                    log.warning(
                        "Snapshot %s is damaged (%s): going back to the one before.",
                        self._path(number),
                        damage,
                    )
            else:
                if numbers:
                    raise DamagedStore(
                        f"No snapshot in {self._folder} can be read: restore them {NEW_GENERATION}."
                    )
                return None

    def _load(self, number: int) -> tuple[Snapshot, dict[str, Rows]]:
        fields = self._manifest(number)
        try:
            snapshot = Snapshot.from_fields(fields)
            if fields["format"] == format_1.FORMAT:
                return snapshot, format_1.load(self._store, fields)
            damaged: set[Piece] = set()
            self._image, export = Image.load(self._sizes, snapshot.tables, self._contents(snapshot, damaged))
        except (ValueError, KeyError, TypeError) as error:
            raise _Damaged(str(error) or "its manifest cannot be read") from error
        for piece in damaged:
            log.warning("%s is missing or changed: its copy is read and written anew.", piece.path)
        self._image.forget(damaged)
        self._forget_single(self._store.names(self._data_folder))
        return snapshot, export

    def _contents(self, snapshot: Snapshot, damaged: set[Piece]) -> Iterator[tuple[Piece, Iterator[Blocks]]]:
        """What is in the pieces; those that only a copy is left of are added to `damaged`.

        The next ones are checked and unpacked on other cores while one is used.
        """
        coming: deque[tuple[Piece, Future[list[Blocks] | None]]] = deque()
        with ThreadPoolExecutor() as pool:
            for piece in snapshot.pieces:
                coming.append((piece, pool.submit(_unpacked, piece, self._store.get(piece.path))))
                if len(coming) > READ_AHEAD:
                    yield self._content(*coming.popleft(), damaged)
            while coming:
                yield self._content(*coming.popleft(), damaged)

    def _content(
        self, piece: Piece, first: "Future[list[Blocks] | None]", damaged: set[Piece]
    ) -> tuple[Piece, Iterator[Blocks]]:
        contents = first.result()
        if contents is None:
            damaged.add(piece)
            contents = _unpacked(piece, self._store.get(piece.paths[1]))
        if contents is None:
            raise ValueError(f"{piece.path} and its copy are missing or changed")
        return piece, iter(contents)

    def _forget_single(self, stored: list[str]) -> None:
        """What is not stored twice is written with the next snapshot; earlier versions stored it once."""
        there = set(stored)
        self._image.forget(
            {piece for piece in self._image.pieces.values() if not there.issuperset(piece.paths)}
        )

    def _read(self, number: int) -> Snapshot:
        try:
            return Snapshot.from_fields(self._manifest(number))
        except (ValueError, KeyError, TypeError) as error:
            raise _Damaged("its manifest cannot be read") from error

    def _manifest(self, number: int) -> dict[str, Any]:
        path = self._path(number)
        data = self._store.get(path)
        if data is None:
            raise _Damaged("it vanished")
        try:
            fields = unsealed(data)
            found = fields["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise _Damaged("its manifest cannot be read") from error
        if found not in (format_1.FORMAT, FORMAT):
            raise DamagedStore(
                f"Snapshot {path} has format {found} but this version reads {FORMAT}: "
                f"run the version that wrote it, {NEW_GENERATION}."
            )
        return fields

    # Collecting

    def collect(self) -> int:
        """Remove all but the newest two, with what only older ones list and what was written for decided numbers.

        Returns the step of the older one that is kept, 0 when there are not two.
        """
        numbers = self._numbers()
        if numbers and numbers[-1] != self._number:
            self._start_over()  # ours was written where a collected one had been: others are far ahead
            self._number = numbers[-1]
        kept: dict[int, Snapshot] = {}
        for number in reversed(numbers):
            if number not in self._damaged and len(kept) < KEPT:
                try:
                    kept[number] = self._read(number)
                except _Damaged:
                    self._damaged.add(number)
        if len(kept) < KEPT:
            return 0
        oldest = min(kept)
        self._store.delete(
            self._path(number) for number in numbers if number < oldest or number in self._damaged
        )
        listed = {path for snapshot in kept.values() for piece in snapshot.pieces for path in piece.paths}
        undecided = f"{self._data_folder}/{numbers[-1] + 1:0{_DIGITS}d}"
        stored = self._store.names(self._data_folder)
        superfluous = [path for path in stored if path < undecided and path not in listed]
        # Copies first: who is reading must not take a piece for damaged.
        self._store.delete(reversed(superfluous))
        self._forget_single(stored)
        return kept[oldest].step

    def _numbers(self) -> list[int]:
        return [int(path.rpartition("/")[2]) for path in self._store.names(self._folder)]

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:0{_DIGITS}d}"


class _Damaged(Exception):
    """One snapshot cannot be used; says why."""


def _unpacked(piece: Piece, data: bytes | None) -> list[Blocks] | None:
    """None: missing or changed."""
    if data is None or checksum(data) != piece.checksum:
        return None
    return list(unpack(data))


def _is_of(manifest: bytes | None, writer: str) -> bool:
    try:
        return bool(unsealed(manifest or b"")["mark"]["writer"] == writer)
    except (ValueError, KeyError, TypeError):
        return False
