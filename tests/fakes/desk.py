"""A broker with a clock and sessions, for telling single facts of it."""

from __future__ import annotations

from typing import Any

from fakes.clock import Clock
from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Broker
from remit_daemon.broker.records import Session
from remit_policy.engine import Engine
from remit_policy.model import Rule, Snapshot

HOME = "/home/u"


class Desk:
    def __init__(self, *rules: Rule) -> None:
        self.clock = Clock()
        self.broker = Broker(Engine, HOME, self.clock.now)
        self.rules = rules
        self.seq = 0

    def start(self, ident: str = "s1", agent: str = "claude", **fields: Any) -> str:
        session = Session(ident, agent, 1, "i", 1 << 61, HOME + "/work", (agent,), self.clock.now, **fields)
        self.handle(ev.Started(session, Snapshot(agent, self.rules)))
        return ident

    def handle(self, event: ev.Event) -> list[ev.Command]:
        return self.broker.handle(event, self.clock.now)

    def ask(self, session: str, path: str, *ops: str, **fields: Any) -> dict[str, Any]:
        self.seq += 1
        commands = self.handle(ev.Ask(session, self.seq, ops or ("read",), path, **fields))
        (frame,) = [c.frame for c in commands if isinstance(c, ev.Send)]
        return frame

    def answer(
        self, prompt: str, verdict: str = "allow", duration: str | int = "once", scope: str = ""
    ) -> list[Any]:
        return [
            (c.frame["type"], c.frame.get("verdict"))
            for c in self.handle(ev.Answer(prompt, verdict, duration, scope))
            if isinstance(c, ev.Send)
        ]
