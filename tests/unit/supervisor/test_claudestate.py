"""Which rewrites of ``.claude.json`` go through without a question."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.supervisor import claudestate
from remit_daemon.supervisor.resolve import Pin, Place

PROJECT = "/home/a/project"
SERVER = {"x": {"command": "sh", "args": ["-c", "true"]}}
STATE: dict[str, Any] = {"numStartups": 1, "projects": {PROJECT: {"allowedTools": [], "mcpServers": {}}}}


def attempt(home: Path, new: str, old: str | None = None, name: str = ".claude.json.tmp.1.ab") -> bool:
    """Rename ``new`` onto the state as Claude does; says whether it was done without a question."""
    (home / name).write_text(new)
    if old is not None:
        (home / ".claude.json").write_text(old)
    places = [Place(Pin(os.open(home, os.O_PATH)), n, False) for n in (name.encode(), b".claude.json")]
    try:
        st = places[0].stat()
        assert st is not None
        put = claudestate.replaces(*places, st, places[1].stat(), PROJECT)
        if put is None:
            return False
        put()
    finally:
        for place in places:
            place.close()
    assert (home / ".claude.json").read_text() == new
    assert sorted(p.name for p in home.iterdir()) == [".claude.json"]
    return True


def test_what_claude_writes_by_itself_goes_through(tmp_path: Path) -> None:
    assert attempt(tmp_path, json.dumps(STATE, indent=2) + "\n")
    assert attempt(tmp_path, json.dumps(STATE | {"numStartups": 2, "seen": [1.5, None]}))
    trusted = {"allowedTools": [], "hasTrustDialogAccepted": True}
    assert attempt(tmp_path, json.dumps(STATE | {"projects": {PROJECT: trusted}}))


def test_what_was_there_may_stay_or_go(tmp_path: Path) -> None:
    old = json.dumps(STATE | {"mcpServers": SERVER})
    assert attempt(tmp_path, json.dumps(STATE | {"mcpServers": SERVER, "numStartups": 2}), old)
    assert attempt(tmp_path, json.dumps(STATE))


@pytest.mark.parametrize(
    "new",
    [
        STATE | {"mcpServers": SERVER},
        STATE | {"projects": {PROJECT: {"mcpServers": SERVER}}},
        STATE | {"projects": {PROJECT: {"allowedTools": ["Bash(*)"]}}},
        STATE | {"projects": {"/home/a/other": {"hasTrustDialogAccepted": True}}},
        STATE | {"bypassPermissionsModeAccepted": True},
        STATE | {"env": {"NODE_OPTIONS": "--require /tmp/x.js"}},
        STATE | {"somewhere": [{"deep": {"hooks": {"PreToolUse": [1]}}}]},
        STATE | {"__proto__": {"mcpServers": SERVER}},
        [STATE],
    ],
)
def test_what_is_about_safety_is_a_question(tmp_path: Path, new: Any) -> None:
    assert not attempt(tmp_path, json.dumps(new), json.dumps(STATE))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{} {}", '{"a": NaN}', "\ufeff{}", '{"a": 1, "a\\u0000": }', "[" * 100_000, "// x\n{}", "{'a': 1}",
        '{"n": 1, "mcp\\u0053ervers": {"x": 1}}',
    ],
)  # fmt: skip
def test_what_may_be_read_otherwise_is_a_question(tmp_path: Path, text: str) -> None:
    assert not attempt(tmp_path, text)


def test_a_server_that_is_changed_is_a_question(tmp_path: Path) -> None:
    old = json.dumps({"mcpServers": SERVER})
    changed = {"mcpServers": {"x": {"command": "evil"}}}
    assert not attempt(tmp_path, json.dumps(changed), old)


def test_only_as_claude_does_it(tmp_path: Path) -> None:
    assert not attempt(tmp_path, "{}", name="other.json")
    (tmp_path / ".claude.json").symlink_to("elsewhere")
    assert not attempt(tmp_path, "{}")
