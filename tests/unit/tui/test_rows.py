"""Rows, sessions, grants and agents in words; and rules made of rows."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import approver
from remit_daemon.wire.escape import escape
from remit_policy.match import escape as literal
from remit_tui import agents, rows, rulemaking
from remit_tui.fields import RecordError
from remit_tui.frame import Line
from remit_tui.place import MOVES, Place, moved, within
from remit_tui.records import Entry, Grant, Session
from remit_tui.rulemaking import RuleError
from remit_tui.standing import Known, Limit
from remit_tui.text import shown, width_of

HOSTILE = approver.HOSTILE


def entry(**fields: Any) -> Entry:
    return Entry.of(approver.entry(7, **fields))


def plain(lines: list[Line]) -> str:
    return "".join(text for line in lines for _, text in line)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_row_is_one_line_and_a_detail_is_whole(width: int) -> None:
    e = entry(
        path=HOSTILE * 20,
        path2="/" + "b" * 500,
        agent=HOSTILE,
        rule=HOSTILE,
        argv=["x", HOSTILE],
        note=HOSTILE,
    )
    (span,) = rows.entry_row(e, width, True)
    assert width_of(span[1]) >= width
    assert span[1].isprintable()
    text = plain(rows.entry_detail(e, width))
    assert shown(HOSTILE * 20)[:60] in text.replace("  ", "") or width < 80
    bold = "".join(t for line in rows.entry_detail(e, 200) for s, t in line if s == "bold")
    assert shown(HOSTILE * 20) in bold


def test_who_acted_is_told_without_colour() -> None:
    words = [rows.actor(entry(actor=a)) for a in ("human", "agent", "remit", "x")]
    assert words == ["◆ HUMAN", "○ agent claude", "· remit", "? unknown"]
    assert len({w[0] for w in words}) == 4


def test_outcomes_are_words() -> None:
    said = {
        v: rows.outcome(entry(op="answer", actor="human", outcome="answered", verdict=v))
        for v in ("allow", "deny")
    }
    assert said == {"allow": "allowed", "deny": "denied"}
    assert rows.outcome(entry(verdict="deny", outcome="refused")) == "DENIED"
    assert rows.outcome(entry(verdict="ask", outcome="expired")) == "EXPIRED"
    assert rows.outcome(entry(outcome="pending")) == "unfinished"
    assert rows.outcome(entry(outcome="ok to api.example.org")) == "ok"
    assert rows.outcome(entry(actor="human", verdict="deny", outcome="")) == "deny"


def test_grants_and_sessions_say_what_there_is_to_look_at() -> None:
    grant = Grant.of(
        approver.grant(1, markers=["unused", "suspended"], suspended=True, suffices="/home/ann/notes/1/a")
    )
    text = plain(rows.grant_detail(grant, 2000.0, 100))
    assert "suspended; it was never used" in text
    assert "never" in text
    assert "/home/ann/notes/1/a" in text
    assert "[suspended] [unused]" in plain([rows.grant_row(grant, 2000.0, 120, False)])
    session = Session.of(
        approver.session(1, started=1000.0, argv=["claude", HOSTILE], waiting=2, state="paused")
    )
    assert "2 prompts wait" in plain(rows.session_detail(session, 2000.0, 100))
    assert shown(HOSTILE)[:40] in plain(rows.session_detail(session, 2000.0, 300))


@pytest.mark.parametrize(
    "record", [None, {}, {"seq": "x"}, {"seq": 1, "argv": "x"}, {"seq": 1, "time": "now"}]
)
def test_a_malformed_row_is_refused(record: object) -> None:
    with pytest.raises(RecordError):
        Entry.of(record)
    with pytest.raises(RecordError):
        Grant.of({"id": "g", "ops": "read"})


def test_agents_are_joined_by_name() -> None:
    sessions = tuple(Session.of(approver.session(i, agent=a, started=100.0 * i, state=s)) for i, (a, s) in enumerate(
        [("claude", "ended"), ("claude", "running"), ("codex", "ended")], 1))  # fmt: skip
    found = agents.joined(
        sessions,
        (Grant.of(approver.grant(1)), Grant.of(approver.grant(2, last_used=5.0))),
        (entry(agent="gemini", verdict="deny"), entry(verdict="deny")),
        2000.0,
    )
    assert [(a.name, len(a.running), a.sessions, a.grants, a.unused, a.denied) for a in found] == [
        ("claude", 1, 2, 2, 1, 1), ("gemini", 0, 0, 0, 0, 1), ("codex", 0, 1, 0, 0, 0)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(MOVES), max_size=40), st.integers(0, 60), st.integers(1, 30))
def test_a_cursor_stays_in_its_list_and_in_view(moves: list[str], count: int, height: int) -> None:
    place = within(Place(), count, height)
    for move in moves:
        place = moved(place, move, count, height)
        assert 0 <= place.top <= place.at < max(count, 1)
        assert place.at < place.top + height
        assert place.top <= max(count - height, 0)


PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).map(
    lambda t: "/" + t
)


@given(PATHS)
def test_a_rule_of_a_row_is_about_just_its_path(path: str) -> None:
    line = rulemaking.line_of(entry(path=path))
    assert line.isprintable()
    assert rulemaking.parse(line) == ("deny", "read", literal(path), [])
    document = tomllib.loads(rulemaking.document(line, "claude", "row 7", 0.0))
    assert document == {"version": 1, "role": {"claude": {"files": {"read": {"deny": [literal(path)]}}}}}


def test_rules_of_programs_and_hosts() -> None:
    line = rulemaking.line_of(entry(op="exec", path="/usr/bin/git", argv=["git", "push", "a b"]))
    assert tomllib.loads(rulemaking.document(line, "x y", "row 7", 0.0))["role"] == {
        "x y": {"exec": {"/usr/bin/git": {"deny": ["push a?b"]}}}
    }
    line = rulemaking.line_of(entry(op="connect", path="pypi.org:443"))
    assert tomllib.loads(rulemaking.document(line, "r", "row 7", 0.0))["role"] == {
        "r": {"net": {"connect": {"deny": ["pypi.org:443"]}}}
    }


@pytest.mark.parametrize(
    "line",
    [
        "",
        "deny",
        "deny read",
        "maybe read /x",
        "deny use app:screen",
        "deny read /x /y",
        "deny read '/x",
        "deny read /\\q",
        "deny exec /bin/x 'a b'",
    ],
)
def test_what_is_no_rule_is_refused(line: str) -> None:
    with pytest.raises(RuleError):
        rulemaking.document(line, "r", "row 7", 0.0)


def test_a_name_that_no_policy_file_can_hold_is_refused() -> None:
    with pytest.raises(RuleError, match="no UTF-8"):
        rulemaking.document(f"deny read {escape('/x' + chr(0xDCFF))}", "r", "row 7", 0.0)


def test_the_role_is_one_of_the_agents_own() -> None:
    assert rulemaking.role_for("claude", ["base", "coder", "claude"]) == "claude"
    assert rulemaking.role_for("claude", ["base", "protected", "coder"]) == "coder"
    with pytest.raises(RuleError):
        rulemaking.role_for("claude", ["base", "protected"])


def test_sub_sessions_follow_the_one_that_started_them() -> None:
    some = [("s3", "s1"), ("s1", ""), ("s9", "gone"), ("s5", "s3"), ("s4", "s1")]
    family = rows.family(tuple(Session(i, "x", "running", parent=p) for i, p in some))
    assert [(d, s.id) for d, s in family] == [(0, "s1"), (1, "s3"), (2, "s5"), (1, "s4"), (0, "s9")]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_session_says_below_whom_it_is_what_holds_it_and_which_limit_is_spent(width: int) -> None:
    one = Session(
        "s2", "reviewer of claude" + HOSTILE, "running", parent="s1", confined=False, project="/p"
    )
    (span,) = rows.session_row(one, 0, width, False, 1, True)
    assert "└ rev" in span[1]
    assert "[unconfined]" in span[1] or width < 80
    limits = (
        Limit("claude", "", True, "50 of 50 per 1h are spent by claude"),
        Limit("claude", "s1", False, "another's"),
        Limit("codex", "", True, "codex's"),
    )
    mine = rows.limits_of(Session("s2", "reviewer of claude", "running", parent="s1"), limits)
    assert mine == limits[:1]
    text = plain(rows.session_detail(one, 0, width, mine))
    assert "session s1" in text
    assert "50 of 50" in text
    assert "unconfined" in text


def test_an_agent_says_what_it_ran_and_that_its_program_changed() -> None:
    known = Known.of(
        {
            "name": "claude", "created": 1.0, "changed": 5.0, "pending": True, "grants": 2, "adopted": [42],
            "programs": [
                {"digest": "ab" * 32, "path": "/new" + HOSTILE, "how": "launched", "first_seen": 5.0, "last_seen": 9.0,
                 "interpreter_digest": "cd" * 32, "publisher": "deb: x"},
                {"digest": "ef" * 32, "path": "/old", "how": "registered", "first_seen": 1.0, "last_seen": 4.0},
            ],
        }
    )  # fmt: skip
    grants = tuple(Grant.of(approver.grant(n, withheld=n == 1)) for n in (1, 2))
    other = Session("s1", "codex", "running")
    first, second = agents.joined((other,), grants, (), 100.0, (known,))
    assert (first.name, first.withheld, second.name) == ("claude", 1, "codex"), (
        "who is asked about is first"
    )
    assert "CHANGED" in agents.row(first, 100.0, 80, False)[0][1]
    assert "CHANGED" not in agents.row(second, 100.0, 80, False)[0][1]
    text = plain(agents.detail(first, 100.0, 300))
    for part in (
        "1 of its grants wait",
        shown(HOSTILE),
        "ab" * 32,
        "run by cdcdcdcdcdcd",
        "deb: x",
        "/old",
        "42",
    ):
        assert part in text
    with pytest.raises(RecordError):
        Known.of({"name": "x", "adopted": ["1"]})
