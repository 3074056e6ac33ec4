from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.wire.escape import escape, unescape

# Every code point, surrogates included, and every byte string as a path.
anything = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
paths = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(anything | paths)
def test_escape_is_reversible_and_shows_nothing_hidden(text: str) -> None:
    shown = escape(text)
    assert unescape(shown) == text
    assert shown.isprintable()
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in
                   ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI") for c in shown)  # fmt: skip
    shown.encode()


@given(anything, anything)
def test_two_texts_never_look_the_same_through_escapes(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/u/plain name", "/home/u/plain name"),
        ("caf\u00e9/\u4f60\u597d", "caf\u00e9/\u4f60\u597d"),
        ("a\nb\x1b[2J\x7f", "a\\x0ab\\x1b[2J\\x7f"),
        ("back\\slash", "back\\\\slash"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\x85\u00a0", "\\u0085\\u00a0"),
        ("gpj\u202egnp.exe", "gpj\\u202egnp.exe"),
        ("z\u200bw\u200d\ufeff\u2060", "z\\u200bw\\u200d\\ufeff\\u2060"),
        ("\u3164\u2800\ufe0f\u115f", "\\u3164\\u2800\\ufe0f\\u115f"),
        ("\U000e0001\U000e0100", "\\U000e0001\\U000e0100"),
        ("\ud800", "\\ud800"),
    ],
)
def test_known_forms(text: str, shown: str) -> None:
    assert escape(text) == shown
    assert unescape(shown) == text


@pytest.mark.parametrize("text", ["\\", "\\n", "\\x4", "\\xgg", "\\u12", "\\U00110000", "\\x+1", "a\\"])
def test_forms_that_escape_never_writes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at"):
        unescape(text)
