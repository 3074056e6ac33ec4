"""`remit hook`: what a tool call means, and that no fault of ours becomes an allow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from fakes.machine import Machine
from remit_client import Remit, Told
from remit_daemon.cli.hook_cmd import AGENTS, decide, form
from remit_daemon.cli.hook_tools import MAX_PURPOSE, NOTHING, Act, wish
from unit.runtime.conftest import machine as machine
from unit.runtime.test_verbs import POLICY


def event(tool: str, cwd: str = "/p", **given: Any) -> dict[str, Any]:
    return {"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": given, "cwd": cwd}


@pytest.mark.parametrize(
    ("tool", "given", "acts"),
    [
        ("Read", {"file_path": "/etc/passwd"}, [("read", "/etc/passwd")]),
        ("Read", {"file_path": "a/../b"}, [("read", "/p/b")]),
        ("Edit", {"file_path": "/etc/passwd", "old_string": "x"}, [("write", "/etc/passwd")]),
        ("Write", {"file_path": "/p/none"}, [("create", "/p/none")]),
        ("NotebookEdit", {"notebook_path": "/etc/passwd"}, [("write", "/etc/passwd")]),
        ("Glob", {"pattern": "*"}, [("list", "/p")]),
        ("WebFetch", {"url": "https://a.example/x", "prompt": "why"}, [("connect", "a.example:443")]),
        ("WebFetch", {"url": "http://[::1]:8080/"}, [("connect", "[::1]:8080")]),
        ("read_file", {"absolute_path": "/etc/passwd"}, [("read", "/etc/passwd")]),
        ("write_file", {"file_path": "none"}, [("create", "/p/none")]),
        ("list_directory", {"path": "/etc"}, [("list", "/etc")]),
        ("Bash", {"command": "git push"}, None),
        ("run_shell_command", {"command": "/bin/cat x"}, None),
    ],
)
def test_a_known_call_says_what_it_does(
    tool: str, given: dict[str, Any], acts: list[tuple[str, str]] | None
) -> None:
    found = wish(event(tool, **given))
    if acts is None:
        (act,) = found.acts
        assert (act.op, os.path.isabs(act.resource), list(act.argv)) == (
            "exec",
            True,
            given["command"].split(),
        )
        assert found.command
    else:
        assert [(a.op, a.resource) for a in found.acts] == acts


def test_a_patch_names_its_files() -> None:
    text = "*** Begin Patch\n*** Update File: a.py\n@@\n-x\n+y\n*** Add File: b\n+z\n*** Delete File: /q\n*** End Patch"
    found = wish(event("apply_patch", command=text))
    assert found.acts == (Act("write", "/p/a.py"), Act("create", "/p/b"), Act("delete", "/q"))


@pytest.mark.parametrize(
    "command",
    [
        "cat a; rm b",
        "echo $(x)",
        "a | b",
        "FOO=1 x",
        "no-such-program-here",
        "cd x && y",
        "",
        "cat 'a b'",
        7,
        None,
    ],
)
def test_a_command_that_is_more_than_a_program_is_not_known(command: Any) -> None:
    found = wish(event("Bash", command=command, description="d" * 600))
    assert (found.acts, found.known, found.command) == ((), False, True)
    assert len(found.purpose) == MAX_PURPOSE


@pytest.mark.parametrize(
    "said",
    [
        {}, event("Task", prompt="x"), event("mcp__x__y", path="/etc"), event("Read"), event("Read", file_path=7),
        {"tool_name": 1, "tool_input": {}}, {"tool_name": "Read", "tool_input": []}, event("WebFetch", url="file:///x"),
        event("WebFetch", url="http://a:99999/"), event("apply_patch"),
    ],
)  # fmt: skip
def test_an_unknown_call_is_nothing(said: dict[str, Any]) -> None:
    assert wish(said) == NOTHING


class Sayer:
    """A remit that says what it is told to."""

    def __init__(self, verdict: str, confined: bool) -> None:
        self.verdict, self.confined, self.stated = verdict, confined, []

    def intend(self, purpose: str, resources: list[str]) -> None:
        self.stated.append((purpose, resources))

    def request(self, op: str, resource: str, **_: Any) -> Told:
        return Told(self.verdict, "f:1", "p1", "")

    def whoami(self) -> dict[str, Any]:
        return {"confined": self.confined}


@pytest.mark.parametrize("verdict", ["allow", "deny", "ask"])
@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        event("Read", file_path="/x"),
        event("Bash", command="cat x"),
        event("Bash", command="a|b", description="w"),
    ],
)
def test_only_remits_allow_becomes_one(verdict: str, confined: bool, said: dict[str, Any]) -> None:
    remit: Any = Sayer(verdict, confined)
    found, _ = decide(remit, wish(said))
    if verdict == "allow":
        assert found == (
            "allow"
            if said["tool_name"] == "Read" or (confined and "|" not in said["tool_input"]["command"])
            else ""
        )
    else:
        assert found == (verdict if wish(said).acts else "")


def test_each_agents_own_form() -> None:
    assert form("claude", "allow", "w")["hookSpecificOutput"]["permissionDecision"] == "allow"
    assert form("claude", "ask", "w")["hookSpecificOutput"]["permissionDecision"] == "ask"
    assert form("codex", "allow", "w") == {}
    assert form("codex", "ask", "w")["hookSpecificOutput"]["permissionDecision"] == "deny"
    assert form("codex", "deny", "w")["hookSpecificOutput"]["permissionDecisionReason"] == "w"
    assert form("gemini", "deny", "w") == {"decision": "deny", "reason": "w", "systemMessage": "w"}
    assert [form(a, "", "") for a in AGENTS] == [{}, {}, {}]


def hook(machine: Machine, agent: str, said: Any) -> dict[str, Any]:
    argv = [sys.executable, "-m", "remit_daemon.cli.main", "hook", agent]
    text = said if isinstance(said, str) else json.dumps(said)
    env = {k: v for k, v in machine.env.items() if k != "REMIT_SOCKET"}
    done = subprocess.run(argv, input=text, capture_output=True, text=True, env=env, timeout=60, check=True)
    return json.loads(done.stdout) if done.stdout else {}


def test_the_command_by_the_real_daemon(machine: Machine) -> None:
    machine.policy(
        POLICY.replace('match = { name = "tool*" }', 'match = { name = "claude*" }').replace(
            "ROOT", machine.root
        )
    )
    machine.person().call("reload")
    os.makedirs(machine.root + "/project/secret")
    for place in ("a", "secret/key"):
        with open(f"{machine.root}/project/{place}", "w"):
            pass
    project = machine.root + "/project"
    found = [
        hook(machine, "claude", event("Read", project, file_path=f"{project}/{name}"))["hookSpecificOutput"]
        for name in ("a", "secret/key")
    ]
    assert [f["permissionDecision"] for f in found] == ["allow", "deny"]
    assert "test.toml" in found[1]["permissionDecisionReason"]
    assert hook(machine, "claude", event("Task", project)) == {}
    assert hook(machine, "claude", "{nonsense")["hookSpecificOutput"]["permissionDecision"] == "ask"
    (session,) = machine.person().call("sessions")
    assert (session["agent"], session["pid"], session["project"]) == ("claude", os.getpid(), project)
    assert hook(machine, "claude", event("Bash", project, command="a | b", description="to count")) == {}
    with Remit(machine.paths.agent) as remit:
        told = remit.request("read", "/nowhere/x", wait=0)
    assert machine.person().call("prompt", id=told.prompt)["purpose"] == "to count"


@pytest.mark.parametrize("agent", AGENTS)
def test_without_a_daemon_nothing_is_allowed(machine: Machine, agent: str) -> None:
    machine.kill()
    found = hook(machine, agent, event("Read", file_path="/etc/passwd"))
    assert ("ask" if agent != "codex" else "deny") in (
        found.get("decision"),
        found.get("hookSpecificOutput", {}).get("permissionDecision"),
    )
    machine.start()
