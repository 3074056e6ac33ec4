"""How few and how narrow: single cases of the proposer, and files that are not learning's own."""

from __future__ import annotations

import pytest

from remit_policy.learned import Entry, NotOurs, read, render
from remit_policy.model import ASK, PACK, Rule
from remit_policy.suggest import suggest

HOME = "/home/u"


def proposed(*acts: tuple[str, str], rules: tuple[Rule, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    return sorted((p.ops, p.pattern) for p in suggest([(op, r, 1) for op, r in acts], rules, HOME))


def reads(*paths: str) -> list[tuple[str, str]]:
    return [("read", path) for path in paths]


@pytest.mark.parametrize(
    ("paths", "patterns"),
    [
        (["/home/u/n/a.md", "/home/u/n/b.md"], ["/home/u/n/a.md", "/home/u/n/b.md"]),
        (["/home/u/n/a.md", "/home/u/n/b.md", "/home/u/n/c.md"], ["/home/u/n/*.md"]),
        (["/home/u/n/a.md", "/home/u/n/b.md", "/home/u/n/c"], ["/home/u/n/*"]),
        (
            ["/home/u/a.md", "/home/u/b.md", "/home/u/c.md"],
            ["/home/u/a.md", "/home/u/b.md", "/home/u/c.md"],
        ),
        (["/etc/a", "/etc/b", "/etc/c"], ["/etc/a", "/etc/b", "/etc/c"]),
        ([f"/home/u/w/{d}/{f}.c" for d in "xyz" for f in "123"], ["/home/u/w/**"]),
        ([f"/home/u/w/{d}/{f}.c" for d in "xy" for f in "123"], ["/home/u/w/x/*.c", "/home/u/w/y/*.c"]),
        ([f"/home/u/{d}/{f}.c" for d in "xyz" for f in "123"], [f"/home/u/{d}/*.c" for d in "xyz"]),
    ],
)
def test_few_and_narrow(paths: list[str], patterns: list[str]) -> None:
    assert [p for _, p in proposed(*reads(*paths))] == patterns


def test_a_protected_place_keeps_its_surroundings_single() -> None:
    shut = Rule(PACK, ASK, "read", HOME + "/w/y/keys/**", protected=True)
    paths = [f"/home/u/w/{d}/{f}.c" for d in "xyz" for f in "123"]
    found = [p for _, p in proposed(*reads(*paths, HOME + "/w/y/keys/k"), rules=(shut,))]
    assert HOME + "/w/**" not in found
    assert not any("keys" in p for p in found)
    assert [p for p in found if "*" not in p] == [f"/home/u/w/y/{n}.c" for n in "123"]


def test_operations_of_one_thing_are_one_rule_and_what_is_implied_is_none() -> None:
    found = proposed(
        ("read", "/d/x/f"), ("write", "/d/x/f"), ("create", "/d/x/f"),
        ("connect", "pypi.org:443"), ("resolve", "pypi.org"), ("resolve", "other.org"), ("call", "org.x org.x.Y /"),
    )  # fmt: skip
    assert found == [
        (("connect",), "pypi.org:443"),
        (("read", "write"), "/d/x/f"),
        (("resolve",), "other.org"),
    ]


def test_listing_is_no_rule_where_the_tree_may_be_read() -> None:
    paths = [f"/home/u/w/{d}/{f}.c" for d in "xyz" for f in "123"]
    assert proposed(*reads(*paths), ("list", "/home/u/w"), ("list", "/home/u/w/x")) == [
        (("read",), "/home/u/w/**")
    ]


OURS = render("a", ["default"], [Entry("read", "~/x", "1x"), Entry("connect", "h:1", "2x")])


@pytest.mark.parametrize(
    "change",
    [
        ("allow = [", "rate = '1/h', allow = ["),
        ('"~/x",  # 1x', '"~/x",'),
        ("version = 1", "version = 1\n[role.b]"),
        ("# What", "# My own words\n# What"),
        ('["default", ', '["default", "more" ,'),
        ("= [", "= ["[:1]),
    ],
)
def test_what_a_person_changed_is_not_written_again(change: tuple[str, str]) -> None:
    assert read(OURS, "a")[0] == ["default"]
    text = OURS.replace(*change)
    assert text != OURS
    with pytest.raises(NotOurs):
        read(text, "a")


def test_another_agents_file_is_not_ours() -> None:
    with pytest.raises(NotOurs):
        read(OURS, "b")
