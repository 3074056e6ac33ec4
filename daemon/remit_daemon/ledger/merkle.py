"""The Merkle tree of RFC 6962, section 2.1, over SHA-256.

A tree of n leaves is the *frontier* while it grows: the roots of its perfect subtrees, largest first,
one for each bit of n. Appending costs two hashes on average and nothing is ever hashed twice.
Proofs are made from a function that gives the root of any range of leaves, so the caller may serve
large aligned ranges from stored nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

RangeRoot = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of the leaf ``data``: a zero byte goes before it."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above ``left`` and ``right``: a one byte goes before them."""
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """A growing tree, held as its right edge.

    ``on_node(level, index, digest)``, when given, is told each perfect subtree of 2**``level`` leaves
    that closes, for the levels in ``levels``.
    """

    __slots__ = ("_edge", "_levels", "_on_node", "size")

    def __init__(
        self,
        size: int = 0,
        edge: Iterable[bytes] = (),
        *,
        levels: frozenset[int] = frozenset(),
        on_node: Callable[[int, int, bytes], None] | None = None,
    ) -> None:
        self.size = size
        self._edge = list(edge)
        self._levels = levels
        self._on_node = on_node
        if size < 0 or len(self._edge) != size.bit_count() or any(len(h) != HASH_SIZE for h in self._edge):
            raise ValueError(f"no right edge of a tree of {size} leaves")

    def append(self, leaf: bytes) -> None:
        """Add the leaf whose hash is ``leaf``."""
        index = self.size
        self.size += 1
        edge = self._edge
        level = 0
        digest = leaf
        while index & 1:
            digest = sha256(b"\1" + edge.pop() + digest).digest()
            index >>= 1
            level += 1
            if level in self._levels and self._on_node is not None:
                self._on_node(level, index, digest)
        edge.append(digest)

    def root(self) -> bytes:
        """Return the root of the tree as it stands."""
        if not self._edge:
            return EMPTY_ROOT
        digest = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            digest = node_hash(left, digest)
        return digest

    def edge(self) -> bytes:
        """Return the right edge as bytes, for ``restore``."""
        return b"".join(self._edge)

    def restore(self, size: int, edge: bytes) -> None:
        """Become the tree of ``size`` leaves whose right edge is ``edge``. Raises ValueError when none is."""
        parts = [edge[at : at + HASH_SIZE] for at in range(0, len(edge), HASH_SIZE)]
        Frontier(size, parts)
        self.size = size
        self._edge = parts


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (RFC 6962: k < n <= 2k)."""
    return 1 << ((size - 1).bit_length() - 1)


def range_root(leaf: Callable[[int], bytes]) -> RangeRoot:
    """Return a RangeRoot that hashes every leaf hash that ``leaf(index)`` gives."""

    def root(start: int, end: int) -> bytes:
        if end - start == 0:
            return EMPTY_ROOT
        if end - start == 1:
            return leaf(start)
        middle = start + _split(end - start)
        return node_hash(root(start, middle), root(middle, end))

    return root


def inclusion_proof(root: RangeRoot, index: int, size: int) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` leaves (RFC 6962, 2.1.1).

    Raises ValueError when the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(root(middle, end))
            end = middle
        else:
            path.append(root(start, middle))
            start = middle
    return path[::-1]


def consistency_proof(root: RangeRoot, old: int, size: int) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves begins that of ``size`` (RFC 6962, 2.1.2).

    Raises ValueError unless 0 < old <= size.
    """
    if not 0 < old <= size:
        raise ValueError(f"a tree of {size} leaves does not begin with {old}")
    path: list[bytes] = []
    start, end, known = 0, size, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(root(middle, end))
            end = middle
        else:
            path.append(root(start, middle))
            start = middle
            known = False
    if not known:
        path.append(root(start, end))
    return path[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Return the root that ``path`` claims for the leaf hash ``leaf`` (RFC 9162, 2.1.3.2).

    Raises ValueError when the path cannot be one of that leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    at, last, digest = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise ValueError("the path is too long")
        if at & 1 or at == last:
            digest = node_hash(step, digest)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            digest = node_hash(digest, step)
        at >>= 1
        last >>= 1
    if last:
        raise ValueError("the path is too short")
    return digest


def consistent(old: int, old_root: bytes, size: int, new_root: bytes, path: list[bytes]) -> bool:
    """Tell whether ``path`` proves that the old tree begins the new one (RFC 9162, 2.1.4.2)."""
    if old == size:
        return not path and old_root == new_root
    if not 0 < old < size or not path:
        return False
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    at, last = old - 1, size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first = node_hash(step, first)
            second = node_hash(step, second)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            second = node_hash(second, step)
        at >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root
