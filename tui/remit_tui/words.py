"""What the screen says, as lines of (style, text): pure, so that it is tested without a terminal.

Every text from outside passes ``text.shown`` (or ``command``) here, and nothing here is markup.
"""

from __future__ import annotations

from collections import Counter

from remit_daemon.wire.words import OUTSIDE, rule_name, verbs
from remit_tui.events import ONCE, TERMS
from remit_tui.records import Prompt, Session
from remit_tui.state import QUIET, State
from remit_tui.text import clip, command, fold, shown, span, width_of

Span = tuple[str, str]  # style, text
Line = list[Span]

_LABEL = 9  # cells of the left column
_MIN_VALUE = 20  # cells: narrower terminals give up the left column


def operations(ops: tuple[str, ...]) -> str:
    """Return operations as a phrase: ``run``, ``create and write``, ``create, write and delete``."""
    names = [shown(v) for v in verbs(ops)] or ["do something unnamed"]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def sentence(prompt: Prompt) -> str:
    """Return who wants what, the resource (which follows on lines of its own) left out."""
    agent = shown(prompt.agent) or "an agent without a name"
    inside = f", through {shown(prompt.comm)}," if prompt.comm and prompt.comm != prompt.agent else ""
    where = f"session {shown(prompt.session)}" if prompt.session else OUTSIDE
    return f"{agent} ({where}){inside} wants to {operations(prompt.ops)}"


def _field(label: str, value: str, width: int, style: str = "") -> list[Line]:
    room = width - _LABEL
    if room < _MIN_VALUE:
        return [[("dim", label)], *([(style, part)] for part in fold(value, width))]
    parts = fold(value, room)
    return [
        [("dim", (label if i == 0 else "").ljust(_LABEL)), (style, part)] for i, part in enumerate(parts)
    ]


def held(prompt: Prompt, wall: float) -> str:
    """Return whether the operation still waits, and how long if remitd tells; ``wall`` in s since the epoch."""
    if prompt.holding < 1:
        return "no longer: it was refused once; an allow serves the next try"
    many = f"{prompt.holding} operations wait" if prompt.holding > 1 else "the operation waits"
    if prompt.held_until is None:
        return f"{many} for the answer"
    left = prompt.held_until - wall
    return f"{many}, {span(left)} more" if left > 0 else f"{many}, about to be refused"


def asked(prompt: Prompt, wall: float) -> str:
    """Return how often and since when it is asked."""
    times = f"{prompt.count} times" if prompt.count > 1 else "once"
    return f"{times}, first {span(wall - prompt.created)} ago"


def detail(prompt: Prompt, width: int, wall: float) -> list[Line]:
    """Return the whole question, unshortened, in lines of at most ``width`` cells."""
    lines: list[Line] = [[("bold", part)] for part in fold(sentence(prompt) + ":", width)]
    lines += [[("", "  "), ("bold", part)] for part in fold(shown(prompt.path) or "(no name)", width - 2)]
    if prompt.path2:
        lines += [[("", "and")]]
        lines += [[("", "  "), ("bold", part)] for part in fold(shown(prompt.path2), width - 2)]
    for label, text in prompt.facts:
        lines += _field(shown(label), shown(text), width)
    if prompt.argv:
        lines += _field("command", command(prompt.argv), width)
    program = f"{shown(prompt.exe) or shown(prompt.comm) or 'unknown'} (process {prompt.pid})"
    lines += _field("program", program, width)
    if prompt.project:
        lines += _field("project", shown(prompt.project), width)
    lines += _field("because", shown(rule_name(prompt.source)), width)
    lines += _field("asked", asked(prompt, wall), width)
    lines += _field("held", held(prompt, wall), width)
    return lines


def rule(state: State, width: int) -> list[Line]:
    """Return what the answer, as it is set now, covers and saves."""
    prompt, choice = state.prompt, state.choice
    if prompt is None or choice is None:
        return []
    if state.term == ONCE:
        return [[("dim", "covers".ljust(_LABEL)), ("", "this request; nothing is saved")]]
    lines: list[Line] = []
    if prompt.scopes:
        scope = prompt.scopes[state.scope]
        label = f"{state.scope + 1} of {len(prompt.scopes)}: {shown(scope.label)}: {shown(scope.pattern)}"
        lines += _field("covers", label, width)
    known = state.ruled
    if known is None:
        lines += _field("saves", "(asking remitd)", width)
    elif known.error:
        lines += _field("saves", f"nothing: {shown(known.error)}", width)
    else:
        if known.scope and known.scope != choice.scope:
            lines += _field("means", shown(known.scope), width)
        lines += _field("saves", shown(known.rule), width, "bold")
    return lines


def verdicts(state: State) -> Line:
    """Return the line with deny and allow, the set one marked, and whether keys count."""
    line: Line = []
    for name in ("deny", "allow"):
        on = state.verdict == name
        line += [("reverse bold" if on else "", f" {'▸' if on else ' '} {name} "), ("", " ")]
    if not state.up:
        word = "remitd is gone: nothing can be answered"
    elif state.answering:
        word = "answering"
    elif state.armed:
        word = "d and a answer now" if state.read else "d answers now; a after reading to the end"
    else:
        word = f"keys wait for {QUIET:g} s of quiet"
    return [*line, ("dim", word)]


def terms(state: State) -> Line:
    """Return the line with the terms, the set one marked."""
    line: Line = [("dim", " for ")]
    for i, (name, _) in enumerate(TERMS):
        on = i == state.term
        line += [("reverse bold" if on else "", f" {'▸' if on else ' '}{i + 1} {name} ")]
    return line


def waiting(count: int) -> str:
    """Return how many prompts wait, in words."""
    return (
        "no prompt waits"
        if not count
        else f"{count} prompt{'' if count == 1 else 's'} wait{'s' if count == 1 else ''}"
    )


def agents(sessions: tuple[Session, ...], width: int) -> str:
    """Return which agents run, in at most ``width`` cells; those without room are counted."""
    names = Counter(
        shown(s.agent) + (" (paused)" if s.state == "paused" else "")
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


def banner(state: State, width: int) -> list[Line]:
    """Return the header: how many prompts wait, which agents run, and that remitd is gone when it is."""
    start = f" remit  {waiting(len(state.prompts))}  "
    lines: list[Line] = [[("bold", start), ("", agents(state.sessions, width - len(start)))]]
    if not state.up:
        why = "connecting to remitd" if state.why == "connecting" else f"{shown(state.why)}; trying again"
        lines += [[("reverse", part)] for part in fold(f" {why} ", width)]
    return lines


def row(prompt: Prompt, state: State, width: int) -> Line:
    """Return a prompt's line in the list: an overview, so its resource may be clipped."""
    on = prompt.id == state.selected
    mark = "▸ " if on else "  "
    head = f"{mark}{clip(shown(prompt.agent), 14)}  {clip(operations(prompt.ops), 18)}  "
    tail = "  (left)" if prompt.id in state.left else ""
    text = head + clip(shown(prompt.path), max(width - width_of(head) - len(tail), 3)) + tail
    style = "reverse" if on and state.shown else "bold" if on else ""
    return [(style, text + " " * max(width - width_of(text), 0))]
