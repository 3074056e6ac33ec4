"""What every view says around its own matter: how much waits, which agents run, whether remitd is there, and the views."""

from __future__ import annotations

from collections import Counter

from remit_tui.records import Session
from remit_tui.state import State
from remit_tui.text import clip, fold, shown, width_of

Span = tuple[str, str]  # style, text
Line = list[Span]

# The views in their order, each with the key that goes there from anywhere.
VIEWS = ("prompts", "sessions", "grants", "ledger", "policy", "agents")


def waiting(count: int) -> str:
    """Return how many prompts wait, in words."""
    if not count:
        return "no prompt waits"
    return "1 prompt waits" if count == 1 else f"{count} prompts wait"


def agents(sessions: tuple[Session, ...], width: int) -> str:
    """Return which agents run, in at most ``width`` cells; those without room are counted."""
    names = Counter(
        shown(s.agent)
        + (" (paused)" if s.state == "paused" else "")
        + ("" if s.confined else " (unconfined)")
        for s in sessions
        if s.state != "ended"
    )
    if not names:
        return "no agent runs"
    words = [name if n == 1 else f"{name} ({n})" for name, n in sorted(names.items())]
    for kept in range(len(words), 0, -1):
        rest = len(words) - kept
        line = "running: " + ", ".join(words[:kept]) + (f" and {rest} more" if rest else "")
        if width_of(line) <= width:
            return line
    return clip(f"{len(words)} agents run", width)


def banner(state: State, width: int, trouble: str = "") -> list[Line]:
    """Return the header: how many prompts wait, which agents run, that remitd is gone, and ``trouble`` with the settings."""
    start = f" remit  {waiting(len(state.prompts))}  "
    if len(start) > width:
        start = f" {len(state.prompts)} wait "
    mark = "reverse bold" if state.prompts else "bold"
    lines: list[Line] = [[(mark, start), ("", agents(state.sessions, width - len(start)))]]
    if not state.up:
        why = "connecting to remitd" if state.why == "connecting" else f"{shown(state.why)}; trying again"
        old = "; what is shown is old" if state.prompts or state.sessions else ""
        lines += [[("reverse", part)] for part in fold(f" {why}{old} ", width)]
    if trouble:
        lines += [[("reverse", part)] for part in fold(f" {shown(trouble)} ", width)]
    return lines


def tabs(view: str, width: int) -> Line:
    """Return the line of the views, ``view`` marked; narrow terminals get the names without their keys."""
    for form in (" F{n} {name} ", " {name} ", "{name} "):
        texts = [form.format(n=i + 1, name=name.capitalize()) for i, name in enumerate(VIEWS)]
        if sum(len(t) + 1 for t in texts) <= width:
            break
    return [
        ("reverse" if n == view else "", f"{'▸' if n == view else ' '}{t}")
        for n, t in zip(VIEWS, texts, strict=True)
    ]


def tab_at(x: int, view: str, width: int) -> str:
    """Return the view whose name is at cell ``x`` of that line; "" where there is none."""
    at = 0
    for name, (_, text) in zip(VIEWS, tabs(view, width), strict=True):
        at += len(text)
        if x < at:
            return name
    return ""
