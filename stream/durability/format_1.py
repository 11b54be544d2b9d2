"""Snapshots as the first format wrote them: one object with every array whole. They are read, never written."""

import hashlib
from collections.abc import Mapping
from typing import Any

import cramjam
import numpy as np

from stream.durability.shape import dtype_of
from stream.durability.store import Store
from stream.engine.rows import Rows, flat

FORMAT = 1


def data_path(manifest: Mapping[str, Any]) -> str:
    """Where a manifest's object is."""
    return str(manifest["data"])


def load(store: Store, manifest: Mapping[str, Any]) -> dict[str, Rows]:
    """The arrays of a snapshot. Raises ValueError when its object is missing or changed."""
    data = store.get(data_path(manifest))
    if data is None or hashlib.blake2b(data, digest_size=16).hexdigest() != manifest["checksum"]:
        raise ValueError("its data are missing or changed")
    export, start = {}, 0
    for packed in manifest["arrays"]:
        array = np.empty(packed["shape"], dtype_of(packed["dtype"]))
        if array.nbytes:
            cramjam.zstd.decompress_into(
                memoryview(data)[start : packed["end"]], array.reshape(-1).view(np.uint8).data
            )
        start = packed["end"]
        export[packed["name"]] = flat(array)
    return export
