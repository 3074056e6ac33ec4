"""Tokens that a person is asked for, keys and handles, with a real session and what would steal from it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.machine import until
from fakes.supervisor import FakePerson, RpcError
from system.harness import PYTHON, ROOT, Arena, rules


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.plant()
        table = rules()
        table["read"]["allow"].append(f"{ROOT}/**")  # remit runs inside, unasked
        a.write_policy(table)
        a.start_daemon()
        yield a
    finally:
        a.close()


def said(arena: Arena, *words: str) -> Any:
    code, out, err = arena.communicate(arena.remit(*words, "--json"))
    assert code == 0, err
    return json.loads(out)


# Speaks to agent.sock itself, as any program inside may: METHOD and PARAMS of each line of standard input, an answer each.
SPEAKER = """
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["REMIT_SOCKET"]); f = s.makefile("rb")
for line in sys.stdin:
    method, params = line.split(" ", 1)
    s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": json.loads(params)}).encode() + b"\\n")
    answer = json.loads(f.readline())
    print(json.dumps(answer.get("result", answer.get("error", {}).get("data"))), flush=True)
"""


def inside(arena: Arena, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Make ``calls`` from a session of its own, and return what each gave."""
    data = "".join(f"{method} {json.dumps(params)}\n" for method, params in calls)
    argv = arena.remit_run(PYTHON, "-c", SPEAKER, ask="prompt")
    code, out, err = arena.communicate(argv, data=data.encode())
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_a_program_asks_and_a_person_answers(arena: Arena) -> None:
    remit = " ".join(arena.remit("token"))
    script = f"""
set -e
{remit} issue --scope log:read && echo given unasked
token=$({remit} request --scope log:read --audience https://tool.example 2>handle)
printf %s "$token" | {remit} introspect
{remit} request --scope log:read --audience https://tool.example > again
sed -n 's/.*go on: //p' handle | {remit} refresh > refreshed
sed -n 's/.*go on: //p' handle | {remit} refresh > stolen || echo used up
printf %s "$token" | {remit} introspect || echo ended
"""
    got: list[Any] = []
    argv = arena.remit_run(
        "/bin/sh", "-c", script.replace("&& echo given", "|| true; echo not given"), ask="prompt"
    )
    thread = threading.Thread(target=lambda: got.append(arena.communicate(argv)))
    thread.start()
    until(lambda: said(arena, "prompts"), "the question comes")
    (prompt,) = said(arena, "prompts")
    code, out, _ = arena.communicate(arena.remit("prompts"))
    assert "probe wants to have a token for https://tool.example log:read" in out
    assert "it may read what was done, and by whom" in out
    for words in (("--scope", "https://tool.example *"), ("--for", "always", "--scope", "**")):
        assert arena.communicate(arena.remit("answer", prompt["id"], "allow", *words))[0] != 0
    assert arena.communicate(arena.remit("answer", prompt["id"], "allow", "--for", "session"))[0] == 0
    thread.join(30)
    ((code, out, err),) = got
    assert code == 0, err
    assert "for log:read a person is asked" in err
    assert "active for" in out
    assert out.rstrip().endswith(
        "used up\nnot active: revoked, expired, another process's, or never issued\nended"
    )
    assert Path(arena.project, "again").read_text().count(".") == 2
    assert said(arena, "prompts") == []
    assert said(arena, "token", "list") == []  # with the session
    assert said(arena, "grants") == []


def test_a_key_gets_nothing_inside(arena: Arena) -> None:
    made = said(arena, "key", "create", "--name", "ci", "--scope", "auditor", "--expires", "90d")
    (answer,) = inside(arena, ("token.key", {"key": made["key"]}))
    assert answer["error"] == "unauthorized_client"
    rows = [r for r in said(arena, "log") if r["op"] == "key"]
    assert [r["outcome"] for r in rows] == ["created", "refused"]
    assert rows[1]["session"]
    code, _, err = arena.communicate(arena.remit_run(*arena.remit("key", "list")))
    assert (code, "not from inside a session" in err) == (3, True)
    (listed,) = said(arena, "key", "list")
    assert listed["uses"] == 0
    assert said(arena, "key", "revoke", made["id"])["tokens"] == 0


def test_what_is_one_sessions_is_nobody_elses(arena: Arena) -> None:
    """A request, a handle and a token, seen by others: another session, and a program outside."""
    outside = FakePerson(arena.run_dir + "/remit/approver.sock")
    asked, pending = inside(
        arena, ("token.request", {"scope": "policy:read"}), ("token.poll", {"request": "x"})
    )
    assert pending["error"] == "invalid_grant"
    (stolen,) = inside(arena, ("token.poll", {"request": asked["request"]}))
    assert stolen["error"] == "invalid_grant"
    with pytest.raises(RpcError) as e:
        outside.call("token.poll", request=asked["request"])
    assert e.value.data["error"] == "invalid_grant"
    outside.close()


def test_a_session_has_no_more_than_policy_gives_it(arena: Arena) -> None:
    answers = inside(
        arena,
        ("token", {"scope": "auditor"}), ("token", {"scope": "admin"}), ("token.request", {"scope": "admin"}),
        ("token.request", {"scope": "files:*"}), ("token.request", {"scope": "files:read"}), ("key.create", {"name": "x"}),
    )  # fmt: skip
    assert [a and a.get("error", "given") for a in answers] == [
        "invalid_scope", "invalid_scope", "access_denied", "invalid_scope", "given", None,
    ]  # fmt: skip
