"""Organisation keys: their form, their checksum, their rate."""

from __future__ import annotations

import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.tokens import keys
from remit_daemon.tokens.keys import Key, Rates, digest, key_of, make, to_json, well_formed

KEY = Key("k1", "ci", "d", "reader", "[]", "", 0.0, 100.0, 50.0, (4, 8))


@given(st.binary(min_size=keys.RANDOM, max_size=keys.RANDOM))
def test_a_key_has_the_documented_form(random: bytes) -> None:
    text = make(random)
    assert re.fullmatch("remit_[0-9A-Za-z]{39}", text)
    number = 0
    for c in text[-6:]:
        number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(c)
    assert number == zlib.crc32(text[:-6].encode())
    assert well_formed(text)


@given(
    st.integers(0, 44), st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_é")
)
def test_one_wrong_character_is_a_typing_error(at: int, c: str) -> None:
    text = make(bytes(range(keys.RANDOM)))
    wrong = text[:at] + c + text[at + 1 :]
    assert well_formed(wrong) == (wrong == text)


def test_what_is_no_key() -> None:
    text = make(bytes(keys.RANDOM))
    for wrong in (
        "",
        "remit_",
        text[:-1],
        text + "0",
        " " + text,
        text.upper(),
        text.replace("remit_", "other_"),
        "\ud800" * 45,
    ):
        assert not well_formed(wrong)
    assert digest("\ud800")


def test_different_keys_are_different() -> None:
    assert len({make(n.to_bytes(keys.RANDOM)) for n in range(1000)}) == 1000


def test_a_record_survives_the_store() -> None:
    assert key_of(to_json(KEY)) == KEY


def test_a_key_ends_and_waits_for_its_review() -> None:
    assert [KEY.state(t) for t in (49.9, 50.0, 99.9, 100.0)] == [
        "good",
        "to be reviewed",
        "to be reviewed",
        "expired",
    ]


def test_a_rate_is_a_burst_and_then_a_pace() -> None:
    rates = Rates()
    now = 1.7e9
    assert [rates.spend(KEY, now) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [rates.spend(KEY, now + 2) for _ in range(2)] == [True, False]
    assert [rates.spend(KEY, now + 100) for _ in range(6)] == [True] * 4 + [False] * 2
    rates.forget(KEY.id)
    assert rates.spend(KEY, now)


@given(st.lists(st.floats(0, 3), max_size=60))
def test_no_window_has_more_than_the_rate(steps: list[float]) -> None:
    rates, now, passed = Rates(), 1.7e9, []
    for step in steps:
        now += step
        if rates.spend(KEY, now):
            passed.append(now)
    uses, seconds = KEY.rate
    for start in passed:
        # a burst, and what comes back while the window lasts
        assert sum(start <= t < start + seconds for t in passed) <= 2 * uses
