"""The checkpoint store that all simulated processes share, and one process's troubled way to it."""

import json
import random
from collections.abc import Iterable

from stream.durability.journal import Entry
from stream.durability.manifest import Snapshot
from stream.errors import Unavailable
from tests.durability.fakes import DictStore
from tests.simulation.schedule import Schedule
from tests.simulation.trouble import Trouble

_HALF = 2


class SharedStore(DictStore):
    """Remembers every step's first journal entry: the log of a partition as it was, whatever is collected since."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.steps: dict[tuple[str, int], Entry] = {}  # by partition's folder and number
        self._schedule = schedule

    def create(self, path: str, data: bytes) -> bool:
        created = super().create(path, data)
        folder, kind, name = path.rsplit("/", 2)
        if created and kind == "step":
            if (folder, int(name)) in self.steps:
                self._schedule.note(f"stale entry {path}")
            self.steps.setdefault((folder, int(name)), Entry.from_json(data))
        return created

    def rot(self, folder: str, draw: random.Random) -> bool:
        """Cut one object of the two newest snapshots in half, as a disk may, if there are two."""
        manifests = self.names(f"{folder}/snapshot")[-2:]
        if len(manifests) < 2:
            return False
        snapshots = [Snapshot.from_fields(json.loads(self.objects[path])) for path in manifests]
        pieces = {path for snapshot in snapshots for piece in snapshot.pieces for path in piece.paths}
        path = draw.choice([*manifests, *sorted(pieces)])
        self._schedule.note(f"{path} rots")
        data = self.objects[path]
        self.objects[path] = data[: len(data) // _HALF]
        return True


class TroubledStore:
    """A Store. A write may happen although it raises Unavailable; one that a crash interrupts may leave a part."""

    def __init__(self, shared: SharedStore, trouble: Trouble, draw: random.Random) -> None:
        self._shared = shared
        self._trouble = trouble
        self._draw = draw

    def create(self, path: str, data: bytes) -> bool:
        with self._trouble.around(f"create {path}", _away):
            self._tear(path, data)
            return self._shared.create(path, data)

    def remember(self, path: str, entry: Entry) -> None:
        """Note a step that is not written: for a product without a journal."""
        self._shared.steps.setdefault((path.rsplit("/", 2)[0], entry.number), entry)

    def put(self, path: str, data: bytes) -> None:
        with self._trouble.around(f"put {path}", _away):
            self._tear(path, data)
            self._shared.put(path, data)

    def get(self, path: str) -> bytes | None:
        with self._trouble.around(f"get {path}", _away):
            return self._shared.get(path)

    def names(self, folder: str, after: str = "") -> list[str]:
        with self._trouble.around(f"list {folder}", _away):
            return self._shared.names(folder, after)

    def delete(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            with self._trouble.around(f"delete {path}", _away):
                self._shared.delete([path])

    def _tear(self, path: str, data: bytes) -> None:
        """Die in the middle of a piece now and then: it is nobody's until its manifest is there."""
        if "/state/" in path and self._draw.random() < self._trouble.weather.crash:
            self._shared.create(path, data[: len(data) // _HALF])
            self._trouble.crash(f"the middle of {path}")


def _away() -> Unavailable:
    return Unavailable("the simulated store does not answer")
