"""Agents: who runs, who was here, with which grants and refusals."""

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

REFUSALS = 1000  # latest ones of all agents that are looked at


class Agents(Listing):
    """Lists agents by name."""

    NAME = "agents"
    EMPTY = "no agent is known"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,l", "ledger('')", "Its ledger", key_display="enter", tooltip="what this agent did", id="agents.ledger"),
        Binding("r", "ledger('denied')", "Its refusals", tooltip="what this agent was refused", id="agents.refusals"),
    ]  # fmt: skip

    async def read(self) -> tuple[Agent, ...]:
        """Return the agents that sessions, grants and refusals name."""
        call = self.desk.client.call
        sessions = each(Session.of, await call("sessions"))
        grants = each(Grant.of, await call("grants"))
        refused = each(Entry.of, await call("denials", limit=REFUSALS))
        return agents.joined(sessions, grants, refused, self.desk.wall())

    def key(self, item: Agent) -> str:
        """Return its name."""
        return item.name

    def text(self, item: Agent) -> str:
        """Return its name and where it works."""
        return " ".join((item.name, *item.projects))

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
