"""Policies, requests and what is decided, as data (``decisions``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpus.worlds import lines, real, snapshot, worlds
from remit_policy.engine import Engine, conditions
from remit_policy.model import VERDICTS, Decision
from remit_policy.resources import is_path

WORLDS = worlds("laws", "layers", "exec", "conditions", "default", "network", "limits")
all_worlds = pytest.mark.parametrize("world", WORLDS, ids=[w["name"] for w in WORLDS])


def ask(engine: Engine, op: str, path: str, args: list[str]) -> Decision:
    if not is_path(op, real(path)):
        return engine.decide(op, " ".join([path, *args]))
    path = real(path)
    return engine.decide_exec(path, [path, *args]) if op == "exec" else engine.decide(op, path)


@all_worlds
def test_each_request_is_decided_as_written(world: dict[str, Any], tmp_path: Path) -> None:
    engine = Engine(snapshot(world, tmp_path))
    wrong = []
    for verdict, op, path, *args in lines(world.get("decide", "")):
        found = ask(engine, op, path, args)
        if VERDICTS[found.verdict] != verdict:
            wrong.append(f"{op} {path} {args}: {VERDICTS[found.verdict]} by {found.source}, not {verdict}")
    for verdict, op, path, given in lines(world.get("given", "")):
        found = engine.decide_given(op, real(path), real(given))
        if VERDICTS[found.verdict] != verdict:
            wrong.append(f"{op} {path} as {given}: {VERDICTS[found.verdict]}, not {verdict}")
    for verdict, op, root in lines(world.get("whole", "")):
        whole = engine.uniform(op, real(root))
        if whole is None or VERDICTS[whole] != verdict:
            wrong.append(f"whole {op} {root}: {whole}, not {verdict}")
    assert not wrong, "\n".join(wrong)


@all_worlds
def test_each_act_is_counted(world: dict[str, Any], tmp_path: Path) -> None:
    engine = Engine(snapshot(world, tmp_path))
    counters: dict[tuple[object, ...], float] = {}
    for at, clock, verdict, op, path, *args in lines(world.get("acts", "")):
        hour, minute = map(int, clock.split(":"))
        plain = ask(engine, op, path, args)
        found, spend = conditions(plain, counters, float(at), hour * 60 + minute)
        assert VERDICTS[found.verdict] == verdict, (at, clock, op, path, args)
        if spend is not None:
            counters[spend[0]] = spend[1]


@all_worlds
def test_limits_are_as_written(world: dict[str, Any], tmp_path: Path) -> None:
    if "limits" in world:
        found = [
            [m.ident.replace(" ", "."), str(m.amount), str(m.seconds), m.source.rpartition("/")[2]]
            for m in snapshot(world, tmp_path).limits
        ]
        assert found == lines(world["limits"])


@all_worlds
def test_why_agrees(world: dict[str, Any], tmp_path: Path) -> None:
    engine = Engine(snapshot(world, tmp_path))
    for _, op, path, *args in lines(world.get("decide", "")):
        path_ = real(path) if is_path(op, real(path)) else " ".join([path, *args])
        found = ask(engine, op, path, args)
        full = engine.explain_exec(path_, [path_, *args]) if op == "exec" else engine.explain(op, path_)
        assert (full.verdict, full.rule) == (found.verdict, found.rule)
        # a program whose arguments no rule fits is asked for by a rule that stands for all of them
        assert full.rule is None or full.rule in full.matches or op == "exec"
