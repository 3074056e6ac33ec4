"""Where a change of policy makes decisions stricter or looser."""

from __future__ import annotations

import pytest

from remit_policy.compare import compare
from remit_policy.engine import Engine
from remit_policy.layers import PolicyDirs, load
from remit_policy.model import ALLOW, ASK, DENY, PACK, USER, Rule, Snapshot

BASE = (
    Rule(PACK, ALLOW, "read", "/usr/**"),
    Rule(PACK, ALLOW, "execute", "/usr/**"),
    Rule(PACK, ASK, "read", "/home/u/{.ssh,.aws}/**", protected=True),
    Rule(PACK, ALLOW, "connect", "pypi.org:443"),
)


def said(*more: Rule, without: int = 0) -> list[tuple[str, str, str]]:
    after = Snapshot("", (*BASE[without:], *more))
    return [(d.way, d.op, d.pattern) for d in compare(Snapshot("", BASE), after)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(USER, ALLOW, "read", "/home/u/x/**"), [("looser", "read", "/home/u/x/**")]),
        (Rule(USER, ALLOW, "read", "/home/u/.aws/**"), [("looser", "read", "/home/u/.aws/**")]),
        (Rule(USER, DENY, "read", "/usr/share/**"), [("stricter", "read", "/usr/share/**")]),
        (
            Rule(USER, DENY, "connect", "pypi.org"),
            [("stricter", "connect", "pypi.org"), ("stricter", "connect", "pypi.org:443")],
        ),
        (Rule(USER, DENY, "connect", "*.evil.com"), [("stricter", "connect", "*.evil.com")]),
        (
            Rule(USER, ALLOW, "request", "GET api.x.org/repos/**"),
            [("looser", "request", "GET api.x.org/repos/**")],
        ),
        (Rule(USER, ALLOW, "call", "org.x.Y org.x.Y.*"), [("looser", "call", "org.x.Y org.x.Y.*")]),
        (
            Rule(USER, DENY, "exec", "/usr/bin/git", argv=("push", "**")),
            [("stricter", "exec", "/usr/bin/git push **")],
        ),
        # It may not be executed at all without a question: arguments change nothing.
        (Rule(USER, ALLOW, "exec", "/home/u/t", argv=("run", "**")), []),
        (Rule(USER, ALLOW, "read", "/usr/**", rate=(1, 60)), [("limits", "read", "/usr/**")]),
        (Rule(USER, ALLOW, "read", "/usr/share/**"), []),
        (Rule(USER, ALLOW, "use", "app:keys"), [("looser", "use", "app:keys")]),
        (Rule(USER, DENY, "read", "**/secret?.txt"), [("stricter", "read", "**/secret?.txt")]),
    ],
)
def test_one_more_rule(rule: Rule, expected: list[tuple[str, str, str]]) -> None:
    assert said(rule) == expected


def test_a_rule_that_goes_is_seen_where_it_was() -> None:
    assert said(without=1) == [("stricter", "read", "/usr/**")]


def test_every_pattern_of_the_packs_has_an_example() -> None:
    variables = {
        "HOME": "/home/u", "PROJECT": "/home/u/p", "TMPDIR": "/tmp/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r",
        "XDG_STATE_HOME": "/s", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/k",
    }  # fmt: skip
    snapshot = load(PolicyDirs(admin="", user="")).snapshot("claude", "", "", variables)
    nothing = compare(Snapshot("", ()), snapshot)
    seen = {(d.op, d.example) for d in nothing}
    engine = Engine(snapshot)
    assert all(engine.decide(op, example).verdict != ASK for op, example in seen if op != "exec")
    assert len(seen) > 500
    assert compare(snapshot, snapshot) == []
