"""Agents: who runs, who was here, by which programs, with which grants and refusals; what becomes of grants after a change."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from remit_tui import agents
from remit_tui.agents import Agent
from remit_tui.client import each
from remit_tui.filters import written
from remit_tui.frame import Line
from remit_tui.records import Entry, Grant, Session
from remit_tui.screens.listing import Listing
from remit_tui.standing import Known
from remit_tui.text import shown

REFUSALS = 1000  # latest ones of all agents that are looked at


class Agents(Listing):
    """Lists agents by name."""

    NAME = "agents"
    EMPTY = "no agent is known"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,l", "ledger('')", "Its ledger", key_display="enter", tooltip="what this agent did", id="agents.ledger"),
        Binding("c", "update(True)", "Keep", tooltip="its program changed, and that is right: its grants hold", id="agents.keep"),
        Binding("D", "update(False)", "Drop", tooltip="its program changed: take back what was granted before", id="agents.drop"),
        Binding("r", "ledger('denied')", "Its refusals", tooltip="what this agent was refused", id="agents.refusals"),
    ]  # fmt: skip

    async def read(self) -> tuple[Agent, ...]:
        """Return the agents that sessions, grants and refusals name."""
        call = self.desk.client.call
        sessions = each(Session.of, await call("sessions"))
        grants = each(Grant.of, await call("grants"))
        refused = each(Entry.of, await call("denials", limit=REFUSALS))
        known = each(Known.of, await call("agents"))
        return agents.joined(sessions, grants, refused, self.desk.wall(), known)

    def idle(self) -> frozenset[str]:
        """Return what does nothing for the selected agent."""
        changed = self.item is not None and self.item.changed
        return frozenset() if changed else frozenset({"agents.keep", "agents.drop"})

    def key(self, item: Agent) -> str:
        """Return its name."""
        return item.name

    def text(self, item: Agent) -> str:
        """Return its name, where it works and what it runs."""
        programs = item.known.programs if item.known else ()
        marks = ("changed",) if item.changed else ()
        return " ".join((item.name, *item.projects, *(p.path for p in programs), *marks))

    def row(self, item: Agent, width: int, on: bool) -> Line:
        """Return its line."""
        return agents.row(item, self.desk.wall(), width, on)

    def detail(self, item: Agent, width: int) -> list[Line]:
        """Return all of it."""
        return agents.detail(item, self.desk.wall(), width)

    def action_ledger(self, more: str) -> None:
        """Go to what it did, or was refused."""
        if self.item is not None:
            self.desk.ledger(f"{written('agent', self.item.name)} {more}".strip())

    def action_update(self, keep: bool) -> None:
        """Say what becomes of what was granted before its program changed, once the person has said so again."""
        agent = self.item
        if agent is None or not agent.changed:
            self.say("its program has not changed; nothing waits for a word")
            return
        program = (
            agent.known.programs[0].path if agent.known and agent.known.programs else "another program"
        )
        grants = f"what was granted to {shown(agent.name)} before"
        what = f"which now runs {shown(program)}"
        question = f"keep {grants}, {what}" if keep else f"take back {grants}, {what}"
        done = "kept" if keep else "dropped"
        self.desk.confirm(
            question,
            lambda: self.desk.start(self.change("agent.update", done, name=agent.name, keep=keep)),
        )
