"""Hostile text stays literal, whole and countable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.wire.escape import unescape
from remit_tui.text import clip, command, fold, shown, span, width_of

ANY = st.text(st.characters(codec=None, exclude_categories=[]), max_size=60)


@given(ANY)
def test_shown_is_reversible_and_plain(text: str) -> None:
    out = shown(text)
    assert out.isprintable()
    assert unescape(out) == text


@given(ANY, st.integers(2, 30))
def test_fold_loses_nothing(text: str, width: int) -> None:
    lines = fold(shown(text), width)
    assert "".join(lines) == shown(text)
    assert all(width_of(line) <= width for line in lines)


@given(ANY, st.integers(1, 30))
def test_clip_fits(text: str, width: int) -> None:
    assert width_of(clip(shown(text), width)) <= width


def test_spaces_that_an_eye_cannot_count() -> None:
    assert shown(" a b  c ") == "\\x20a b\\x20\\x20c\\x20"


def test_wide_characters_take_two_cells() -> None:
    assert fold("日本語", 4) == ["日本", "語"]


def test_arguments_stay_apart() -> None:
    assert command(("rm", "-rf", "a b", "", "it's", "x\ny")) == "rm -rf 'a b' '' 'it\\x27s' x\\x0ay"


def test_span() -> None:
    assert [span(s) for s in (-1, 12.9, 150, 7300, 200000)] == ["0 s", "12 s", "2 min", "2 h", "2 d"]
