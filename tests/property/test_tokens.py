"""Over random trees of exchanges: nobody ever holds more than whoever stands above him."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from remit_daemon.tokens import details as rar
from remit_daemon.tokens.details import Detail
from remit_daemon.tokens.issuer import Issuer, Token, TokenError
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, USER, Rule, Snapshot

PLACES = ["/a", "/a/**", "/a/b", "/a/b/**", "/a/*/c", "/a/b/c", "/ab/**", "/**", "/a/**/c", "/c/**"]
DETAIL = st.builds(
    lambda actions, places: Detail("files", frozenset(actions), tuple(places)),
    st.sets(st.sampled_from(["read", "write", "delete"]), min_size=1),
    st.lists(st.sampled_from(PLACES), max_size=3, unique=True),
)
ASKED = st.lists(DETAIL, max_size=3).map(tuple)
SCOPE = st.lists(st.sampled_from(["files:read", "files:write", "reader", "log:read"]), max_size=2).map(
    " ".join
)
FILES = ["/a", "/a/b", "/a/b/c", "/a/x/c", "/ab/d", "/c/d", "/z", "/a/b/c/d"]


def may(token: Token, scope: str, path: str) -> bool:
    """Say by the policy engine, which the issuer does not use, whether a token covers ``path``."""
    if scope not in token.scopes:
        return False
    places = rar.limits(scope, token.details)
    if places is None:
        return True
    rules = tuple(Rule(USER, ALLOW, "read", place) for place in places)
    return Engine(Snapshot("", rules)).decide("read", path).verdict == ALLOW


@settings(max_examples=150, deadline=None)
@given(
    ASKED,
    SCOPE,
    st.lists(st.tuples(st.integers(0, 9), SCOPE, st.none() | ASKED), max_size=8),
    st.integers(0, 9),
)
def test_rights_only_shrink(
    first: tuple[Detail, ...], scope: str, steps: list[tuple[int, str, tuple[Detail, ...] | None]], cut: int
) -> None:
    count = iter(range(10**6))
    issuer = Issuer("i", lambda: 1000.0, lambda: f"n{next(count)}")
    try:
        made = [issuer.issue(subject="u", agent="a", bound="p", grant_id="g", scope=scope, details=first)]
    except TokenError:
        return
    parents = [-1]
    for above, wanted, details in steps:
        index = above % len(made)
        try:
            made.append(issuer.exchange(made[index][1], "p", agent="b", scope=wanted, details=details))
            parents.append(index)
        except TokenError as e:
            assert e.code in ("invalid_scope", "invalid_authorization_details", "invalid_request")  # noqa: PT017
    for (token, _), above in zip(made, parents, strict=True):
        if above < 0:
            continue
        parent = made[above][0]
        assert token.scopes <= parent.scopes
        assert token.expires <= parent.expires
        for name in token.scopes:
            for path in FILES:
                assert not may(token, name, path) or may(parent, name, path), (name, path)
    root = cut % len(made)
    gone = {root}
    for index, above in enumerate(parents):
        if above in gone:
            gone.add(index)
    issuer.revoke(jti=made[root][0].jti)
    assert {i for i, (_, text) in enumerate(made) if not issuer.introspect(text)["active"]} == gone
