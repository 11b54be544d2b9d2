"""Texts of few values as small codes: slice values, currencies, kinds."""

import numpy as np
import numpy.typing as npt

from stream.engine.batch import SPARE_BYTES, TEXT_MASK, TEXT_SHIFT
from stream.engine.index import power_of_two, slots_for
from stream.engine.screen import encode_names

UNKNOWN, OTHER = "__unknown__", "__other__"  # codes 0 and 1
DECLARED = 20  # codes beyond the limit for names that settings or experiments declare

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


class Names:
    """A dictionary of at most `limit` texts beside the codes 0 (null) and 1 (beyond the limit)."""

    def __init__(self, limit: int, key: U64, names: list[str] | None = None) -> None:
        """Start empty, or with the `names` of an earlier one in their order."""
        self.key = key
        self.limit = limit + 2
        self.names: list[str] = []
        self._keys = np.zeros(power_of_two(self.limit + DECLARED + 2), np.uint64)
        self._slots = np.zeros(slots_for(self.limit + DECLARED + 2), np.uint64)
        for name in names or (UNKNOWN, OTHER):
            self.code_of(name)

    def code_of(self, text: str) -> int:
        """The code of a declared text, added if it is new; junk that came before must not crowd it out."""
        raw = np.frombuffer(text.encode() + bytes(SPARE_BYTES), np.uint8)
        packed = np.array([len(raw) - SPARE_BYTES])
        return int(self._encode(raw, packed, np.zeros(1, np.int64), self.limit + DECLARED)[0])

    def encode(self, buf: npt.NDArray[np.uint8], packed: I64, status: I64) -> I64:
        """Codes, int64 (rows,), of a packed text column; 0 where status is not 0."""
        return self._encode(buf, packed, status, self.limit)

    def _encode(self, buf: npt.NDArray[np.uint8], packed: I64, status: I64, limit: int) -> I64:
        codes = np.zeros(len(packed), np.int64)
        fresh = np.empty(len(packed), np.int64)
        added = encode_names(
            buf, packed, status, self.key, self._slots, self._keys, len(self.names), limit, codes, fresh
        )
        for i in fresh[:added]:
            start = int(packed[i]) >> TEXT_SHIFT
            self.names.append(
                bytes(buf[start : start + (int(packed[i]) & TEXT_MASK)]).decode("utf-8", "replace")
            )
        return codes

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return self._keys.nbytes + self._slots.nbytes
