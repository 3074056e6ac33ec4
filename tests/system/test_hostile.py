"""No probe of the corpus gets through under remit: neither by its own word nor seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.harness import PYTHON, Arena, probes

OUTLIVES = 3.0  # seconds that a session may take to end after its supervisor was killed


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.start_tmux()
        a.write_policy()
        a.start_daemon()
        yield a
    finally:
        a.close()


@pytest.mark.parametrize("probe", probes())
def test_is_held(arena: Arena, probe: str) -> None:
    result = arena.attack(probe, confined=True)
    assert result.word, f"the probe did not get to its verdict\n{result}"
    assert result.word == "HELD", result
    assert not result.spoils, result
    assert not result.body["stalled"], result
    assert result.code == 0, result


def test_own_prompt_stays_unanswered(arena: Arena) -> None:
    """The same attack while its prompt is really open."""
    result = arena.attack("answer_self.py", confined=True, ask="prompt")
    assert result.word == "HELD", result
    assert not result.spoils, result


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found


AFTER = """
import os, socket, time, json, pathlib
arena = json.loads(os.environ["ARENA"])
print("ready", flush=True)
def tries():
    yield lambda: os.read(os.open(arena["secret"], os.O_RDONLY), 99)
    yield lambda: os.read(os.open(arena["hole_file"], os.O_RDONLY), 99)
    yield lambda: os.chmod(arena["outside_file"], 0o777)
    yield lambda: os.rename(arena["hole"], arena["project"] + "/opened")
    yield lambda: socket.socket(socket.AF_UNIX).connect(arena["sock_stream"])
beat = os.open(arena["project"] + "/beat", os.O_CREAT | os.O_WRONLY)
while True:
    for act in tries():
        try:
            os.write(1, b"ESCAPED %r\\n" % (act(),))
        except OSError:
            pass
    os.write(beat, b".")
    time.sleep(0.005)
"""


def test_killing_the_supervisor_frees_nobody(arena: Arena) -> None:
    arena.plant()
    arena.info["victim"] = arena.info["remitd"] = 0
    env = arena.env | {"ARENA": json.dumps(arena.info)}
    before = arena.picture()
    supervisor = arena.popen(
        arena.remit_run(PYTHON, "-c", AFTER), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert supervisor.stdout
    try:
        line = supervisor.stdout.readline()
        assert line == b"ready\n", line + supervisor.stdout.read1()
        tree = _children(supervisor.pid)
        assert tree
        supervisor.kill()
        end = time.monotonic() + OUTLIVES
        while any(_alive(p) for p in tree) and time.monotonic() < end:
            time.sleep(0.02)
        left = [p for p in tree if _alive(p)]
        for p in left:
            os.kill(p, signal.SIGKILL)
        assert not left, f"{len(left)} processes outlived their supervisor"
        assert b"ESCAPED" not in supervisor.stdout.read()
        assert not arena.inspect(before, "")
    finally:
        supervisor.kill()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
