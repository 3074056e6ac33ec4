"""The agents that are known by name, and the programs that were seen under each.

The name carries what a person has granted; a program's digest attests that it is that agent's. Programs are updated daily, so a new digest under
a known name is told and recorded but no alarm: by default what was granted is carried over, because whoever starts a program by its
name means what is installed under it now, and a question at each update would be answered without reading. Who wants to be asked says
``on_change = "ask"`` in the agent's policy.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

MAX_PROGRAMS = 30  # kept for one name, the latest seen: a month of daily updates
LAUNCHED, REGISTERED, ADOPTED = "launched", "registered", "adopted"


@dataclass(frozen=True, slots=True)
class Program:
    """A program by its SHA-256: the native one's, or the script's. ``interpreter_digest`` is that of what ran the script, "" when not known."""

    digest: str
    path: str
    how: str
    first_seen: float
    last_seen: float
    interpreter_digest: str = ""
    publisher: str = ""


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """A name. ``changed`` is when a program was last new under it, ``pending`` that grants from before wait for the person's word."""

    name: str
    created: float
    programs: tuple[Program, ...] = ()
    changed: float | None = None
    pending: bool = False

    def before(self, path: str) -> Program | None:
        """Return what a new program at ``path`` comes in the place of: what was seen there last, or else what was seen last."""
        there = [p for p in self.programs if p.path == path]
        return max(there or self.programs, key=lambda p: p.last_seen, default=None)

    def knows(self, digest: str, interpreter_digest: str = "") -> bool:
        """Tell whether a program of this digest was seen under the name, run by that interpreter where one was noted."""
        return any(
            p.digest == digest and p.interpreter_digest in ("", interpreter_digest) for p in self.programs
        )

    def updated(self, program: Program) -> KnownAgent:
        """Return the agent with ``program`` in the place of what is known under its digest."""
        rest = [p for p in self.programs if p.digest != program.digest]
        rest.sort(key=lambda p: p.last_seen)
        return replace(self, programs=(*rest[-MAX_PROGRAMS + 1 :], program))


def seen(known: KnownAgent | None, name: str, program: Program) -> tuple[KnownAgent, Program | None]:
    """Take note of ``program`` under ``name``; returns the agent as it is now, and what it ran before when this one is new under a known name."""
    if known is None:
        return KnownAgent(name, program.first_seen, (program,)), None
    old = next((p for p in known.programs if p.digest == program.digest), None)
    if old is None:
        return known.updated(program), known.before(program.path)
    kept = replace(
        old, path=program.path, last_seen=program.last_seen,
        interpreter_digest=program.interpreter_digest or old.interpreter_digest,
    )  # fmt: skip
    return known.updated(kept), None


def to_json(agent: KnownAgent) -> str:
    """Return ``agent`` as ASCII JSON."""
    return json.dumps(asdict(agent), separators=(",", ":"))


def of_json(text: str) -> KnownAgent:
    """Read what ``to_json`` wrote. Raises ValueError, KeyError or TypeError when it is none."""
    raw = json.loads(text)
    raw["programs"] = tuple(Program(**p) for p in raw["programs"])
    return KnownAgent(**raw)
