"""Sessions: what runs and ran, how to pause and end it, and the way to its rows of the ledger."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from remit_tui import report, rows
from remit_tui.client import GoneError, RpcError, each
from remit_tui.filters import written
from remit_tui.frame import Line
from remit_tui.records import Session
from remit_tui.screens.listing import Listing
from remit_tui.screens.view import Desk
from remit_tui.standing import Limit
from remit_tui.text import shown

_ORDER = {"running": 0, "paused": 0}  # those first that can be steered


class Sessions(Listing):
    """Lists sessions, those that run first."""

    NAME = "sessions"
    EMPTY = "no session is known; remit run -- CMD starts one"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,l", "ledger", "Its ledger", key_display="enter", tooltip="what this session did", id="sessions.ledger"),
        Binding("r", "report", "Report", tooltip="sum up what it did, and when", id="sessions.report"),
        Binding("p", "pause", "Pause", key_display="p", tooltip="pause it, or let it go on", id="sessions.pause"),
        Binding("exclamation_mark", "stop", "Stop", key_display="!", tooltip="end it; asks once more", id="sessions.stop"),
    ]  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._limits: tuple[Limit, ...] = ()
        self._depth: dict[str, int] = {}  # of each session below the one that the person started
        self._report: tuple[str, Any] = ("", None)  # of which session, and what remitd said

    async def read(self) -> tuple[Session, ...]:
        """Return all sessions that remitd knows, each followed by those that it started."""
        found = each(Session.of, await self.desk.client.call("sessions"))
        self._limits = each(Limit.of, await self.desk.client.call("limits"))
        family = rows.family(tuple(sorted(found, key=lambda s: (_ORDER.get(s.state, 1), -s.started))))
        self._depth = {s.id: depth for depth, s in family}
        return tuple(s for _, s in family)

    def key(self, item: Session) -> str:
        """Return its id."""
        return item.id

    def text(self, item: Session) -> str:
        """Return its names and its project."""
        marks = ("unconfined",) * (not item.confined) + ("limit",) * self._spent(item)
        return " ".join((item.id, item.agent, item.state, item.parent, item.project, *item.argv, *marks))

    def _spent(self, item: Session) -> bool:
        return item.state != "ended" and any(x.spent for x in rows.limits_of(item, self._limits))

    def idle(self) -> frozenset[str]:
        """Return what does nothing for the selected session."""
        return frozenset({"sessions.pause", "sessions.stop"} if self._over() else ())

    def _over(self) -> bool:
        return self.item is None or self.item.state == "ended"

    def row(self, item: Session, width: int, on: bool) -> Line:
        """Return its line."""
        return rows.session_row(
            item, self.desk.wall(), width, on, self._depth.get(item.id, 0), self._spent(item)
        )

    def detail(self, item: Session, width: int) -> list[Line]:
        """Return all of it."""
        whose, said = self._report
        limits = rows.limits_of(item, self._limits) if item.state != "ended" else ()
        lines = rows.session_detail(item, self.desk.wall(), width, limits)
        return [*lines, [("", "")], *report.lines(said, width)] if whose == item.id else lines

    def action_ledger(self) -> None:
        """Go to what it did."""
        if self.item is not None:
            self.desk.ledger(written("session", self.item.id))

    def action_report(self) -> None:
        """Ask for the sum of what it did."""
        if self.item is not None:
            self.desk.start(self._ask_report(self.item.id))

    async def _ask_report(self, session: str) -> None:
        try:
            said = await self.desk.client.call("report", session=session)
            report.lines(said, 80)
        except (RpcError, GoneError) as e:
            self.say(shown(str(e)) or "remitd gave no reason")
        except (TypeError, KeyError, ValueError, AttributeError):
            self.say("remitd said something unexpected")
        else:
            self._report = (session, said)
            self.fill()

    def action_pause(self) -> None:
        """Pause it, or let it go on."""
        if self._over():
            self.say("it has ended")
        else:
            action = "resume" if self.item.state == "paused" else "pause"
            self.desk.steer(self.item.id, self.item.agent, action)

    def action_stop(self) -> None:
        """End it, once the person has said so again."""
        if self._over():
            self.say("it has ended")
        else:
            self.desk.steer(self.item.id, self.item.agent, "stop")
