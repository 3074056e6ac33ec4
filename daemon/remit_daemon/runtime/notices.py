"""What the desktop shows of waiting questions, and when. Pure: times are seconds, commands are for ``desktop``.

One notification for each agent that a person started, with what it delegated to under names of its own choice; replaced with a count
while questions come faster than GAP, closed when none waits. What it
says came from an agent and is escaped twice: control and invisible characters as everywhere, and markup, which servers
read in a body (Desktop Notifications Specification 1.2, "Markup"). It can deny the one question that it shows, never allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape as markup
from typing import Any

from remit_daemon.broker.records import OF
from remit_daemon.wire.escape import escape
from remit_daemon.wire.words import verbs

GAP = 5.0  # seconds between two showings for one agent: a burst is one notification with a count
MAX_RESOURCE = (
    300  # characters: servers cut long bodies where they like, and whoever wants all of it reviews
)
MAX_AGENT = 60
DENY, REVIEW = "deny", "review"


@dataclass(frozen=True, slots=True)
class Show:
    """Show a notification for ``agent`` in the place of ``replaces`` (0: a new one)."""

    agent: str
    replaces: int
    summary: str
    body: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """Close the notification ``ident``."""

    ident: int


@dataclass(slots=True)
class _Agent:
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    ident: int = 0  # the server's number of what is shown, 0 for nothing
    last: float = float("-inf")
    fresh: bool = False  # something came that was not shown
    single: str = ""  # the one prompt that is shown


class Notices:
    """See the module's text. ``can_review`` is whether there is a terminal to be opened."""

    def __init__(self, *, can_review: bool) -> None:
        self._agents: dict[str, _Agent] = {}
        self._can_review = can_review
        self.quiet = False  # while it is, what comes is kept to be shown afterwards

    def prompt(self, view: dict[str, Any]) -> None:
        """Take note of a wire Prompt that is open; one that a person looks at calls nobody."""
        agent = self._agents.setdefault(view["agent"].rpartition(OF)[2], _Agent())
        if view["id"] not in agent.waiting:
            agent.waiting[view["id"]] = view
            agent.fresh = agent.fresh or not view["looking"]

    def done(self, ident: str) -> None:
        """Take note of a prompt that is settled or missed."""
        for agent in self._agents.values():
            if agent.waiting.pop(ident, None) is not None and agent.ident and agent.waiting:
                agent.fresh = True

    def due(self, now: float) -> list[Show | Close]:
        """Return what is to be done at ``now``."""
        out: list[Show | Close] = []
        for name, agent in list(self._agents.items()):
            if not agent.waiting:
                if agent.ident:
                    out.append(Close(agent.ident))
                if now - agent.last >= GAP:
                    del self._agents[name]
                else:
                    agent.ident, agent.fresh, agent.single = 0, False, ""
            elif agent.fresh and not self.quiet and now - agent.last >= GAP:
                agent.fresh, agent.last = False, now
                out.append(self._show(name, agent))
        return out

    def next_due(self) -> float | None:
        """Return when ``due`` has something to do by time alone, None when there is no such time."""
        times = [a.last + GAP for a in self._agents.values() if a.fresh or not a.waiting]
        return min(times, default=None)

    def shown(self, name: str, ident: int) -> list[Close]:
        """Take note of the server's number for what was shown for agent ``name``; what was settled meanwhile is closed."""
        agent = self._agents.get(name)
        if agent is None or not agent.waiting:
            return [Close(ident)]
        agent.ident = ident
        return []

    def closed(self, ident: int) -> None:
        """Take note of a notification that is gone; its questions wait on."""
        for agent in self._agents.values():
            if agent.ident == ident:
                agent.ident, agent.single = 0, ""

    def denied(self, ident: int) -> str:
        """Return the prompt that "Deny" on the notification ``ident`` is about, "" when it is about none alone."""
        return next((a.single for a in self._agents.values() if ident and a.ident == ident), "")

    def is_ours(self, ident: int) -> bool:
        """Tell whether ``ident`` is shown by us."""
        return any(ident and a.ident == ident for a in self._agents.values())

    def _show(self, name: str, agent: _Agent) -> Show:
        count = len(agent.waiting)
        newest = list(agent.waiting.values())[-1]
        agent.single = newest["id"] if count == 1 else ""
        shown = _cut(escape(newest["agent"] if count == 1 else name), MAX_AGENT)
        what = f"{', '.join(verbs(newest['ops']))} {_cut(escape(newest['path']), MAX_RESOURCE)}"
        if count == 1:
            summary, body = f"{shown} asks", f"It wants to {what}"
        else:
            summary, body = f"{shown} asks {count} questions", f"The newest: to {what}"
        actions = ((REVIEW, "Review") if self._can_review else ()) + ((DENY, "Deny") if count == 1 else ())
        where = "" if self._can_review else "\nremit tui answers it"
        return Show(name, agent.ident, summary, markup(body, quote=False) + where, actions)


def _cut(text: str, most: int) -> str:
    """Return ``text``, its middle left out where it is longer than ``most``: the end of a path says the most."""
    return text if len(text) <= most else f"{text[: most // 3]} … {text[-(most - most // 3) :]}"
