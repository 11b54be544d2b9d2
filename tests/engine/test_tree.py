"""Trees by time against a sorted list: what is found, in whatever order rows come and leave, and how deep they are."""

import math
import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config, njit

from stream.engine import tree
from stream.engine.index import LINK_MASK, next_link
from stream.engine.layout import NODE

PLACES = 256


@njit
def insert(nodes, keys, root, link, at):  # type: ignore[no-untyped-def]
    return tree.insert(nodes, keys, root, link, at)


@njit
def remove(nodes, keys, root, link):  # type: ignore[no-untyped-def]
    return tree.remove(nodes, keys, root, link)


@njit
def look(nodes, keys, root, at):  # type: ignore[no-untyped-def]
    return tree.last_until(nodes, root, at), tree.first_from(nodes, root, at)


@njit
def walk(nodes, keys, root, out):  # type: ignore[no-untyped-def]
    n = 0
    link = tree.first_from(nodes, root, -1)
    while link != 0:
        out[n] = link
        n += 1
        link = tree.following(nodes, keys, root, link)
    return n


@njit
def depth_of(nodes, keys, root, link, at):  # type: ignore[no-untyped-def]
    q, depth = root, 0
    while q != link:
        side = (
            tree.RIGHT
            if tree.is_before(nodes, keys, q, at, keys[link & (len(nodes) - 1)], link)
            else tree.LEFT
        )
        q = tree.child(nodes, q, side)
        depth += 1
    return depth


class Sorted:
    """A tree and the list of what must be in it."""

    def __init__(self, places: int = PLACES) -> None:
        self.nodes: Any = np.zeros(places, NODE)
        if config.DISABLE_JIT:  # rows with their fields as attributes, as in compiled kernels
            self.nodes = self.nodes.view(np.recarray)
        self.keys = np.zeros(places, np.uint64)
        self.root = 0
        self.rows: list[tuple[int, int, int]] = []

    def add(self, link: int, at: int, key: int) -> None:
        self.keys[link & (len(self.keys) - 1)] = key
        self.root = insert(self.nodes, self.keys, self.root, link, at)
        self.rows = sorted([*self.rows, (at, key, link)])

    def drop(self, row: tuple[int, int, int]) -> None:
        self.root = remove(self.nodes, self.keys, self.root, row[2])
        self.rows.remove(row)

    def links(self) -> list[int]:
        out = np.zeros(len(self.nodes), np.int64)
        return out[: walk(self.nodes, self.keys, self.root, out)].tolist()  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), first=st.sampled_from([1, LINK_MASK - 40]))
def test_a_tree_finds_what_a_sorted_list_finds(seed: int, first: int) -> None:
    rand, t = random.Random(seed), Sorted()
    for k in range(120):
        if t.rows and rand.random() < 0.4:
            t.drop(rand.choice(t.rows))
        elif link := next_link(first, k):
            t.add(link, rand.randrange(20), rand.randrange(2))
        assert t.links() == [link for _, _, link in t.rows]
        at = rand.randrange(20)
        before = [link for when, _, link in t.rows if when <= at]
        after = [link for when, _, link in t.rows if when >= at]
        assert look(t.nodes, t.keys, t.root, at) == (before[-1] if before else 0, after[0] if after else 0)
    for row in rand.sample(t.rows, len(t.rows)):
        t.drop(row)
    assert t.root == 0


def test_a_tree_is_shallow_in_whatever_order_its_rows_come() -> None:
    n = 1 << 14
    for times in (range(n), range(n, 0, -1), [7] * n, random.Random(1).sample(range(n), n)):
        t = Sorted(2 * n)
        for link, at in enumerate(times, 1):
            t.root = insert(t.nodes, t.keys, t.root, link, at)
        deepest = max(depth_of(t.nodes, t.keys, t.root, link, at) for link, at in enumerate(times, 1))
        assert deepest < 4 * math.log2(n)
