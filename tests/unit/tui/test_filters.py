"""What a person writes to filter, and the times that they name."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_tui.filters import NAMES, FilterError, parse, written
from remit_tui.moments import MomentError, moment, stepped

NOW = datetime(2026, 11, 29, 14, 30, 15).timestamp()  # a Sunday, local time


@pytest.fixture(autouse=True)
def _zone() -> None:
    """Tests that try another time zone may have left it in force."""
    time.tzset()


def at(*parts: int) -> float:
    return datetime(*parts).timestamp()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("claude", {"agent": "claude"}),
        ("denied human", {"denied": True, "actor": "human"}),
        ("~/project op:write", {"path": "/home/ann/project", "op": "write"}),
        ("'/a b' host:pypi.org", {"path": "/a b", "host": "pypi.org"}),
        ("rule:/c/me.toml:3", {"rule": "/c/me.toml:3"}),
        ("since:14:00", {"since": at(2026, 11, 29, 14)}),
        ("since:yesterday until:today", {"since": at(2026, 11, 28), "until": at(2026, 11, 29)}),
        ("'since:yesterday 9:00'", {"since": at(2026, 11, 28, 9)}),
    ],
)
def test_filters(text: str, wanted: dict[str, object]) -> None:
    assert parse(text, NOW, "/home/ann") == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour:red", "no filter 'colour'"),
        ("op:write op:read", "given twice"),
        ("'open", "quotation"),
        ("op:", "says nothing"),
        ("actor:me", "no actor 'me'"),
        ("path:relative", "no absolute path"),
        ("since:soon", "is no time"),
        ("claude codex", "given twice"),
    ],
)
def test_what_is_no_filter_says_what_would_be(text: str, says: str) -> None:
    with pytest.raises(FilterError, match=says):
        parse(text, NOW, "/home/ann")


@given(st.sampled_from(["session", "rule", "agent", "host"]), st.text(min_size=1))
def test_what_is_written_is_read_back(name: str, value: str) -> None:
    assert parse(written(name, value), NOW) == {name: value}


@given(st.text())
def test_any_text_is_a_filter_or_an_error_of_ours(text: str) -> None:
    with suppress(FilterError):
        assert set(parse(text, NOW)) <= {*NAMES, "denied"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("9:05", at(2026, 11, 29, 9, 5)),
        ("18:00", at(2026, 11, 28, 18)),  # still to come today, so of yesterday
        ("today 18:00", at(2026, 11, 29, 18)),
        ("yesterday", at(2026, 11, 28)),
        ("2026-01-02 03:04:05", at(2026, 1, 2, 3, 4, 5)),
        ("11-28", at(2026, 11, 28)),
        ("12-24", at(2025, 12, 24)),
        ("90m", NOW - 5400),
        ("2d ago", NOW - 172800),
    ],
)
def test_moments(text: str, wanted: float) -> None:
    assert moment(text, NOW) == wanted


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "9:61", "13-01", "02-30", "9", "9999999999d", "yesterday soon"]
)
def test_what_is_no_moment_says_what_would_be(text: str) -> None:
    with pytest.raises(MomentError, match="expected one such as"):
        moment(text, NOW)


def test_steps_begin_units() -> None:
    assert stepped(NOW, "minute", 1) == at(2026, 11, 29, 14, 31)
    assert stepped(NOW, "minute", -1) == at(2026, 11, 29, 14, 30)
    assert stepped(at(2026, 11, 29, 14, 30), "minute", -1) == at(2026, 11, 29, 14, 29)
    assert stepped(NOW, "hour", 1) == at(2026, 11, 29, 15)
    assert stepped(NOW, "day", -1) == at(2026, 11, 29)
    assert stepped(at(2026, 11, 29), "day", -1) == at(2026, 11, 28)
    assert time.localtime(stepped(NOW, "day", 1)).tm_hour == 0
