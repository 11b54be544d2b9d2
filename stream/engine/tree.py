"""Search trees over rows of a ring, ordered by time: of one key there may be hundreds of thousands, in any order.

A treap (Aragon and Seidel 1989): a search tree by (at, key, link) that is at the same time a heap by a hash of the
link, so its shape is that of a tree filled in random order and its depth logarithmic whatever order the rows come in.
Nodes stand beside their rows, children are links, 0 is none. Whoever keeps a root takes the one that comes back.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import numpy as np
from numba import njit

from stream.engine.primitives import U64, mix

LEFT, RIGHT = 0, 1
NONE = np.int64(0)


@njit
def child(nodes, link, side):
    """The child on one side, or 0."""
    n = nodes[link & (nodes.shape[0] - 1)]
    return np.int64(n.left) if side == LEFT else np.int64(n.right)


@njit
def hang(nodes, parent, side, link):
    """Make a node the child of another one."""
    p = parent & (nodes.shape[0] - 1)
    if side == LEFT:
        nodes[p].left = link
    else:
        nodes[p].right = link


@njit
def rank(link):
    """Parents have larger ranks than their children."""
    return mix(U64(link))


@njit
def is_before(nodes, keys, link, at, key, other):
    """Whether a node comes before the row `other` of this time and key; a node is not before itself."""
    p = link & (nodes.shape[0] - 1)
    if nodes[p].at != at:
        return nodes[p].at < at
    if keys[p] != key:
        return keys[p] < key
    return link < other


@njit
def insert(nodes, keys, root, link, at):
    """Add a row to the tree: the root."""
    mask = nodes.shape[0] - 1
    key = keys[link & mask]
    nodes[link & mask].at = at
    parent, side, q = NONE, LEFT, root
    while q != 0 and rank(q) > rank(link):
        parent = q
        side = RIGHT if is_before(nodes, keys, q, at, key, link) else LEFT
        q = child(nodes, q, side)
    # What stood there is split: earlier nodes below the new one's left side, later ones below its right side.
    low, low_side, high, high_side = link, LEFT, link, RIGHT
    while q != 0:
        if is_before(nodes, keys, q, at, key, link):
            hang(nodes, low, low_side, q)
            low, low_side = q, RIGHT
            q = child(nodes, q, RIGHT)
        else:
            hang(nodes, high, high_side, q)
            high, high_side = q, LEFT
            q = child(nodes, q, LEFT)
    hang(nodes, low, low_side, NONE)
    hang(nodes, high, high_side, NONE)
    if parent == 0:
        return link
    hang(nodes, parent, side, link)
    return root


@njit
def remove(nodes, keys, root, link):
    """Take a row out of the tree: the root, 0 when it was the last one."""
    p = link & (nodes.shape[0] - 1)
    at, key = nodes[p].at, keys[p]
    parent, side, q = NONE, LEFT, root
    while q != link and q != 0:
        parent = q
        side = RIGHT if is_before(nodes, keys, q, at, key, link) else LEFT
        q = child(nodes, q, side)
    a, b = child(nodes, link, LEFT), child(nodes, link, RIGHT)
    while a != 0 and b != 0:
        upper = a if rank(a) > rank(b) else b
        if parent == 0:
            root = upper
        else:
            hang(nodes, parent, side, upper)
        parent = upper
        if upper == a:
            side = RIGHT
            a = child(nodes, a, RIGHT)
        else:
            side = LEFT
            b = child(nodes, b, LEFT)
    rest = a if a != 0 else b
    if parent == 0:
        return rest
    hang(nodes, parent, side, rest)
    return root


@njit
def last_until(nodes, root, at):
    """The last row whose time is at most `at`, or 0."""
    best, q = NONE, root
    while q != 0:
        if nodes[q & (nodes.shape[0] - 1)].at <= at:
            best = q
            q = child(nodes, q, RIGHT)
        else:
            q = child(nodes, q, LEFT)
    return best


@njit
def first_from(nodes, root, at):
    """The first row whose time is at least `at`, or 0."""
    best, q = NONE, root
    while q != 0:
        if nodes[q & (nodes.shape[0] - 1)].at >= at:
            best = q
            q = child(nodes, q, LEFT)
        else:
            q = child(nodes, q, RIGHT)
    return best


@njit
def following(nodes, keys, root, link):
    """The row after a row of the tree, or 0."""
    p = link & (nodes.shape[0] - 1)
    at, key = nodes[p].at, keys[p]
    best, q = NONE, root
    while q != 0:
        if q != link and not is_before(nodes, keys, q, at, key, link):
            best = q
            q = child(nodes, q, LEFT)
        else:
            q = child(nodes, q, RIGHT)
    return best
