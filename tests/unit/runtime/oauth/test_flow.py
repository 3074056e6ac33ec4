"""The flows over the real daemon's doors, with a person at the approver's socket."""

from __future__ import annotations

import base64
import os
import time
from itertools import count
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from fakes.machine import Machine
from fakes.oauth import REDIRECT, RESOURCE, FakeClient


def answer(machine: Machine, verdict: str = "allow", for_: Any = "once") -> dict[str, Any]:
    person = machine.person()
    (shown,) = person.call("prompts")
    person.call("answer", id=shown["id"], verdict=verdict, for_=for_)
    return shown  # type: ignore[no-any-return]


def code_of(machine: Machine, client: FakeClient, for_: Any = "once") -> str:
    where = client.begin()
    answer(machine, for_=for_)
    return client.get(where).location[1]["code"]


def test_a_code_for_a_token(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    issuer = f"http://127.0.0.1:{client.place}"
    said = client.get("/.well-known/oauth-authorization-server").json
    assert said["issuer"] == issuer
    where = client.begin()
    waiting = client.get(where)
    assert waiting.status == 200
    text = waiting.body.decode()
    assert 'http-equiv="refresh"' in text
    for word in ("<form", "<a ", "<script", "<button", "<input"):
        assert word not in text
    shown = answer(machine)
    assert shown["id"] in text
    facts = {f["label"]: f["text"] for f in shown["facts"]}
    assert facts["calls itself"] == "MCP Inspector"
    assert facts["answer to"].startswith("127.0.0.1:40123")
    assert facts["its page shows"] in text
    assert (shown["agent"], shown["pid"]) == ("inspector", os.getpid())
    back, params = client.get(where).location
    assert back == REDIRECT
    assert set(params) == {"code", "state", "iss"}
    assert (params["state"], params["iss"]) == ("s t&ate", issuer)
    assert client.get(where).status == 404, "the page gives the code once"
    given = client.token(params["code"])
    assert given.status == 200
    assert given.headers["cache-control"] == "no-store"
    body = given.json
    assert (body["token_type"], body["scope"]) == ("Bearer", "log:read")
    assert "refresh_token" not in body, "it was allowed once"
    claims = jwt.decode(
        body["access_token"], KeySet.import_key_set(client.get("/jwks").json), algorithms=["Ed25519"]
    ).claims
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (issuer, RESOURCE, "inspector")
    assert "cnf" not in claims
    # Used again, the code ends what came of it.
    person = machine.person()
    assert person.call("token.introspect", token=body["access_token"])["active"]
    assert client.token(params["code"]).error == (400, "invalid_grant")
    assert not person.call("token.introspect", token=body["access_token"])["active"]
    assert "a code was used twice" in str(person.call("log", op="token"))
    for secret in (params["code"], where.partition("=")[2], body["access_token"]):
        assert secret not in str(person.call("log"))


def test_a_grant_brings_handles_until_it_is_revoked(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    first = client.token(code_of(machine, client, for_=3600)).json

    def refresh(handle: str, **more: str) -> Any:
        params = {"grant_type": "refresh_token", "refresh_token": handle, "client_id": "inspector"}
        return client.post("/token", **(params | more))

    assert refresh(first["refresh_token"], client_id="other").error == (400, "invalid_grant")
    assert refresh(first["refresh_token"], resource="https://else.example").error == (400, "invalid_target")
    assert refresh(first["refresh_token"], scope="policy:read").error == (400, "invalid_scope")
    second = refresh(first["refresh_token"], resource=RESOURCE).json
    assert second["refresh_token"] != first["refresh_token"]
    person = machine.person()
    assert client.post("/revoke", token=second["access_token"], client_id="other").status == 200
    assert person.call("token.introspect", token=second["access_token"])["active"], "it was not the other's"
    assert client.post("/revoke", token=second["access_token"], client_id="inspector").status == 200
    assert not person.call("token.introspect", token=second["access_token"])["active"]
    assert client.post("/revoke", token="never", client_id="inspector").status == 200
    third = refresh(second["refresh_token"]).json
    assert refresh(first["refresh_token"]).error == (400, "invalid_grant")
    assert refresh(third["refresh_token"]).error == (400, "invalid_grant"), "the copy ended the family"
    more = client.token(code_of(machine, client, for_=3600)).json
    assert refresh(more["refresh_token"]).status == 200
    assert client.post("/revoke", token=more["refresh_token"], client_id="inspector").status == 200
    assert not person.call("token.introspect", token=more["access_token"])["active"], (
        "a handle used twice was copied"
    )
    # A grant does not answer the next question: whoever says that it is this client may be another.
    client.begin()
    (shown,) = person.call("prompts")
    assert shown["state"] == "open"
    fourth = client.token(code_of_open(machine, client)).json
    person.call("revoke", all=True)
    assert refresh(fourth["refresh_token"]).error == (400, "invalid_grant")
    assert person.call("token.list") == []


def code_of_open(machine: Machine, client: FakeClient) -> str:
    """Answer what is open, and a question of one's own."""
    answer(machine, "deny")
    return code_of(machine, client, for_=3600)


def test_a_denial_goes_back_and_holds(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    where = client.begin()
    answer(machine, "deny", 3600)
    back, params = client.get(where).location
    assert (back, params["error"], params["state"]) == (REDIRECT, "access_denied", "s t&ate")
    assert params["iss"] == f"http://127.0.0.1:{client.place}"
    assert client.get(client.link()).location[1]["error"] == "access_denied", "it was denied for an hour"
    assert machine.person().call("prompts") == []


def test_what_is_taken_back_before_the_code_is_used_gives_nothing(
    served: tuple[Machine, FakeClient],
) -> None:
    machine, client = served
    code = code_of(machine, client, for_=3600)
    machine.person().call("revoke", all=True)
    assert client.token(code).error == (400, "invalid_grant")
    code = code_of(machine, client)
    machine.policy(
        "version = 1\n[agent.inspector]\nroles = ['shut']\n[role.shut.tokens]\nuse = { deny = ['auditor'] }\n"
    )
    machine.person().call("reload")
    assert client.token(code).error == (400, "invalid_grant")
    assert client.get(client.link()).location[1]["error"] == "access_denied"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"client_id": "other"}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:40124/callback"}, "invalid_grant"),
        ({"resource": "http://127.0.0.1:3000/"}, "invalid_target"),
    ],
)
def test_a_code_is_good_for_its_own_alone(
    served: tuple[Machine, FakeClient], changed: dict[str, str], error: str
) -> None:
    machine, client = served
    code = code_of(machine, client)
    assert client.token(code, **changed).error == (400, error)
    assert client.token(code).error == (400, "invalid_grant"), "it was seen by another, and is over"
    assert machine.person().call("token.list") == []


def test_two_questions_of_one_client_are_two(served: tuple[Machine, FakeClient]) -> None:
    """Who works the browser could otherwise have its own answered with a person's."""
    machine, client = served
    mine, thief = client.begin(), FakeClient(client.place)
    theirs = thief.begin()
    person = machine.person()
    marks = [
        next(f["text"] for f in p["facts"] if f["label"] == "its page shows")
        for p in person.call("prompts")
    ]
    assert len(set(marks)) == 2
    page = client.get(mine).body.decode()
    ident = next(p["id"] for p, m in zip(person.call("prompts"), marks, strict=True) if m in page)
    person.call("answer", id=ident, verdict="allow", for_=3600)
    assert "code" in client.get(mine).location[1]
    assert thief.get(theirs).status == 200


def test_a_device_asks_and_polls(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    asked = client.post("/device_authorization", client_id="inspector", resource=RESOURCE).json
    assert set(asked) == {"device_code", "user_code", "verification_uri", "expires_in", "interval"}
    assert client.get(asked["verification_uri"].partition(str(client.place))[2]).status == 200
    poll = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": asked["device_code"],
    }
    assert client.post("/token", client_id="inspector", **poll).json["error"] in (
        "authorization_pending",
        "slow_down",
    )
    assert client.post("/token", client_id="inspector", **poll).error == (400, "slow_down")
    assert client.post("/token", client_id="other", **poll).error == (400, "invalid_grant")
    shown = answer(machine, for_=3600)
    assert asked["user_code"] in [f["text"] for f in shown["facts"]]
    given = client.post("/token", client_id="inspector", **poll).json
    assert given["scope"] == "log:read", "the resource's own scope, as oauth.toml has it"
    assert given["refresh_token"]
    assert client.post("/token", client_id="inspector", **poll).error == (400, "invalid_grant")


def test_over_the_socket_a_token_is_the_processes(served: tuple[Machine, FakeClient]) -> None:
    machine, tcp = served
    client = FakeClient(machine.paths.oauth)
    issuer = client.get("/.well-known/oauth-authorization-server").json["issuer"]
    assert issuer == f"http://127.0.0.1:{tcp.place}"
    where = client.begin()
    answer(machine, for_=3600)
    given = client.token(client.get(where).location[1]["code"]).json
    assert given["token_type"] == "N_A"
    said = client.post("/introspect", token=given["access_token"]).json
    assert said["active"]
    assert "urn:remit:process" in said["cnf"]
    # The handle is the process's: over TCP, where nobody is held, it is none.
    refresh = {
        "grant_type": "refresh_token",
        "refresh_token": given["refresh_token"],
        "client_id": "inspector",
    }
    assert tcp.post("/token", **refresh).error == (400, "invalid_grant")
    person = machine.person()
    assert client.post("/token", **refresh).status == 200
    assert len(person.call("token.list")) == 2


def test_a_resource_asks_with_a_key_of_its_own(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    token = client.token(code_of(machine, client)).json["access_token"]
    person = machine.person()
    mine = person.call("key.create", name="mcp", scope="policy:read", audience=RESOURCE, expires_in=60)[
        "key"
    ]
    others = person.call(
        "key.create", name="mcp2", scope="policy:read", audience="https://else.example", expires_in=60
    )["key"]

    def ask(**headers: str) -> Any:
        return client.post("/introspect", headers, token=token)

    assert ask().status == 401
    assert ask().headers["www-authenticate"].startswith("Bearer")
    assert ask(Authorization="Bearer remit_wrong").error == (401, "invalid_client")
    assert ask(Authorization="Basic !!").headers["www-authenticate"].startswith("Basic")
    assert ask(Authorization=f"Bearer {others}").json == {"active": False}
    said = ask(Authorization=f"Bearer {mine}").json
    assert (said["active"], said["aud"], said["client_id"]) == (True, RESOURCE, "inspector")
    basic = base64.b64encode(f"mcp:{mine}".encode()).decode()
    assert ask(Authorization=f"Basic {basic}").json["active"]


def test_a_restart_ends_what_was_granted_and_keeps_what_was_denied(
    served: tuple[Machine, FakeClient],
) -> None:
    machine, client = served
    client.token(code_of(machine, client, for_=3600))
    where = client.begin(scope="policy:read")
    machine.kill(15)
    machine.start()
    person = machine.person()
    assert person.call("grants") == []
    assert person.call("prompts") == [], "nobody waits for it any more"
    assert client.get(where).status == 404
    client.begin(scope="policy:read")
    answer(machine, "deny", 3600)
    machine.kill(15)
    machine.start()
    assert client.get(client.link(scope="policy:read")).location[1]["error"] == "access_denied"


def test_with_a_key_of_its_own_what_is_copied_is_worth_nothing(served: tuple[Machine, FakeClient]) -> None:
    machine, client = served
    key, thiefs = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    numbers = count()

    def proof(by: ECKey, url: str = "/token") -> dict[str, str]:
        claims = {
            "jti": f"n{next(numbers)}",
            "htm": "POST",
            "htu": f"http://127.0.0.1:{client.place}{url}",
            "iat": time.time(),
        }
        head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": by.as_dict(private=False)}
        return {"DPoP": jwt.encode(head, claims, by, algorithms=["ES256"])}

    def token(headers: dict[str, str], **params: str) -> Any:
        return client.post("/token", headers, client_id="inspector", **params)

    def code(**more: str) -> dict[str, str]:
        where = client.begin(**more)
        answer(machine, for_=3600)
        said = {"grant_type": "authorization_code", "code": client.get(where).location[1]["code"]}
        return said | {"redirect_uri": REDIRECT, "code_verifier": client.verifier}

    person = machine.person()
    for headers in ({}, proof(thiefs)):
        assert token(headers, **code(dpop_jkt=key.thumbprint())).error == (400, "invalid_grant")
    given = token(proof(key), **code(dpop_jkt=key.thumbprint())).json
    assert given["token_type"] == "DPoP"
    assert person.call("token.introspect", token=given["access_token"])["cnf"] == {"jkt": key.thumbprint()}
    refresh = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    used = proof(key)
    for headers, error in (
        ({}, "invalid_grant"),
        (proof(thiefs), "invalid_grant"),
        (proof(key, "/revoke"), "invalid_dpop_proof"),
    ):
        assert token(headers, **refresh).error == (400, error)
    later = token(used, **refresh).json
    assert later["token_type"] == "DPoP"
    assert token(used, grant_type="refresh_token", refresh_token=later["refresh_token"]).error == (
        400,
        "invalid_dpop_proof",
    )
    assert client.post("/revoke", token=later["refresh_token"], client_id="other").status == 200
    assert person.call("token.introspect", token=later["access_token"])["active"]
    assert client.post("/revoke", token=later["refresh_token"], client_id="inspector").status == 200
    assert not person.call("token.introspect", token=later["access_token"])["active"]
    assert client.get(client.link(dpop_jkt="x")).location[1]["error"] == "invalid_request"
