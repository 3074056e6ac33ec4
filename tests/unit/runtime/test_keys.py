"""Organisation keys through the real daemon's sockets."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, RpcError

DAY = 86400


def code(person: FakePerson, method: str, **params: Any) -> str:
    with pytest.raises(RpcError) as e:
        person.call(method, **params)
    return str(e.value.data["error"])


def create(person: FakePerson, **params: Any) -> Any:
    return person.call("key.create", **{"name": "ci", "scope": "auditor", "expires_in": 90 * DAY} | params)


def test_a_key_is_shown_once_and_exchanged_for_tokens_of_who_presents_it(machine: Machine) -> None:
    person = machine.person()
    made = create(
        person, authorization_details=[{"type": "files", "actions": ["read"], "locations": ["/srv/**"]}]
    )
    given = person.call("token.key", key=made["key"])
    assert given["scope"] == "files:read grants:read log:read policy:read"
    assert "refresh_token" not in given
    claims = person.call("token.introspect", token=given["access_token"])
    assert (claims["client_id"], claims["grant_id"]) == ("ci", made["id"])
    assert claims["exp"] - claims["iat"] == 300
    narrow = person.call("token.key", key=made["key"], scope="log:read")
    assert narrow["scope"] == "log:read"
    (listed,) = person.call("key.list")
    assert (listed["uses"], listed["last_used"] is not None, listed["state"]) == (2, True, "good")
    rows = person.call("log", op="key")
    assert [r["outcome"] for r in rows] == ["created", "used", "used"]
    assert made["key"] not in str((listed, rows, person.call("log")))
    assert person.call("key.revoke", id=made["id"]) == {"revoked": made["id"], "tokens": 2}
    assert person.call("token.introspect", token=given["access_token"]) == {"active": False}
    assert code(person, "token.key", key=made["key"]) == "invalid_client"
    assert person.call("log", op="key")[-1]["outcome"] == "refused"


def test_it_survives_a_restart_hashed(machine: Machine) -> None:
    made = create(machine.person())
    machine.kill()
    with sqlite3.connect(machine.paths.store) as db:
        assert made["key"] not in str(db.execute("SELECT * FROM key").fetchall())
    machine.start()
    assert (
        machine.person().call("token.key", key=made["key"])["scope"] == "grants:read log:read policy:read"
    )


def test_it_gives_no_more_than_it_has(machine: Machine) -> None:
    person = machine.person()
    details = [{"type": "files", "actions": ["read"], "locations": ["/srv/**"]}]
    made = create(person, scope="log:read", authorization_details=details)
    wider = [{"type": "files", "actions": ["read"], "locations": ["/**"]}]
    assert code(person, "token.key", key=made["key"], scope="policy:read") == "invalid_scope"
    assert (
        code(person, "token.key", key=made["key"], authorization_details=wider)
        == "invalid_authorization_details"
    )
    assert (
        code(person, "token.key", key=made["key"], authorization_details=[], scope="files:read")
        == "invalid_authorization_details"
    )
    machine.policy(
        "version = 1\n[agent.ci]\nroles = ['shut']\n[role.shut.tokens]\nuse = { deny = ['log:read'] }\n"
    )
    person.call("reload")
    assert code(person, "token.key", key=made["key"]) == "invalid_scope"


def test_it_has_a_rate(machine: Machine) -> None:
    person = machine.person()
    made = create(person, rate=[2, 3600])
    for _ in range(2):
        person.call("token.key", key=made["key"])
    assert code(person, "token.key", key=made["key"]) == "temporarily_unavailable"


def test_it_waits_for_a_review(machine: Machine) -> None:
    person = machine.person()
    made = create(person, expires_in=0, review_in=1)
    until(lambda: person.call("key.list")[0]["state"] == "to be reviewed", "its review is due")
    assert code(person, "token.key", key=made["key"]) == "invalid_client"
    assert person.call("key.review", id=made["id"], review_in=30 * DAY)["state"] == "good"


@pytest.mark.parametrize("text", ["", "remit_", "x" * 45, "remit_" + "0" * 39, "\0" * 40])
def test_what_is_no_key(machine: Machine, text: str) -> None:
    person = machine.person()
    create(person)
    with pytest.raises(RpcError, match="no key") as e:
        person.call("token.key", key=text)
    assert e.value.data["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"expires_in": 0}, "needs an end"), ({"expires_in": 366 * DAY}, "365 days"), ({"review_in": -1}, "365 days"),
        ({"name": ""}, "name is"), ({"name": "a\x1b"}, "name is"), ({"scope": "admin"}, "only an administrator"), ({"scope": "*"}, "no scope"),
        ({"scope": ""}, "a token for nothing"), ({"rate": [0, 1]}, "rate is"), ({"rate": [True, 1]}, "rate is"), ({"rate": [1]}, "rate is"),
        ({"audience": "x" * 3000}, "an audience is"),
    ],
)  # fmt: skip
def test_bad_keys(machine: Machine, params: dict[str, Any], text: str) -> None:
    person = machine.person()
    with pytest.raises(RpcError, match=text):
        create(person, **params)
    assert person.call("key.list") == []
