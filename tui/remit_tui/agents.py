"""Agents as remitd knows them by name, joined with their sessions, grants and refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from remit_daemon.wire.words import moment_text
from remit_tui.frame import Line
from remit_tui.records import Entry, Grant, Session
from remit_tui.rows import entry_row, exactly, pad
from remit_tui.standing import Known
from remit_tui.text import fold, shown, span, wrap
from remit_tui.words import field

REFUSALS = 5  # of an agent's latest refusals that its detail lists


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent by name. ``seen`` is when its last session ran, in s since the epoch; it is now where one runs. ``withheld`` of its
    grants wait for a word on its program, which ``known`` says was changed."""

    name: str
    running: tuple[Session, ...]
    sessions: int
    seen: float
    grants: int
    unused: int
    denied: int
    refusals: tuple[Entry, ...]
    projects: tuple[str, ...]
    withheld: int = 0
    known: Known | None = None

    @property
    def pending(self) -> bool:
        """Whether its grants wait until a person says what becomes of them."""
        return self.known is not None and self.known.pending

    @property
    def changed(self) -> bool:
        """Whether its program changed, its grants being from before, and nobody has said that this is right."""
        return self.pending or (
            self.known is not None and self.known.changed is not None and self.grants > 0
        )


def joined(
    sessions: tuple[Session, ...],
    grants: tuple[Grant, ...],
    refused: tuple[Entry, ...],
    wall: float,
    known: tuple[Known, ...] = (),
) -> tuple[Agent, ...]:
    """Return the agents, those about which a person is asked first, then those that run, then by when they were last seen."""
    by_name = {k.name: k for k in known}
    names = {x.agent for some in (sessions, grants, refused) for x in some} | by_name.keys()
    withheld = Counter(g.agent for g in grants if g.withheld)
    held = Counter(g.agent for g in grants)
    unused = Counter(g.agent for g in grants if g.last_used is None)
    denied = Counter(e.agent for e in refused)
    out = []
    for name in names:
        mine = sorted((s for s in sessions if s.agent == name), key=lambda s: s.started, reverse=True)
        running = tuple(s for s in mine if s.state != "ended")
        latest = [e for e in refused if e.agent == name][-REFUSALS:]
        programs = by_name[name].programs if name in by_name else ()
        times = [
            *(s.ended or s.started for s in mine),
            *(e.time for e in latest),
            *(p.last_seen for p in programs),
        ]
        seen = wall if running else max(times, default=0.0)
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
                withheld[name],
                by_name.get(name),
            )
        )
    return tuple(sorted(out, key=lambda a: (not a.changed, not a.running, -a.seen, a.name)))


def row(agent: Agent, wall: float, width: int, on: bool) -> Line:
    """Return an agent's line in the list."""
    state = f"runs ({len(agent.running)})" if agent.running else "idle"
    if agent.known and agent.known.adopted and not agent.running:
        state = f"runs ({len(agent.known.adopted)})"
    seen = (
        "now" if state.startswith("runs") else f"{span(wall - agent.seen)} ago" if agent.seen else "never"
    )
    text = (
        f"{'▸' if on else ' '} {pad(shown(agent.name) or '(no name)', 18)} {pad(state, 9)} seen {pad(seen, 10)}"
        f" {pad(f'{agent.grants} grants', 10)} {pad(f'{agent.denied} refused', 11)}"
    )
    if agent.changed:
        text += "CHANGED"
    return [("reverse" if on else "", pad(text, width))]


def detail(agent: Agent, wall: float, width: int) -> list[Line]:
    """Return what is known of an agent, its latest refusals last."""
    lines: list[Line] = [[("bold", part)] for part in fold(shown(agent.name) or "(no name)", width)]
    if agent.changed:
        wait = (
            f"{agent.withheld} of its grants wait for your word" if agent.pending else "its grants hold on"
        )
        text = f"another program runs under this name than before: {wait}; c keeps them, D drops them"
        lines += field("CHANGED", text, width, "bold", wrap)
    for s in agent.running:
        text = f"session {shown(s.id)} ({shown(s.state)}) since {span(wall - s.started)}, in {shown(s.project)}"
        lines += field("runs", text, width)
    lines += field("sessions", f"{agent.sessions} known to remitd", width)
    if agent.seen and not agent.running:
        lines += field("seen", exactly(agent.seen), width)
    if agent.known is not None:
        lines += _programs(agent.known, width)
    lines += field("grants", f"{agent.grants}, {agent.unused} of them never used", width)
    if agent.projects:
        lines += field("in", ", ".join(map(shown, agent.projects)), width)
    lines += field("refused", f"{agent.denied} of the latest refusals are its own", width)
    return [*lines, *(entry_row(e, width, False) for e in agent.refusals)]


def _programs(known: Known, width: int) -> list[Line]:
    """Return what ``known`` was seen to run, the latest first, and what was adopted."""
    lines: list[Line] = []
    if known.adopted:
        text = f"{', '.join(map(str, known.adopted))}: called so until they end, and not confined by that"
        lines += field("adopted", text, width)
    if known.changed is not None:
        lines += field("changed", moment_text(known.changed), width)
    for i, p in enumerate(known.programs):
        lines += field("program" if i == 0 else "before", shown(p.path), width)
        by = f"; run by {shown(p.interpreter[:12])}" if p.interpreter else ""
        whose = f"; {shown(p.publisher)}" if p.publisher else ""
        text = f"sha256 {shown(p.digest)}; {shown(p.how)} {moment_text(p.first_seen)}, last seen {moment_text(p.last_seen)}{by}{whose}"
        lines += field("", text, width)
    return lines
