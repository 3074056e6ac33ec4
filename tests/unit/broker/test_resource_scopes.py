"""What is offered for hosts, requests, services and apps, and which edits count."""

from __future__ import annotations

import pytest

from remit_daemon.broker.resources import resource_offers, resource_within
from remit_daemon.broker.scopes import describe
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, USER, Rule, Snapshot

CASES = [
    ("connect", "api.example.org:443", ["api.example.org:443", "api.example.org", "*.example.org:443"]),
    ("connect", "example.org:443", ["example.org:443", "example.org"]),
    ("connect", "shop.co.uk:443", ["shop.co.uk:443", "shop.co.uk"]),
    ("connect", "me.github.io:443", ["me.github.io:443", "me.github.io"]),
    ("connect", "10.0.0.1:22", ["10.0.0.1:22", "10.0.0.1"]),
    ("connect", "[2001:db8::1]:22", ["[2001:db8::1]:22", "[2001:db8::1]"]),
    ("connect", "localhost:3000", ["localhost:3000"]),
    ("connect", "@name", ["@name"]),
    (
        "request",
        "GET https://api.example.org/a/b{c}",
        [
            "GET api.example.org:443/a/b\\{c\\}",
            "GET api.example.org:443/a/**",
            "GET api.example.org:443/**",
        ],
    ),
    ("request", "PUT http://x.org/", ["PUT x.org:80/", "PUT x.org:80/**"]),
    (
        "call",
        "org.x.App org.x.App.Open /org/x file:///a",
        ["org.x.App org.x.App.Open@/org/x(file:///a)", "org.x.App org.x.App.Open", "org.x.App org.x.App.*"],
    ),
    ("own", "org.x.App", ["org.x.App"]),
    ("use", "app:screen", ["app:screen"]),
]


@pytest.mark.parametrize(("op", "resource", "offered"), CASES, ids=[c[1] for c in CASES])
def test_offers_go_from_narrow_to_broad_and_each_covers_what_was_asked(
    op: str, resource: str, offered: list[str]
) -> None:
    found = resource_offers(op, resource)
    assert [s.pattern for s in found] == offered
    for scope in found:
        engine = Engine(Snapshot("", (Rule(USER, ALLOW, op, scope.pattern),)))
        assert engine.decide(op, resource).verdict == ALLOW, scope


@pytest.mark.parametrize(
    ("op", "resource", "edit", "counts"),
    [
        ("request", "GET https://x.org/a/b", "GET x.org:443/a/c", True),
        ("request", "GET https://x.org/a/b", "GET x.org:443/z", True),
        ("request", "GET https://x.org/a/b", "POST x.org:443/a/b", False),
        ("request", "GET https://x.org/a/b", "GET y.org:443/a/b", False),
        ("request", "GET https://x.org/a/b", "* x.org:443/a/b", False),
        ("connect", "a.x.org:443", "*.org:443", False),
        ("connect", "a.x.org:443", "*", False),
        ("connect", "a.x.org:443", "a.x.org:*", False),
        ("connect", "a.x.org:443", "{a.x.org,evil.org}", False),
        ("call", "org.x org.x.I.M /a", "org.x org.x.I.*", True),
        ("call", "org.x org.x.I.M /a", "* *", False),
        ("call", "org.x org.x.I.M /a b", "org.x org.x.I.M@/a(*)", True),
        ("call", "org.x org.x.I.M /a b", "org.x org.x.*", False),
        ("request", "GET https://x.org/a/b", "GET x.org:443/a/*", True),
        ("request", "GET https://x.org/a/b", "GET x.org:443/*/b", True),
        ("request", "GET https://x.org/a/b", "GET *.org:443/a/b", False),
        ("use", "app:audio", "app:screen", False),
    ],
)
def test_an_edit_counts_when_it_lies_inside_an_offer(
    op: str, resource: str, edit: str, counts: bool
) -> None:
    assert resource_within(op, edit, resource_offers(op, resource)) is counts


def test_a_grant_of_an_app_says_what_it_means() -> None:
    said = describe("allow", ("use",), ("app:screen",), "claude", "session")
    assert "everything on your screen" in said
    assert "everything on your screen" not in describe("deny", ("use",), ("app:screen",), "claude", "once")
