"""Hand-written stand-ins for the checkpoint store, the sink, the engine and the log."""

from collections.abc import Iterable


class DictStore:
    """A Store in a dictionary; share one between owners to play several processes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def create(self, path: str, data: bytes) -> bool:
        if path in self.objects:
            return False
        self.objects[path] = bytes(data)
        return True

    def put(self, path: str, data: bytes) -> None:
        self.objects[path] = bytes(data)

    def get(self, path: str) -> bytes | None:
        return self.objects.get(path)

    def names(self, folder: str, after: str = "") -> list[str]:
        return sorted(path for path in self.objects if path.startswith(f"{folder}/") and path > after)

    def delete(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            self.objects.pop(path, None)
