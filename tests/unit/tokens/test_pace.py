"""The pace of polls, as RFC 8628 3.5 has it."""

from __future__ import annotations

from fakes.clock import Clock
from remit_daemon.tokens.pace import INTERVAL, MAX_KEPT, STEP, Pace


def world() -> tuple[Clock, Pace]:
    clock = Clock()
    return clock, Pace(lambda: clock.now)


def test_too_soon_adds_five_seconds_for_all_that_follow() -> None:
    clock, pace = world()
    assert pace.start("r") == INTERVAL
    assert pace.too_fast("r")  # at once
    clock.pass_(INTERVAL + STEP - 0.5)
    assert pace.too_fast("r")
    clock.pass_(INTERVAL + 2 * STEP)
    assert not pace.too_fast("r")
    clock.pass_(INTERVAL + STEP)
    assert pace.too_fast("r")  # "this and all subsequent requests"


def test_who_keeps_the_pace_is_not_slowed() -> None:
    clock, pace = world()
    pace.start("r")
    for _ in range(5):
        clock.pass_(INTERVAL)
        assert not pace.too_fast("r")


def test_requests_have_paces_of_their_own_and_are_forgotten() -> None:
    clock, pace = world()
    pace.start("r")
    assert pace.too_fast("r")
    clock.pass_(INTERVAL)
    for n in range(MAX_KEPT):
        pace.start(str(n))
    assert not pace.too_fast("r")
    pace.end("0")
    pace.end("never")
