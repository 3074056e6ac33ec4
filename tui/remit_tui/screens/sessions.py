"""Sessions: what runs and ran, how to pause and end it, and the way to its rows of the ledger."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from remit_tui import rows
from remit_tui.client import each
from remit_tui.filters import written
from remit_tui.frame import Line
from remit_tui.records import Session
from remit_tui.screens.listing import Listing

_ORDER = {"running": 0, "paused": 0}  # those first that can be steered


class Sessions(Listing):
    """Lists sessions, those that run first."""

    NAME = "sessions"
    EMPTY = "no session is known; remit run -- CMD starts one"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,l", "ledger", "Its ledger", key_display="enter", tooltip="what this session did", id="sessions.ledger"),
        Binding("p", "pause", "Pause", key_display="p", tooltip="pause it, or let it go on", id="sessions.pause"),
        Binding("exclamation_mark", "stop", "Stop", key_display="!", tooltip="end it; asks once more", id="sessions.stop"),
    ]  # fmt: skip

    async def read(self) -> tuple[Session, ...]:
        """Return all sessions that remitd knows."""
        found = each(Session.of, await self.desk.client.call("sessions"))
        return tuple(sorted(found, key=lambda s: (_ORDER.get(s.state, 1), -s.started)))

    def key(self, item: Session) -> str:
        """Return its id."""
        return item.id

    def text(self, item: Session) -> str:
        """Return its names and its project."""
        return " ".join((item.id, item.agent, item.state, item.project, *item.argv))

    def row(self, item: Session, width: int, on: bool) -> Line:
        """Return its line."""
        return rows.session_row(item, self.desk.wall(), width, on)

    def detail(self, item: Session, width: int) -> list[Line]:
        """Return all of it."""
        return rows.session_detail(item, self.desk.wall(), width)

    def action_ledger(self) -> None:
        """Go to what it did."""
        if self.item is not None:
            self.desk.ledger(written("session", self.item.id))

    def action_pause(self) -> None:
        """Pause it, or let it go on."""
        if self.item is not None:
            action = "resume" if self.item.state == "paused" else "pause"
            self.desk.steer(self.item.id, self.item.agent, action)

    def action_stop(self) -> None:
        """End it, once the person has said so again."""
        if self.item is not None:
            self.desk.steer(self.item.id, self.item.agent, "stop")
