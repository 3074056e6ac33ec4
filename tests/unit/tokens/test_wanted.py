"""The canonical text of what a token is for, and the sentences that a person reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.tokens import details as rar
from remit_daemon.tokens.details import Detail
from remit_daemon.tokens.wanted import Wanted

PLACES = st.lists(
    st.sampled_from(["/a", "/a b/**", "/%20", "/a=b", "/a files:write=/x"]), max_size=2, unique=True
).map(tuple)
DETAIL = st.builds(
    lambda a, p: Detail("files", frozenset(a), p),
    st.sets(st.sampled_from(["read", "write"]), min_size=1),
    PLACES,
)


def wanted(audience: str, details: list[Detail], more: set[str]) -> Wanted:
    scopes = frozenset(more).union(*(d.scopes for d in details)) or {"log:read"}
    return Wanted(audience, tuple(sorted(scopes)), tuple(details))


def means(w: Wanted) -> object:
    limits = {s: rar.limits(s, w.details) for s in w.scopes}
    return w.audience, {s: None if places is None else frozenset(places) for s, places in limits.items()}


WANTED = st.builds(wanted, st.sampled_from(["https://a.example", "a", "a files:read"]), st.lists(DETAIL, max_size=2), st.sets(st.sampled_from(["files:read", "log:read"])))  # fmt: skip


@given(WANTED, WANTED)
def test_the_text_is_the_same_for_the_same_and_for_nothing_else(a: Wanted, b: Wanted) -> None:
    assert (a.text() == b.text()) == (means(a) == means(b))


def test_the_text_is_for_people() -> None:
    details = rar.read(
        [{"type": "files", "actions": ["write", "read"], "locations": ["/home/u/my work/**"]}]
    )
    w = Wanted("https://tool.example", ("log:read", "files:write", "files:read"), details)
    assert (
        w.text()
        == "https://tool.example files:read=/home/u/my%20work/** files:write=/home/u/my%20work/** log:read"
    )
    assert w.sentences() == [
        "read the files named: /home/u/my work/**",
        "change and make the files named: /home/u/my work/**",
        "read what was done, and by whom",
    ]
    assert Wanted("a", ("exec:run", "grants:revoke"), ()).sentences() == [
        "run the programs named (high risk): all that policy allows",
        "take back what was allowed (SENSITIVE)",
    ]
