"""Turns of the agents' lane: one at a time, and with rest while a person is active."""

from __future__ import annotations

import asyncio

import pytest

from fakes.clock import Clock
from remit_daemon.runtime import lanes as module
from remit_daemon.runtime.lanes import ACTIVE, BURST, Lanes


def test_turns_are_taken_one_after_another_in_order() -> None:
    async def work() -> None:
        lanes, order = Lanes(), list[int]()

        async def turn(number: int) -> None:
            async with lanes.agents():
                order.append(number)

        await asyncio.gather(*(turn(n) for n in range(5)))
        assert order == [0, 1, 2, 3, 4]

    asyncio.run(work())


def test_a_flood_rests_while_a_person_is_active_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rests = Clock(), list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        clock.pass_(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)

    async def turns(lanes: Lanes, many: int) -> float:
        rests.clear()
        for _ in range(many):
            async with lanes.agents():
                clock.pass_(0.001)
        return sum(rests)

    async def work() -> None:
        lanes = Lanes(lambda: clock.now)
        assert await turns(lanes, 500) == 0.0, "nobody waits for the loop"
        lanes.person()
        clock.pass_(1.0)
        assert await turns(lanes, int(BURST * 800)) == 0.0, "a burst needs no rest"
        lanes.person()
        assert ACTIVE * 0.8 <= await turns(lanes, 200) <= ACTIVE, "as long as the person is active"
        clock.pass_(ACTIVE)
        assert await turns(lanes, 100) == 0.0

    asyncio.run(work())


def test_nobody_has_a_turn_when_the_daemon_ends() -> None:
    async def work() -> None:
        lanes = Lanes()
        lanes.close()
        with pytest.raises(ConnectionError):
            async with lanes.agents():
                raise AssertionError("a turn")

    asyncio.run(work())
