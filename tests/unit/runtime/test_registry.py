"""Agents by name at the real daemon: what is seen, what a changed program may keep, and adopted processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, FakeSupervisor, RpcError
from remit_policy import model
from remit_policy.engine import Engine

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)
SLEEP = os.path.realpath(shutil.which("sleep") or "/bin/sleep")
ASKS = 'version = 1\n[agent.claude]\nroles = ["default"]\non_change = "ask"\n'


def start(machine: Machine, sha256: str, **hello: Any) -> tuple[FakeSupervisor, dict[str, Any]]:
    sup = machine.supervisor(sha256=sha256, **hello)
    welcome = sup.connect()
    assert welcome["type"] == "welcome", welcome
    return sup, welcome


def end(sup: FakeSupervisor, person: FakePerson) -> None:
    sup.send({"type": "end", "status": 0})
    until(lambda: {s["id"]: s["state"] for s in person.call("sessions")}[sup.session] == "ended", "it ends")


def answered(sup: FakeSupervisor, person: FakePerson, path: str, verdict: str = "allow") -> str:
    sup.ask(path)
    prompt = sup.read()["prompt"]
    grant = person.call("answer", id=prompt, verdict=verdict, for_="always")["grant"]
    assert sup.read()["type"] == "snapshot"
    assert sup.read()["verdict"] == verdict
    return str(grant)


def decided(snapshot: str, path: str) -> str:
    return model.VERDICTS[Engine(model.loads(snapshot)).decide("read", path).verdict]


def agent_rows(person: FakePerson) -> list[tuple[str, str, str]]:
    return [(r["actor"], r["agent"], r["outcome"]) for r in person.call("log", op="agent")]


def test_what_is_started_is_known_by_name_and_digest(machine: Machine) -> None:
    person = machine.person()
    sup, welcome = start(machine, ONE)
    assert welcome["message"] == ""
    (agent,) = person.call("agents")
    assert (agent["name"], agent["pending"], agent["grants"], agent["adopted"]) == ("claude", False, 0, [])
    (program,) = agent["programs"]
    assert (program["digest"], program["path"], program["how"]) == (ONE, "/usr/bin/claude", "launched")
    end(sup, person)
    start(machine, ONE)
    (again,) = person.call("agent", name="claude")["programs"]
    assert again["first_seen"] == program["first_seen"]
    assert again["last_seen"] > program["last_seen"]


def test_a_changed_program_keeps_its_answers_and_says_so_once(machine: Machine) -> None:
    person = machine.person()
    sup, _ = start(machine, ONE)
    answered(sup, person, "/srv/thing")
    end(sup, person)
    sup, welcome = start(machine, TWO)
    first = welcome["message"].splitlines()[0]
    assert first.startswith("claude's program changed since ")
    assert "1 remembered answer kept until you say otherwise (`remit agent update claude --drop`)" in first
    assert decided(welcome["snapshot"], "/srv/thing") == "allow"
    assert agent_rows(person) == [("remit", "claude", "changed")]
    end(sup, person)
    sup, welcome = start(machine, TWO)
    assert welcome["message"] == ""
    end(sup, person)
    sup, welcome = start(machine, ONE)
    assert welcome["message"] == "", "a digest that was seen before is no change"
    assert len(person.call("agent.update", name="claude", keep=False)["dropped"]) == 1
    assert decided(sup.read()["snapshot"], "/srv/thing") == "ask"
    assert person.call("grants") == []
    with pytest.raises(RpcError, match="has not changed"):
        person.call("agent.update", name="claude", keep=True)


def test_what_a_program_is_called_cannot_write_to_the_terminal(machine: Machine) -> None:
    person = machine.person()
    agent = "cl\x1b[2J\naude"
    sup, _ = start(machine, ONE, agent=agent)
    answered(sup, person, "/srv/thing")
    end(sup, person)
    _, welcome = start(machine, TWO, agent=agent, exe="/opt/\u202eevil\x07")
    assert " is /opt/\\u202eevil\\x07 now, another program than on " in welcome["message"]
    assert all(c.isprintable() for c in welcome["message"])


def test_without_answers_a_change_is_only_recorded(machine: Machine) -> None:
    person = machine.person()
    start(machine, ONE)
    _, welcome = start(machine, TWO)
    assert welcome["message"] == ""
    assert agent_rows(person) == [("remit", "claude", "changed")]


@pytest.mark.parametrize("keep", [True, False])
def test_where_policy_asks_answers_wait_for_the_persons_word(machine: Machine, keep: bool) -> None:
    machine.policy(ASKS)
    person = machine.person()
    sup, _ = start(machine, ONE)
    answered(sup, person, "/srv/thing")
    answered(sup, person, "/srv/never", "deny")
    end(sup, person)
    sup, welcome = start(machine, TWO)
    assert (
        "1 remembered answer waits for `remit agent update claude --keep` or `--drop`" in welcome["message"]
    )
    assert decided(welcome["snapshot"], "/srv/thing") == "ask"
    assert decided(welcome["snapshot"], "/srv/never") == "deny", "what was denied stays so"
    assert [g["withheld"] for g in person.call("grants")] == [True, False]
    assert person.call("agent", name="claude")["pending"]
    assert person.call("status")["agents"] == {"known": 1, "pending": ["claude"], "adopted": []}
    answered(sup, person, "/srv/new")  # an answer of today counts at once
    sup.ask("/srv/thing")
    waiting = sup.read()["prompt"]
    done = person.call("agent.update", name="claude", keep=keep)
    assert len(done["kept" if keep else "dropped"]) == 1
    snapshot = sup.read()["snapshot"]
    assert decided(snapshot, "/srv/thing") == ("allow" if keep else "ask")
    assert decided(snapshot, "/srv/new") == "allow"
    assert person.call("prompt", id=waiting)["state"] == ("allowed" if keep else "open")
    assert not person.call("agent", name="claude")["pending"]
    assert agent_rows(person)[-1] == ("human", "claude", "kept" if keep else "dropped")


def test_what_waits_goes_on_waiting_over_restarts_and_starts(machine: Machine) -> None:
    machine.policy(ASKS)
    person = machine.person()
    sup, _ = start(machine, ONE)
    answered(sup, person, "/srv/thing")
    end(sup, person)
    start(machine, TWO)
    machine.kill()
    machine.start()
    person = machine.person()
    assert [g["withheld"] for g in person.call("grants")] == [True]
    _, welcome = start(machine, TWO)
    assert "waits for" in welcome["message"]
    assert decided(welcome["snapshot"], "/srv/thing") == "ask"
    machine.policy(ASKS.replace('"ask"', '"keep"'))
    _, welcome = start(machine, TWO)
    assert welcome["message"] == ""
    assert decided(welcome["snapshot"], "/srv/thing") == "allow"


def test_an_interpreters_script_is_the_program(machine: Machine) -> None:
    person = machine.person()
    script = machine.project + "/agent.py"
    with open(script, "w") as f:
        f.write("one")
    hello = {"argv": ["python3", "agent.py"], "exe": sys.executable, "cwd": machine.project}
    start(machine, ONE, **hello)
    start(machine, TWO, **hello)  # another interpreter: the agent is the same
    (program,) = person.call("agent", name="claude")["programs"]
    assert (program["digest"], program["path"]) == (hashlib.sha256(b"one").hexdigest(), script)
    with open(script, "w") as f:
        f.write("two")
    start(machine, TWO, **hello)
    assert len(person.call("agent", name="claude")["programs"]) == 2
    start(machine, TWO, **hello | {"argv": ["python3", "-c", "x"]})
    assert len(person.call("agent", name="claude")["programs"]) == 2, "code has no digest"


def test_forgetting_a_name_takes_back_what_it_was_granted(machine: Machine) -> None:
    person = machine.person()
    sup, _ = start(machine, ONE)
    grant = answered(sup, person, "/srv/thing")
    assert person.call("agent.forget", name="claude") == {"revoked": [grant]}
    assert (person.call("agents"), person.call("grants")) == ([], [])
    with pytest.raises(RpcError, match="no agent is known"):
        person.call("agent", name="claude")


def test_registering(machine: Machine) -> None:
    person = machine.person()
    sleep = hashlib.sha256(Path(SLEEP).read_bytes()).hexdigest()
    found = person.call("agent.register", name="nap", exe=SLEEP)
    assert [(p["digest"], p["path"], p["how"]) for p in found["programs"]] == [(sleep, SLEEP, "registered")]
    script = machine.project + "/a.js"
    with open(script, "w") as f:
        f.write("x")
    found = person.call("agent.register", name="js", exe=sys.executable, script=script)
    assert (found["programs"][0]["digest"], len(found["programs"][0]["interpreter_digest"])) == (
        hashlib.sha256(b"x").hexdigest(), 64,
    )  # fmt: skip
    for params, why in (
        ({"name": "x"}, "takes a pid"), ({"name": "x", "exe": "a"}, "absolute"), ({"name": "x", "exe": "/nope"}, "cannot hash"),
        ({"name": "x", "exe": machine.project}, "cannot hash"), ({"name": "x", "exe": sys.executable}, "interpreter"),
        ({"name": "a\x1b[2J", "exe": SLEEP}, "no agent's name"), ({"name": "x", "pid": 1, "exe": SLEEP}, "takes a pid"),
        ({"name": "x", "pid": 1 << 40}, "no process"), ({"name": "x", "exe": SLEEP, "script": "b"}, "absolute"),
        ({"name": "x", "exe": "/x\0y"}, "cannot hash"),
    ):  # fmt: skip
        with pytest.raises(RpcError, match=why):
            person.call("agent.register", **params)


HOSTILE = "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode()); print('ready', flush=True); input()"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[str]]:
    """A process of ours outside every session, under an interpreter and a name that would forge a line of proc(5)."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOSTILE, "x)\nUid:\t0 0\u202e\x1b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_an_adopted_process_is_its_agents_and_nothing_holds_it(
    machine: Machine, stranger: subprocess.Popen[str]
) -> None:
    person = machine.person()
    assert person.call("who", pid=stranger.pid)["actor"] == "human"
    found = person.call("adopt", pid=stranger.pid, agent="helper")
    assert (found["agent"], found["assurance"]) == ("helper", "L0")
    assert "nothing holds it" in found["note"]
    assert "not attested" in found["program"]
    assert person.call("status")["agents"]["adopted"] == [stranger.pid]
    who = person.call("who", pid=stranger.pid)
    assert (who["actor"], who["agent"], who["session"], who["assurance"]) == ("agent", "helper", "", "L0")
    assert "unconfined" in who["note"]
    stranger.kill()
    stranger.wait()
    until(lambda: [r for r in agent_rows(person) if r[2] == "ended"], "its end is recorded")
    with pytest.raises(RpcError, match="no process"):
        person.call("who", pid=stranger.pid)


def test_a_known_program_is_adopted_under_its_name_and_an_exec_loses_it(machine: Machine) -> None:
    person = machine.person()
    person.call("agent.register", name="nap", exe=SLEEP)
    code = "import os, sys; print('ready', flush=True); input(); os.execv(sys.argv[1], ['sleep', '60'])"
    sh = subprocess.Popen(
        ["bash", "-c", f"{SLEEP} 0.01; exec {sys.executable} -c \"$0\" {SLEEP}", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    nap = subprocess.Popen([SLEEP, "60"])
    try:
        until(lambda: Path(f"/proc/{nap.pid}/cmdline").read_bytes(), "it runs")
        found = person.call("adopt", pid=nap.pid)
        assert (found["agent"], found["assurance"]) == ("nap", "L2")
        assert person.call("agent", name="nap")["adopted"] == [nap.pid]
        assert sh.stdout is not None
        assert sh.stdin is not None
        assert sh.stdout.readline() == "ready\n"
        assert person.call("adopt", pid=sh.pid, agent="nap")["assurance"] == "L0", "it runs code"
        sh.stdin.write("\n")
        sh.stdin.flush()
        until(lambda: person.call("who", pid=sh.pid)["assurance"] == "L2", "what it runs now is known")
    finally:
        for process in (sh, nap):
            process.kill()
            process.communicate()


def test_what_an_adopted_process_starts_is_its_agents_too(machine: Machine) -> None:
    person = machine.person()
    top = subprocess.Popen(
        ["bash", "-c", f"{SLEEP} 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    assert top.stdout is not None
    child = int(top.stdout.readline())
    try:
        person.call("adopt", pid=top.pid, agent="helper")
        assert person.call("who", pid=child)["agent"] == "helper"
    finally:
        os.killpg(top.pid, 9)
        top.communicate()


def test_who_cannot_be_adopted(machine: Machine, stranger: subprocess.Popen[str]) -> None:
    person = machine.person()
    assert machine.process is not None
    with pytest.raises(RpcError, match="remit's own"):
        person.call("adopt", pid=machine.process.pid, agent="x")
    with pytest.raises(RpcError, match="belongs to user 0"):
        person.call("adopt", pid=1, agent="x")
    with pytest.raises(RpcError, match="no process"):
        person.call("adopt", pid=-4, agent="x")
    with pytest.raises(RpcError, match="say as which agent"):
        person.call("adopt", pid=stranger.pid)
    with pytest.raises(RpcError, match="no agent's name"):
        person.call("adopt", pid=stranger.pid, agent="\u202eevil")
    start(machine, ONE)
    with pytest.raises(RpcError, match=r"remit's own|inside a session"):
        person.call("adopt", pid=os.getpid(), agent="x")
