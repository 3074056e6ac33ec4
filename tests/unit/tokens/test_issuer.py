"""Tokens: what is issued is what was granted, bound to a process; exchange only narrows; a revocation takes all that came of it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, OKPKey

from remit_daemon.tokens import details as rar
from remit_daemon.tokens.issuer import JKT, LIFE, MAX_DEPTH, MAX_TEXT, OAUTH, Issuer, Token, TokenError
from remit_policy.scopes import ROLES, SCOPES, UnknownScope, expand

PROJECT = [{"type": "files", "actions": ["read", "write"], "locations": ["/home/u/p/**"]}]
ME, OTHER = "boot:1:1", "boot:2:2"


class World:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.count = 0
        self.issuer = Issuer("https://remit.invalid/u", lambda: self.now, self.name)

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def issue(
        self, details: list[dict[str, Any]] = PROJECT, bound: str = ME, **kw: Any
    ) -> tuple[Token, str]:
        return self.issuer.issue(
            subject="u", agent="claude", bound=bound, grant_id="g1", details=rar.read(details), **kw
        )


@pytest.fixture
def world() -> World:
    return World()


def fails(code: str) -> Any:
    return pytest.raises(TokenError, check=lambda e: e.code == code)


def cut(text: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    head, body, signature = text.split(".")

    def read(part: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
        return found

    return read(head), read(body), signature


def test_the_claims_are_those_of_the_specifications(world: World) -> None:
    _, text = world.issue()
    head, claims, _ = cut(text)
    assert head["typ"] == "at+jwt"
    assert head["alg"] == "Ed25519"
    assert claims["scope"] == "files:read files:write"
    assert claims["act"] == {"sub": "claude"}
    assert claims["sub"] == "u"
    assert claims["exp"] - claims["iat"] == LIFE
    assert claims["authorization_details"] == PROJECT
    assert claims["cnf"] == {"urn:remit:process": ME}
    assert {"iss", "aud", "client_id", "jti", "grant_id", "txn"} <= set(claims)


def test_others_verify_it_with_the_published_key(world: World) -> None:
    _, text = world.issue()
    key = KeySet.import_key_set(world.issuer.jwks())
    assert jwt.decode(text, key, algorithms=["Ed25519"]).claims["sub"] == "u"
    assert set(world.issuer.jwks()["keys"][0]) == {"crv", "x", "kid", "kty", "use", "alg"}


def test_it_is_good_for_the_process_that_it_is_bound_to(world: World) -> None:
    token, text = world.issue()
    assert world.issuer.verify(text, ME) == token
    with fails("invalid_token"):
        world.issuer.verify(text, OTHER)
    assert world.issuer.introspect(text, OTHER) == {"active": False}
    assert world.issuer.introspect(text, ME)["active"]
    assert world.issuer.introspect(text)["act"] == {"sub": "claude"}


def test_it_ends(world: World) -> None:
    _, text = world.issue()
    world.now += LIFE
    with fails("invalid_token"):
        world.issuer.verify(text, ME)
    assert world.issuer.introspect(text) == {"active": False}
    assert world.issuer.live() == []


@pytest.mark.parametrize(
    "change", ["alg none", "alg hs256", "typ", "kid", "another key", "padding", "case", "long", "empty"]
)
def test_nothing_but_the_issued_text_is_a_token(world: World, change: str) -> None:
    _, text = world.issue()
    head, claims, signature = cut(text)

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    other = OKPKey.generate_key("Ed25519", parameters={"kid": head["kid"]})
    public = json.dumps(world.issuer.jwks()["keys"][0]).encode()
    forged = {
        "alg none": f"{part(head | {'alg': 'none'})}.{part(claims)}.",
        "alg hs256": jwt.encode(
            head | {"alg": "HS256"}, claims, OctKey.import_key(public), algorithms=["HS256"]
        ),
        "typ": jwt.encode(head | {"typ": "JWT"}, claims, other, algorithms=["Ed25519"]),
        "kid": f"{part(head | {'kid': '../../key'})}.{part(claims)}.{signature}",
        "another key": jwt.encode(head, claims, other, algorithms=["Ed25519"]),
        "padding": text + "=",
        "case": text.swapcase(),
        "long": text + "." + "a" * MAX_TEXT,
        "empty": "",
    }[change]
    with fails("invalid_token"):
        world.issuer.verify(forged, ME)


def test_a_token_of_an_earlier_run_is_none(world: World) -> None:
    _, text = world.issue()
    again = Issuer(world.issuer.issuer, lambda: world.now, world.name)
    assert again.introspect(text, ME) == {"active": False}


def test_an_exchange_names_the_chain_and_narrows(world: World) -> None:
    parent, text = world.issue()
    inner = [{"type": "files", "actions": ["read"], "locations": ["/home/u/p/src/**"]}]
    child, again = world.issuer.exchange(text, ME, agent="helper", bound=OTHER, details=rar.read(inner))
    assert child.actors == ("helper", "claude")
    assert cut(again)[1]["act"] == {"sub": "helper", "act": {"sub": "claude"}}
    assert (child.txn, child.grant_id, child.parent) == (parent.txn, parent.grant_id, parent.jti)
    assert child.scopes == {"files:read"}
    assert child.expires <= parent.expires
    assert world.issuer.verify(again, OTHER) == child
    with fails("invalid_request"):  # RFC 8693 2.2.2
        world.issuer.exchange(text, OTHER, agent="thief")


@pytest.mark.parametrize(
    ("asked", "scope", "code"),
    [
        ([{"type": "files", "actions": ["delete"], "locations": ["/home/u/p/a"]}], "", "invalid_scope"),
        ([{"type": "net", "actions": ["connect"], "locations": ["a.example"]}], "", "invalid_scope"),
        (None, "files:read exec:run", "invalid_scope"),
        (None, "everything", "invalid_scope"),
        (None, "*", "invalid_scope"),
        ([], "files:read", "invalid_authorization_details"),
        ([{"type": "files", "actions": ["read"]}], "", "invalid_authorization_details"),
        ([{"type": "files", "actions": ["read"], "locations": ["/home/u/**"]}], "", "invalid_authorization_details"),
        ([{"type": "files", "actions": ["read"], "locations": ["/home/u/p2/x"]}], "", "invalid_authorization_details"),
        ([{"type": "files", "actions": ["read"], "locations": ["/home/u/p/a", "/etc/x"]}], "", "invalid_authorization_details"),
        ([{"type": "files", "actions": ["read"], "locations": ["/home/u/{p,q}/x"]}], "", "invalid_authorization_details"),
    ],
)  # fmt: skip
def test_an_exchange_never_widens(world: World, asked: list[Any] | None, scope: str, code: str) -> None:
    _, text = world.issue()
    with fails(code):
        details = None if asked is None else rar.read(asked)
        world.issuer.exchange(text, ME, agent="helper", scope=scope, details=details)


def test_a_scope_alone_keeps_the_parents_limits(world: World) -> None:
    _, text = world.issue()
    child, _ = world.issuer.exchange(text, ME, agent="helper", scope="files:read")
    assert [d.as_json() for d in child.details] == [PROJECT[0] | {"actions": ["read"]}]


def test_exchanges_end(world: World) -> None:
    _, text = world.issue()
    for _ in range(MAX_DEPTH):
        _, text = world.issuer.exchange(text, ME, agent="helper")
    with fails("invalid_request"):
        world.issuer.exchange(text, ME, agent="helper")


def test_a_revocation_takes_all_that_came_of_it(world: World) -> None:
    _, text = world.issue()
    _, child = world.issuer.exchange(text, ME, agent="a", bound=OTHER)
    _, grandchild = world.issuer.exchange(child, OTHER, agent="b")
    _, apart = world.issue()
    assert world.issuer.revoke_text(child, ME) == []  # it is another's
    assert len(world.issuer.revoke_text(text, ME)) == 3
    assert [world.issuer.introspect(t)["active"] for t in (text, child, grandchild, apart)] == [
        False,
        False,
        False,
        True,
    ]
    assert len(world.issuer.revoke(grant_id="g1")) == 1
    assert world.issuer.revoke_text("nonsense", ME) == []


def test_a_process_takes_its_tokens_along(world: World) -> None:
    _, text = world.issue()
    _, child = world.issuer.exchange(text, ME, agent="a", bound=OTHER)
    assert len(world.issuer.revoke(bound=OTHER)) == 1
    assert world.issuer.introspect(text)["active"]
    assert not world.issuer.introspect(child)["active"]


def test_what_only_an_administrator_grants(world: World) -> None:
    with fails("access_denied"):
        world.issue([], scope="admin")
    assert "grants:revoke" in world.issue([], scope="admin", sensitive=True)[0].scopes


def test_a_token_is_for_something_and_somebody(world: World) -> None:
    with fails("invalid_scope"):
        world.issue([])
    with fails("invalid_request"):
        world.issue(bound="")


@pytest.mark.parametrize(
    "value",
    [
        None, {}, "x", [1], [{}], [{"type": "files"}], [{"type": "files", "actions": []}], [{"type": "files", "actions": ["eat"]}],
        [{"type": "moon", "actions": ["read"]}], [{"type": "files", "actions": ["read"], "locations": ["relative"]}], [{"type": "files", "actions": ["read"], "locations": ["/p/../x"]}],
        [{"type": "files", "actions": ["read"], "locations": "/x"}], [{"type": "files", "actions": ["read"], "locations": [1]}],
        [{"type": "files", "actions": ["read"], "more": 1}], [{"type": "files", "actions": ["read"], "locations": ["/" + "x" * 5000]}],
        [{"type": "net", "actions": ["connect"], "locations": ["http://a.example/"]}], [{"type": "log", "actions": ["read"], "locations": ["x"]}],
        [{"type": "files", "actions": ["read"]}] * 65, [{"type": "apps", "actions": ["call"], "locations": ["not a name/"]}],
    ],
)  # fmt: skip
def test_malformed_details(value: object) -> None:
    with pytest.raises(rar.BadDetails):
        rar.read(value)


def test_the_registry_is_sound() -> None:
    for name, scopes in ROLES.items():
        assert expand([name]) == set(scopes)
        assert set(scopes) <= set(SCOPES)
    assert not {s.access for s in map(SCOPES.get, ROLES["reader"]) if s} - {"read"}
    assert not {s.access for s in map(SCOPES.get, ROLES["auditor"]) if s} - {"read"}
    assert all(s.sentence and not s.sentence.endswith(".") for s in SCOPES.values())
    for word in ("*", "all", "", "files:*"):
        with pytest.raises(UnknownScope):
            expand([word])


def test_one_grant_leaves_the_others_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit_daemon.tokens.issuer.MAX_OF_GRANT", 3)
    for _ in range(3):
        world.issue()
    with fails("temporarily_unavailable"):
        world.issue()
    world.issuer.issue(subject="u", agent="codex", bound=OTHER, grant_id="g2", details=rar.read(PROJECT))
    world.now += LIFE
    world.issue()


def test_an_epoch_tells_what_was_issued_before_a_revocation(world: World) -> None:
    first, text = world.issue()
    _, child = world.issuer.exchange(text, ME, agent="a", bound=OTHER)
    assert world.issuer.metadata()["revocation_epoch"] == first.epoch == cut(child)[1]["epoch"]
    world.issuer.revoke(bound=OTHER)  # a process ended: nobody presents its tokens
    world.issuer.revoke(jti="never")
    assert world.issuer.epoch == first.epoch
    world.issuer.revoke(jti=first.jti)
    assert world.issuer.metadata()["revocation_epoch"] == world.issuer.epoch > first.epoch
    assert world.issue()[0].epoch == world.issuer.epoch
    world.issue()
    before = world.issuer.epoch
    world.issuer.revoke_all()
    world.issuer.revoke_all()
    assert (world.issuer.live(), world.issuer.epoch) == ([], before + 1)
    world.now += 10
    assert Issuer("i", lambda: world.now, world.name).epoch > world.issuer.epoch


def test_nothing_is_left_of_tokens_that_ended(world: World) -> None:
    for _ in range(5):
        _, text = world.issue(txn="t")
        world.issuer.exchange(text, ME, agent="a", bound=OTHER)
    assert len(world.issuer.revoke(txn="t")) == 10
    for _ in range(5):
        world.issue()
    world.now += LIFE
    assert world.issuer.live() == []
    kept = {n: v for n, v in vars(world.issuer).items() if isinstance(v, (dict, list)) and v}
    assert not {n for n in kept if n != "_ends"}
    assert len(world.issuer._ends) <= 5


def test_a_role_is_looked_up_when_a_token_is_made() -> None:
    roles: dict[str, tuple[str, ...]] = {"mine": ("files:read",)}
    issuer = Issuer("i", lambda: 1000.0, iter(map(str, range(99))).__next__, lambda: roles)

    def scopes() -> frozenset[str]:
        return issuer.issue(subject="u", agent="a", bound=ME, grant_id="g", scope="mine")[0].scopes

    assert scopes() == {"files:read"}
    roles["mine"] = ("log:read", "policy:read")
    assert scopes() == {"log:read", "policy:read"}


def test_a_client_of_oauth_has_a_bearer_token_unless_its_process_is_held(world: World) -> None:
    more = {"issuer": "http://127.0.0.1:8765", "client": "https://app.example/c"}
    for bound, confirmed, kind in (
        (OAUTH + "https://app.example/c", None, "Bearer"), (JKT + "thumb", {"jkt": "thumb"}, "DPoP"), (ME, {"urn:remit:process": ME}, "N_A"),
    ):  # fmt: skip
        token, text = world.issuer.issue(
            subject="u", agent="app.example", bound=bound, grant_id="p1", scope="log:read", **more
        )
        said = world.issuer.introspect(text)
        assert (said["iss"], said["client_id"], said["act"]) == (
            more["issuer"],
            more["client"],
            {"sub": "app.example"},
        )
        assert said.get("cnf") == confirmed
        assert token.type == kind
        assert world.issuer.introspect(text, OTHER) == {"active": False}
        with pytest.raises(TokenError):  # over our own sockets it is nobody's, and makes no others
            world.issuer.exchange(text, OTHER, agent="thief")
