"""Agents as remitd's sessions, grants and refusals know them, joined by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from remit_tui.frame import Line
from remit_tui.records import Entry, Grant, Session
from remit_tui.rows import entry_row, exactly, pad
from remit_tui.text import fold, shown, span
from remit_tui.words import field

REFUSALS = 5  # of an agent's latest refusals that its detail lists


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent by name. ``seen`` is when its last session ran, in s since the epoch; it is now where one runs."""

    name: str
    running: tuple[Session, ...]
    sessions: int
    seen: float
    grants: int
    unused: int
    denied: int
    refusals: tuple[Entry, ...]
    projects: tuple[str, ...]


def joined(
    sessions: tuple[Session, ...], grants: tuple[Grant, ...], refused: tuple[Entry, ...], wall: float
) -> tuple[Agent, ...]:
    """Return the agents, those that run first, then by when they were last seen."""
    names = {x.agent for some in (sessions, grants, refused) for x in some}
    held = Counter(g.agent for g in grants)
    unused = Counter(g.agent for g in grants if g.last_used is None)
    denied = Counter(e.agent for e in refused)
    out = []
    for name in names:
        mine = sorted((s for s in sessions if s.agent == name), key=lambda s: s.started, reverse=True)
        running = tuple(s for s in mine if s.state != "ended")
        latest = [e for e in refused if e.agent == name][-REFUSALS:]
        seen = (
            wall
            if running
            else max([*(s.ended or s.started for s in mine), *(e.time for e in latest)], default=0.0)
        )
        projects = tuple(dict.fromkeys(s.project for s in mine if s.project))
        out.append(
            Agent(
                name,
                running,
                len(mine),
                seen,
                held[name],
                unused[name],
                denied[name],
                tuple(latest[::-1]),
                projects,
            )
        )
    return tuple(sorted(out, key=lambda a: (not a.running, -a.seen, a.name)))


def row(agent: Agent, wall: float, width: int, on: bool) -> Line:
    """Return an agent's line in the list."""
    state = f"runs ({len(agent.running)})" if agent.running else "idle"
    seen = "now" if agent.running else f"{span(wall - agent.seen)} ago" if agent.seen else "never"
    text = (
        f"{'▸' if on else ' '} {pad(shown(agent.name) or '(no name)', 18)} {pad(state, 9)} seen {pad(seen, 10)}"
        f" {pad(f'{agent.grants} grants', 11)} {pad(f'{agent.denied} refused', 13)}"
    )
    return [("reverse" if on else "", pad(text, width))]


def detail(agent: Agent, wall: float, width: int) -> list[Line]:
    """Return what is known of an agent, its latest refusals last."""
    lines: list[Line] = [[("bold", part)] for part in fold(shown(agent.name) or "(no name)", width)]
    for s in agent.running:
        text = f"session {shown(s.id)} ({shown(s.state)}) since {span(wall - s.started)}, in {shown(s.project)}"
        lines += field("runs", text, width)
    lines += field("sessions", f"{agent.sessions} known to remitd", width)
    if agent.seen and not agent.running:
        lines += field("seen", exactly(agent.seen), width)
    lines += field("grants", f"{agent.grants}, {agent.unused} of them never used", width)
    if agent.projects:
        lines += field("in", ", ".join(map(shown, agent.projects)), width)
    lines += field("refused", f"{agent.denied} of the latest refusals are its own", width)
    return [*lines, *(entry_row(e, width, False) for e in agent.refusals)]
