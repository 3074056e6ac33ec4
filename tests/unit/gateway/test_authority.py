"""What a session may do, decided, recorded, asked and held, with a journal in a file and a clock that stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fakes.clock import Clock
from remit_daemon.gateway import authority as module
from remit_daemon.gateway import meters, questions
from remit_daemon.gateway.authority import Authority, Origin, Permit, Refused
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_daemon.wire.journal import JournalFailed
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule, Snapshot

ORIGIN = Origin(7, "77", "/usr/bin/curl", "curl")
HOST = "a.example.com:443"


def rule(verdict: int, pattern: str, op: str = "connect", **kw: Any) -> Rule:
    return Rule(USER, verdict, op, pattern, source="user.toml:1", **kw)


class World:
    """An authority, what it said to remitd, and what its journal holds."""

    def __init__(
        self, directory: Path, *rules: Rule, hold: float = 0.0, journal: type[Journal] = Journal
    ) -> None:
        self.clock = Clock()
        self.path = directory / "journal"
        self.journal = journal(str(self.path), clock=lambda: 5)
        self.authority = Authority(
            Snapshot("bench", rules),
            self.journal,
            agent="bench",
            hold=hold,
            clock=self.clock,
            minute=lambda: 0,
        )
        self.said: list[dict[str, Any]] = []
        self.authority.say = self.said.append

    def rows(self) -> list[list[str]]:
        return [fields for fields, _ in records.unpack(self.path.read_bytes())]

    def told(self) -> list[tuple[str, ...]]:
        """Return each act as (op, verdict, outcome, path) and each end as ("done", seq, outcome)."""
        return [(f[3], f[4], f[5], f[10]) if f[0] == "act" else ("done", f[1], f[3]) for f in self.rows()]

    async def permit(self, resource: str = HOST, op: str = "connect", **kw: Any) -> Permit:
        return await self.authority.permit(op, resource, ORIGIN, **kw)

    async def refused(self, resource: str = HOST, op: str = "connect", **kw: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.permit(resource, op, **kw)
        return caught.value

    def adopt(self, *rules: Rule) -> None:
        self.authority.adopt(Snapshot("bench", rules))

    def asks(self) -> list[dict[str, Any]]:
        return [f for f in self.said if f["type"] == "ask"]


Make = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Make:
    return lambda *rules, **kw: World(tmp_path, *rules, **kw)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_an_allowed_act_is_recorded_before_it_and_completed_once(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST))
        permit = await w.permit()
        assert w.told() == [("connect", "allow", "pending", HOST)]
        permit.done("ECONNREFUSED")
        permit.done("ok")
        assert w.told()[1:] == [("done", "1", "ECONNREFUSED")]

    run(work())


def test_a_denied_act_is_recorded_and_says_by_which_rule(world: Make) -> None:
    async def work() -> None:
        w = world(rule(DENY, HOST))
        refused = await w.refused()
        assert (refused.rule, refused.resource, refused.op) == ("user.toml:1", HOST, "connect")
        assert w.told() == [("connect", "deny", "refused", HOST)]
        assert w.said == []

    run(work())


@pytest.mark.parametrize("resource", ["", "a\0b:1", "x" * (module.MAX_RESOURCE + 1), "no port", "\udcff:1"])
def test_what_is_no_resource_is_refused_whatever_the_rules_allow(world: Make, resource: str) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, "*:*"))
        await w.refused(resource)

    run(work())


def test_identical_asks_share_one_question_and_one_answer(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ASK, "*.example.com:*"))
        three = [asyncio.ensure_future(w.permit()) for _ in range(3)]
        other = asyncio.ensure_future(w.permit("b.example.com:443"))
        await settled()
        assert [f["path"] for f in w.asks()] == [HOST, "b.example.com:443"]
        assert [f["count"] for f in w.authority.questions.frames()] == [3, 1]
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")
        permits = await asyncio.gather(*three)
        assert len({id(p) for p in permits}) == 3
        assert not other.done()
        w.authority.questions.answered(w.asks()[1]["seq"], "deny", "not that one")
        with pytest.raises(Refused, match="not that one"):
            await other
        assert w.authority.questions.frames() == []
        assert [t for t in w.told() if t[0] != "done"].count(("connect", "allow", "pending", HOST)) == 3

    run(work())


@pytest.mark.parametrize("verdict", ["", "ALLOW", "Allow", "yes", "ask", "deny"])
def test_only_the_word_allow_allows(world: Make, verdict: str) -> None:
    async def work() -> None:
        w = world(rule(ASK, HOST))
        held = asyncio.ensure_future(w.permit())
        await settled()
        w.authority.questions.answered(w.asks()[0]["seq"] + 1, "allow")  # of another ask
        await settled()
        assert not held.done()
        w.authority.questions.answered(w.asks()[0]["seq"], verdict)
        with pytest.raises(Refused):
            await held

    run(work())


def test_an_answer_does_not_pass_a_denial_that_came_meanwhile(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ASK, HOST))
        held = asyncio.ensure_future(w.permit())
        await settled()
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")
        w.adopt(rule(DENY, HOST))  # in force before the one who waits has run
        with pytest.raises(Refused):
            await held
        assert ("connect", "allow", "pending", HOST) not in w.told()

    run(work())


@pytest.mark.parametrize(("verdict", "passes"), [(ALLOW, True), (DENY, False)])
def test_a_snapshot_settles_what_is_held(world: Make, verdict: int, passes: bool) -> None:
    async def work() -> None:
        w = world(rule(ASK, "*:*"))
        held, still = asyncio.ensure_future(w.permit()), asyncio.ensure_future(w.permit("other.org:1"))
        await settled()
        w.adopt(rule(ASK, "*:*"), rule(verdict, HOST))
        await settled()
        assert held.done()
        assert (held.exception() is None) == passes
        assert not still.done()
        assert [f["seq"] for f in w.said if f["type"] == "cancel"] == [w.asks()[0]["seq"]]
        still.cancel()
        await settled()
        assert w.authority.questions.frames() == []

    run(work())


def test_a_hold_ends_by_its_time_and_by_giving_up(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ASK, "*:*"))
        refused = await w.refused(hold=0.01)
        assert "nobody answered" in refused.reason
        gone = asyncio.Event()
        held = asyncio.ensure_future(w.permit(gone=gone))
        await settled()
        gone.set()
        with pytest.raises(Refused, match="gave up"):
            await held
        assert [f["why"] for f in w.said if f["type"] == "cancel"] == ["expired", "gone"]
        assert [t[2] for t in w.told() if t[0] == "done"] == ["expired", "gone"]

    run(work())


def test_who_gave_up_is_not_let_in_by_a_late_answer(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ASK, HOST))
        gone = asyncio.Event()
        held = asyncio.ensure_future(w.permit(gone=gone))
        await settled()
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")
        gone.set()
        with pytest.raises(Refused, match="gave up"):
            await held

    run(work())


def test_too_many_questions_and_too_many_who_wait_are_refused(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MAX_HELD", 2)
    monkeypatch.setattr(questions, "MAX_WAITING", 3)

    async def work() -> None:
        w = world(rule(ASK, "*:*"))
        tasks = [asyncio.ensure_future(w.permit(h)) for h in ("a.org:1", "b.org:1")]
        await settled()
        assert "too many questions" in (await w.refused("c.org:1")).reason
        tasks.append(asyncio.ensure_future(w.permit("a.org:1")))
        await settled()
        assert "too many operations" in (await w.refused("a.org:1")).reason
        for task in tasks:
            task.cancel()
        await settled()
        assert w.authority.questions.frames() == []
        assert len(w.asks()) == 2

    run(work())


def test_a_rate_that_is_spent_asks(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST, rate=(2, 60)))
        for _ in range(2):
            (await w.permit()).done()
        assert w.asks() == []
        held = asyncio.ensure_future(w.permit())
        await settled()
        assert len(w.asks()) == 1
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")
        (await held).done()
        w.clock.pass_(30.0)
        (await w.permit()).done()
        assert len(w.asks()) == 1

    run(work())


def test_a_budget_that_is_spent_ends_and_asks_until_it_is_back(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST, budget=(1000, 100)))
        permit = await w.permit()
        assert permit.spend(1000)
        assert not permit.spend(1)
        held = asyncio.ensure_future(w.permit())
        await settled()
        assert len(w.asks()) == 1
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")
        assert (await held).spend(10**9)  # the person said yes to this one
        w.clock.pass_(200.0)
        assert (await w.permit()).spend(1000)

    run(work())


def test_a_snapshot_revokes_what_it_no_longer_gives(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, "*.example.com:*"))
        kept, lost, over = await w.permit("k.example.com:1"), await w.permit(), await w.permit()
        revoked: list[str] = []
        kept.on_revoked = lambda: revoked.append("kept")
        lost.on_revoked = lambda: revoked.append("lost")
        over.on_revoked = lambda: revoked.append("over")
        over.done()
        w.adopt(rule(ALLOW, "k.example.com:1"))
        w.adopt(rule(ALLOW, "k.example.com:1"))
        assert revoked == ["lost"]

    run(work())


def test_what_is_revoked_before_it_could_say_how_ends_as_soon_as_it_says(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST))
        permit = await w.permit()  # its connection is still being made
        w.adopt()
        revoked: list[int] = []
        permit.on_revoked = lambda: revoked.append(1)
        assert revoked == [1]

    run(work())


def test_a_revocation_that_fails_leaves_the_others_revoked(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST))
        revoked: list[int] = []

        def fails() -> None:
            revoked.append(0)
            raise RuntimeError("broken")

        for _ in range(4):
            (await w.permit()).on_revoked = fails
        w.adopt()
        assert revoked == [0] * 4

    run(work())


def test_what_a_person_allowed_lasts_until_it_is_denied(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ASK, HOST))
        held = asyncio.ensure_future(w.permit())
        await settled()
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")
        permit = await held
        revoked: list[int] = []
        permit.on_revoked = lambda: revoked.append(1)
        w.adopt(rule(ASK, "*:*"))
        assert revoked == []
        w.adopt(rule(DENY, HOST))
        assert revoked == [1]

    run(work())


def test_a_snapshot_that_means_nothing_changes_nothing(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST))
        with pytest.raises(ValueError, match="not a network"):
            w.adopt(rule(ALLOW, "no/pattern of:a host:"))
        (await w.permit()).done()

    run(work())


class Failing(Journal):
    """A journal that takes nothing while ``broken``."""

    broken = False

    def _write(self, fields: list[str]) -> None:
        if self.broken:
            raise JournalFailed(28, "no space")
        super()._write(fields)


@pytest.mark.parametrize("op", ["connect", "resolve"])
@pytest.mark.parametrize("verdict", [ALLOW, ASK, DENY])
def test_without_a_row_there_is_no_permit(tmp_path: Path, verdict: int, op: str) -> None:
    resource = HOST if op == "connect" else "a.example.com"

    async def work() -> None:
        w = World(tmp_path, rule(verdict, resource, op), journal=Failing)
        journal = w.journal
        assert isinstance(journal, Failing)
        journal.broken = True
        for _ in range(2):  # a first use that could not be recorded is not taken as recorded
            await w.refused(resource, op)
        assert w.said == []
        assert w.told() == []
        journal.broken = False
        if verdict == ALLOW:
            await w.permit(resource, op)
            assert len(w.told()) == 1

    run(work())


def test_a_name_is_recorded_at_its_first_use_by_a_program(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, "*.example.com", "resolve"), rule(DENY, "bad.org", "resolve"))
        for _ in range(3):
            (await w.permit("a.example.com", "resolve")).done()
            await w.refused("bad.org", "resolve")
        await w.authority.permit("resolve", "a.example.com", Origin(8, "88", "/usr/bin/wget", "wget"))
        assert [t[1] for t in w.told()] == ["allow", "deny", "allow"]

    run(work())


def test_a_suspicious_act_is_asked_although_a_rule_allows_it(world: Make) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST))
        held = asyncio.ensure_future(w.permit(insist="odd"))
        await settled()
        assert w.asks()[0]["spent"] is True
        w.adopt(rule(ALLOW, HOST))  # the same rule is no answer
        await settled()
        assert not held.done()
        w.authority.questions.answered(w.asks()[0]["seq"], "allow")  # nobody was asked: no prompt
        with pytest.raises(Refused, match="nobody was asked"):
            await held
        held = asyncio.ensure_future(w.permit(insist="odd"))
        await settled()
        w.authority.questions.answered(w.asks()[1]["seq"], "allow", prompt="p1")
        (await held).done()

    run(work())


def test_any_fault_on_the_way_is_a_refusal(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        w = world(rule(ALLOW, HOST, rate=(9, 60)))
        monkeypatch.setattr(w.authority.engine, "decide", lambda *_: 1 / 0)
        await w.refused()
        monkeypatch.undo()
        monkeypatch.setattr(meters, "conditions", lambda *_: 1 / 0)
        await w.refused()
        monkeypatch.undo()
        (await w.permit()).done()

    run(work())


def test_too_many_open_permits_are_refused(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIVE", 2)

    async def work() -> None:
        w = world(rule(ALLOW, HOST))
        first, _ = await w.permit(), await w.permit()
        assert "too many connections" in (await w.refused()).reason
        first.done()
        await w.permit()

    run(work())
