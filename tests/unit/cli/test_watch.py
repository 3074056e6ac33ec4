"""No answer by accident: the keys of the terminal approver."""

from __future__ import annotations

import pytest

from remit_daemon.cli.commands import moment, seconds
from remit_daemon.cli.watch import Keys


def play(*typed: tuple[float, bytes]) -> list[str | None]:
    keys = Keys(0.0, 3)
    return [keys.feed(data, at) for at, data in typed]


def test_a_letter_and_enter_after_a_quiet_moment() -> None:
    assert play((1.0, b"a"), (1.5, b"\n")) == ["choose", "answer"]
    assert play((1.0, b"2"), (1.2, b"s"), (1.9, b"\r")) == [None, "choose", "answer"]


@pytest.mark.parametrize(
    "typed",
    [
        ((1.0, b"\n"), (2.0, b"\n")),  # Enter alone
        ((0.1, b"a"), (0.2, b"\n")),  # typed into a fresh prompt
        ((0.3, b"l"), (0.6, b"a"), (0.9, b"\n")),  # typing on: the wait starts again
        ((1.0, b"a\n"),),  # pasted
        ((1.0, b"a"), (1.01, b"\n")),  # too fast for a person
        ((1.0, b"\x1b[200~a"), (1.5, b"\n"), (2.5, b"\n")),  # bracketed paste
        ((1.0, b"a"), (2.0, b"xx"), (3.0, b"\n")),  # a paste takes the choice away
        ((1.0, b"a"), (2.0, b"z"), (3.0, b"\n")),  # so does any other key
        ((1.0, b"\x1b[A"), (2.0, b"\n")),
    ],
)
def test_no_answer_by_accident(typed: tuple[tuple[float, bytes], ...]) -> None:
    assert "answer" not in play(*typed)


def test_escape_leaves_it_queued() -> None:
    assert play((0.1, b"\x1b")) == ["leave"]


def test_times() -> None:
    assert [seconds(t) for t in ("90", "90s", "30m", "2h", "7d")] == [90, 90, 1800, 7200, 604800]
    for bad in ("", "h", "-1s", "1.5h", "soon"):
        with pytest.raises(ValueError, match="is no time"):
            seconds(bad)
    assert moment("2h", 10_000.0) == 2800.0
