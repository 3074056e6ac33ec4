"""Words that every surface says alike: what an operation does, why something was decided, and how long is how long."""

from __future__ import annotations

import time
from collections.abc import Iterable

VERSION = "0.1.0"  # remit's own, as in pyproject.toml
NO_RULE = "no rule matches"

UNCONFINED = "unconfined: it says so itself, nothing holds it"

# How well it is told who a process is.
LEVELS = {
    "L3": "started by remit",
    "L2": "a program that is known under this name",
    "L1": "a script that is known under this name, by its interpreter's word",
    "L0": "nothing vouches for it",
}

# Operations whose names do not read as verbs before their resource.
_VERBS = {
    "exec": "run",
    "metadata": "change the metadata of",
    "connect": "connect to",
    "listen": "listen at",
    "resolve": "look up",
    "request": "send",
    "emit": "send the signal",
    "own": "own the name",
    "token": "have a token for",
}


def verbs(ops: Iterable[str]) -> list[str]:
    """Return operations as verbs: ``run``, ``connect to``."""
    return [_VERBS.get(op, op) for op in ops]


def rule_name(source: str) -> str:
    """Return a decision's rule as a person reads it: what no rule is about has the source ``default``, or none."""
    return NO_RULE if source in ("", "default") else source


OUTSIDE = "outside any session: it is whoever it says, for all that remit can tell"


def term(seconds: int) -> str:
    """Return a whole number of seconds in the largest unit that fits, as it may be written back: ``2h``, ``90s``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def span(seconds: float) -> str:
    """Return about how long ``seconds`` are, in the one unit that says most: ``3d``, ``5h``, ``12m``, ``40s``."""
    past = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if past >= size:
            return f"{past // size}{unit}"
    return f"{past}s"


def moment_text(at: float | None) -> str:
    """Return a time, in seconds since the epoch, as the person's clock shows it; ``-`` for none."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
