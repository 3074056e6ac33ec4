"""Connections and their announcements: whichever comes first, once, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from fakes.clock import Clock
from fakes.gateway import run
from remit_daemon.gateway import announced
from remit_daemon.gateway.announced import Announced


def test_whichever_comes_first() -> None:
    async def test() -> None:
        table: Announced[str] = Announced()
        table.tell(False, 5, "early")
        assert await table.of(False, 5) == "early"
        assert await table.of(False, 5, wait=0.001) is None  # once
        waiting = asyncio.ensure_future(table.of(False, 6))
        await asyncio.sleep(0)
        table.tell(True, 6, "another family's")
        table.tell(False, 7, "another port's")
        await asyncio.sleep(0)
        assert not waiting.done()
        table.tell(False, 6, "late")
        assert await waiting == "late"
        assert not table._waiting

    run(test())


def test_an_old_one_is_another_programs() -> None:
    async def test() -> None:
        clock = Clock()
        table: Announced[str] = Announced(clock=clock)
        table.tell(False, 5, "old")
        clock.pass_(announced.LIFE)
        assert await table.of(False, 5, wait=0.001) is None

    run(test())


def test_a_lasting_one_serves_until_it_is_replaced() -> None:
    async def test() -> None:
        table: Announced[str] = Announced(lasting=True)
        waiting = [asyncio.ensure_future(table.of(False, 5)) for _ in range(3)]
        await asyncio.sleep(0)
        table.tell(False, 5, "one")
        assert await asyncio.gather(*waiting) == ["one"] * 3
        table.tell(False, 5, "two")
        assert [await table.of(False, 5) for _ in range(2)] == ["two", "two"]

    run(test())


def test_two_that_wait_share_none() -> None:
    async def test() -> None:
        table: Announced[str] = Announced()
        waiting = [asyncio.ensure_future(table.of(False, 5, wait=0.05)) for _ in range(2)]
        await asyncio.sleep(0)
        table.tell(False, 5, "one")
        assert sorted(await asyncio.gather(*waiting), key=str) == [None, "one"]

    run(test())


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announced, "MAX_KEPT", 3)

    async def test() -> None:
        table: Announced[int] = Announced()
        for n in range(10):
            table.tell(False, n, n)
        assert len(table._told) == 3
        waiting = [asyncio.ensure_future(table.of(False, 100 + n, wait=0.05)) for n in range(5)]
        assert await asyncio.gather(*waiting) == [None] * 5

    run(test())
