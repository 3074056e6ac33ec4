"""Tokens through the real daemon's sockets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, RpcError


def test_a_token_for_a_process_ends_with_it(machine: Machine) -> None:
    person = machine.person()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        given = person.call("token.issue", agent="helper", pid=child.pid, scope="reader")
        assert given["expires_in"] == 300
        assert given["token_type"] == "N_A"
        found = person.call("token.introspect", token=given["access_token"])
        assert (found["active"], found["act"]) == (True, {"sub": "helper"})
        (listed,) = person.call("token.list")
        assert listed["agent"] == "helper"
    until(lambda: not person.call("token.list"), "the token ends")
    assert person.call("token.introspect", token=given["access_token"]) == {"active": False}
    rows = person.call("log", op="token")
    assert [(r["actor"], r["outcome"], r["agent"]) for r in rows] == [("human", "issue", "helper")]
    assert listed["jti"] in rows[0]["note"]
    assert given["access_token"] not in str(person.call("log"))


def test_revoked_by_the_person(machine: Machine) -> None:
    person = machine.person()
    given = person.call("token.issue", agent="helper", pid=os.getpid(), scope="reader")
    (listed,) = person.call("token.list")
    assert person.call("token.revoke", grant=listed["grant"]) == {"revoked": [listed["jti"]]}
    assert person.call("token.introspect", token=given["access_token"]) == {"active": False}
    assert person.call("token.revoke", jti="never") == {"revoked": []}


def test_a_new_policy_ends_tokens(machine: Machine) -> None:
    person = machine.person()
    person.call("token.issue", agent="helper", pid=os.getpid(), scope="reader")
    person.call("reload")
    assert person.call("token.list") == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"agent": "a", "pid": 0x7FFFFFF0, "scope": "reader"}, "no process"),
        ({"agent": "a", "pid": -1, "scope": "reader"}, "no process"),
        ({"agent": "a", "pid": 1 << 40, "scope": "reader"}, "no process"),
        ({"agent": "a", "scope": "reader"}, "pid is missing"),
        ({"agent": "a", "pid": os.getpid()}, "a token for nothing"),
        ({"agent": "a", "pid": os.getpid(), "scope": "all"}, "no scope all"),
        ({"agent": "a", "pid": os.getpid(), "scope": "admin"}, "only an administrator"),
        ({"agent": "", "pid": os.getpid(), "scope": "reader"}, "needs an agent"),
        ({"agent": "a", "pid": os.getpid(), "authorization_details": [{"type": "x"}]}, "entry 0"),
        ({"agent": "a", "pid": os.getpid(), "authorization_details": "x"}, "must be a list"),
    ],
)
def test_bad_requests(machine: Machine, params: dict[str, object], text: str) -> None:
    person = machine.person()
    with pytest.raises(RpcError, match=text):
        person.call("token.issue", **params)
    assert person.call("token.list") == []


@pytest.mark.parametrize("token", ["", "a.b.c", "\0", "x" * 100_000, "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token(machine: Machine, token: str) -> None:
    person: FakePerson = machine.person()
    assert person.call("token.introspect", token=token) == {"active": False}
