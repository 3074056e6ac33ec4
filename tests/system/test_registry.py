"""The commands about agents' names, with real sessions: what was seen, what a changed program is told, who is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import Arena


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


def said(arena: Arena, *words: str) -> Any:
    code, out, err = arena.communicate(arena.remit(*words, "--json"))
    assert code == 0, err
    return json.loads(out)


def test_from_the_first_start_to_a_changed_program(arena: Arena) -> None:
    arena.plant()
    program = Path(arena.project, "probe-tool")
    program.write_text("#!/bin/sh\necho one\n")
    program.chmod(0o755)
    arena._own(arena.project)
    first = hashlib.sha256(program.read_bytes()).hexdigest()
    code, out, err = arena.communicate(arena.remit_run(str(program)))
    assert (code, out) == (0, "one\n"), err
    (agent,) = said(arena, "agent", "list")
    assert (agent["name"], [p["digest"] for p in agent["programs"]]) == ("probe", [first])

    # A remembered answer, so that something is at stake; then another program under the name.
    asks = arena.remit_run("/bin/cat", arena.home + "/asked/file", ask="prompt", options=("--hold", "1s"))
    code, _, _ = arena.communicate(asks)
    assert code != 0
    missed = said(arena, "prompts", "--all")[-1]["id"]
    code, _, err = arena.communicate(arena.remit("answer", missed, "allow", "--for", "always"))
    assert code == 0, err
    program.write_text("#!/bin/sh\necho two\n")
    code, out, err = arena.communicate(arena.remit_run(str(program)))
    assert (code, out) == (0, "two\n"), err
    line = err.splitlines()[0]
    assert "probe's program" in line
    assert "1 remembered answer kept until you say otherwise" in line
    code, out, err = arena.communicate(arena.remit_run(str(program)))
    assert "changed" not in err

    code, out, err = arena.communicate(arena.remit("agent", "show", "probe"))
    assert code == 0, err
    assert out.count("launched ") == 3
    code, out, err = arena.communicate(arena.remit("agent", "update", "probe", "--drop"))
    assert (code, out) == (0, "1 remembered answer dropped\n"), err
    assert said(arena, "grants") == []
    code, out, err = arena.communicate(arena.remit("agent", "forget", "probe"))
    assert code == 0, err
    assert said(arena, "agent", "list") == []
    rows = [(r["actor"], r["outcome"]) for r in said(arena, "log", "--op", "agent")]
    assert rows[-2:] == [("human", "dropped"), ("human", "forgotten")]


def test_a_session_may_not_speak_about_names(arena: Arena) -> None:
    arena.plant()
    for words in (("agent", "list"), ("adopt", "1", "--agent", "probe")):
        code, out, err = arena.communicate(arena.remit_run(*arena.remit(*words)))
        assert code != 0, out
        assert "probe" not in out
        assert "Traceback" not in err


def test_wrong_use(arena: Arena) -> None:
    for words, status in (
        (("agent",), 2), (("agent", "show", "nobody"), 1), (("agent", "register", "x"), 2), (("adopt", "x"), 2),
        (("adopt", "1"), 1), (("agent", "update", "x", "--keep", "--drop"), 2),
    ):  # fmt: skip
        code, out, err = arena.communicate(arena.remit(*words))
        assert (code, out) == (status, ""), (words, err)
        assert "Traceback" not in err
