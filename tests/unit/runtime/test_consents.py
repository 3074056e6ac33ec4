"""A program asks for a token, a person answers, through the real daemon's sockets."""

from __future__ import annotations

import os
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, RpcError

AUDIENCE = "https://tool.example"
FIRST = {"agent": "helper", "scope": "log:read", "audience": AUDIENCE}


def code(person: FakePerson, method: str, **params: Any) -> str:
    with pytest.raises(RpcError) as e:
        person.call(method, **params)
    assert (
        not set(e.value.data["error_description"]) - {chr(c) for c in range(0x20, 0x7F)} - set('"\\')
    )  # RFC 6749 5.2
    return str(e.value.data["error"])


def test_it_is_pending_until_a_person_allows_it(machine: Machine) -> None:
    person, program = machine.person(), machine.person()
    asked = program.call("token.request", **FIRST)
    assert set(asked) == {"request", "interval", "expires_in"}
    assert code(program, "token.poll", request=asked["request"]) in (
        "slow_down",
        "authorization_pending",
    )  # as time goes
    (shown,) = person.call("prompts")
    assert (shown["ops"], shown["agent"], shown["session"], shown["holding"]) == (
        ["token"],
        "helper",
        "",
        1,
    )
    assert shown["path"] == f"{AUDIENCE} log:read"
    assert shown["facts"] == [{"label": "it may", "text": "read what was done, and by whom"}]
    assert shown["pid"] == os.getpid()
    (scope,) = shown["scopes"]
    assert scope["rule"] == f'allow helper token on "{AUDIENCE} log:read", always'
    person.call("answer", id=shown["id"], verdict="allow", for_="once")
    given = program.call("token.poll", request=asked["request"])
    assert given["scope"] == "log:read"
    assert "refresh_token" not in given
    claims = person.call("token.introspect", token=given["access_token"])
    assert (claims["aud"], claims["act"], claims["grant_id"]) == (AUDIENCE, {"sub": "helper"}, shown["id"])
    assert code(program, "token.poll", request=asked["request"]) == "invalid_grant"
    rows = person.call("log", session="")
    assert [(r["op"], r["actor"]) for r in rows if r["op"] in ("token", "answer")] == [
        ("answer", "human"),
        ("token", "agent"),
    ]
    assert asked["request"] not in str(rows)


def test_no_and_taken_back(machine: Machine) -> None:
    person, program = machine.person(), machine.person()
    asked = program.call("token.request", **FIRST)
    person.call("answer", id="p1", verdict="deny", for_="once", message="not today")
    with pytest.raises(RpcError, match="not today") as e:
        program.call("token.poll", request=asked["request"])
    assert e.value.data["error"] == "access_denied"
    asked = program.call("token.request", **FIRST)
    grant = person.call("answer", id="p2", verdict="allow", for_=3600)["grant"]
    person.call("revoke", id=grant)
    assert code(program, "token.poll", request=asked["request"]) == "access_denied"
    assert code(program, "token.poll", request="never") == "invalid_grant"


def test_what_is_granted_for_longer_goes_on_by_its_handle(machine: Machine) -> None:
    person, program = machine.person(), machine.person()
    asked = program.call("token.request", agent="helper", scope="log:read policy:read")
    grant = person.call("answer", id="p1", verdict="allow", for_=3600)["grant"]
    given = program.call("token.poll", request=asked["request"])
    assert person.call("token.introspect", token=given["access_token"])["grant_id"] == grant
    assert (
        code(program, "token.refresh", refresh_token=given["refresh_token"], scope="exec:run")
        == "invalid_scope"
    )
    again = program.call("token.refresh", refresh_token=given["refresh_token"], scope="log:read")
    assert (again["scope"], again["refresh_token"] != given["refresh_token"]) == ("log:read", True)
    claims = [person.call("token.introspect", token=g["access_token"]) for g in (given, again)]
    assert claims[0]["txn"] == claims[1]["txn"]
    more = program.call("token.request", agent="helper", scope="log:read policy:read")
    assert more["scope"] == "log:read policy:read"  # the grant serves
    (listed,) = person.call("grants")
    assert (listed["id"], listed["uses"]) == (grant, 3)
    # The handle that was used once is used again: what came of it ends, what came of the other does not.
    assert code(program, "token.refresh", refresh_token=given["refresh_token"]) == "invalid_grant"
    assert code(program, "token.refresh", refresh_token=again["refresh_token"]) == "invalid_grant"
    good = [
        person.call("token.introspect", token=g["access_token"])["active"] for g in (given, again, more)
    ]
    assert good == [False, False, True]
    assert "used twice" in str(person.call("log", op="token"))
    program.call("token.refresh", refresh_token=more["refresh_token"])
    person.call("revoke", id=grant)
    assert person.call("token.list") == []
    assert code(program, "token.refresh", refresh_token=more["refresh_token"]) == "invalid_grant"


def test_a_policy_that_closes_it_ends_handles_too(machine: Machine) -> None:
    person, program = machine.person(), machine.person()
    asked = program.call("token.request", **FIRST)
    person.call("answer", id="p1", verdict="allow", for_=3600)
    given = program.call("token.poll", request=asked["request"])
    machine.policy("version = 1\n[agent.other]\nroles = ['default']\n")
    person.call("reload")
    assert person.call("token.list") == []
    given = program.call("token.refresh", refresh_token=given["refresh_token"])
    machine.policy(
        "version = 1\n[agent.helper]\nroles = ['shut']\n[role.shut.tokens]\nuse = { deny = ['auditor'] }\n"
    )
    person.call("reload")
    assert code(program, "token.refresh", refresh_token=given["refresh_token"]) == "invalid_grant"
    assert code(program, "token.request", **FIRST) == "access_denied"


def test_a_role_stands_for_what_it_says_now(machine: Machine) -> None:
    person = machine.person()
    machine.policy("version = 1\n[scopes.watch]\ninherits = ['auditor']\n")
    person.call("reload")
    given = person.call("token.issue", agent="a", pid=os.getpid(), scope="watch")
    assert given["scope"] == "grants:read log:read policy:read"
    machine.policy("version = 1\n[scopes.watch]\nscopes = ['log:read']\n")
    person.call("reload")
    assert person.call("token.introspect", token=given["access_token"]) == {"active": False}
    assert person.call("token.issue", agent="a", pid=os.getpid(), scope="watch")["scope"] == "log:read"
    assert person.call("token.scopes")["roles"]["watch"] == ["log:read"]


def test_a_question_ends_with_who_asked(machine: Machine) -> None:
    import subprocess
    import sys

    person = machine.person()
    script = (
        "import json,socket,sys\n"
        "s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n"
        "s.sendall(json.dumps({'jsonrpc':'2.0','id':1,'method':'token.request','params':{'agent':'x','scope':'log:read'}}).encode()+b'\\n')\n"
        "s.makefile().readline();input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, machine.paths.approver], stdin=subprocess.PIPE):
        until(lambda: person.call("prompts"), "the question comes")
    until(lambda: not person.call("prompts"), "the question ends")
    (prompt,) = person.call("prompts", all=True)
    assert prompt["state"] == "missed"


def test_a_restart_leaves_no_question_that_nobody_can_fetch(machine: Machine) -> None:
    program = machine.person()
    asked = program.call("token.request", **FIRST)
    machine.kill()
    machine.start()
    person = machine.person()
    assert person.call("prompts") == []
    assert code(person, "token.poll", request=asked["request"]) == "expired_token"


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"scope": ""}, "invalid_scope"), ({"scope": "*"}, "invalid_scope"), ({"scope": "files:*"}, "invalid_scope"), ({"scope": "é\"\n"}, "invalid_scope"),
        ({"scope": "admin"}, "access_denied"), ({"agent": ""}, "invalid_request"), ({"agent": "a\nb"}, "invalid_request"),
        ({"audience": "x" * 3000}, "invalid_target"), ({"audience": "a\x1b[2J"}, "invalid_target"),
        ({"authorization_details": [{"type": "x"}]}, "invalid_authorization_details"),
    ],
)  # fmt: skip
def test_bad_requests(machine: Machine, params: dict[str, Any], error: str) -> None:
    person = machine.person()
    assert code(person, "token.request", **FIRST | params) == error
    assert person.call("prompts") == []


def test_an_epoch_moves_with_a_revocation(machine: Machine) -> None:
    person = machine.person()
    first = person.call("token.issue", agent="a", pid=os.getpid(), scope="reader")["access_token"]
    second = person.call("token.issue", agent="a", pid=os.getpid(), scope="reader")["access_token"]
    before = person.call("token.metadata")["revocation_epoch"]
    assert person.call("token.introspect", token=second)["epoch"] == before
    person.call("token.revoke", token=first)
    assert person.call("token.metadata")["revocation_epoch"] > before
    third = person.call("token.issue", agent="a", pid=os.getpid(), scope="reader")["access_token"]
    assert (
        person.call("token.introspect", token=third)["epoch"]
        == person.call("token.metadata")["revocation_epoch"]
    )


@pytest.mark.parametrize("by", ["grant", "jti", "token"])
def test_what_the_person_revokes_is_not_refreshed(machine: Machine, by: str) -> None:
    person, program = machine.person(), machine.person()
    asked = program.call("token.request", **FIRST)
    person.call("answer", id="p1", verdict="allow", for_=3600)
    given = program.call("token.poll", request=asked["request"])
    (listed,) = person.call("token.list")
    what = {"grant": listed["grant"], "jti": listed["jti"], "token": given["access_token"]}[by]
    assert person.call("token.revoke", **{by: what}) == {"revoked": [listed["jti"]]}
    assert code(program, "token.refresh", refresh_token=given["refresh_token"]) == "invalid_grant"


def test_what_a_program_gives_back(machine: Machine) -> None:
    person, program = machine.person(), machine.person()
    asked = program.call("token.request", **FIRST)
    person.call("answer", id="p1", verdict="allow", for_=3600)
    given = program.call("token.poll", request=asked["request"])
    assert (
        program.call("token.exchange", subject_token=given["access_token"], agent="sub")["scope"]
        == "log:read"
    )
    for name in ("x" * 65, "a\nb", ""):
        assert (
            code(program, "token.exchange", subject_token=given["access_token"], agent=name)
            == "invalid_request"
        )
    kind = "urn:ietf:params:oauth:token-type:saml2"
    params = {"subject_token": given["access_token"], "agent": "sub", "subject_token_type": kind}
    assert code(program, "token.exchange", **params) == "invalid_request"
    assert len(person.call("token.list")) == 2
