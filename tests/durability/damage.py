"""What a disk does to an object of a store."""

from collections.abc import Callable

import pytest

from tests.durability.fakes import DictStore

Damage = Callable[[bytes], bytes | None]


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def gone(data: bytes) -> None:
    return None


any_damage = pytest.mark.parametrize("damage", [flipped, halved, gone])


def damaged(store: DictStore, path: str, damage: Damage) -> DictStore:
    """A copy of the store in which one object is damaged."""
    found = DictStore()
    found.objects = dict(store.objects)
    changed = damage(found.objects.pop(path))
    if changed is not None:
        found.objects[path] = changed
    return found
