"""Learning: what was learnt is allowed by what is proposed, and no protected place ever is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from remit_policy.document import Source
from remit_policy.engine import Engine
from remit_policy.learned import Entry, read, render, written
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, GUARD, PACK, USER, Rule, Snapshot
from remit_policy.reading import read_document
from remit_policy.rules import role_rules
from remit_policy.suggest import LEARNT_OPS, suggest

HOME = "/home/u"
STRICT = [
    *(
        Rule(PACK, ASK, op, HOME + "/{.ssh,a/b/shut}/**", protected=True)
        for op in ("read", "write", "create", "delete")
    ),
    *(Rule(PACK, ASK, op, HOME + "/a/**/{.envrc,.idea/**}", protected=True) for op in ("read", "write")),
    Rule(USER, DENY, "read", "**/.env*"),
    Rule(ADMIN, ASK, "read", "/srv/pay/**"),
    *(Rule(GUARD, DENY, op, HOME + "/.remit/**") for op in ("read", "write")),
    Rule(USER, DENY, "connect", "*.evil.com"),
]
NAMES = st.sampled_from([
    "a", "b", "c", "shut", ".ssh", ".env", ".envrc", ".idea", "x.py", "y.py", "z.py", "w.txt", "Makefile", ".remit",
    "st*r", "{q,r}", "$HOME", "~", 'qu"ote', "back\\slash", "new\nline", "\u202ebidi", "é", "[k]", "?", "sp ace", "#c", "\udcff",
])  # fmt: skip
TOPS = st.sampled_from([HOME, HOME + "/a", HOME + "/a/b", "/srv", "/srv/pay", "/data/x", ""])
PATHS = st.builds(lambda top, names: "/".join([top, *names]), TOPS, st.lists(NAMES, min_size=1, max_size=4))
HOSTS = st.sampled_from(["pypi.org:443", "api.evil.com:443", "a.b.example.com:80", "x.example.com:443"])
FILES = st.tuples(st.sampled_from(LEARNT_OPS[:7]), PATHS, st.integers(1, 9))
NET = st.tuples(st.just("connect"), HOSTS, st.integers(1, 9)) | st.tuples(
    st.just("resolve"), HOSTS.map(lambda h: h.rpartition(":")[0]), st.integers(1, 9)
)
ACTS = st.lists(FILES | NET, max_size=60)


def strict(op: str, resource: str) -> bool:
    """Whether some strict rule is about this, said without the code under test."""
    rules = tuple(Rule(GUARD, DENY, r.op, r.pattern) for r in STRICT)
    return Engine(Snapshot("", rules)).decide(op, resource).verdict == DENY


@settings(max_examples=150, deadline=None)
@given(ACTS, st.lists(PATHS, max_size=20))
def test_what_was_learnt_is_allowed_and_what_is_protected_never(
    acts: list[tuple[str, str, int]], others: list[str]
) -> None:
    found = suggest(acts, STRICT, HOME)
    proposed = tuple(rule for p in found for rule in p.rules())
    alone = Engine(Snapshot("", proposed))
    together = Engine(Snapshot("", (*STRICT, *proposed)))
    for op, resource, _ in acts:
        if strict(op, resource):
            assert together.decide(op, resource).verdict != ALLOW
        elif "\udcff" not in resource:
            assert alone.decide(op, resource).verdict == ALLOW, (op, resource, found)
    for path in others:
        for op in ("read", "write"):
            if strict(op, path):
                assert together.decide(op, path).verdict != ALLOW, (op, path, found)
    assert sum(p.number for p in found) <= sum(n for _, _, n in acts)


@settings(max_examples=60, deadline=None)
@given(ACTS)
def test_nothing_wide_is_proposed(acts: list[tuple[str, str, int]]) -> None:
    for p in suggest(acts, STRICT, HOME):
        engine = Engine(Snapshot("", p.rules()))
        for path in (HOME + "/never-seen", "/never-seen", "/srv/never-seen", HOME + "/a/b/shut/never-seen"):
            for op in p.ops:
                assert engine.decide(op, path).verdict != ALLOW, p


@settings(max_examples=80, deadline=None)
@given(ACTS)
def test_the_file_says_what_was_proposed_and_is_read_back(acts: list[tuple[str, str, int]]) -> None:
    found = suggest(acts, [], HOME)
    entries = [
        Entry(op, written(p.pattern, HOME), f"{p.number}x, as {p.examples[0]}")
        for p in found
        for op in p.ops
    ]
    text = render("my.agent", ["default"], entries)
    roles, again = read(text, "my.agent")
    assert roles == ["default"]
    assert {(e.op, e.pattern) for e in again} == {(e.op, e.pattern) for e in entries}
    assert render("my.agent", roles, again) == text
    source: Source = read_document("learned.toml", text.encode())
    made = role_rules([(USER, source)], ["learned-my.agent"], {"HOME": HOME})
    engine = Engine(Snapshot("", tuple(made)))
    for p in found:
        for op in p.ops:
            for resource in p.examples:
                assert engine.decide(op, resource).verdict == ALLOW
