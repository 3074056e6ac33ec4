"""The tree against the reference vectors of RFC 6962 implementations, and against the RFC's own recursion."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.ledger import merkle

# The test tree of the certificate-transparency reference implementation.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
N96 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
N5F = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N6B = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
NBC = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
NCA = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N0E = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"

HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]
ROOT = merkle.range_root(HASHES.__getitem__)


def test_roots_of_the_reference_tree() -> None:
    tree = merkle.Frontier()
    for size, want in enumerate(ROOTS):
        assert tree.root().hex() == want
        assert ROOT(0, size).hex() == want
        if size < len(HASHES):
            tree.append(HASHES[size])


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, [N96, N5F, N6B]),
        (5, 8, [NBC, NCA, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
        (1, 5, [ROOTS[1], N5F, NBC]),
    ],
)
def test_reference_inclusion_proofs(index: int, size: int, path: list[str]) -> None:
    assert [step.hex() for step in merkle.inclusion_proof(ROOT, index, size)] == path


@pytest.mark.parametrize(
    ("old", "size", "path"),
    [(1, 1, []), (1, 8, [N96, N5F, N6B]), (6, 8, [N0E, NCA, ROOTS[4]]), (2, 5, [N5F, NBC])],
)
def test_reference_consistency_proofs(old: int, size: int, path: list[str]) -> None:
    assert [step.hex() for step in merkle.consistency_proof(ROOT, old, size)] == path


def _mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + _mth(leaves[:k]) + _mth(leaves[k:])).digest()


@given(st.integers(1, 70), st.data())
def test_frontier_and_proofs_agree_with_the_definition(size: int, data: st.DataObject) -> None:
    leaves = [bytes([i]) for i in range(size)]
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    tree = merkle.Frontier()
    stop = data.draw(st.integers(0, size))
    for digest in hashes[:stop]:
        tree.append(digest)
    again = merkle.Frontier()
    again.restore(tree.size, tree.edge())
    for digest in hashes[stop:]:
        again.append(digest)
    assert again.root() == _mth(leaves)

    root = merkle.range_root(hashes.__getitem__)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(root, index, size)
    assert merkle.root_from_inclusion(hashes[index], index, size, path) == _mth(leaves)
    wrong = merkle.leaf_hash(b"another")
    assert merkle.root_from_inclusion(wrong, index, size, path) != _mth(leaves)

    old = data.draw(st.integers(1, size))
    proof = merkle.consistency_proof(root, old, size)
    assert merkle.consistent(old, _mth(leaves[:old]), size, _mth(leaves), proof)
    assert not merkle.consistent(old, wrong, size, _mth(leaves), proof)
    assert not merkle.consistent(old, _mth(leaves[:old]), size, wrong, proof)


def test_closed_subtrees_are_told() -> None:
    told = []
    tree = merkle.Frontier(levels=frozenset([2]), on_node=lambda *node: told.append(node))
    for digest in HASHES:
        tree.append(digest)
    assert told == [(2, 0, ROOT(0, 4)), (2, 1, ROOT(4, 8))]


def test_what_cannot_be_proved_is_refused() -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_proof(ROOT, 8, 8)
    for old in (0, 9):
        with pytest.raises(ValueError, match="does not begin"):
            merkle.consistency_proof(ROOT, old, 8)
    with pytest.raises(ValueError, match="right edge"):
        merkle.Frontier(3, [b"x" * 32])
    with pytest.raises(ValueError, match="too short"):
        merkle.root_from_inclusion(HASHES[0], 0, 8, [])
    with pytest.raises(ValueError, match="too long"):
        merkle.root_from_inclusion(HASHES[0], 0, 1, [HASHES[0]])
