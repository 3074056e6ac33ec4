"""The most specific pattern speaks: vectors as data, each pair of a list both ways round."""

from __future__ import annotations

import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from remit_policy.engine import Engine
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule, Snapshot

VECTORS: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("precedence.toml").read_text(encoding="utf-8")
)["vector"]


@pytest.mark.parametrize("vector", VECTORS, ids=[v["path"] for v in VECTORS])
def test_the_more_specific_pattern_decides(vector: dict[str, Any]) -> None:
    op, path = vector.get("op", "read"), vector["path"]
    for strong, weak in combinations(vector["patterns"], 2):
        for verdict, other in ((ALLOW, DENY), (DENY, ALLOW), (ASK, DENY)):
            rules = (Rule(USER, verdict, op, strong), Rule(USER, other, op, weak))
            for order in (rules, rules[::-1]):
                found = Engine(Snapshot("", order)).decide(op, path)
                assert (found.verdict, found.rule) == (verdict, rules[0]), (strong, weak)


@pytest.mark.parametrize("vector", VECTORS, ids=[v["path"] for v in VECTORS])
def test_the_whole_list_is_ranked_in_its_order(vector: dict[str, Any]) -> None:
    op = vector.get("op", "read")
    rules = tuple(Rule(USER, ALLOW, op, p) for p in vector["patterns"])
    ranked = Engine(Snapshot("", rules[::-1])).explain(op, vector["path"]).matches
    assert [r.pattern for r in ranked] == vector["patterns"]
