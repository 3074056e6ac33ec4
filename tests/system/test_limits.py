"""Limits with the real daemon and real sessions: one agent's sessions share what it may do, and a person may give more."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.harness import PYTHON, Arena

QUOTA = """
[agent.probe.limits]
delete = "3/h"

[agent.plenty]
match = { name = "plenty" }
roles = ["probe"]
[agent.plenty.limits]
delete = "400/h"
"""
# Deletes each file that it is told of, and says how it went.
DELETER = "import os,sys\nfor n in sys.stdin:\n try: os.unlink(n.strip()); print('gone', flush=True)\n except OSError as e: print(e.errno, flush=True)"


@pytest.fixture
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy(more=QUOTA)
        a.start_daemon()
        yield a
    finally:
        a.close()


def said(arena: Arena, *words: str) -> Any:
    code, out, err = arena.communicate(arena.remit(*words, "--json"))
    assert code == 0, err
    return json.loads(out)


class Deleter:
    """A session that deletes files of the project."""

    def __init__(self, arena: Arena, name: str, agent: str = "probe") -> None:
        self.arena, self.name, self.made = arena, name, 0
        self.process = arena.popen(
            arena.remit_run(PYTHON, "-u", "-c", DELETER, agent=agent, ask="prompt"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self) -> Path:
        """Have one more file deleted; returns which."""
        self.made += 1
        path = Path(self.arena.project) / f"{self.name}{self.made}"
        path.write_text("x")
        path.chmod(0o666)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        return path

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def delete(self) -> str:
        self.ask()
        return self.heard()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0


def prompt_of(arena: Arena, path: Path) -> dict[str, Any]:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for p in said(arena, "prompts"):
            if p["path"] == str(path) and p["holding"]:
                return dict(p)
        time.sleep(0.03)
    raise AssertionError("no prompt")


def test_two_sessions_of_one_agent_share_a_limit_and_the_fourth_asks(arena: Arena) -> None:
    one, two = Deleter(arena, "one"), Deleter(arena, "two")
    assert [one.delete(), two.delete(), one.delete()] == ["gone"] * 3
    assert said(arena, "prompts") == []
    path = two.ask()
    prompt = prompt_of(arena, path)
    assert prompt["limit"].startswith("3 of 3 deletions per h are spent by probe")
    assert path.exists()
    assert said(arena, "status")["limits"] == [prompt["limit"]]
    # The daemon is killed and comes back: nothing is forgotten, and the held act is asked about again.
    arena.stop_daemon(signal.SIGKILL)
    arena.start_daemon()
    assert prompt_of(arena, path)["id"] == prompt["id"]
    code, _, _ = arena.communicate(arena.remit("answer", prompt["id"], "allow", "--for", "always"))
    assert code != 0, "a spent limit is extended once, never for always"
    more = said(arena, "answer", prompt["id"], "allow", "--scope", "2")
    assert more["rule"].startswith("allow 3 deletions more, once")
    assert two.heard() == "gone"
    assert [one.delete(), two.delete()] == ["gone"] * 2, "the three that were given, this one among them"
    path = one.ask()
    said(arena, "answer", prompt_of(arena, path)["id"], "deny")
    assert one.heard() == "13"
    assert path.exists()
    one.end()
    two.end()
    rows = said(arena, "log", "--op", "limit")
    assert [r["outcome"] for r in rows][:1] == ["warned"]
    assert said(arena, "log", "verify")["ok"]


def test_leases_pay_for_most_and_what_is_left_comes_back(arena: Arena) -> None:
    one = Deleter(arena, "many", "plenty")
    assert {one.delete() for _ in range(60)} == {"gone"}
    (state,) = said(arena, "limits", "--agent", "plenty")
    assert state["used"] >= 55, state  # what an hour gives back meanwhile
    assert state["held"] > 0
    one.end()
    end = time.monotonic() + 5
    while (state := said(arena, "limits", "--agent", "plenty")[0])["held"] and time.monotonic() < end:
        time.sleep(0.03)
    assert state["held"] == 0
    assert 55 <= state["used"] <= 61, "used and no more: the rest of the lease was returned"
