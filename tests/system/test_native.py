"""Each probe succeeds where there is no remit: only then does its failure under remit say anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from system.harness import Arena, probes


@pytest.fixture
def arena() -> Iterator[Arena]:
    a = Arena()
    a.start_tmux()
    yield a
    a.close()


def test_compiler_is_there() -> None:
    assert shutil.which("gcc"), "the probes in C need gcc"


@pytest.mark.parametrize("probe", probes())
def test_succeeds_without_remit(arena: Arena, probe: str) -> None:
    result = arena.attack(probe, confined=False)
    assert result.word, result
    assert not result.body["stalled"], result
    failed = {w: how for w, how in result.body["held"].items() if w not in result.body["native"]}
    assert not failed, f"natively held: {failed}\n{result}"
    assert result.code == 0, result
