"""A session's gateway at the real daemon: who may be one, and whose answers go where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, FakeSupervisor
from remit_daemon.peers import mark
from remit_daemon.wire.control import FIRST_OF_GATEWAY
from remit_daemon.wire.journal import pack


class Gateway:
    """A fake gateway in a child process of ours: we are its supervisor."""

    def __init__(self, machine: Machine, session: str, tag: int, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fakes.supervisor", session, str(tag)],
            env=machine.env, cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **options,
        )  # fmt: skip

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError("the gateway ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, op: str, resource: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{op} {resource}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def session(machine: Machine) -> tuple[FakeSupervisor, FakePerson]:
    sup = machine.supervisor()
    assert sup.connect()["type"] == "welcome"
    return sup, machine.person()


@pytest.fixture
def gateway(machine: Machine, session: tuple[FakeSupervisor, FakePerson]) -> Iterator[Gateway]:
    found = Gateway(machine, session[0].session, session[0].tag)
    try:
        yield found
    finally:
        found.close()


def test_its_asks_are_answered_to_it_and_not_to_the_supervisor(
    session: tuple[FakeSupervisor, FakePerson], gateway: Gateway
) -> None:
    sup, person = session
    welcome = gateway.read()
    assert (welcome["type"], welcome["session"], welcome["agent"]) == ("welcome", sup.session, "claude")
    sup.ask("/srv/own")
    own = sup.read()["prompt"]
    gateway.ask("connect", "example.org:443")
    asked = gateway.read()
    assert asked["type"] == "asked"
    assert asked["seq"] > FIRST_OF_GATEWAY
    assert asked["prompt"] != own
    assert person.call("prompt", id=asked["prompt"])["ops"] == ["connect"]
    person.call("answer", id=asked["prompt"], verdict="allow", for_="once")
    assert gateway.read() | {"message": ""} == {
        "type": "answer", "seq": asked["seq"], "verdict": "allow", "prompt": asked["prompt"], "message": "",
    }  # fmt: skip
    with pytest.raises(TimeoutError):
        sup.read(0.1)


def test_both_get_a_new_snapshot(session: tuple[FakeSupervisor, FakePerson], gateway: Gateway) -> None:
    sup, person = session
    gateway.read()
    sup.ask("/srv/own")
    prompt = sup.read()["prompt"]
    person.call("answer", id=prompt, verdict="allow", for_="always")
    assert sup.read()["snapshot"] == gateway.read()["snapshot"]


def test_what_a_lost_gateway_held_waits_no_longer_and_its_supervisor_goes_on(
    session: tuple[FakeSupervisor, FakePerson], gateway: Gateway
) -> None:
    sup, person = session
    gateway.read()
    sup.ask("/srv/own")
    own = sup.read()["prompt"]
    gateway.ask("connect", "example.org:443")
    asked = gateway.read()["prompt"]
    gateway.close()
    until(lambda: person.call("prompt", id=asked)["holding"] == 0, "its hold ended")
    assert person.call("prompt", id=own)["holding"] == 1
    person.call("answer", id=own, verdict="allow", for_="once")
    assert sup.read()["verdict"] == "allow"


def test_its_journal_is_read_beside_the_supervisors(
    machine: Machine, session: tuple[FakeSupervisor, FakePerson], gateway: Gateway
) -> None:
    sup, person = session
    gateway.read()
    fields = [
        "act",
        "1",
        "1",
        "connect",
        "allow",
        "ok",
        "7",
        "1",
        "/usr/bin/curl",
        "",
        "example.org:443",
        "",
        "",
        "",
        "",
    ]
    with open(f"{machine.paths.spool}/{sup.session}.g1.journal", "wb") as f:
        f.write(pack(fields))
    sup.act(1, "read", "/srv/own")
    wanted = [("connect", "example.org:443"), ("read", "/srv/own")]

    def both() -> bool:
        rows = person.call("log", session=sup.session, actor="agent")
        return sorted((r["op"], r["path"]) for r in rows) == wanted

    until(both, "both journals are in the ledger")


@pytest.mark.parametrize("fault", ["session", "tag", "marked", "stranger"])
def test_nobody_else_is_taken_for_one(
    machine: Machine, session: tuple[FakeSupervisor, FakePerson], fault: str
) -> None:
    sup, _ = session
    options: dict[str, Any] = {}
    if fault == "marked":
        options["preexec_fn"] = lambda: mark_self(sup.tag)
    if fault == "stranger":
        options["preexec_fn"] = leave_child
    found = Gateway(
        machine, "s00000" if fault == "session" else sup.session, sup.tag + (fault == "tag"), **options
    )
    try:
        answer = found.read()
        assert answer["type"] == "refused", answer
    finally:
        found.close()


def mark_self(tag: int) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_RTTIME)[1]
    resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard))


def leave_child() -> None:
    if os.fork():
        os.waitpid(-1, 0)
        os._exit(0)


def test_a_marked_value_is_a_mark() -> None:
    assert mark.is_tag(mark.new_tag())
