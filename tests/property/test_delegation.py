"""Whatever trees of sessions, rules and remembered answers there are: a sub-session may do nothing that one above it may not."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit_daemon.broker.judge import Judge
from remit_daemon.broker.records import Grant, Session
from remit_daemon.broker.state import State
from remit_daemon.supervisor.authority import Authority
from remit_daemon.supervisor.narrow import Narrow
from remit_policy import model
from remit_policy.engine import Engine
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, GUARD, PACK, PROJECT, USER, Rule, Snapshot
from remit_policy.narrowed import Narrowed, engine_of

NAMES = ("a", "b", "c")
OPS = ("read", "write", "list", "create")
PATHS = [
    "/" + "/".join(p) for p in (("a",), ("b",), ("a", "b"), ("a", "c"), ("a", "b", "c"), ("c", "b", "a"))
]
PATTERNS = [*PATHS, *(p + "/**" for p in PATHS), "/**", "**/b", "**/c", "/a/*", "/*/b", "/a/b*"]
EXES = ("/a/b", "/b")
ARGS = (("x",), ("x", "push"), ("x", "push", "--force"))

patterns = st.sampled_from(PATTERNS)
verdicts = st.sampled_from((ALLOW, ASK, DENY))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    op = draw(st.sampled_from((*OPS, "exec", "execute")))
    return Rule(
        draw(st.sampled_from((GUARD, ADMIN, USER, PACK, PROJECT))),
        draw(verdicts),
        op,
        draw(st.sampled_from(EXES)) if op == "exec" else draw(patterns),
        argv=draw(st.sampled_from((None, ("push", "**"), ("**",)))) if op == "exec" else None,
        excepts=tuple(draw(st.lists(patterns, max_size=1))) if op != "exec" else (),
        final=draw(st.booleans()),
        protected=draw(st.booleans()),
        rate=draw(st.sampled_from((None, None, (2, 60)))),
    )


snapshots = st.lists(rules(), max_size=8).map(lambda found: Snapshot("x", tuple(found)))


@st.composite
def grants(draw: st.DrawFn, sessions: int) -> Grant:
    number = draw(st.integers(0, sessions - 1))
    own = draw(st.booleans())
    return Grant(
        f"g{draw(st.integers(1, 10_000))}",
        agent(number),
        f"s{number}" if own else "",
        (draw(st.sampled_from(OPS)),),
        (draw(patterns),),
        draw(st.sampled_from(("allow", "allow", "deny"))),
        "session" if own else "always",
        0.0,
        None,
    )


def agent(number: int) -> str:
    return f"agent{number % 3}"  # some share a name, and so its grants


def session(number: int, parent: int | None) -> Session:
    above = "" if parent is None else f"s{parent}"
    return Session(f"s{number}", agent(number), 1, "i", number, "/a", (), 0.0, parent=above)


@st.composite
def trees(draw: st.DrawFn) -> State:
    """A session with sub-sessions at any depth, each with a policy, and remembered answers to any of them."""
    state = State(0)
    for number in range(draw(st.integers(2, 5))):
        parent = draw(st.integers(0, number - 1)) if number else None
        state.sessions[f"s{number}"] = session(number, parent)
        state.bases[f"s{number}"] = draw(snapshots)
    for found in draw(st.lists(grants(len(state.sessions)), max_size=5)):
        state.grants[found.id] = found
    return state


def _check(state: State) -> None:
    judge = Judge(Engine)
    state.engines.clear()
    for ident, one in state.sessions.items():
        whole = engine_of(model.loads(model.dumps(judge.compose(state, ident))))
        above = engine_of(judge.compose(state, one.parent)) if one.parent else None
        for op in OPS:
            for path in PATHS:
                here = whole.decide(op, path)
                asked = judge.verdict(state, ident, (op,), path, "", ())
                if here.verdict == ALLOW:
                    assert asked == ALLOW or (here.rule and here.rule.rate)
                if above is None:
                    continue
                assert here.verdict >= above.decide(op, path).verdict
                assert asked >= judge.verdict(state, one.parent, (op,), path, "", ())
        for exe in EXES if above is not None else ():
            for argv in ARGS:
                assert whole.decide_exec(exe, argv).verdict >= above.decide_exec(exe, argv).verdict  # type: ignore[union-attr]


@given(trees(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_sub_session_may_do_nothing_that_one_above_may_not(state: State, data: st.DataObject) -> None:
    _check(state)
    late = data.draw(grants(len(state.sessions)))  # to whomever, later
    state.grants[late.id] = late
    _check(state)
    changed = data.draw(st.sampled_from(sorted(state.bases)))
    state.bases[changed] = data.draw(snapshots)  # another policy, later
    _check(state)


@given(snapshots, snapshots, snapshots)
@settings(max_examples=120, deadline=None)
def test_the_enforcing_authority_is_as_narrow(first: Snapshot, second: Snapshot, later: Snapshot) -> None:
    """With real counters: the two spend as two sessions would, and the one above is asked as it stands."""
    above = Authority(_unmetered(first))
    own = Narrow(_unmetered(second).inside(above.snapshot), above)
    deepest = Narrow(_unmetered(later), own)
    for _ in range(2):
        for op in OPS:
            for path in PATHS:
                found = [a.decide(op, path).verdict for a in (deepest, own, above)]
                assert found == sorted(found, reverse=True)
                assert own.engine.decide(op, path).verdict == found[1]
                assert own.engine.below(op, path) >= found[1]
                assert own.engine.uniform(op, path) in (None, found[1])
                assert not own.static(0, path)
        above.adopt(_unmetered(later))


def _unmetered(snapshot: Snapshot) -> Snapshot:
    return Snapshot(
        "x",
        tuple(
            Rule(r.layer, r.verdict, r.op, r.pattern, argv=r.argv, final=r.final) for r in snapshot.rules
        ),
    )


@given(st.integers(1, 4), st.integers(1, 4))
def test_a_child_draws_from_what_its_parent_has(mine: int, parents: int) -> None:
    def limited(uses: int) -> Snapshot:
        return Snapshot("x", (Rule(USER, ALLOW, "read", "/**", rate=(uses, 3600), source=f"p:{uses}"),))

    above = Authority(limited(parents))
    own = Narrow(limited(mine), above)
    allowed = [own.decide("read", f"/a/{n}").verdict for n in range(8)].count(ALLOW)
    assert allowed == min(mine, parents)
    left = [above.decide("read", f"/b/{n}").verdict for n in range(8)].count(ALLOW)
    assert left == parents - allowed


def test_a_snapshot_within_others_survives_its_text() -> None:
    inner = Snapshot("a of b of c", (Rule(USER, DENY, "read", "/x/**"),), net_all=True)
    whole = inner.inside(Snapshot("b of c", (), net_all=True).inside(Snapshot("c", (), hold=3.5)))
    text = model.dumps(whole)
    again = model.loads(text)
    assert model.dumps(again) == text
    assert again.within is not None
    assert again.within.within is not None
    assert (again.within.within.agent, again.within.within.hold) == ("c", 3.5)
    assert not again.net_all
    assert isinstance(engine_of(again), Narrowed)


def test_snapshots_nested_without_end_are_none() -> None:
    deep = Snapshot("x", ())
    for _ in range(12):
        deep = Snapshot("x", ()).inside(deep)
    with pytest.raises(model.SnapshotError, match="too many"):
        model.loads(model.dumps(deep))


def test_nothing_is_left_to_the_kernel_where_landlock_reaches_further() -> None:
    with tempfile.TemporaryDirectory() as d:
        place = os.path.realpath(d)
        allow = Snapshot("x", tuple(Rule(USER, ALLOW, op, place + "/**") for op in (*OPS, "delete")))
        above = Authority(allow)
        above.build_ruleset().close()
        assert above.static(0, place + "/f")
        own = Narrow(allow, above)
        own.adopt(allow)
        assert not any(own.static(kind, place + "/f") for kind in (0, 1, 2))
        assert not own.reads_static


def test_a_policy_that_an_agent_wrote_hides_nothing() -> None:
    """Commits are named where those of the session above are, and signatures say who signs in its words."""
    above = Snapshot("a", (), signs=("api.example.com",), signs_as="https://a.example", trailers=True)
    own = Snapshot(
        "b", (), signs=("other.example.com",), signs_as="https://elsewhere.example", trailers=False
    )
    within = own.inside(above)
    assert (within.trailers, within.signs_as, within.signs) == (
        True,
        "https://a.example",
        ("api.example.com",),
    )
    silent = Snapshot("a", (), trailers=False)
    assert not own.inside(silent).trailers
