"""A session's report in words and plots."""

from __future__ import annotations

import pytest

from fakes.approver import HOSTILE
from fakes.report import REPORT
from remit_tui import report
from remit_tui.text import shown, width_of


@pytest.mark.parametrize("width", [30, 80, 200])
def test_it_fits_and_is_literal(width: int) -> None:
    lines = report.lines(REPORT, width)
    assert all(sum(width_of(t) for _, t in line) <= width for line in lines)
    assert all(t.isprintable() for line in lines for _, t in line)


def test_it_says_in_words_what_it_draws() -> None:
    text = "\n".join("".join(t for _, t in line) for line in report.lines(REPORT, 200))
    for part in (
        "at least",
        "read 120",
        "3: allowed 1, denied 1, missed 1",
        shown(HOSTILE),
        "pypi.org",
        "the most acts 100",
    ):
        assert part in text


def test_plots() -> None:
    assert report.spark([0, 1, 50, 100]) == " ▁▄█"
    assert report.spark([]) == ""
    assert report.bar(100, 100) == "█" * 12
    assert report.bar(1, 10_000) == "█"
    assert report.bar(0, 10) == ""


@pytest.mark.parametrize(
    "said", [None, {}, {"acts": 3}, REPORT | {"timeline": {"acts": ["x"], "denied": [], "step": 1}}]
)
def test_what_is_no_report_is_refused(said: object) -> None:
    with pytest.raises((TypeError, KeyError, ValueError, AttributeError)):
        report.lines(said, 80)
