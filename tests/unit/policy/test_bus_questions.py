"""What the engine says of many calls at once: may some be allowed, are all alike."""

from __future__ import annotations

import pytest

from remit_policy.engine import Engine
from remit_policy.model import ALLOW, ASK, DENY, USER, VERDICTS, Rule, Snapshot


def engine(text: str) -> Engine:
    rules = []
    for line in text.splitlines():
        if line.strip():
            verdict, op, pattern = line.split(None, 2)
            rules.append(Rule(USER, VERDICTS.index(verdict), op, pattern))
    return Engine(Snapshot("x", tuple(rules)))


@pytest.mark.parametrize(
    ("text", "name", "may"),
    [
        ("", "org.x.A", False),
        ("allow call org.x.A *", "org.x.A", True),
        ("allow call org.x.A a.b.C", "org.x.A", True),
        ("allow call org.x.A a.b.C@/x(good)", "org.x.A", True),
        ("allow call org.x.* a.b.C", "org.x.A.B", True),
        ("allow call org.x.* a.b.C", "org.x", False),
        ("allow call org.x.A *", "org.x.B", False),
        ("allow call org.x.A *", "org.x", False),
        ("allow call system:org.x.A *", "org.x.A", False),
        ("deny call org.x.A *", "org.x.A", False),
        ("allow see org.x.A", "org.x.A", False),
        ("allow emit org.x.A *", "org.x.A", False),
        ("ask call org.x.A *", "org.x.A", False),
    ],
)
def test_may_call(text: str, name: str, may: bool) -> None:
    assert engine(text).may_call(False, name) is may


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", ASK),
        ("allow call org.x.A *", ALLOW),
        ("deny call org.x.A *", DENY),
        ("allow call org.x.A *\ndeny call org.x.A a.b.C", None),
        ("allow call org.x.A a.b.C", None),
        ("allow call org.x.A a.b.*", None),
    ],
)
def test_calls_alike(text: str, verdict: int | None) -> None:
    assert engine(text).calls_alike(False, "org.x.A") == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("allow call org.x.A a.b.C", ALLOW),
        ("allow call org.x.A a.b.C@/x", ALLOW),
        ("allow call org.x.A a.b.C@/y", ASK),
        ("allow call org.x.A a.b.C(good)", None),
        ("allow call org.x.A *\ndeny call org.x.A a.b.C@/x(, file:*)", None),
        ("allow call org.x.A *\ndeny call org.x.A a.b.D@/x(, file:*)", ALLOW),
    ],
)
def test_arguments_alike(text: str, verdict: int | None) -> None:
    assert engine(text).arguments_alike("org.x.A a.b.C /x") == verdict


def test_what_is_no_resource() -> None:
    assert engine("allow call * *").arguments_alike("rubbish") == DENY
