"""What is offered, and which edits count."""

from __future__ import annotations

import pytest

from remit_daemon.broker.records import Grant, Scope
from remit_daemon.broker.scopes import (
    exec_offers,
    exec_scope,
    exec_tokens,
    exec_within,
    offers,
    rules_of,
    within,
)
from remit_policy.engine import Engine
from remit_policy.match import PatternError
from remit_policy.model import ALLOW, ASK, DENY, PACK, USER, Rule, Snapshot

HOME = "/home/u"


def names(
    path: str, *ops: str, project: str = HOME + "/work", rules: tuple[Rule, ...] = (), path2: str = ""
) -> list[str]:
    return [
        s.pattern for s in offers(ops or ("read",), path, path2, home=HOME, project=project, rules=rules)
    ]


def test_narrow_to_broad() -> None:
    assert names(HOME + "/work/src/a.py") == [
        HOME + "/work/src/a.py", HOME + "/work/src/*.py", HOME + "/work/src/*", HOME + "/work/src/**", HOME + "/work/**",
    ]  # fmt: skip
    assert names(HOME + "/work/x", "list")[:2] == [HOME + "/work/x", HOME + "/work/x/**"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/x", "/home/other/x", "/tmp/x.txt", "/home/x", "/"])
def test_nothing_broader_than_the_home_or_a_whole_top_directory(path: str) -> None:
    for pattern in names(path, project="/work/p"):
        assert (
            not Engine(Snapshot("a", (Rule(USER, ALLOW, "read", pattern),)))
            .decide("read", "/home/u/.ssh/id")
            .rule
        )
        if path != "/home/other/x":
            assert not pattern.endswith("/**")


def test_protected_places_are_not_inside_an_offer() -> None:
    rules = (
        Rule(PACK, ASK, "read", HOME + "/.ssh/**", protected=True),
        Rule(PACK, ASK, "read", HOME + "/.bashrc", protected=True),
    )
    assert names(HOME + "/notes.txt", project="", rules=rules) == [HOME + "/notes.txt", HOME + "/*.txt"]
    assert names(HOME + "/.ssh/config", project="", rules=rules) == [HOME + "/.ssh/config"]
    assert HOME + "/docs/**" in names(HOME + "/docs/a", project="", rules=rules)


def test_names_with_wildcards_are_literal() -> None:
    path = HOME + "/work/a*{b}.py"
    exact = names(path)[0]
    engine = Engine(Snapshot("a", (Rule(USER, ALLOW, "read", exact),)))
    assert engine.decide("read", path).verdict == ALLOW
    assert engine.decide("read", HOME + "/work/aXb.py").verdict == ASK


@pytest.mark.parametrize(
    ("edit", "counts"),
    [
        ("/d/*", True), ("/d/x*", True), ("/d/x", True), ("/d/*.py", True), ("/d/e/x", False), ("/d/**", False),
        ("/dx/*", False), ("/d/../e", False), ("/d/{a,b/c}", False), ("/d/", False), ("d/*", False), ("/d/[x", False),
    ],
)  # fmt: skip
def test_an_edit_counts_inside_an_offer(edit: str, counts: bool) -> None:
    assert within(edit, [Scope("/d/a", ""), Scope("/d/*", "")]) is counts


def test_a_broad_grant_leaves_out_what_insists() -> None:
    base = (Rule(PACK, ASK, "read", "**/.env", protected=True),)
    grant = Grant("g1", "a", "", ("read",), ("/p/**",), "allow", "always", 0.0, None)
    engine = Engine(Snapshot("a", base + rules_of(grant, base)))
    assert engine.decide("read", "/p/x").verdict == ALLOW
    assert engine.decide("read", "/p/q/.env").verdict == ASK
    refusal = Grant("g2", "a", "", ("read",), ("/p/**",), "deny", "always", 0.0, None)
    assert Engine(Snapshot("a", base + rules_of(refusal, base))).decide("read", "/p/q/.env").verdict == DENY


def test_programs() -> None:
    argv = ["git", "push", "my branch", "a\\b"]
    found = exec_offers("/usr/bin/git", argv)
    assert [s.pattern for s in found][1:] == ["/usr/bin/git push **", "/usr/bin/git **"]
    assert exec_tokens(found[0].pattern, "/usr/bin/git") == ("push", "my branch", "a\\\\b")
    assert len(exec_offers("/bin/bash", ["bash", "-c", "x"])) == 1
    assert len(exec_offers("/usr/bin/python3.11", ["python3", "x.py"])) == 1
    assert exec_within("/usr/bin/git push origin **", "/usr/bin/git", found)
    assert exec_within("/usr/bin/git push", "/usr/bin/git", found)
    assert not exec_within("/usr/bin/rm **", "/usr/bin/git", found)
    assert not exec_within("/usr/bin/git pull", "/usr/bin/git", found[:2])
    with pytest.raises(PatternError):
        exec_tokens("/usr/bin/git 'open", "/usr/bin/git")
    assert exec_scope("/x", ["", "a b"]) == "/x '' 'a b'"
