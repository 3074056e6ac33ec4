"""Deciding for a session: one hold for identical asks, every way in which one ends, conditions, limits, revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.clock import Clock
from fakes.gateway import ORIGIN, policy, run
from remit_daemon.gateway import questions
from remit_daemon.gateway.authority import Authority, Origin, Permit, Refused
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_daemon.wire.control import FIRST_OF_GATEWAY

NET = '[role.probe.net]\nconnect = {{ allow = ["a.example"], ask = ["q.example", "r.example"], deny = ["d.example"] {} }}\n'
A, Q, R, D = "a.example:443", "q.example:443", "r.example:443", "d.example:443"


class World:
    def __init__(self, path: Path, text: str = NET.format("")) -> None:
        self.path = path / "journal"
        self.clock = Clock()
        self.minute = 600
        self.authority = Authority(
            policy(text),
            Journal(str(self.path), clock=lambda: 5),
            agent="probe",
            clock=self.clock,
            minute=lambda: self.minute,
        )
        self.said: list[dict[str, Any]] = []
        self.authority.say = self.said.append

    def ask(self, resource: str = Q, op: str = "connect", **more: Any) -> asyncio.Task[Permit]:
        return asyncio.ensure_future(self.authority.permit(op, resource, ORIGIN, **more))

    async def asked(self, count: int = 1) -> list[int]:
        """Return the numbers of the questions, once there are so many."""
        while len(found := [f["seq"] for f in self.said if f["type"] == "ask"]) < count:
            await asyncio.sleep(0)
        return found

    def rows(self) -> list[list[str]]:
        return [f for f, _ in records.unpack(self.path.read_bytes())]

    def acts(self) -> list[tuple[str, str]]:
        out: dict[str, tuple[str, str]] = {}
        for f in self.rows():
            out[f[1]] = (f[4], f[5]) if f[0] == "act" else (out[f[1]][0], f[3])
        return list(out.values())


def session(path: Path, text: str = NET.format("")) -> Callable[[Callable[[World], Any]], None]:
    def decorated(test: Callable[[World], Any]) -> None:
        async def whole() -> None:
            await test(World(path, text))

        run(whole())

    return decorated


async def refused(task: asyncio.Task[Permit]) -> Refused:
    with pytest.raises(Refused) as error:
        await task
    return error.value


# -- questions -------------------------------------------------------------------------------------


def test_identical_asks_share_one_question(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        tasks = [w.ask() for _ in range(5)] + [w.ask(R)]
        one, other = await w.asked(2)
        assert one >= FIRST_OF_GATEWAY
        assert [f["count"] for f in w.authority.questions.frames()] == [5, 1]
        w.authority.questions.answered(one, "allow", "", "p1")
        permits = await asyncio.gather(*tasks[:5])
        assert len({id(p) for p in permits}) == 5
        assert not tasks[5].done()
        w.authority.questions.answered(other, "deny", "not now", "p2")
        assert "not now" in (await refused(tasks[5])).reason
        for permit in permits:
            permit.done()
        assert w.acts() == [("ask", "allowed"), ("ask", "denied")] + [("allow", "ok")] * 5
        assert w.authority.questions.frames() == []


@pytest.mark.parametrize("verdict", ["deny", "ask", "", "ALLOW", "allowed", None, 1])
def test_only_allow_allows(tmp_path: Path, verdict: Any) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        task = w.ask()
        w.authority.questions.answered((await w.asked())[0] + 1, "allow")  # of another question
        w.authority.questions.answered((await w.asked())[0], verdict)
        await refused(task)


def test_nobody_answers(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        task = w.ask(hold=0.01)
        w.authority.questions.asked((await w.asked())[0], "p7")
        error = await refused(task)
        assert "nobody answered" in error.reason
        assert "p7" in error.how
        assert w.said[-1]["type"] == "cancel"
        assert w.said[-1]["why"] == "expired"
        assert w.acts() == [("ask", "expired")]
        w.authority.questions.answered(w.said[0]["seq"], "allow")  # too late: nothing is held


def test_the_last_who_waits_ends_it(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        events = asyncio.Event(), asyncio.Event()
        tasks = [w.ask(gone=e) for e in events]
        await w.asked()
        await asyncio.sleep(0)
        events[0].set()
        assert "gave up" in (await refused(tasks[0])).reason
        assert len(w.said) == 1
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        assert [f["type"] for f in w.said] == ["ask", "cancel"]
        assert w.acts() == [("ask", "gone")]


def test_who_left_before_the_answer_does_nothing(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        gone = asyncio.Event()
        task = w.ask(gone=gone)
        number = (await w.asked())[0]
        await asyncio.sleep(0)
        gone.set()
        w.authority.questions.answered(number, "allow")
        await refused(task)


@pytest.mark.parametrize(("now", "allowed"), [("allow", True), ("deny", False)])
def test_a_new_snapshot_settles_what_is_held(tmp_path: Path, now: str, allowed: bool) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        task = w.ask()
        await w.asked()
        w.authority.adopt(policy(f'[role.probe.net]\nconnect = {{ {now} = ["q.example"] }}\n'))
        if allowed:
            assert not (await task).answered
        else:
            await refused(task)
        assert w.said[-1]["type"] == "cancel"


def test_an_answer_is_held_against_the_policy_of_now(tmp_path: Path) -> None:
    """The answer and a snapshot that denies come in one go: the denial holds."""

    @session(tmp_path)
    async def _(w: World) -> None:
        task = w.ask()
        w.authority.questions.answered((await w.asked())[0], "allow")
        w.authority.adopt(policy('[role.probe.net]\nconnect = { deny = ["*"] }\n'))
        await refused(task)


def test_what_is_suspicious_needs_a_person(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        task = w.ask(A, insist="looks like a tunnel")
        number = (await w.asked())[0]
        assert w.said[0]["spent"]
        w.authority.adopt(policy(NET.format("")))  # that the rule still allows it settles nothing
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        w.authority.questions.answered(number, "allow")  # by no prompt: the daemon's own rule
        assert "nobody was asked" in (await refused(task)).reason
        task = w.ask(A, insist="looks like a tunnel")
        w.authority.questions.answered((await w.asked(2))[1], "allow", "", "p1")
        await task
        assert "looks like a tunnel" in w.rows()[0][14]


def test_too_many_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MAX_HELD", 3)
    monkeypatch.setattr(questions, "MAX_WAITING", 6)

    @session(tmp_path)
    async def _(w: World) -> None:
        tasks = [w.ask(f"{n}.example:1") for n in range(4)]
        assert "too many questions" in (await refused(tasks[3])).reason
        more = [w.ask("0.example:1") for _ in range(4)]
        assert "too many operations" in (await refused(more[3])).reason
        assert len(await w.asked()) == 3
        for task in (*tasks, *more):
            task.cancel()
        await asyncio.gather(*tasks, *more, return_exceptions=True)
        assert w.authority.questions._waiting == 0
        w.ask("x.example:1")
        await w.asked(4)


# -- conditions ------------------------------------------------------------------------------------


def test_a_spent_rate_asks_and_comes_back(tmp_path: Path) -> None:
    @session(tmp_path, NET.format(', rate = "2/min"'))
    async def _(w: World) -> None:
        await w.ask(A)
        await w.ask(A)
        task = w.ask(A)
        number = (await w.asked())[0]
        w.authority.questions.answered(number, "allow")
        assert (await task).answered
        w.clock.pass_(30)
        assert not (await w.ask(A)).answered


def test_a_window(tmp_path: Path) -> None:
    @session(tmp_path, NET.format(', window = "09:00-12:00"'))
    async def _(w: World) -> None:
        await w.ask(A)
        w.minute = 12 * 60
        w.ask(A)
        await w.asked()


def test_a_budget(tmp_path: Path) -> None:
    @session(tmp_path, NET.format(', budget = "1kB/100s"'))
    async def _(w: World) -> None:
        permit = await w.ask(A)
        assert permit.spend(600)
        assert permit.spend(400)
        assert not permit.spend(1)
        task = w.ask(A)
        w.authority.questions.answered((await w.asked())[0], "allow")
        assert (await task).spend(10**9)  # a person said yes
        w.clock.pass_(50)
        assert not (await w.ask(A)).answered
        assert permit.spend(400)
        assert not permit.spend(200)


def test_nothing_to_decide_is_denied(tmp_path: Path) -> None:
    @session(tmp_path, NET.format(""))
    async def _(w: World) -> None:
        for resource in (
            "",
            "a.example\0:443",
            "a" * 20_000,
            "a.example",
            "a.example:x",
            "a.example:0",
            "[::1:443",
            "a..example:1",
        ):
            await refused(w.ask(resource))
        for op in ("", "nothing", "connect "):
            await refused(w.ask(A, op=op))
        assert not any(f["type"] == "ask" for f in w.said)


def test_a_fault_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        monkeypatch.setattr(w.authority._meters, "counted", lambda *a: 1 / 0)
        assert "ZeroDivisionError" in (await refused(w.ask(A))).reason
        with pytest.raises(Refused):
            w.authority.permit_now("connect", A, ORIGIN)


def test_no_row_no_permit(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        w.authority.journal.close()
        for resource in (A, Q, D):
            await refused(w.ask(resource))
        assert not w.authority._live
        assert not w.authority.questions._held


# -- revocation ------------------------------------------------------------------------------------


def test_a_new_snapshot_revokes_what_it_does_not_give(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        ended: list[str] = []
        kept, lost = await w.ask(A), await w.ask(A)
        w.ask(Q)
        w.authority.questions.answered((await w.asked())[0], "allow")
        while len(w.authority._live) < 3:
            await asyncio.sleep(0)
        once = next(p for p in w.authority._live if p.resource == Q)
        kept.done()
        for name, permit in (("kept", kept), ("lost", lost), ("once", once)):
            permit.on_revoked = lambda name=name: ended.append(name)  # type: ignore[misc]
        changed: list[int] = []
        w.authority.on_change.append(lambda: changed.append(1))
        w.authority.adopt(policy('[role.probe.net]\nconnect = { ask = ["a.example"] }\n'))
        assert ended == ["lost"]  # what was allowed once stays until it is denied
        w.authority.adopt(policy('[role.probe.net]\nconnect = { deny = ["*"] }\n'))
        assert ended == ["lost", "once"]
        w.authority.adopt(policy(""))
        assert ended == ["lost", "once"]
        assert len(changed) == 3


def test_one_that_fails_to_end_leaves_none_behind(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        ended: list[int] = []

        def end(number: int) -> None:
            ended.append(number)
            raise RuntimeError("cannot")

        for n in range(5):
            (await w.ask(A)).on_revoked = lambda n=n: end(n)  # type: ignore[misc]
        w.authority.adopt(policy(""))
        assert sorted(ended) == [0, 1, 2, 3, 4]
        assert sum("cannot" in f[14] for f in w.rows() if f[0] == "act") == 5


def test_a_snapshot_that_means_nothing_changes_nothing(tmp_path: Path) -> None:
    from remit_policy.model import ALLOW, USER, Rule, Snapshot

    @session(tmp_path)
    async def _(w: World) -> None:
        before = w.authority.engine
        with pytest.raises(Exception):  # noqa: B017
            w.authority.adopt(Snapshot("probe", (Rule(USER, ALLOW, "connect", "no host at all:x"),)))
        assert w.authority.engine is before
        await w.ask(A)


# -- records ---------------------------------------------------------------------------------------


def test_look_ups_are_recorded_at_their_first_use_by_a_program(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        for exe in ("/bin/a", "/bin/a", "/bin/b"):
            (await w.authority.permit("resolve", "a.example", Origin(exe=exe))).done()
            with pytest.raises(Refused):
                await w.authority.permit("resolve", "d.example", Origin(exe=exe))
        assert w.acts() == [("allow", "passed"), ("deny", "refused")] * 2
        w.authority.adopt(policy(NET.format("")))
        await w.authority.permit("resolve", "a.example", Origin(exe="/bin/a"))
        assert len(w.acts()) == 5


def test_a_refusal_says_how(tmp_path: Path) -> None:
    @session(tmp_path)
    async def _(w: World) -> None:
        found = (await refused(w.ask(D))).as_dict()
        assert found["rule"].startswith("user.toml:")
        assert found["how"].endswith("remit policy why probe connect d.example:443")
        assert set(found) == {"error", "op", "resource", "reason", "rule", "how"}
