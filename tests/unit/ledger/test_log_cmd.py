from __future__ import annotations

import time

import pytest

from remit_daemon.cli import log_cmd

ENTRY = {
    "seq": 1, "time": 1700000000.25, "actor": "agent", "agent": "claude", "session": "s1", "pid": 3, "proc": "",
    "exe": "", "sha256": "", "op": "rename", "path": "/home/u/" + "long/" * 60 + "x\u202ey", "path2": "/new name",
    "verdict": "ask", "outcome": "denied", "rule": "user.toml:3", "prompt": "p7", "note": "", "argv": [],
}  # fmt: skip


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()


def test_a_line_says_all_and_hides_nothing() -> None:
    line = log_cmd.format_entry(ENTRY, colour=False)
    assert line == (
        "2023-11-14 23:13:20.250+0100 agent claude/s1 rename denied /home/u/" + "long/" * 60
        + "x\\u202ey -> \"/new name\" rule user.toml:3 prompt p7"
    )  # fmt: skip
    assert line.isprintable()


def test_colour_adds_nothing_but_colour() -> None:
    line = log_cmd.format_entry(ENTRY, colour=True)
    assert "\x1b[31mdenied\x1b[0m" in line
    bare = line
    for code in ("\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[1;36m"):
        bare = bare.replace(code, "")
    assert bare == log_cmd.format_entry(ENTRY, colour=False)


def test_actors_are_told_apart_by_words() -> None:
    lines = [
        log_cmd.format_actor(ENTRY | change)
        for change in (
            {}, {"actor": "human"}, {"actor": "human", "agent": "", "session": ""}, {"actor": "remit"},
            {"agent": "HUMAN", "session": ""}, {"agent": "a\nb c"},
        )
    ]  # fmt: skip
    assert lines == [
        "agent claude/s1", "HUMAN (for claude/s1)", "HUMAN", "remit (for claude/s1)", "agent HUMAN", 'agent "a\\x0ab c"/s1',
    ]  # fmt: skip


def test_arguments_are_told_apart() -> None:
    line = log_cmd.format_entry(
        ENTRY | {"op": "exec", "argv": ["git", "commit", "-m", 'a "b"', ""]}, colour=False
    )
    assert 'argv [git commit -m "a \\"b\\"" ""]' in line


def test_what_completed_an_act_is_told_from_what_it_says_beside() -> None:
    entry = ENTRY | {"verdict": "allow", "outcome": "EHOSTUNREACH no nameserver answers", "rule": "default"}
    line = log_cmd.format_entry(entry, colour=False)
    assert " EHOSTUNREACH /home" in line
    assert line.endswith('no rule matches prompt p7 note "no nameserver answers"')
    begun = log_cmd.format_entry(entry | {"outcome": "EINPROGRESS"}, colour=True)
    assert "\x1b[32mstarted\x1b[0m" in begun


def test_who() -> None:
    answer = {"actor": "agent", "agent": "claude", "session": "s1", "entries": [ENTRY, ENTRY]}
    lines = log_cmd.format_who(answer, "/x\ny", colour=False).split("\n")
    assert lines[0] == "/x\\x0ay: agent claude/s1"
    assert len(lines) == 3
    nobody = {"actor": "", "agent": "", "session": "", "entries": []}
    assert log_cmd.format_who(nobody, "/x", colour=False) == f"/x: {log_cmd.NO_RECORD}"
