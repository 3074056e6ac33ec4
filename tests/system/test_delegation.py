"""An agent starts another inside its session: narrower, named on every row, ended with it, and never more than it is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import Arena

NARROW = """version = 1
[agent.probe-helper]
roles = ["narrow"]
[role.narrow.files]
read = { deny = ["$PROJECT/notes.txt"] }
write = { deny = ["$PROJECT/src/**"] }
"""


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


@pytest.fixture(autouse=True)
def _sound_world(arena: Arena) -> None:
    arena.plant()
    Path(arena.project + "/narrow.toml").write_text(NARROW)
    arena._own(arena.project)


def inner(arena: Arena, *command: str, agent: str = "probe-helper", policy: bool = True) -> list[str]:
    """The command line by which a program in a session starts another in a sub-session."""
    narrowing = ("--policy", arena.project + "/narrow.toml") if policy else ()
    return arena.remit("run", "--agent", agent, *narrowing, "--", *command)


def quoted(words: list[str]) -> str:
    return " ".join("'" + w.replace("'", "'\\''") + "'" for w in words)


def boss(arena: Arena, script: str, **kw: Any) -> tuple[int, str, str]:
    """Run a shell script as the agent ``probe``."""
    return arena.communicate(arena.remit_run("/bin/sh", "-c", script, **kw))


def said(arena: Arena, *words: str) -> Any:
    code, out, err = arena.communicate(arena.remit(*words, "--json"))
    assert code == 0, err
    return json.loads(out)


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if got := what():
            return got
        time.sleep(0.03)
    raise AssertionError(f"did not come within {seconds} s")


def test_a_sub_session_is_narrower_and_named(arena: Arena) -> None:
    helper = quoted(
        inner(arena, "/bin/sh", "-c", "cat notes.txt; echo new > src/main.c; echo other > other.txt; id -u")
    )
    code, out, err = boss(
        arena, f"{helper}; echo status $?; cat notes.txt other.txt; echo mine > src/main.c"
    )
    assert code == 0, err
    assert f"{os.stat(arena.project).st_uid}\nstatus 0\n" in out, out + err
    assert out.count("int main") == 1, "the boss alone reads it"
    assert out.endswith("other\n")
    assert Path(arena.project + "/src/main.c").read_text() == "mine\n"
    sub = said(arena, "sessions")[-1]
    assert sub["agent"] == "probe-helper of probe"
    assert sub["state"] == "ended"
    rows = said(arena, "log", "--session", sub["id"])
    assert {r["agent"] for r in rows} == {"probe-helper of probe"}
    refused = {(r["op"], r["path"]) for r in rows if r["outcome"] == "refused"}
    assert ("read", arena.project + "/notes.txt") in refused
    assert ("write", arena.project + "/src/main.c") in refused
    (first,) = [r for r in rows if r["op"] == "session" and r["outcome"] == "started"]
    assert f"delegated by {sub['parent']}" in first["note"]
    assert said(arena, "log", "--agent", "probe-helper", "--session", sub["id"]) == rows
    who = said(arena, "who", arena.project + "/other.txt")
    assert (who["agent"], who["session"]) == ("probe-helper of probe", sub["id"])
