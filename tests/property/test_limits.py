"""Limits over any interleaving of points, lost frames, crashes and clocks: never more than the amount and what came back.

The truth is kept beside: one bucket that everything done or let go fills, emptied by as much as the clock ever moved forward. It
must never overflow. And nobody is locked out: when all have ended and time has passed, an act goes through again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Broker, Refused
from remit_daemon.broker.records import (
    Account,
    Session,
    account_of,
    grant_of,
    prompt_of,
    session_of,
    to_json,
)
from remit_daemon.wire.control import FIRST_OF_GATEWAY
from remit_policy.engine import Engine
from remit_policy.limits import Limit, Purse
from remit_policy.model import ALLOW, USER, Rule, Snapshot

AMOUNT, SECONDS = 96, 640
LIMITS = (
    Limit("user agent.a", "agent", "delete", AMOUNT, SECONDS, "u:1"),
    Limit("user agent.a", "session", "delete", 80, SECONDS, "u:2"),
)
BASE = Snapshot("a", (Rule(USER, ALLOW, "delete", "/w/**", source="u:3"),), limits=LIMITS)
PICK = st.integers(0, 7)


class Point:
    """An enforcement point: a purse, what it holds, and the frames on their way to it."""

    def __init__(self, session: str, gateway: str = "") -> None:
        self.session = session
        self.name = f"{session}/{gateway}" if gateway else session
        self.first = FIRST_OF_GATEWAY if gateway else 0
        self.purse = Purse(LIMITS)
        self.waiting: dict[int, int] = {}  # held acts: seq -> cost
        self.inbox: list[dict[str, Any]] = []
        self.connected = True


class Limited(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 10_000.0
        self.stored: dict[tuple[str, str], str] = {}
        self.broker = Broker(Engine, "/home/u", self.now)
        self.points: list[Point] = []
        self.seq = 0
        self.filled = 0.0
        self.born = 0
        self.start()
        self.start()

    # -- the world ---------------------------------------------------------------------------------

    def handle(self, event: ev.Event) -> None:
        try:
            commands = self.broker.handle(event, self.now)
        except Refused:
            return
        for c in commands:
            match c:
                case ev.Store():
                    self.stored[type(c.record).__name__.lower(), c.record.id] = to_json(c.record)
                case ev.Drop():
                    self.stored.pop((c.kind, c.id), None)
                case ev.Send():
                    to_gateway = c.frame.get("seq", 0) >= FIRST_OF_GATEWAY
                    for p in self.points:
                        if (p.session, bool(p.first)) == (c.session, to_gateway) and p.connected:
                            p.inbox.append(c.frame)
                            if (
                                c.frame.get("verdict") == "allow"
                            ):  # done sooner or later: it counts from here on
                                self.done(p.waiting.get(c.frame["seq"], 0))

    def start(self) -> None:
        self.born += 1
        ident = f"s{self.born}"
        session = Session(ident, "a", 1, "i", self.born, "/w", ("a",), self.now)
        self.handle(ev.Started(session, BASE))
        self.points += [Point(ident), Point(ident, f"g{self.born}")]

    def done(self, cost: int) -> None:
        self.filled += cost

    def tell(self, p: Point) -> None:
        for limit, used, returned, want in p.purse.due:
            if p.connected:
                self.handle(ev.Report(p.session, p.name, limit, used, returned, want))
        p.purse.due.clear()

    def ask(self, p: Point, seq: int) -> None:
        costs = (f"delete:{p.waiting[seq]}",)
        self.handle(ev.Ask(p.session, seq, ("delete",), f"/w/{seq}", costs=costs, short=True))

    def point(self, pick: int) -> Point:
        return self.points[pick % len(self.points)]

    # -- what can happen ---------------------------------------------------------------------------

    @rule(pick=PICK, cost=st.integers(1, 3), times=st.integers(1, 60), heard=st.booleans())
    def act(self, pick: int, cost: int, times: int, heard: bool) -> None:
        p = self.point(pick)
        for _ in range(times):
            if heard and p.connected:
                self.deliver(pick, 10)
            if len(p.waiting) > 2:
                return
            if p.purse.take((("delete", cost),)):
                self.done(cost)
                self.tell(p)
                continue
            self.tell(p)
            self.seq += 1
            seq = p.first + self.seq
            p.waiting[seq] = cost
            if p.connected:
                self.ask(p, seq)

    @rule(pick=PICK, many=st.integers(1, 6))
    def deliver(self, pick: int, many: int) -> None:
        p = self.point(pick)
        for _ in range(many):
            if not p.inbox:
                return
            frame = p.inbox.pop(0)
            if frame["type"] == "lease":
                p.purse.granted(frame["limit"], frame["given"], frame["recall"])
                self.tell(p)
            elif frame["type"] == "answer":
                p.waiting.pop(frame["seq"], 0)

    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        p = self.point(pick)
        p.connected = False
        p.inbox.clear()
        self.handle(ev.Lost(p.session, gateway=bool(p.first)))

    @rule(pick=PICK)
    def come_back(self, pick: int) -> None:
        p = self.point(pick)
        if p.connected:
            return
        p.connected = True
        if p.first:
            self.handle(ev.Lost(p.session, gateway=True))
        else:
            self.handle(ev.Started(self.broker.state.sessions[p.session], BASE))
        p.purse.settle()
        self.tell(p)
        for seq in list(p.waiting):
            self.ask(p, seq)

    @rule(pick=PICK)
    def gateway_anew(self, pick: int) -> None:
        p = self.point(pick)
        if p.first:
            self.born += 1
            self.points[self.points.index(p)] = Point(p.session, f"g{self.born}")
            self.handle(ev.Lost(p.session, gateway=True))

    @rule(pick=PICK, clean=st.booleans())
    def end(self, pick: int, clean: bool) -> None:
        ident = self.point(pick).session
        mine = [p for p in self.points if p.session == ident]
        late = []
        for p in mine if clean else ():
            p.purse.close()
            if p.first:
                late.append(p)
            else:
                self.tell(p)
        self.handle(ev.Ended(ident, 0))
        for p in late:
            self.tell(p)
        self.points = [p for p in self.points if p.session != ident]
        self.start()

    @rule()
    def daemon_killed(self) -> None:
        """All that was not stored is gone, and every connection."""

        def of(kind: str, read: Any) -> list[Any]:
            return [read(text) for (k, _), text in self.stored.items() if k == kind]

        broker = Broker(Engine, "/home/u", self.now)
        broker.load(
            of("session", session_of),
            of("prompt", prompt_of),
            of("grant", grant_of),
            of("account", account_of),
        )
        broker.state.next_prompt = self.broker.state.next_prompt
        for ident in {p.session for p in self.points}:
            broker.state.bases[ident] = BASE
        self.broker = broker
        for p in self.points:
            p.connected = False
            p.inbox.clear()

    @rule(seconds=st.floats(0.1, 100))
    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.filled = max(0.0, self.filled - seconds * AMOUNT / SECONDS)

    @rule(seconds=st.floats(1, 5000))
    def clock_goes_back(self, seconds: float) -> None:
        self.now -= seconds

    @rule()
    def tick(self) -> None:
        self.handle(ev.Tick())

    # -- the laws ----------------------------------------------------------------------------------

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert self.filled <= AMOUNT * (1 + 1e-6)

    @invariant()
    def what_is_stored_is_what_is_known(self) -> None:
        kept: dict[str, Account] = {
            ident: account_of(text) for (kind, ident), text in self.stored.items() if kind == "account"
        }
        known = self.broker.state.accounts
        assert kept == {i: replace(a, at=kept[i].at if i in kept else -1.0) for i, a in known.items()}

    def teardown(self) -> None:
        for ident in {p.session for p in self.points}:
            self.handle(ev.Ended(ident, None))
        self.points.clear()
        self.start()
        p = self.points[0]
        p.waiting[0] = 1
        self.ask(p, 0)  # wherever the clock is now: from here on it goes forward
        p.inbox.clear()
        self.now += 2 * SECONDS + 1
        p.purse.take((("delete", 1),))
        self.tell(p)
        p.waiting[1] = 1
        self.ask(p, 1)
        assert {"type": "answer", "verdict": "allow"}.items() <= p.inbox[-1].items(), p.inbox


TestLimits = Limited.TestCase
TestLimits.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
