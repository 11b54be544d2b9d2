"""Texts as codes: the same text the same code, and no two texts one, however alike they are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.engine.batch import NULL, SPARE_BYTES, TEXT_SHIFT
from stream.engine.names import Names

KEY = np.frombuffer(bytes(range(16)), np.uint64)
# Of lengths around a word and two words, and such as differ only behind their end.
TEXTS = [
    "",
    "a",
    "a\0",
    "a\0\0",
    *("x" * n for n in (7, 8, 9, 15, 16, 17)),
    *("x" * n + "\0" for n in (7, 8, 15, 16)),
]


def encoded(names: Names, texts: list[str | None]) -> list[int]:
    buf, packed = bytearray(b"zzz"), []
    for text in texts:
        raw = (text or "").encode()
        packed.append(NULL if text is None else len(buf) << TEXT_SHIFT | len(raw))
        buf += raw + b"\xff"
    column = np.frombuffer(bytes(buf) + bytes(SPARE_BYTES), np.uint8)
    return names.encode(column, np.array(packed, np.int64), np.zeros(len(packed), np.int64)).tolist()


@given(st.lists(st.none() | st.sampled_from(TEXTS) | st.text(max_size=20), max_size=60))
def test_a_text_has_one_code_in_every_batch(texts: list[str | None]) -> None:
    names = Names(1000, KEY)
    codes = encoded(names, texts)
    assert [names.names[code] for code in codes] == [
        "__unknown__" if text is None else text for text in texts
    ]
    assert len(set(codes)) == len(set(texts))
    assert encoded(names, texts) == codes


def test_more_values_than_are_kept_at_hand_keep_their_codes() -> None:
    names = Names(1000, KEY)
    texts: list[str | None] = [f"value {n}" for n in range(900)]
    assert encoded(names, texts + texts) == [*range(2, 902)] * 2


def test_a_value_beyond_the_limit_is_one_of_the_others() -> None:
    names = Names(3, KEY)
    assert encoded(names, ["a", "b", "c", "d", "a", "d", "e"]) == [2, 3, 4, 1, 2, 1, 1]
