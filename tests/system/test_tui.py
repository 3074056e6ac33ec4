"""The screen as a person has it: a real terminal in tmux, real keys, a real session that is held."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from system.harness import Arena

_numbers = itertools.count()
SECONDS = 20.0  # for what takes one, on a busy machine


class Terminal:
    """A tmux server of its own with one terminal that runs ``remit tui``."""

    def __init__(self, arena: Arena, name: str, columns: int = 80, rows: int = 24) -> None:
        self.arena = arena
        # A name of its own: a server that was just told to end still holds the last one's.
        self.socket = f"{arena.run_dir}/tui-{name}-{next(_numbers)}"
        env = {**arena.env, "TERM": "screen-256color"}
        command = " ".join(arena.remit("tui"))
        code, _, err = arena.communicate(
            [
                *self.tmux(),
                "new-session",
                "-d",
                "-x",
                str(columns),
                "-y",
                str(rows),
                command + "; sleep 60",
            ],
            env=env,
        )
        assert code == 0, err

    def tmux(self) -> list[str]:
        return ["tmux", "-f", "/dev/null", "-S", self.socket]

    def keys(self, *keys: str) -> None:
        code, _, err = self.arena.communicate([*self.tmux(), "send-keys", *keys])
        assert code == 0, err

    def text(self) -> str:
        return self.arena.communicate([*self.tmux(), "capture-pane", "-p"])[1]

    def reads(self, *parts: str) -> str:
        end = time.monotonic() + SECONDS
        while not all(part in (text := self.text()) for part in parts):
            assert time.monotonic() < end, f"never {parts}:\n{text}"
            time.sleep(0.05)
        return text

    def close(self) -> None:
        self.arena.communicate([*self.tmux(), "kill-server"])


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    a = Arena()
    try:
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


@pytest.fixture
def terminal(arena: Arena) -> Iterator[Terminal]:
    t = Terminal(arena, "one")
    try:
        yield t
    finally:
        t.close()


def held(arena: Arena, path: str) -> subprocess.Popen[bytes]:
    """Start a session that reads ``path``, which is asked about."""
    command = arena.remit_run("/bin/cat", path, ask="prompt", options=("--hold", "60s"))
    return arena.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def end_of(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=SECONDS)
    return process.returncode, out.decode()


def test_a_held_session_is_answered_and_goes_on(arena: Arena, terminal: Terminal) -> None:
    path, token = arena.info["asked_file"], arena.tokens["asked"]
    terminal.reads("no prompt waits", "no agent runs")
    agent = held(arena, path)
    terminal.reads("1 prompt waits", "running: probe", "wants to read:", path, "no rule matches")
    terminal.keys("Enter", "q")  # at once: Enter is too early, and to quit answers nothing
    assert agent.poll() is None
    assert json.loads(arena.communicate(arena.remit("prompts", "--json"))[1])[0]["state"] == "open"

    other = Terminal(arena, "two", 120, 40)
    try:
        other.reads("both answer now")
        other.keys("a")
        other.reads("allowed, once", "no prompt waits")
        assert end_of(agent) == (0, token + "\n")
        # What was done is on the next page, told apart by words.
        other.keys("F4")
        other.reads("▸ F4 Ledger", "◆ HUMAN", "○ agent probe", "answer", "allowed", path)
    finally:
        other.close()


def test_whoever_is_second_is_told_and_remitd_may_come_and_go(arena: Arena, terminal: Terminal) -> None:
    path = arena.info["asked_file"]
    agent = held(arena, path)
    terminal.reads("1 prompt waits", "both answer now")
    prompt = json.loads(arena.communicate(arena.remit("prompts", "--json"))[1])[0]["id"]
    arena.stop_daemon()
    terminal.reads("trying again", "what is shown is old", path)
    terminal.keys("a")
    terminal.reads("remitd is gone, nothing can be answered")
    arena.start_daemon()
    terminal.reads("both answer now", path)
    assert agent.poll() is None
    assert arena.communicate(arena.remit("answer", prompt, "deny"))[0] in (0, 1)
    terminal.reads("no prompt waits", "answered elsewhere: denied")
    code, out = end_of(agent)
    assert code != 0
    assert arena.tokens["asked"] not in out


def test_what_was_missed_in_a_quiet_time_becomes_a_rule(arena: Arena, terminal: Terminal) -> None:
    path = arena.info["asked_file"] + "\x1b[2J\u202emissed"
    code, _, err = arena.communicate(["/bin/cp", arena.info["asked_file"], path])
    assert code == 0, err
    terminal.reads("no prompt waits")
    terminal.keys("Q")
    terminal.reads("nobody is called", "1 held for 15 min")
    terminal.keys("1")
    terminal.reads("QUIET till", "held")
    code, out, _ = arena.communicate(
        arena.remit_run("/bin/cat", path, ask="prompt", options=("--hold", "1s"))
    )
    assert code != 0
    terminal.keys("M")
    terminal.reads("(missed)", "wanted to read", "\\x1b[2J\\u202emissed", "both answer now")
    terminal.keys("5")
    terminal.reads("saves    deny probe read")
    terminal.keys("a")
    terminal.reads("saves    allow probe read")
    terminal.reads("permits", "both answer now")
    time.sleep(1)  # the quiet in which the rule is read
    terminal.keys("a")
    terminal.reads("allowed, always", "nothing was missed")
    terminal.keys("Q")
    terminal.reads("0 end it")
    terminal.keys("0")
    terminal.reads("the quiet time is over")
    code, out, err = arena.communicate(arena.remit_run("/bin/cat", path))
    assert (code, out) == (0, arena.tokens["asked"] + "\n"), err
    granted = json.loads(arena.communicate(arena.remit("grants", "--json"))[1])
    assert [(g["via"], g["uses"]) for g in granted] == [("tui", 1)]


def test_a_rule_is_made_of_a_row_and_decides_the_next_time(arena: Arena, terminal: Terminal) -> None:
    path = arena.info["asked_file"]
    agent = held(arena, path)
    terminal.reads("both answer now")
    terminal.keys("d")
    assert end_of(agent)[0] != 0
    terminal.keys("F4")
    terminal.reads("▸ F4 Ledger")
    terminal.keys("/")
    terminal.reads("show only")
    terminal.keys(f"path:{path} op:read")
    terminal.reads("op:read")
    terminal.keys("Enter")
    terminal.reads("filter: path:", "DENIED")
    terminal.keys("m")
    terminal.reads(f"deny read {path}", "then read of this is: deny, by this rule")
    terminal.keys("Enter")
    terminal.reads("save [role.", "y: yes")
    time.sleep(1)  # the quiet that a person's yes needs
    terminal.keys("y")
    terminal.reads("saved and in force")
    code, out, _ = arena.communicate(arena.remit_run("/bin/cat", path, ask="prompt"))
    assert code != 0
    assert arena.tokens["asked"] not in out
    refused = json.loads(arena.communicate(arena.remit("denials", "--json"))[1])[-1]
    assert refused["verdict"] == "deny"
    assert "row-" in refused["rule"]
