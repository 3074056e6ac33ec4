"""What every view says around its own matter: how much waits, which agents run, whether remitd is there, and the views."""

from __future__ import annotations

import time
from collections import Counter

from remit_tui.records import Session
from remit_tui.standing import Standing
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
        return clip("no agent runs", width)
    words = [name if n == 1 else f"{name} ({n})" for name, n in sorted(names.items())]
    for kept in range(len(words), 0, -1):
        rest = len(words) - kept
        line = "running: " + ", ".join(words[:kept]) + (f" and {rest} more" if rest else "")
        if width_of(line) <= width:
            return line
    return clip("1 agent runs" if len(words) == 1 else f"{len(words)} agents run", width)


def banner(state: State, width: int, trouble: str = "") -> list[Line]:
    """Return the header: how many prompts wait, a quiet time, grants that want a look, which agents run, that remitd is gone,
    and ``trouble`` with the settings."""
    known = state.up or state.prompts or state.sessions
    start = f" remit  {waiting(len(state.prompts))}  " if known else " remit  "
    if len(start) > width:
        start = f" {len(state.prompts)} wait "
    mark = "reverse bold" if state.prompts else "bold"
    first: Line = [(mark, start)]
    room = width - len(start)
    for style, text in standing(state.standing, room):
        if len(text) <= room:
            first.append((style, text))
            room -= len(text)
    lines: list[Line] = [[*first, ("", agents(state.sessions, room))] if known else first]
    if not state.up:
        why = "connecting to remitd" if state.why == "connecting" else f"{shown(state.why)}; trying again"
        old = "; what is shown is old" if state.prompts or state.sessions else ""
        lines += [[("reverse", part)] for part in fold(f" {why}{old} ", width)]
    if trouble:
        lines += [[("reverse", part)] for part in fold(f" {shown(trouble)} ", width)]
    return lines


def standing(state: Standing, width: int) -> Line:
    """Return what stands for all sessions, shorter where ``width`` cells are few; nothing where nothing does."""
    out: Line = []
    if state.quiet:
        end = time.strftime("%H:%M", time.localtime(state.until))
        word = {"hold": "held", "deny": "denied"}.get(state.quiet, shown(state.quiet))
        out += [("reverse bold", f" QUIET till {end}: {word} "), ("", " ")]
    if state.due:
        want = "1 grant wants a look" if state.due == 1 else f"{state.due} grants want a look"
        out.append(("bold", f"{want}  " if width >= 50 else f"{state.due} due "))
    return out


def tabs(view: str, width: int) -> Line:
    """Return the line of the views, ``view`` marked; narrow terminals get the names without their keys, or the keys alone."""
    for form in (" F{n} {name} ", " {name} ", "{name} ", "F{n} "):
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
