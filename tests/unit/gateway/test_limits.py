"""Limits at a gateway: paid from leases, asked for one act where there is none, counted while bytes flow."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from remit_daemon.gateway.authority import Authority, Origin, Permit, Refused
from remit_daemon.gateway.journal import Journal
from remit_policy.limits import MONEY, Limit
from remit_policy.model import ALLOW, ASK, USER, Rule, Snapshot

ORIGIN = Origin(7, "77", "/usr/bin/curl", "curl")
HOST = "a.example.com:443"
RULES = (
    Rule(USER, ALLOW, "connect", "a.example.com", source="u:1"),
    Rule(USER, ALLOW, "request", "POST a.example.com/**", source="u:2", cost=MONEY // 50),
)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


class World:
    def __init__(self, directory: Path, kind: str, amount: int) -> None:
        self.limit = Limit("user agent.a", "agent", kind, amount, 3600, "u:9")
        snapshot = Snapshot("a", RULES, limits=(self.limit,))
        self.authority = Authority(snapshot, Journal(str(directory / "journal")), hold=5.0)
        self.said: list[dict[str, Any]] = []
        self.authority.say = self.said.append

    def give(self, given: int) -> None:
        self.authority.leases.given(self.limit.ident, given, False)

    async def asking(self, op: str = "connect", resource: str = HOST) -> tuple[asyncio.Task[Permit], int]:
        """Begin an act that must ask; returns it and its ask's number."""
        task = asyncio.create_task(self.authority.permit(op, resource, ORIGIN))
        for _ in range(5):
            await asyncio.sleep(0)
        ask = self.said[-1]
        assert (ask["type"], ask["short"]) == ("ask", True)
        return task, ask["seq"]


def test_without_a_lease_each_act_asks_and_with_one_none_does(tmp_path: Path) -> None:
    async def work() -> None:
        w = World(tmp_path, "calls", 100)
        task, seq = await w.asking()
        assert [f["type"] for f in w.said] == ["lease", "ask"]
        assert w.said[0] == {
            "type": "lease",
            "limit": w.limit.ident,
            "used": 0,
            "returned": 0,
            "want": True,
        }
        assert w.said[1]["costs"] == ["calls:1"]
        w.authority.questions.answered(seq, "allow")
        assert not (await task).answered, "nobody was asked"
        w.give(6)
        for _ in range(6):
            await w.authority.permit("connect", HOST, ORIGIN)
        assert [f["type"] for f in w.said] == ["lease", "ask", "lease"]
        assert w.authority.permit_now("connect", HOST, ORIGIN) is None, "and then remitd is asked again"

    run(work())


def test_equal_acts_that_are_short_are_questions_of_their_own(tmp_path: Path) -> None:
    async def work() -> None:
        w = World(tmp_path, "calls", 100)
        one, first = await w.asking()
        two, second = await w.asking()
        assert first != second
        w.authority.questions.answered(first, "allow")
        w.authority.questions.answered(second, "deny", "enough")
        await one
        with pytest.raises(Refused, match="the answer was no: enough"):
            await two

    run(work())


def test_a_request_costs_what_its_rule_says(tmp_path: Path) -> None:
    async def work() -> None:
        w = World(tmp_path, "spend", MONEY)
        _, _ = await w.asking("request", "POST https://a.example.com/v1")
        assert w.said[-1]["costs"] == [f"spend:{MONEY // 50}"]
        await w.authority.permit("connect", HOST, ORIGIN)  # costs nothing

    run(work())


def test_bytes_end_a_connection_unless_a_person_allowed_it(tmp_path: Path) -> None:
    async def work() -> None:
        w = World(tmp_path, "bytes", 16_000)
        task, seq = await w.asking()
        w.authority.questions.answered(seq, "allow")
        permit = await task
        w.give(1000)
        passed = 0
        while permit.flow(100):
            passed += 100
        assert passed == 2000, "the lease, and one more while more is asked for"
        w.give(1000)
        task, seq = await w.asking()
        w.authority.questions.answered(seq, "allow", prompt="p1")
        permit = await task
        assert permit.answered
        assert all(permit.flow(1000) for _ in range(20))
        w.said.clear()
        w.authority.leases.end()
        assert w.said[-1]["used"] >= 22_000, "counted all the same"

    run(work())


def test_a_new_ask_of_the_policy_is_another_question_than_the_limit_s(tmp_path: Path) -> None:
    async def work() -> None:
        w = World(tmp_path, "calls", 100)
        task, _ = await w.asking()
        asks = Rule(USER, ASK, "connect", "a.example.com", source="u:1")
        w.authority.adopt(Snapshot("a", (asks,), limits=(w.limit,)))
        with pytest.raises(Refused):
            await task

    run(work())
