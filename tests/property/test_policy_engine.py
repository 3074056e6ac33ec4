"""The engine against a naive oracle, and each law of the policy as a property."""

from __future__ import annotations

from functools import cmp_to_key

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from remit_policy.engine import Engine
from remit_policy.match import PatternError, escape, expand, parse
from remit_policy.model import (
    ADMIN,
    ALLOW,
    ASK,
    DENY,
    FILE_OPS,
    GRANT,
    GUARD,
    IMPLIED_BY,
    PACK,
    PROJECT,
    USER,
    Rule,
    Snapshot,
    dumps,
    loads,
)

# -- the oracle: no trie, no automaton; every way in which a pattern fits a path is listed and compared ----

# ranks of what stands at one place of a path
STAR, TAIL, MIDDLE, END, SLASH, ANY, LITERAL = range(1, 8)


def _globs(text: str, name: str) -> list[list[tuple[int, ...]]]:
    """List the ways in which the component ``text`` matches ``name``."""
    if not text:
        return [[]] if not name else []
    c, rest = text[0], text[1:]
    if c == "*":
        return [
            [(STAR, -n), *way] for n in range(len(name) + 1) for way in _globs(rest.lstrip("*"), name[n:])
        ]
    if not name or (c not in ("?", name[0]) and c != "\\"):
        return []
    if c == "\\":
        return [[(LITERAL,), *w] for w in _globs(rest[1:], name[1:])] if rest[0] == name[0] else []
    return [[(ANY if c == "?" else LITERAL,), *w] for w in _globs(rest, name[1:])]


def _normal(text: str) -> str:
    while "*?" in text:
        text = text.replace("*?", "?*")
    return text


def _ways(parts: list[str], names: list[str]) -> list[list[tuple[int, ...]]]:
    if not parts:
        return [[(END,)]] if not names else []
    if parts[0] == "**":
        rest = parts[1:]
        while rest and rest[0] == "**":
            rest = rest[1:]
        if not rest:
            return [[(TAIL,)]]
        return [
            [(MIDDLE, -len("/".join(names[:n]))), *way]
            for n in range(len(names))
            for way in _ways(rest, names[n:])
        ]
    if not names:
        return []
    return [
        [(SLASH,), *head, *tail]
        for head in _globs(_normal(parts[0]), names[0])
        for tail in _ways(parts[1:], names[1:])
    ]


def oracle_key(pattern: str, path: str) -> list[tuple[int, ...]] | None:
    """The most specific way in which any alternative of ``pattern`` matches ``path``."""
    names = [n for n in path.split("/") if n]
    ways: list[list[tuple[int, ...]]] = []
    for one in expand(pattern):
        ways += _ways([p for p in one.split("/") if p], names)
    return max(ways, default=None)


def oracle_decide(rules: tuple[Rule, ...], op: str, path: str) -> int:
    by = IMPLIED_BY.get(op, op)
    hits: dict[int, list[tuple[list[tuple[int, ...]], Rule]]] = {}
    for rule in rules:
        if rule.op not in (op, by) or any(oracle_key(e, path) is not None for e in rule.excepts):
            continue
        key = oracle_key(rule.pattern, path)
        if key is not None:
            hits.setdefault(rule.layer, []).append((key, rule))
    best: dict[int, tuple[list[tuple[int, ...]], Rule]] = {}
    for layer, some in hits.items():
        if any(r.op == op for _, r in some):
            some = [(k, r) for k, r in some if r.op == op]
        if layer == GUARD:
            if any(r.verdict == DENY for _, r in some):
                return DENY
            continue
        finals = [(k, r) for k, r in some if r.final and r.verdict == DENY]
        best[layer] = max(finals or some, key=lambda kr: (kr[0], kr[1].verdict, kr[1].protected))
    base = best.get(USER) or best.get(PACK) or best.get(ADMIN)
    verdict = base[1].verdict if base else ASK
    if PACK in best and best[PACK][1].protected and (base is None or base[0] < best[PACK][0]):
        verdict = max(verdict, best[PACK][1].verdict)
    for layer in (ADMIN, PROJECT):
        if layer in best and best[layer][1].verdict != ALLOW:
            verdict = max(verdict, best[layer][1].verdict)
    insisted = ADMIN in best and best[ADMIN][1].final and best[ADMIN][1].verdict == ASK
    if verdict == ASK and GRANT in best and not insisted:
        verdict = best[GRANT][1].verdict
    return verdict


# -- what is generated: few names, so that patterns and paths meet often -------------------------------------

NAMES = st.sampled_from(["a", "b", "ab", "ba", "aab", ".git", "c"])
GLOBS = st.sampled_from(["*", "a*", "*b", "?", "?b", "a?*", "*a*b", "*?", "{a,b}", "{a,{b,c}b}", "*a*"])
PARTS = st.lists(st.one_of(NAMES, NAMES, GLOBS, st.just("**")), min_size=1, max_size=5)
PATHS = st.lists(NAMES, min_size=0, max_size=6).map(lambda p: "/" + "/".join(p))
PATTERNS = PARTS.map(lambda p: "/" + "/".join(p))
OPS_ = st.sampled_from(FILE_OPS)


@st.composite
def rule(draw: st.DrawFn, layers: tuple[int, ...] = tuple(range(6)), plain: bool = False) -> Rule:
    layer = draw(st.sampled_from(layers))
    verdict = draw(st.sampled_from((ALLOW, ASK, DENY)))
    return Rule(
        layer,
        verdict,
        draw(st.sampled_from(("read", "read", "list", "write", "create"))),
        draw(PATTERNS),
        excepts=tuple(draw(st.lists(PATTERNS, max_size=1))) if not plain else (),
        final=not plain and verdict != ALLOW and draw(st.booleans()),
        protected=layer == PACK and draw(st.booleans()),
        source=f"f:{draw(st.integers(1, 99))}",
    )


RULES = st.lists(rule(), max_size=8).map(tuple)


def engine(*rules: Rule) -> Engine:
    return Engine(loads(dumps(Snapshot("x", rules))))


@settings(max_examples=600, deadline=None)
@given(
    RULES,
    st.sampled_from(("read", "list", "write", "create", "delete")),
    st.lists(PATHS, min_size=1, max_size=4),
)
def test_the_engine_decides_as_the_oracle(rules: tuple[Rule, ...], op: str, paths: list[str]) -> None:
    one = engine(*rules)
    for path in paths:
        assert one.decide(op, path).verdict == oracle_decide(rules, op, path), path
        assert one.explain(op, path).verdict == one.decide(op, path).verdict


@st.composite
def fitting(draw: st.DrawFn, path: str) -> str:
    """A pattern that matches ``path``."""
    out: list[str] = []
    for name in path.split("/")[1:]:
        looser = ("*", name[:1] + "*", "*" + name[-1:], "?" * len(name), "?*", name, name, "**", name + "*")
        out.append(draw(st.sampled_from(looser)))
        out += ["**"] * draw(st.sampled_from((0, 0, 0, 1)))
    return "/" + "/".join(out)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_specificity_is_that_of_the_oracle(data: st.DataObject) -> None:
    path = data.draw(PATHS.filter(lambda p: p != "/"))
    left, right = data.draw(fitting(path)), data.draw(fitting(path))
    keys = [oracle_key(left, path), oracle_key(right, path)]
    assert None not in keys
    ranked = engine(Rule(USER, ALLOW, "read", left), Rule(USER, DENY, "read", right)).decide("read", path)
    assert ranked.verdict == (ALLOW if keys[0] > keys[1] else DENY)  # type: ignore[operator]


@settings(max_examples=400, deadline=None)
@given(RULES, st.sampled_from(("read", "list", "write")), PATHS, st.lists(PATHS, max_size=8))
def test_whole_trees_are_judged_soundly(
    rules: tuple[Rule, ...], op: str, root: str, tails: list[str]
) -> None:
    one = engine(*rules)
    verdict, worst = one.uniform(op, root), one.below(op, root)
    for tail in ["", *tails, "/zz", "/a/zz", "/b/a/b"]:
        path = (root.rstrip("/") + tail.rstrip("/")) or "/"
        got = oracle_decide(rules, op, path)
        assert verdict is None or got == verdict, path
        assert got <= worst, path


@settings(max_examples=300, deadline=None)
@given(
    RULES,
    st.lists(PATHS, min_size=2, max_size=12),
    st.lists(PATHS.filter(lambda p: p != "/"), min_size=1, max_size=5),
)
def test_equal_residuals_decide_alike(rules: tuple[Rule, ...], places: list[str], tails: list[str]) -> None:
    one = engine(*rules)
    first: dict[object, str] = {}
    for place in places:
        twin = first.setdefault(one.residual(place), place)
        for tail in tails:
            for op in FILE_OPS if twin != place else ():
                left, right = twin.rstrip("/") + tail, place.rstrip("/") + tail
                assert oracle_decide(rules, op, left) == oracle_decide(rules, op, right)


@settings(max_examples=200, deadline=None)
@given(RULES, st.sampled_from(("read", "write")))
def test_static_roots_are_allowed_everywhere(rules: tuple[Rule, ...], op: str) -> None:
    one = engine(*rules)
    roots = one.static_roots(op)
    for root in roots:
        assert one.uniform(op, root) == ALLOW
        assert not any(root != top and root.startswith(top.rstrip("/") + "/") for top in roots)


# -- the laws ---------------------------------------------------------------------------------------------


@given(OPS_, PATHS)
def test_what_nothing_matches_asks(op: str, path: str) -> None:
    assert engine().decide(op, path).verdict == ASK


@given(RULES, PATHS)
def test_a_guard_denies_whatever_is_written(rules: tuple[Rule, ...], path: str) -> None:
    guard = Rule(GUARD, DENY, "read", escape(path) + "/**" if path != "/" else "/**")
    assert engine(*rules, guard).decide("read", path).verdict == DENY


@given(st.lists(rule(layers=(USER, PACK)), max_size=6).map(tuple), rule(layers=(ADMIN, PROJECT)), PATHS)
def test_a_ceiling_never_opens(rules: tuple[Rule, ...], ceiling: Rule, path: str) -> None:
    # an admin's allow may be the base where neither user nor pack speaks: here a pack always does
    rules = (*rules, Rule(PACK, ASK, "read", "/**"))
    assert (
        engine(*rules, ceiling).decide("read", path).verdict >= engine(*rules).decide("read", path).verdict
    )


@given(
    st.lists(rule(layers=(USER, PACK, ADMIN, PROJECT, GUARD)), max_size=6).map(tuple),
    rule(layers=(GRANT,)),
    PATHS,
)
def test_a_grant_only_answers_an_ask(rules: tuple[Rule, ...], grant: Rule, path: str) -> None:
    before = engine(*rules).decide("read", path).verdict
    after = engine(*rules, grant).decide("read", path).verdict
    assert after == before or before == ASK


@given(
    st.lists(rule(layers=(USER,), plain=True), max_size=6).map(tuple),
    st.data(),
    PATHS.filter(lambda p: p != "/"),
)
def test_a_final_deny_beats_specificity(rules: tuple[Rule, ...], data: st.DataObject, path: str) -> None:
    final = Rule(USER, DENY, "read", data.draw(fitting(path)), final=True)
    assert engine(*rules, final).decide("read", path).verdict == DENY


@given(RULES, PATHS, PATHS)
def test_a_deny_of_the_given_path_denies(rules: tuple[Rule, ...], real: str, lexical: str) -> None:
    one = engine(*rules)
    both = one.decide_given("read", real, lexical).verdict
    verdicts = one.decide("read", real).verdict, one.decide("read", lexical).verdict
    assert both == (DENY if DENY in verdicts else verdicts[0])


@given(RULES, PATHS)
def test_the_order_of_rules_does_not_matter(rules: tuple[Rule, ...], path: str) -> None:
    for op in FILE_OPS:
        assert engine(*rules).decide(op, path).verdict == engine(*rules[::-1]).decide(op, path).verdict


@given(st.text(min_size=1, max_size=30))
def test_an_escaped_path_matches_itself_only(text: str) -> None:
    path = "/" + "/".join(p for p in text.replace("\0", "").split("/") if p not in ("", ".", ".."))
    assume(path != "/")
    one = engine(Rule(USER, ALLOW, "read", escape(path)))
    assert one.decide("read", path).verdict == ALLOW
    assert one.decide("read", path + "x").verdict == ASK


@given(st.text(alphabet="a{},\\*?/[.]$~", max_size=24))
def test_any_pattern_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except PatternError as e:
        assert e.expected  # noqa: PT017


@given(st.binary(max_size=200))
def test_any_path_gets_a_decision(raw: bytes) -> None:
    path = "/" + raw.decode("utf-8", "surrogateescape")
    one = engine(Rule(USER, ALLOW, "read", "/**"), Rule(USER, DENY, "read", "**/x?*"))
    assert one.decide("read", path).verdict in (ALLOW, ASK, DENY)


def test_the_oracle_agrees_with_itself_on_order() -> None:
    # a sanity check of the ranks: literal > ? > / > end > /** in the middle > /** at the end > *
    path = "/foo/bar"
    order = ["/foo/bar", "/foo/ba?", "/foo/**/bar", "/foo/**", "/foo*/bar", "/**"]
    keys = [oracle_key(p, path) for p in order]
    assert keys == sorted(keys, key=cmp_to_key(lambda a, b: (b > a) - (b < a)))  # type: ignore[arg-type, return-value]
