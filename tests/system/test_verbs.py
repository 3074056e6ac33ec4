"""remit's verbs from inside a session: a person answers before the agent tries, and what is handed over is what was asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from system.harness import PYTHON, Arena

HEAD = """
import json, os, sys
sys.path.insert(0, {code!r})
from remit_client import Denied, Remit
remit = Remit()
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


def run(
    arena: Arena, code: str, verdict: str = "", **how: str
) -> tuple[list[object], list[dict[str, object]]]:
    """Run ``code`` in a session, answer its one question with ``verdict``, return the JSON lines it printed and the prompts."""
    arena.plant()
    command = arena.remit_run(PYTHON, "-c", HEAD.format(code=arena.code) + code, ask="prompt")
    process = arena.popen(command, stdout=-1, stderr=-1, env=arena.env)
    prompts: list[dict[str, object]] = []
    end = time.monotonic() + 15
    while verdict and not prompts and time.monotonic() < end and process.poll() is None:
        prompts = json.loads(arena.communicate(arena.remit("prompts", "--json"))[1])
    for prompt in prompts:
        words = [w for name, value in how.items() for w in (f"--{name}", value)]
        arena.communicate(arena.remit("answer", str(prompt["id"]), verdict, *words))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()], prompts


def test_asked_ahead_the_person_answers_before_the_agent_tries(arena: Arena) -> None:
    code = """
path = %r
print(json.dumps(remit.whoami()))
print(json.dumps(remit.check("read", path)))
print(json.dumps(remit.request("read", path, purpose="to learn what is asked")))
print(json.dumps(len(open(path).read())))
"""
    found, (prompt,) = run(arena, code % arena.info["asked_file"], "allow")
    who, checked, told, length = found
    assert isinstance(who, dict)
    assert (who["agent"], who["confined"], who["assurance"]) == ("probe", True, "L3")
    assert checked == ["ask", "default", "", ""]
    assert isinstance(told, list)
    assert told[0] == "allow"
    assert length
    assert (prompt["purpose"], prompt["confined"]) == ("to learn what is asked", True)
    assert prompt["exe"], "the program that asked, not its supervisor"


def test_what_is_handed_over_is_what_was_asked(arena: Arena) -> None:
    code = """
fd = remit.open(%r, purpose="p")
print(json.dumps(os.read(fd, 99).decode()))
try:
    os.write(fd, b"x")
except OSError as e:
    print(json.dumps(e.errno))
try:
    os.close(os.open("/proc/self/fd/%%d" %% fd, os.O_RDWR))
    print(json.dumps("reopened to write"))
except OSError as e:
    print(json.dumps(e.errno))
try:
    remit.open(%r)
except Denied as e:
    print(json.dumps(e.data))
"""
    path = arena.info["readonly_file"]  # the policy lets it be read, and denies to write it
    found, _ = run(arena, code % (path, arena.info["secret"]))
    assert found[0] == "may only be read\n"
    assert found[1:3] == [9, 13]
    denied = found[3]
    assert isinstance(denied, dict)
    assert (denied["verdict"], "arena.toml" in denied["rule"]) == ("deny", True)
    rows = json.loads(arena.communicate(arena.remit("log", "--json", "--path", path))[1])
    assert [r["outcome"] for r in rows if "remitd" in r["note"]] == ["ok"]
