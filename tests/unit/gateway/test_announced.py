"""Connections matched with what the supervisor announced, in either order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from fakes.clock import Clock
from remit_daemon.gateway import announced as module
from remit_daemon.gateway.announced import LIFE, Announced


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_whichever_comes_first() -> None:
    async def work() -> None:
        seen: Announced[str] = Announced()
        seen.tell(False, 5, "told")
        assert await seen.of(False, 5, 0.01) == "told"
        waiting = asyncio.ensure_future(seen.of(False, 6))
        await asyncio.sleep(0)
        seen.tell(False, 6, "later")
        assert await waiting == "later"

    run(work())


def test_an_announcement_is_for_one_connection_of_its_family_and_port() -> None:
    async def work() -> None:
        seen: Announced[str] = Announced()
        seen.tell(False, 5, "told")
        assert await seen.of(True, 5, 0.01) is None
        assert await seen.of(False, 4, 0.01) is None
        assert await seen.of(False, 5, 0.01) == "told"
        assert await seen.of(False, 5, 0.01) is None  # the port may be another's by now

    run(work())


def test_an_announcement_goes_stale() -> None:
    async def work() -> None:
        clock = Clock()
        seen: Announced[str] = Announced(clock=clock)
        seen.tell(False, 5, "told")
        clock.pass_(LIFE)
        assert await seen.of(False, 5, 0.01) is None

    run(work())


def test_who_was_at_the_port_before_does_not_take_it() -> None:
    async def work() -> None:
        seen: Announced[str] = Announced()
        before = asyncio.ensure_future(seen.of(False, 5, 0.05))
        await asyncio.sleep(0)
        now = asyncio.ensure_future(seen.of(False, 5, 0.05))
        await asyncio.sleep(0)
        seen.tell(False, 5, "told")
        assert await now == "told"
        assert await before is None

    run(work())


def test_a_lasting_one_serves_all_until_it_is_replaced() -> None:
    async def work() -> None:
        seen: Announced[str] = Announced(lasting=True)
        two = [asyncio.ensure_future(seen.of(False, 5)) for _ in range(2)]
        await asyncio.sleep(0)
        seen.tell(False, 5, "a")
        assert await asyncio.gather(*two) == ["a", "a"]
        assert await seen.of(False, 5, 0.01) == "a"
        seen.tell(False, 5, "b")
        assert await seen.of(False, 5, 0.01) == "b"

    run(work())


def test_both_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)

    async def work() -> None:
        seen: Announced[int] = Announced()
        for port in range(3):
            seen.tell(False, port, port)
        assert await seen.of(False, 0, 0.01) is None
        assert await seen.of(False, 1, 0.01) == 1
        waiting = [asyncio.ensure_future(seen.of(True, port)) for port in range(2)]
        await asyncio.sleep(0)
        assert await seen.of(True, 9) is None  # at once
        for port in range(2):
            seen.tell(True, port, port)
        assert await asyncio.gather(*waiting) == [0, 1]

    run(work())
