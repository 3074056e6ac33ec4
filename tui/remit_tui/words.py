"""What the prompts screen says, as lines of (style, text): pure, so that it is tested without a terminal.

Every text from outside passes ``text.shown`` (or ``command``) here, and nothing here is markup.
"""

from __future__ import annotations

from collections.abc import Callable

from remit_daemon.wire.words import OUTSIDE, rule_name, verbs
from remit_tui.bulk import MOST
from remit_tui.events import TERMS
from remit_tui.frame import Line
from remit_tui.records import Prompt
from remit_tui.state import QUIET, State
from remit_tui.text import clip, command, fold, shown, span, width_of, wrap

_LABEL = 9  # cells of the left column
Cut = Callable[[str, int], list[str]]
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
    wants = "wanted" if prompt.state == "missed" else "wants"
    return f"{agent} ({where}){inside} {wants} to {operations(prompt.ops)}"


def meaning(prompt: Prompt) -> list[str]:
    """Return what an answer means where that is not plain, a sentence each: one for most that is told apart, none for most prompts."""
    out = []
    if prompt.about_token:
        out.append(
            "an allow gives it a token for just what is listed, which others accept; it opens nothing here"
        )
    if prompt.limit:
        out.append(
            "the policy allows this, but a limit is spent; an allow is for this act, or for as much again (s), once"
        )
    if not prompt.confined:
        out.append("it is not confined: it asks of its own accord, and a denial is not forced upon it")
    starter = shown(prompt.agent.partition(" of ")[2])
    if starter and prompt.session:
        out.append(
            f"{starter} started it: what you allow it for longer, {starter} may do as well, where that is asked too"
        )
    return out


def field(label: str, value: str, width: int, style: str = "", cut: Cut = fold) -> list[Line]:
    """Return ``value`` (already escaped) behind its label, cut to ``width`` cells (prose by ``wrap``), never shortened."""
    room = width - _LABEL
    if room < _MIN_VALUE:
        return [[("dim", label)], *([(style, part)] for part in cut(value, width))]
    parts = cut(value, room)
    return [
        [("dim", (label if i == 0 else "").ljust(_LABEL)), (style, part)] for i, part in enumerate(parts)
    ]


def held(prompt: Prompt, wall: float) -> str:
    """Return whether the operation still waits, and how long if remitd tells; ``wall`` in s since the epoch."""
    if prompt.state == "missed":
        return "no longer: nobody answered in time; a rule serves the next try"
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
    before = ", ".join(f"{shown(word)} {number}x" for word, number in prompt.before)
    return f"{times}, first {span(wall - prompt.created)} ago" + (
        f"; before this {before}" if before else ""
    )


def detail(prompt: Prompt, width: int, wall: float) -> list[Line]:
    """Return the whole question, unshortened, in lines of at most ``width`` cells."""
    lines: list[Line] = [[("bold", part)] for part in fold(sentence(prompt) + ":", width)]
    lines += [[("", "  "), ("bold", part)] for part in fold(shown(prompt.path) or "(no name)", width - 2)]
    if prompt.path2:
        lines += [[("", "and")]]
        lines += [[("", "  "), ("bold", part)] for part in fold(shown(prompt.path2), width - 2)]
    for label, text in prompt.facts:
        lines += field(shown(label), shown(text), width)
    if prompt.kind:
        lines += field("this is", shown(prompt.kind), width)
    if prompt.argv:
        lines += field("command", command(prompt.argv), width)
    program = f"{shown(prompt.exe) or shown(prompt.comm) or 'unknown'} (process {prompt.pid})"
    lines += field("program", program, width)
    if prompt.parents:
        lines += field("within", " ← ".join(shown(p) for p in prompt.parents), width)
    if prompt.limit:
        lines += field("limit", shown(prompt.limit), width, cut=wrap)
    for sentence_ in meaning(prompt):
        lines += field("NOTE", sentence_, width, cut=wrap)
    if prompt.project:
        lines += field("project", shown(prompt.project), width)
    lines += field("because", shown(rule_name(prompt.source)), width)
    lines += field("asked", asked(prompt, wall), width)
    lines += field("held", held(prompt, wall), width)
    if prompt.purpose:
        lines += field("CLAIM", f"the agent says, and nobody checked: “{shown(prompt.purpose)}”", width)
    return lines


def together(state: State, width: int, wall: float) -> list[Line]:
    """Return all marked prompts, each whole, in lines of at most ``width`` cells."""
    chosen = state.chosen
    lines: list[Line] = [
        [("bold", part)] for part in fold(f"{len(chosen)} prompts are answered at once:", width)
    ]
    for number, prompt in enumerate(chosen, 1):
        lines.append([("", "")])
        lines += [[("bold", part)] for part in fold(f"{number}. {sentence(prompt)}:", width)]
        for resource in (prompt.path or "(no name)", prompt.path2):
            if resource:
                lines += [[("", "  "), ("bold", part)] for part in fold(shown(resource), width - 2)]
        if prompt.kind:
            lines += field("this is", shown(prompt.kind), width)
        if prompt.argv:
            lines += field("command", command(prompt.argv), width)
        lines += field("because", shown(rule_name(prompt.source)), width)
        lines += field("asked", asked(prompt, wall), width)
    return lines


def rule(state: State, width: int) -> list[Line]:
    """Return what the answer, as it is set now, covers and saves."""
    prompt, choice = state.prompt, state.choice
    if prompt is None or choice is None:
        return []
    lines: list[Line] = []
    if choice.message:
        lines += field("tells it", f"“{shown(choice.message)}”", width)
    if not state.offered:
        return [*lines, *field("covers", "nothing: it is over, and no rule can be made of it", width)]
    if not state.lasting:
        more = "" if not prompt.limit else f"; s sets {shown(prompt.scopes[-1].label)}"
        return [*lines, *field("covers", f"this request; nothing is saved{more}", width)]
    if state.edited:
        lines += field("covers", f"as you wrote it: {shown(state.edited)}", width)
    elif prompt.scopes:
        scope = prompt.scopes[state.scope]
        label = f"{state.scope + 1} of {len(prompt.scopes)}: {shown(scope.label)}"
        if not prompt.limit:
            label += f": {shown(scope.pattern)}"
        lines += field("covers", label, width)
    known = state.ruled
    if known is None:
        lines += field("saves", "(asking remitd)", width)
    elif known.error:
        lines += field("saves", f"nothing: {shown(known.error)}", width)
    else:
        if known.scope and known.scope != choice.scope:
            lines += field("means", shown(known.scope), width)
        lines += field("saves", shown(known.rule), width, "bold")
        if state.reach and state.reach[1]:
            lines += field("permits", state.reach[1], width)
    return lines


def verdicts(state: State) -> Line:
    """Return the line with deny and allow, the set one marked, and whether keys count."""
    line: Line = []
    for name in ("deny", "allow"):
        on = state.verdict == name and not state.bulk
        line += [("reverse bold" if on else "", f" {'▸' if on else ' '} {name} "), ("", " ")]
    if not state.up:
        word = "remitd is gone: nothing can be answered"
    elif state.answering:
        word = "answering"
    elif state.bulk and len(state.chosen) > MOST:
        word = f"deny answers now; at most {MOST} may be allowed at once"
    elif state.prompt is not None and not state.offered:
        word = "nothing can be answered here"
    elif state.armed:
        word = "both answer now" if state.read else "deny answers now; allow after reading to the end"
    else:
        word = f"keys wait for {QUIET:g} s of quiet"
    return [*line, ("dim", word)]


def terms(state: State) -> Line:
    """Return the line with the terms that count for the shown prompt, the set one marked."""
    line: Line = [("dim", " for ")]
    for i in state.offered:
        name, on = TERMS[i][0], i == state.term
        line += [("reverse bold" if on else "", f" {'▸' if on else ' '}{i + 1} {name} ")]
    return line


def row(prompt: Prompt, state: State, width: int) -> Line:
    """Return a prompt's line in the list: an overview, so its resource may be clipped."""
    on = prompt.id == state.selected
    mark = ("▸" if on else " ") + ("x" if prompt.id in state.marked else " ")
    many = f"{prompt.count}x " if prompt.count > 1 else ""
    head = f"{mark}{clip(shown(prompt.agent), 14)}  {many}{clip(operations(prompt.ops), 18)}  "
    tail = "  (missed)" if prompt.state == "missed" else "  (left)" if prompt.id in state.left else ""
    text = head + clip(shown(prompt.path), max(width - width_of(head) - len(tail), 3)) + tail
    style = "reverse" if on and state.shown else "bold" if on else ""
    return [(style, text + " " * max(width - width_of(text), 0))]
