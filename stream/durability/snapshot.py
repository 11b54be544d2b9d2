"""Snapshots: the whole state after a step, published once every output up to that step is durable elsewhere."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import cramjam
import numpy as np
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from stream.durability.journal import NEW_GENERATION
from stream.durability.machine import Arrays
from stream.durability.store import Store
from stream.errors import DamagedStore

FORMAT = 1
KEPT = 2
_DIGITS = 12
_LEVEL = 1  # zstd's fastest real level: faster than a disk writes
log = logging.getLogger(__name__)

Offsets = tuple[int, int, int]  # by Topic: the next one to read


@dataclass(frozen=True, slots=True)
class Packed:
    """One array inside the data object: where its compressed bytes end and what they unpack to."""

    name: str
    dtype: Any  # as numpy's .npy format describes it
    shape: tuple[int, ...]
    end: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a state stands: what a snapshot says beside the arrays."""

    step: int
    offsets: Offsets
    planned_at_ms: int  # of the step
    clock_ms: int
    definitions: str  # digest of the step's
    engine_version: int
    taken_at_ms: int
    writer: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The manifest. Written last: data without a manifest was never published."""

    mark: Mark
    data: str  # path of the data object
    checksum: str  # blake2b of the data object
    arrays: tuple[Packed, ...]

    @property
    def step(self) -> int:
        """The step after which the state was captured."""
        return self.mark.step

    def to_json(self) -> bytes:
        """The stored form."""
        return json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Snapshot":
        """Read the stored form; raises ValueError, KeyError or TypeError for anything else."""
        fields: dict[str, Any] = json.loads(data)
        del fields["format"]
        mark = fields.pop("mark")
        first, second, third = mark.pop("offsets")
        arrays = tuple(Packed(**{**item, "shape": tuple(item["shape"])}) for item in fields.pop("arrays"))
        return cls(mark=Mark(offsets=(first, second, third), **mark), arrays=arrays, **fields)


class Snapshots:
    """The snapshots of one partition number in one generation; `folder` is the partition's."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/snapshot"
        self._data_folder = f"{folder}/state"
        self._damaged: set[int] = set()

    def newest_step(self) -> int:
        """The step of the newest published snapshot, damaged or not; 0 when there is none."""
        steps = self._steps()
        return steps[-1] if steps else 0

    def capture(self, mark: Mark, arrays: Arrays) -> Snapshot:
        """Write the arrays, unpublished: nobody sees them before `publish`."""
        packed, pieces, end = [], [], 0
        for name, array in arrays.items():
            pieces.append(_compress(array))
            end += len(pieces[-1])
            packed.append(Packed(name, dtype_to_descr(array.dtype), array.shape, end))
        data = b"".join(pieces)
        path = f"{self._data_folder}/{mark.step:0{_DIGITS}d}-{mark.writer}"
        self._store.put(path, data)
        return Snapshot(mark, path, _checksum(data), tuple(packed))

    def publish(self, snapshot: Snapshot) -> None:
        """Write the manifest. Call it when all outputs up to the snapshot's step are acknowledged."""
        self._store.put(self._path(snapshot.step), snapshot.to_json())
        self._damaged.discard(snapshot.step)

    def discard(self, snapshot: Snapshot) -> None:
        """Remove a captured snapshot that will not be published."""
        self._store.delete([snapshot.data])

    def newest(self) -> tuple[Snapshot, dict[str, np.ndarray]] | None:
        """The newest snapshot that can be read, with its arrays; None when there never was one.

        Falls back from a damaged one to the one before and logs it. Raises DamagedStore when none is left or
        when one was written in another format.
        """
        steps = self._steps()
        for step in reversed(steps):
            try:
                return self._load(step)
            except _Damaged as damage:
                self._damaged.add(step)
                log.warning(
                    "Snapshot %s is damaged (%s): going back to the one before.", self._path(step), damage
                )
        if steps:
            raise DamagedStore(f"No snapshot in {self._folder} can be read: restore them {NEW_GENERATION}.")
        return None

    def collect(self) -> int:
        """Remove all but the newest two; returns the step of the older one, 0 when there are not two."""
        good = [step for step in self._steps() if step not in self._damaged]
        if len(good) < KEPT:
            return 0
        oldest = good[-KEPT]
        self._store.delete(
            self._path(step) for step in self._steps() if step < oldest or step in self._damaged
        )
        first_kept = f"{self._data_folder}/{oldest:0{_DIGITS}d}"
        self._store.delete(path for path in self._store.names(self._data_folder) if path < first_kept)
        return oldest

    def _steps(self) -> list[int]:
        return [int(path.rpartition("/")[2]) for path in self._store.names(self._folder)]

    def _path(self, step: int) -> str:
        return f"{self._folder}/{step:0{_DIGITS}d}"

    def _load(self, step: int) -> tuple[Snapshot, dict[str, np.ndarray]]:
        manifest = self._store.get(self._path(step))
        if manifest is None:
            raise _Damaged("it vanished")
        self._refuse_other_format(step, manifest)
        try:
            snapshot = Snapshot.from_json(manifest)
        except (ValueError, KeyError, TypeError) as error:
            raise _Damaged("its manifest cannot be read") from error
        data = self._store.get(snapshot.data)
        if data is None or _checksum(data) != snapshot.checksum:
            raise _Damaged("its data are missing or changed")
        return snapshot, dict(_unpack(snapshot, data))

    def _refuse_other_format(self, step: int, manifest: bytes) -> None:
        try:
            found = json.loads(manifest)["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise _Damaged("its manifest cannot be read") from error
        if found != FORMAT:
            raise DamagedStore(
                f"Snapshot {self._path(step)} has format {found} but this version reads {FORMAT}: "
                f"run the version that wrote it, {NEW_GENERATION}."
            )


class _Damaged(Exception):
    """One snapshot cannot be used; says why."""


def _compress(array: np.ndarray) -> bytes:
    return bytes(cramjam.zstd.compress(_as_bytes(np.ascontiguousarray(array)), level=_LEVEL))


def _as_bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _unpack(snapshot: Snapshot, data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    view, start = memoryview(data), 0
    for packed in snapshot.arrays:
        array = np.empty(packed.shape, _dtype(packed.dtype))
        if array.nbytes:
            cramjam.zstd.decompress_into(view[start : packed.end], _as_bytes(array))
        start = packed.end
        yield packed.name, array


def _dtype(described: Any) -> np.dtype[Any]:
    """JSON has no tuples, numpy insists on them."""
    if isinstance(described, str):
        return np.dtype(described)
    fields = [(name, given, *map(tuple, shape)) for name, given, *shape in described]
    return descr_to_dtype(fields)


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
